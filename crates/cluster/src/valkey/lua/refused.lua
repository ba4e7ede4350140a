-- SPDX-License-Identifier: AGPL-3.0-only
-- KEYS: bucket. ARGV: how long that matters.
-- Discord refused an IDENTIFY that was in time by our count: somebody else had used the bucket.

redis.call('HSET', KEYS[1], 'used', text(now()))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
