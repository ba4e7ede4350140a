-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: budget, bucket. ARGV: shard, concurrency, the server's run, interval, patience, reserve, day.
-- The queue of holdfast_discord::limits, over all replicas: shards of a bucket go one per interval, lowest first; one
-- that was told to wait and is late in asking again no longer holds up others.

local budget = redis.call('HMGET', KEYS[1], 'total', 'remaining', 'reset', 'concurrency', 'floor', 'run')
if not budget[1] then
  return { 'unknown' }
end
if budget[4] ~= ARGV[2] then
  return { 'concurrency', budget[4] }
end
local time = now()
local shard, interval, patience = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5])
local remaining, reset, used = tonumber(budget[2]), tonumber(budget[3]), tonumber(budget[5])
if budget[6] ~= ARGV[3] then
  -- Another server, which may not know of the latest IDENTIFYs: as if one had just been sent in each bucket.
  used = time
  redis.call('HSET', KEYS[1], 'run', ARGV[3], 'floor', text(time))
end
if time >= reset then
  remaining = tonumber(budget[1])
  reset = reset + (math.floor((time - reset) / tonumber(ARGV[7])) + 1) * tonumber(ARGV[7])
  redis.call('HSET', KEYS[1], 'remaining', text(remaining), 'reset', text(reset))
end
if remaining <= tonumber(ARGV[6]) then
  return { 'exhausted', text(math.max(reset - time, 1000)), text(remaining) }
end

local ahead, waiting = 0, redis.call('HGETALL', KEYS[2])
for i = 1, #waiting, 2 do
  local other, due = tonumber(waiting[i]), tonumber(waiting[i + 1])
  if not other then
    used = math.max(used, due)
  elseif due + patience <= time then
    redis.call('HDEL', KEYS[2], waiting[i])
  elseif other < shard then
    ahead = ahead + 1
  end
end
local wait = math.max(used + interval - time, 0) + interval * ahead
if wait > 0 then
  redis.call('HSET', KEYS[2], ARGV[1], text(time + wait))
  redis.call('PEXPIRE', KEYS[2], wait + interval + patience)
  return { 'wait', text(wait), text(remaining) }
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[2], 'used', text(time))
redis.call('PEXPIRE', KEYS[2], interval * (#waiting + 2) + patience)
redis.call('HSET', KEYS[1], 'remaining', text(remaining - 1), 'latest', text(time))
return { 'granted', text(remaining - 1), text(time) }
