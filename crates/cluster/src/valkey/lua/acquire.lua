-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: lease, generation. ARGV: owner, address, expiry, since, seen, gap.
-- `since`: when the store was last found to have been away; `seen`: when the caller learnt that. The rules for what
-- lapsed while it was away are in the crate's README.

local lease = redis.call('HMGET', KEYS[1], 'owner', 'address', 'generation')
if lease[1] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'address', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return { 'granted', lease[3] }
end
if lease[1] then
  return { 'held', lease[1], lease[2], lease[3] }
end

local time = now()
local expiry, since, seen, gap = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if time - seen > gap then
  return { 'reserved', text(expiry) }
end
local marker = redis.call('HMGET', KEYS[2], 'generation', 'released', 'at', 'owner')
local handed = marker[2] == '1' and tonumber(marker[3]) >= since
local back = marker[2] == '0' and marker[4] == ARGV[1]
if time < since + expiry and not handed and not back then
  return { 'reserved', text(since + expiry - time) }
end

local generation = marker[1] and tonumber(marker[1]) + 1 or math.floor(time / 1000)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'address', ARGV[2], 'generation', text(generation))
redis.call('PEXPIRE', KEYS[1], expiry)
redis.call('HSET', KEYS[2], 'generation', text(generation), 'owner', ARGV[1], 'released', '0', 'at', text(time))
return { 'granted', text(generation) }
