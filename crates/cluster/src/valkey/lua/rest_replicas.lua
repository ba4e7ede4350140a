-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: replicas. ARGV: an address; for how many ms it counts, 0 takes it out. Answers with all that count.

local at = now()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(at))
if tonumber(ARGV[2]) > 0 then
  redis.call('ZADD', KEYS[1], text(at + tonumber(ARGV[2])), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return redis.call('ZRANGE', KEYS[1], 0, -1)
