-- Renews or ends a gateway's lease, together with its place in the list of gateways.
-- KEYS: the list (set of boots), the lease. ARGV: boot, endpoint, ms (0: ends).
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[2])
  redis.call('SREM', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
  redis.call('SADD', KEYS[1], ARGV[1])
end
return 1
