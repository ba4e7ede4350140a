-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: lease, generation. ARGV: owner, address, expiry, generation.

local lease = redis.call('HMGET', KEYS[1], 'owner', 'address', 'generation')
local generation = tonumber(ARGV[4])
local others = lease[1] and lease[1] ~= ARGV[1] and tonumber(lease[3]) >= generation
if others or fenced(KEYS[2], ARGV[1], generation) then
  return lease[1] and { 'lost', lease[1], lease[2], lease[3] } or { 'lost' }
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'address', ARGV[2], 'generation', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { 'held' }
