-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: reshard. ARGV: from, to, channel, how long it is kept.
-- Gives whether it is begun, and the change that is under way then.

local begins = redis.call('EXISTS', KEYS[1]) == 0
if begins then
  redis.call('HSET', KEYS[1], 'from', ARGV[1], 'to', ARGV[2], 'phase', 'warming', 'begun', text(now()),
    'warm', '0', 'cut', '0', 'open', '0')
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  -- There are lists if the record before was thrown away for want of memory, and they were not.
  for shard = 0, tonumber(ARGV[2]) - 1 do
    redis.call('UNLINK', KEYS[1] .. ':seen:' .. text(shard))
  end
  tell(ARGV[3], 'reshard')
end
local course = redis.call('HMGET', KEYS[1], 'from', 'to', 'phase', 'begun', 'warm', 'cut', 'open')
return { begins and 'begun' or 'under way', course }
