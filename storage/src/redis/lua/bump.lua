-- Applies moves in their order and answers, for each, the user's version before and behind it.
-- KEYS: for each user the rows (hash: log -> "head head_ordinal read read_ordinal") and the order (zset: log by version).
-- ARGV: for each move: number of its user, log, head, head_ordinal, read, read_ordinal, touch ('1' or '0').
-- Always: a user's version is the highest score of its order; it rises to at least the clock, so nothing that was given
-- out before everything was lost is given again; what we did not write stops nobody: a row that does not parse counts as
-- none and is written anew, a user's keys of another type are removed, as if they had been lost.

-- The four numbers of a row; none if it is not there, or not a row. No number of ours has more than 16 digits.
local function parse(row)
  local head, head_ordinal, read, read_ordinal = string.match(row or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if not head or math.max(#head, #head_ordinal, #read, #read_ordinal) > 16 then return nil end
  return head, head_ordinal, read, read_ordinal
end

-- What a read of a user's keys answered; nothing if one of them has another type, and then both are removed.
local function read_of(answer, rows, order)
  local failed = type(answer) == 'table' and answer.err
  if not failed then return answer end
  if not string.find(failed, '^WRONGTYPE') then error(answer) end
  redis.call('DEL', rows, order)
  return nil
end

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local versions, answers = {}, {}
for at = 1, #ARGV, 7 do
  local user = tonumber(ARGV[at])
  local rows, order, log = KEYS[user * 2 - 1], KEYS[user * 2], ARGV[at + 1]
  local previous = versions[user]
  if not previous then
    local last = read_of(redis.pcall('ZRANGE', order, -1, -1, 'WITHSCORES'), rows, order)
    previous = tonumber(last and last[2] or 0)
  end
  local row = read_of(redis.pcall('HGET', rows, log), rows, order)
  local head, head_ordinal, read, read_ordinal = parse(row)
  local moved = ARGV[at + 6] == '1'
  if not head then
    head, head_ordinal, read, read_ordinal = '0', '0', '0', '0'
    if row then moved = true end
  end
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
