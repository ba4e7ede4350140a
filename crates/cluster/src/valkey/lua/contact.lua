-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: replicas, contact, reshard. ARGV: replica, its entry or '', expiry, gap, '1' if it has registered before, the
-- server's run, when that began or '', channel, how long lapsed entries are kept, the fleet's count of shards if there
-- is an entry.
-- Registers a replica, unless its entry is empty; gives the time, since when the store has not been away, and all
-- entries, each with the time when it lapses before it.

local time = now()
local contact = redis.call('HMGET', KEYS[2], 'last', 'since', 'run', 'idle')
local known, there = ARGV[5] == '1', redis.call('HGET', KEYS[1], ARGV[1])
local since = tonumber(contact[2])
if not since then
  -- It knows of nobody. If it has been up for long, nobody was there: who lives would have come back to it.
  since = not known and tonumber(ARGV[7]) or time
elseif contact[3] ~= ARGV[6] or (known and not there) or
  (not contact[4] and time - tonumber(contact[1]) > tonumber(ARGV[4])) then
  since = time
end
redis.call('HSET', KEYS[2], 'last', text(time), 'since', text(since), 'run', ARGV[6])

if ARGV[2] ~= '' then
  redis.call('HDEL', KEYS[2], 'idle')
  redis.call('HSET', KEYS[1], ARGV[1], text(time + tonumber(ARGV[3])) .. ' ' .. ARGV[2])
  if not there or string.match(there, ' (.*)$') ~= ARGV[2] then
    tell(ARGV[8], 'replicas')
  end
  -- A change from another count than the fleet's is over, or was another fleet's.
  local from = redis.call('HGET', KEYS[3], 'from')
  if from and from ~= ARGV[10] then
    forget_reshard(KEYS[3], ARGV[8])
  end
end

local entries = redis.call('HGETALL', KEYS[1])
for i = 2, #entries, 2 do
  if tonumber(string.match(entries[i], '^%d+')) + tonumber(ARGV[9]) < time then
    redis.call('HDEL', KEYS[1], entries[i - 1])
  end
end
return { text(time), text(since), entries }
