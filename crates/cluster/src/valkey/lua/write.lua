-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: generation, what is written. ARGV: owner, generation, the command, its arguments after the key.

local latest = fenced(KEYS[1], ARGV[1], tonumber(ARGV[2]))
if latest then
  return { 'fenced', text(latest) }
end
redis.call(ARGV[3], KEYS[2], unpack(ARGV, 4))
return { 'written' }
