-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: budget, bucket. ARGV: when the permit was granted.
-- A permit whose shard had given up by the time it came: nobody identifies with it.

if redis.call('HGET', KEYS[2], 'used') == ARGV[1] then
  redis.call('HDEL', KEYS[2], 'used')
end
local budget = redis.call('HMGET', KEYS[1], 'total', 'remaining')
if budget[1] then
  redis.call('HSET', KEYS[1], 'remaining', text(math.min(tonumber(budget[1]), tonumber(budget[2]) + 1)))
end
return 1
