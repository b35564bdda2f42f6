-- Applies moves in their order and answers, for each, the user's version before and behind it.
-- KEYS: for each user the rows (hash: log -> "head head_ordinal read read_ordinal") and the order (zset: log by version).
-- ARGV: for each move: number of its user, log, head, head_ordinal, read, read_ordinal, touch ('1' or '0').
-- Always: a user's version is the highest score of its order; it rises to at least the clock, so nothing that was given
-- out before everything was lost is given again.
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local versions, answers = {}, {}
for at = 1, #ARGV, 7 do
  local user = tonumber(ARGV[at])
  local rows, order, log = KEYS[user * 2 - 1], KEYS[user * 2], ARGV[at + 1]
  local previous = versions[user]
  if not previous then
    previous = tonumber(redis.call('ZRANGE', order, -1, -1, 'WITHSCORES')[2] or 0)
  end
  local head, head_ordinal, read, read_ordinal = '0', '0', '0', '0'
  local row = redis.call('HGET', rows, log)
  if row then
    head, head_ordinal, read, read_ordinal = string.match(row, '^(%d+) (%d+) (%d+) (%d+)$')
    if not head then return redis.error_reply('IMDAMAGED inbox row ' .. log .. ' of ' .. rows) end
  end
  local moved = ARGV[at + 6] == '1'
  if tonumber(ARGV[at + 2]) > tonumber(head) then
    head, head_ordinal, moved = ARGV[at + 2], ARGV[at + 3], true
  end
  if tonumber(ARGV[at + 4]) > tonumber(read) then
    read, read_ordinal, moved = ARGV[at + 4], ARGV[at + 5], true
  end
  local version = previous
  if moved then
    version = math.max(previous + 1, clock)
    redis.call('HSET', rows, log, head .. ' ' .. head_ordinal .. ' ' .. read .. ' ' .. read_ordinal)
    redis.call('ZADD', order, string.format('%.0f', version), log)
  end
  versions[user] = version
  answers[#answers + 1] = previous
  answers[#answers + 1] = version
end
return answers
