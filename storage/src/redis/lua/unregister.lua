-- Ends exactly this login; its generation stays, so that no older one comes back.
-- KEYS: the user's devices. ARGV: device, the login as stored, its generation "high low".
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
