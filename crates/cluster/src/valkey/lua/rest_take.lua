-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: bucket, global, hidden, learnt, flying. ARGV: voice, alone (1: one at a time), patience, margin, global limit and window, hidden
-- limit and window. A limit of 0: it doesn't count. Answers with a ticket, or what to wait for and how long; both with
-- the version of what was learnt.

local time = precisely()
local voice, alone, patience, margin = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), tonumber(ARGV[4])
local version = redis.call('HGET', KEYS[4], 'version') or '0'
local bucket = load(KEYS[1])
-- Whoever sent those has died with them.
local dead = redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', exact(time - patience))
bucket.ended = math.min(bucket.sent, bucket.ended + dead)
if bucket.ended < bucket.sent and redis.call('EXISTS', KEYS[5]) == 0 then
  bucket.ended = bucket.sent
end
local wait = ready(bucket, time)
if not wait and alone and bucket.sent > bucket.ended then
  wait = 0
end
if wait then
  return { 'bucket', version, wait > 0 and exact(math.max(0, wait - time)) or 'answer' }
end
local others = {
  { KEYS[3], tonumber(ARGV[7]), tonumber(ARGV[8]), 'hidden' },
  { KEYS[2], tonumber(ARGV[5]), tonumber(ARGV[6]), 'global' },
}
for _, other in ipairs(others) do
  local free = other[2] > 0 and rolling(other[1], other[2], time)
  if free then
    return { other[4], version, exact(math.max(0, free - time)) }
  end
end

local place = exact(time) .. ':' .. voice .. ':' .. exact(bucket.sent)
for _, other in ipairs(others) do
  if other[2] > 0 then
    redis.call('ZADD', other[1], exact(time + margin + other[3]), place)
    local last = redis.call('ZRANGE', other[1], -1, -1, 'WITHSCORES')[2]
    redis.call('PEXPIRE', other[1], math.ceil(tonumber(last) - time))
  end
end
local base = ''
if bucket.form == 'window' then
  bucket.used = bucket.used + 1
elseif bucket.form == 'steady' then
  local from = math.max(bucket.full, time)
  bucket.full, base = from + bucket.place, exact(from)
end
local ended = bucket.ended
bucket.sent = bucket.sent + 1
redis.call('ZADD', KEYS[5], exact(time), place)
redis.call('PEXPIRE', KEYS[5], 2 * patience)
save(KEYS[1], bucket, time)
return { 'granted', version, exact(time), exact(ended), base, place }
