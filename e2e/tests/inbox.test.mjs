// SPDX-License-Identifier: AGPL-3.0-only
// The rules that the TypeScript worker keeps, one by one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Inbox } from '../../examples/typescript-worker/dist/inbox.js';

const of = (generation, shard = 0, shardCount = 1) => ({ shard, shardCount, generation: BigInt(generation) });

test('inbox: a finished id is a repetition, for ten minutes', () => {
  const inbox = new Inbox();
  assert.equal(inbox.judge(of(1), 'a:1', false), 'new');
  assert.equal(inbox.judge(of(1), 'a:1', true), 'new', 'not finished yet');
  inbox.finish('a:1', 0);
  assert.equal(inbox.judge(of(1), 'a:1', true), 'repeated');
  inbox.finish('a:2', 600_000);
  assert.equal(inbox.judge(of(1), 'a:1', false), 'repeated');
  inbox.finish('a:3', 600_001);
  assert.equal(inbox.judge(of(1), 'a:1', false), 'new', 'forgotten');
});

test('inbox: a lower generation is outdated, unless it is redelivered or of another shard', () => {
  const inbox = new Inbox();
  assert.equal(inbox.judge(of(5), 'a:1', false), 'new');
  assert.equal(inbox.judge(of(4), 'a:2', false), 'outdated');
  assert.equal(inbox.judge(of(4), 'a:2', true), 'new');
  assert.equal(inbox.judge(of(4, 1), 'b:1', false), 'new');
  assert.equal(inbox.judge(of(4, 0, 2), 'c:1', false), 'new', 'another shard count');
});
