-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: reshard. ARGV: 'warm' or 'open', the phase in which that matters, '1' or '0': they are, or aren't any more,
-- channel, how long it is kept; then the new shards, each as number and count.
-- Beside a field for each shard there is one for how many they are: it is asked for every second, by each replica.
-- Gives '1' if all new shards are so by now.

local course = redis.call('HMGET', KEYS[1], 'to', 'phase')
if course[2] ~= ARGV[2] then
  return '0'
end
local news = 0
for i = 6, #ARGV, 2 do
  local field = ARGV[1] .. ':' .. ARGV[i]
  if ARGV[i + 1] ~= course[1] then
    -- It is another change's.
  elseif ARGV[3] == '1' then
    news = news + redis.call('HSETNX', KEYS[1], field, '1')
  else
    news = news - redis.call('HDEL', KEYS[1], field)
  end
end
local all = redis.call('HINCRBY', KEYS[1], ARGV[1], text(news)) >= tonumber(course[1])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if all and ARGV[1] == 'warm' then
  redis.call('HSET', KEYS[1], 'phase', 'cutting')
  tell(ARGV[4], 'reshard')
end
return all and '1' or '0'
