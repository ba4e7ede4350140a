-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: budget. ARGV: total, remaining, time until the reset, concurrency, the server's run, when that began or '',
-- how close two resets of one day are, day.
-- Discord's answer to GET /gateway/bot. For the same day the lower figure counts: the answer may be behind what
-- replicas have just been granted.

local budget = redis.call('HMGET', KEYS[1], 'total', 'remaining', 'reset', 'concurrency', 'floor', 'latest', 'run')
local time = now()
local remaining, reset = tonumber(ARGV[2]), time + tonumber(ARGV[3])
local floor, run = tonumber(budget[5]), budget[7]
if not budget[1] then
  floor, run = tonumber(ARGV[6]) or time, ARGV[5]
else
  if budget[1] == ARGV[1] and math.abs(tonumber(budget[3]) - reset) < tonumber(ARGV[7]) then
    remaining, reset = math.min(remaining, tonumber(budget[2])), tonumber(budget[3])
  end
  if budget[4] ~= ARGV[4] then
    -- Buckets mean other shards now: each waits for the latest IDENTIFY of all.
    floor = math.max(floor, tonumber(budget[6] or 0))
  end
end
redis.call('HSET', KEYS[1], 'total', ARGV[1], 'remaining', text(remaining), 'reset', text(reset),
  'concurrency', ARGV[4], 'floor', text(floor), 'run', run)
return text(remaining)
