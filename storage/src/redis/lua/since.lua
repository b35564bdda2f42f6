-- A page of a user's rows by rising version, read at one moment.
-- KEYS: rows and order, as in bump.lua. ARGV: the version behind which rows are wanted, how many at most.
-- Answers the present version, {log, version, ...}, and the rows of those logs.
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
local page = redis.call('ZRANGE', KEYS[2], '(' .. ARGV[1], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
local logs = {}
for at = 1, #page, 2 do logs[#logs + 1] = page[at] end
local rows = {}
if #logs > 0 then rows = redis.call('HMGET', KEYS[1], unpack(logs)) end
return {last[2] or '0', page, rows}
