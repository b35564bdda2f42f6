-- The gateways with a lease: {boot, endpoint, ...}. Those without one leave the list.
-- KEYS: the list (set of boots); a lease lies beside it, at '<list>:<boot>', in the same slot.
local living = {}
for _, boot in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local endpoint = redis.call('GET', KEYS[1] .. ':' .. boot)
  if endpoint then
    living[#living + 1] = boot
    living[#living + 1] = endpoint
  else
    redis.call('SREM', KEYS[1], boot)
  end
end
return living
