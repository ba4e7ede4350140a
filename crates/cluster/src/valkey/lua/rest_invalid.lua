-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: invalid. ARGV: how many more there were. Answers with how many there were in the last ten minutes, in steps of
-- ten seconds.

local step = math.floor(now() / 10000)
if tonumber(ARGV[1]) > 0 then
  redis.call('HINCRBY', KEYS[1], text(step), ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], 620000)
local counts, total = redis.call('HGETALL', KEYS[1]), 0
for index = 1, #counts, 2 do
  if tonumber(counts[index]) < step - 60 then
    redis.call('HDEL', KEYS[1], counts[index])
  else
    total = total + tonumber(counts[index + 1])
  end
end
return total
