-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: reshard, a new shard's list. ARGV: the new shards' count, how long keys are kept.
-- Gives the list; nothing until all old shards are cut.

local course = redis.call('HMGET', KEYS[1], 'from', 'to', 'cut')
if course[2] ~= ARGV[1] or course[3] ~= course[1] then
  return false
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('GET', KEYS[2]) or ''
