-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: bucket, global, hidden, learnt, flying. ARGV: what became of the request (answered, lost, unused, limited, hidden, global); its
-- ticket: at, ended, base, place; voice; for a 429 how long to wait; windows of the global and the hidden limit (0: it
-- has no place there); cautious (1); what was told: limit, used, reset after, reset, or nothing; the bucket's name
-- if it is news, kin and group of the bucket, the route, whether it may join another kin (1).

local time = precisely()
local what, at, ended, base, place = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local voice, wait = tonumber(ARGV[6]), tonumber(ARGV[7])
local bucket = load(KEYS[1])

for index, window in ipairs({ tonumber(ARGV[8]), tonumber(ARGV[9]) }) do
  local key = KEYS[index + 1]
  if window > 0 and what == 'unused' then
    redis.call('ZREM', key, place)
  elseif window > 0 and what ~= 'lost' then
    redis.call('ZADD', key, 'XX', 'LT', exact(time + window), place)
  end
end
local function block(key)
  redis.call('ZADD', key, 'GT', exact(time + wait), 'blocked')
  redis.call('PEXPIREAT', key, math.ceil(time + wait), 'GT')
end
if what == 'global' then
  block(KEYS[2])
elseif what == 'hidden' then
  block(KEYS[3])
end

-- What all replicas have to agree on: to which kin a route belongs, which of its counts a voice has.
local function learn(field, value)
  redis.call('HSET', KEYS[4], field, value)
  redis.call('HINCRBY', KEYS[4], 'version', 1)
  redis.call('PEXPIRE', KEYS[4], 86400000)
end
local name, kin, group, route, joins = ARGV[15], ARGV[16], ARGV[17], ARGV[18], ARGV[19] == '1'
if name and name ~= '' then
  local other = redis.call('HGET', KEYS[4], 'n:' .. name)
  if not other then
    redis.call('HSET', KEYS[4], 'n:' .. name, kin)
    redis.call('PEXPIRE', KEYS[4], 86400000)
  elseif other ~= kin and joins then
    learn('k:' .. route, other)
  end
end

local beside = math.max(0, bucket.sent - 1 - ended)
if what == 'unused' then
  if bucket.form == 'window' then
    bucket.used = math.max(0, bucket.used - 1)
  elseif bucket.form == 'steady' then
    bucket.full = bucket.full - bucket.place
  end
end
-- One that was given up has ended already.
bucket.ended = math.min(bucket.ended + redis.call('ZREM', KEYS[5], place), bucket.sent)

local told = ARGV[11] and ARGV[11] ~= '' and { limit = tonumber(ARGV[11]), used = tonumber(ARGV[12]),
  after = tonumber(ARGV[13]), reset = tonumber(ARGV[14]) }
if what == 'limited' then
  bucket.blocked = math.max(bucket.blocked, time + wait)
  -- It isn't counted, so it tells nothing about who counts together.
  voice = bucket.voice or voice
end
if not told or (what ~= 'answered' and what ~= 'limited') then
  if what == 'answered' and not told and bucket.form == 'unknown' and ARGV[10] ~= '1' then
    bucket.form = 'free'
  end
  save(KEYS[1], bucket, time)
  return 0
end

local said = bucket.s_limit and { voice = bucket.voice, sent = bucket.s_sent, received = bucket.s_received,
  limit = bucket.s_limit, used = bucket.s_used, after = bucket.s_after, reset = bucket.s_reset }
local knows = said and said.reset and told.reset
local counted = said and time < said.sent + said.after

-- Neither in one window nor steadily could the reset stand where it does.
if knows and said.voice ~= voice and at >= said.received and counted then
  local apart
  if told.limit == 1 then
    apart = told.reset + SAME < said.reset
  else
    local window = math.abs(told.reset - said.reset) <= SAME and told.used > said.used
    apart = not window and told.reset + SAME < said.reset + told.after / math.max(1, told.used)
  end
  if apart then
    if (redis.call('HGET', KEYS[4], 'v:' .. ARGV[6]) or '0') == group then
      learn('v:' .. ARGV[6], exact(tonumber(group) + 1))
    end
    save(KEYS[1], bucket, time)
    return 0
  end
end

-- Within a window the time of the reset stands still; where places come back one by one, each request moves it.
local form
if knows and said.limit == told.limit then
  local one = math.max(told.after, said.after) / told.limit
  local moved = math.abs(told.reset - said.reset)
  if one * math.abs(told.used - said.used) >= 2 * SAME then
    if moved <= SAME then
      form = 'window'
    elseif counted and moved > 2 * SAME then
      form = 'steady'
    end
  end
end

bucket.voice, bucket.s_sent, bucket.s_received = voice, at, time
bucket.s_limit, bucket.s_used, bucket.s_after, bucket.s_reset = told.limit, told.used, told.after, told.reset
local known = bucket.limit == told.limit and (bucket.form == 'window' or bucket.form == 'steady')
if not known then
  bucket.least, bucket.exact = 0, 0
end
bucket.least = math.max(bucket.least, (told.after + ROUNDED) / math.max(1, told.used))
if told.used == 1 then
  bucket.exact = 1
end
local earliest, latest, most = at + told.after, time + told.after, told.used + beside

if form == 'steady' or (known and bucket.form == 'steady' and not form) then
  local right = false
  latest = latest + ROUNDED + bucket.least * beside
  if known and bucket.form == 'steady' then
    local full = bucket.full + math.max(0, time - (base or time))
    right = bucket.exact == 1 and bucket.least == bucket.place and earliest <= full + ROUNDED
    bucket.full = right and math.min(full, latest) or latest
  else
    bucket.full = latest
  end
  bucket.form, bucket.limit, bucket.place = 'steady', told.limit, bucket.least
  bucket.used, bucket.ends = nil, nil
elseif known and bucket.form == 'window' and (not form or form == 'window') then
  if bucket.ends and latest + SAME < bucket.ends then
    -- An answer about a window that has passed.
  elseif bucket.ends and earliest > bucket.ends + SAME then
    bucket.used, bucket.ends = most, latest
  else
    bucket.used = told.used > bucket.used and most or math.min(bucket.used, most)
    bucket.ends = math.min(bucket.ends or latest, latest)
  end
else
  bucket.form, bucket.limit, bucket.used, bucket.ends, bucket.full = 'window', told.limit, most, latest, nil
end
save(KEYS[1], bucket, time)
return 0
