-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: fleet. ARGV: application, count of shards, replica, expiry, gap.
-- A record that nobody has refreshed for one expiry lapses, but not at once: whoever it stands for may have been cut
-- off from the store. A stranger must ask for one expiry more, without a pause in which the store could have been away.

local fleet = redis.call('HMGET', KEYS[1], 'application', 'total', 'until', 'asked', 'asking')
local time, expiry = now(), tonumber(ARGV[4])
if fleet[1] and (fleet[1] ~= ARGV[1] or fleet[2] ~= ARGV[2]) then
  if time < tonumber(fleet[3]) then
    return { 'conflict', fleet[1], fleet[2] }
  end
  local asked = tonumber(fleet[4])
  if not asked or time - tonumber(fleet[5]) > tonumber(ARGV[5]) then
    asked = time
  end
  if time < asked + expiry then
    redis.call('HSET', KEYS[1], 'asked', text(asked), 'asking', text(time))
    return { 'conflict', fleet[1], fleet[2], text(asked + expiry - time) }
  end
end
redis.call('HSET', KEYS[1], 'application', ARGV[1], 'total', ARGV[2], 'by', ARGV[3], 'until', text(time + expiry))
redis.call('HDEL', KEYS[1], 'asked', 'asking')
return { 'ours' }
