-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: fleet. ARGV: application, the count as it is, the count as it shall be. Gives the count as it is then.

local fleet = redis.call('HMGET', KEYS[1], 'application', 'total')
if fleet[1] == ARGV[1] and fleet[2] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'total', ARGV[3])
  return ARGV[3]
end
return fleet[1] == ARGV[1] and fleet[2] or ''
