-- SPDX-License-Identifier: AGPL-3.0-only
-- Comes before the scripts about REST's limits. A bucket's account is that of `holdfast_discord::rest::Bucket`, step by
-- step: what is said there about bounds holds here. Times are the store's own, in milliseconds with decimals.

-- Two times of Discord's that are no further apart are the same; a time that was told may be off by so much.
local SAME, ROUNDED = 5, 1

local function precisely()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
end

local function exact(number)
  return string.format('%.3f', number)
end

local FIELDS = {
  'form', 'sent', 'ended', 'blocked', 'limit', 'used', 'ends', 'sure', 'place', 'full', 'least', 'exact',
  'voice', 's_sent', 's_received', 's_limit', 's_used', 's_after', 's_reset',
}

local function load(key)
  local values, bucket = redis.call('HMGET', key, unpack(FIELDS)), {}
  for index, field in ipairs(FIELDS) do
    local value = values[index]
    if field == 'form' then
      bucket.form = value or 'unknown'
    else
      bucket[field] = value and value ~= '' and tonumber(value) or nil
    end
  end
  for _, field in ipairs({ 'sent', 'ended', 'blocked', 'least', 'exact' }) do
    bucket[field] = bucket[field] or 0
  end
  return bucket
end

-- Kept for an hour after it was last used, and as long as it holds somebody: what was learnt saves a request that goes
-- alone.
local function save(key, bucket, time)
  local values = { 'form', bucket.form }
  for index = 2, #FIELDS do
    local value = bucket[FIELDS[index]]
    values[#values + 1] = FIELDS[index]
    values[#values + 1] = value and exact(value) or ''
  end
  redis.call('HSET', key, unpack(values))
  redis.call('PEXPIRE', key, math.ceil(3600000 + math.max(0, bucket.blocked - time)))
end

-- Nothing, or until when to wait; 0: for an answer.
local function ready(bucket, time)
  if time < bucket.blocked then
    return bucket.blocked
  end
  local under_way = bucket.sent - bucket.ended
  if bucket.form == 'unknown' then
    return under_way > 0 and 0 or nil
  elseif bucket.form == 'window' then
    if bucket.ends and time >= bucket.ends then
      bucket.used, bucket.ends = under_way, nil
    end
    if bucket.used < bucket.limit then
      return nil
    end
    if bucket.ends then
      return bucket.ends
    end
    if under_way > 0 then
      return 0
    end
    bucket.used = bucket.limit - 1
  elseif bucket.form == 'steady' then
    local free = bucket.full - math.max(0, bucket.place - 2 * ROUNDED) * (bucket.limit - 1)
    if free > time then
      return free
    end
  end
  return nil
end

-- A limit over any stretch of time: each place with when it is free again. Nothing, or until when to wait.
local function rolling(key, limit, time)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', exact(time))
  local blocked = redis.call('ZSCORE', key, 'blocked')
  if blocked then
    return tonumber(blocked)
  end
  if redis.call('ZCARD', key) >= limit then
    return tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  end
  return nil
end
