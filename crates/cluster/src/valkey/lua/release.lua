-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: lease, generation. ARGV: owner, generation, channel, message.

if fenced(KEYS[2], ARGV[1], tonumber(ARGV[2])) then
  return { 'lost' }
end
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[2], 'released', '1', 'at', text(now()))
tell(ARGV[3], ARGV[4])
return { 'released' }
