-- SPDX-License-Identifier: AGPL-3.0-only
-- Comes before each script. Times are milliseconds of the store's own clock: replicas' clocks are never compared.

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Lua would write large numbers with an exponent.
local function text(number)
  return string.format('%.0f', number)
end

-- A hint: whoever may not publish goes on without.
local function tell(channel, message)
  redis.pcall('PUBLISH', channel, message)
end

-- The latest generation, if a write by `owner` under `generation` is refused: a later one is known, or the same was
-- given to another, or it was released. An earlier one in the store means that the store has lost something: what the
-- writer knows is told to it.
local function fenced(key, owner, generation)
  local marker = redis.call('HMGET', key, 'generation', 'owner', 'released')
  local latest = tonumber(marker[1] or 0)
  if latest > generation or (latest == generation and (marker[2] ~= owner or marker[3] == '1')) then
    return latest
  end
  if latest < generation then
    redis.call('HSET', key, 'generation', text(generation), 'owner', owner, 'released', '0', 'at', text(now()))
  end
end

-- Removes a change of the count of shards, with the lists that belong to it.
local function forget_reshard(key, channel)
  local to = tonumber(redis.call('HGET', key, 'to') or 0)
  redis.call('UNLINK', key)
  for shard = 0, to - 1 do
    redis.call('UNLINK', key .. ':seen:' .. text(shard))
  end
  tell(channel, 'reshard')
end
