-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: fleet. ARGV: application, replica.
-- The record goes with the last replica, unless another has refreshed it since.

local fleet = redis.call('HMGET', KEYS[1], 'application', 'by')
if fleet[1] == ARGV[1] and fleet[2] == ARGV[2] then
  redis.call('DEL', KEYS[1])
end
return 1
