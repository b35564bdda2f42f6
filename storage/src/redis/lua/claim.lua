-- Takes shards over. Behind identity.lua.
-- KEYS: the covers (hash: 'claim:<shard>' -> "fence token identity", 'cover:<shard>' -> cursor in hex).
-- ARGV: the claimer's token, then shards. Answers the fence, then each shard's cursor or nothing.
-- Always: the fence rises with every claim of a shard, also after all was lost: it is lifted by the clock.
local time = redis.call('TIME')
local fence = time[1] * 1000000 + time[2]
for at = 2, #ARGV do
  local claim = redis.call('HGET', KEYS[1], 'claim:' .. ARGV[at])
  local known = claim and tonumber(string.match(claim, '^%d+'))
  if known and known >= fence then fence = known + 1 end
end
local claim = string.format('%.0f', fence) .. ' ' .. ARGV[1] .. ' ' .. identity()
local answers = {fence}
for at = 2, #ARGV do
  redis.call('HSET', KEYS[1], 'claim:' .. ARGV[at], claim)
  answers[at] = redis.call('HGET', KEYS[1], 'cover:' .. ARGV[at])
end
return answers
