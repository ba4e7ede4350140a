-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: reshard. ARGV: the phase in which it may end, when it was begun or '' for any, channel.

local course = redis.call('HMGET', KEYS[1], 'phase', 'begun')
if course[1] ~= ARGV[1] or (ARGV[2] ~= '' and ARGV[2] ~= course[2]) then
  return 0
end
forget_reshard(KEYS[1], ARGV[3])
return 1
