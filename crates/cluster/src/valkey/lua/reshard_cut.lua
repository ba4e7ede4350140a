-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: reshard. ARGV: an old shard's number and count, channel, how long keys are kept; then pairs of a new shard's
-- number and what this one has had of its guilds.

local course = redis.call('HMGET', KEYS[1], 'from', 'phase')
if course[1] ~= ARGV[2] or course[2] ~= 'cutting' or redis.call('HSETNX', KEYS[1], 'cut:' .. ARGV[1], '1') == 0 then
  return 0
end
for i = 5, #ARGV, 2 do
  local list = KEYS[1] .. ':seen:' .. ARGV[i]
  redis.call('APPEND', list, ARGV[i + 1])
  redis.call('PEXPIRE', list, ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if redis.call('HINCRBY', KEYS[1], 'cut', '1') == tonumber(course[1]) then
  tell(ARGV[3], 'reshard')
end
return 1
