-- What register.lua and confirm.lua share: a user's devices (hash: device -> "high low gateway connection", without the
-- last two once it left). A generation is two numbers of 32 bits, for Lua's numbers are exact up to 2^53 only.
local function parse(value)
  local high, low, place = string.match(value, '^(%d+) (%d+)(.*)$')
  return tonumber(high), tonumber(low), place
end

local function above(high, low, other_high, other_low)
  return high > other_high or (high == other_high and low > other_low)
end

-- Makes room for one device more: forgets the departed one with the lowest generation; without one, the lowest login if it
-- is below the new one. False if there is no room.
local function make_room(key, devices_max, new_high, new_low)
  if redis.call('HLEN', key) < devices_max then return true end
  local victim, victim_left, victim_high, victim_low
  local all = redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    local high, low, place = parse(all[at + 1])
    local left = place == ''
    local worse = not victim or (left and not victim_left)
    if worse or (left == victim_left and above(victim_high, victim_low, high, low)) then
      victim, victim_left, victim_high, victim_low = all[at], left, high, low
    end
  end
  if not victim_left and above(victim_high, victim_low, new_high, new_low) then return false end
  redis.call('HDEL', key, victim)
  return true
end
