-- Makes a connection the login of a device, with a generation above every known one. Behind devices.lua.
-- KEYS: the user's devices, their last dials. ARGV: device, "gateway connection", a generation that it is not below (high, low), devices at
-- most, their time to live in ms, what the caller read of the device ('' for nothing), run and number of the client's dial (''
-- for none). Answers 0 if a later dial of this run was here before; else the generation (high, low) and
-- what stood there before; of a connection that is the login already, its generation alone; nothing if the device changed since
-- it was read. So a call that comes late, out of a connection that hung, replaces nobody.
-- Always: not below the time of this server (ms in the upper 48 bits), which all workers have in common: what was given out
-- before everything was lost is below what is given out now, whatever the clocks of the workers say.
local time = redis.call('TIME')
local time_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now_high, now_low = math.floor(time_ms / 65536), time_ms % 65536 * 65536 + time[2] % 1000 * 65
if above(tonumber(ARGV[3]), tonumber(ARGV[4]), now_high, now_low) then
  now_high, now_low = tonumber(ARGV[3]), tonumber(ARGV[4])
end
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local high, low, place = now_high, now_low, nil
if stored then
  high, low, place = parse(stored)
  if place == ' ' .. ARGV[2] then return {high, low} end
end
local run, number = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%S+) (%d+)$')
if ARGV[8] ~= '' and run == ARGV[8] and tonumber(number) > tonumber(ARGV[9]) then return 0 end
if (stored or '') ~= ARGV[7] then return false end
if stored then
  low = low + 1
  if low == 4294967296 then high, low = high + 1, 0 end
  if above(now_high, now_low, high, low) then high, low = now_high, now_low end
else
  make_room(KEYS[1], tonumber(ARGV[5]), 4294967296, 0)
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %s', high, low, ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[6])
if ARGV[8] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  -- Only a late call is met by what is forgotten here.
  if redis.call('HLEN', KEYS[2]) >= 2 * tonumber(ARGV[5]) then redis.call('DEL', KEYS[2]) end
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[8] .. ' ' .. ARGV[9])
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
return {high, low, stored}
