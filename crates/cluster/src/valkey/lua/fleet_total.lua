-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: fleet. ARGV: application, how long after its last heartbeat it counts. Gives its count, or ''.

local fleet = redis.call('HMGET', KEYS[1], 'application', 'total', 'until')
if fleet[1] == ARGV[1] and now() < tonumber(fleet[3]) + tonumber(ARGV[2]) then
  return fleet[2]
end
return ''
