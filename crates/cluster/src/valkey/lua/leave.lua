-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: replicas, contact, reshard. ARGV: replica, channel. Gives how many live on.
-- After the last one nobody is missed: silence from here on doesn't mean that the store was away. Nor does anybody go
-- on with a change of the count.

if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  tell(ARGV[2], 'replicas')
end
local time, alive = now(), 0
for _, entry in ipairs(redis.call('HVALS', KEYS[1])) do
  if tonumber(string.match(entry, '^%d+')) > time then
    alive = alive + 1
  end
end
if alive == 0 and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HSET', KEYS[2], 'idle', '1')
end
if alive == 0 and redis.call('EXISTS', KEYS[3]) == 1 then
  forget_reshard(KEYS[3], ARGV[2])
end
return alive
