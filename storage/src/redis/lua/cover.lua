-- Notes how far shards are covered, if the claim stands. Behind identity.lua.
-- KEYS: the covers, as in claim.lua. ARGV: fence, token, cursor in hex, then shards.
-- Answers REPLACED if any shard has a later claim, LOST if any has another one or none, or if this is another run of the
-- server than the claim's; else NOTED.
local mine = ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. identity()
local lost = false
for at = 4, #ARGV do
  local claim = redis.call('HGET', KEYS[1], 'claim:' .. ARGV[at])
  if claim ~= mine then
    local fence = claim and tonumber(string.match(claim, '^%d+'))
    if fence and fence > tonumber(ARGV[1]) then return 'REPLACED' end
    lost = true
  end
end
if lost then return 'LOST' end
for at = 4, #ARGV do
  local field = 'cover:' .. ARGV[at]
  local known = redis.call('HGET', KEYS[1], field)
  if not known or known < ARGV[3] then redis.call('HSET', KEYS[1], field, ARGV[3]) end
end
return 'NOTED'
