-- Puts a login back that the table lost, and keeps the user's devices from expiring. Behind devices.lua.
-- KEYS: the user's devices. ARGV: device, "gateway connection", generation (high, low), devices at most, their time to live
-- in ms. Answers 0 if a newer login stands, else 1. One that signed out stays out.
local high, low = tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local put
if stored then
  local stored_high, stored_low = parse(stored)
  if above(stored_high, stored_low, high, low) then return 0 end
  put = above(high, low, stored_high, stored_low)
else
  put = make_room(KEYS[1], tonumber(ARGV[5]), high, low)
end
if put then redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %s', high, low, ARGV[2])) end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
