// SPDX-License-Identifier: AGPL-3.0-only
// The count of messages must itself be right: every other scenario leans on it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ledger } from '../harness/ledger.mjs';

function arrived(...numbers) {
  const ledger = new Ledger();
  for (const n of numbers) ledger.add('1', n);
  return ledger;
}

test('a whole, ordered stream has nothing to complain about', () => {
  const ledger = arrived(1, 2, 3);
  assert.deepEqual([ledger.lost({ 1: 3 }), ledger.twice(), ledger.disordered()], [[], [], []]);
});

test('what never came is lost, at the end and of silent guilds too', () => {
  assert.deepEqual(arrived(1, 3).lost({ 1: 4, 2: 1 }), ['1#2', '1#4', '2#1']);
});

test('what was sent before the count began is not lost', () => {
  assert.deepEqual(arrived(3, 4).lost({ 1: 4 }, { 1: 2 }), []);
});

test('what came twice is twice, but not out of order', () => {
  const ledger = arrived(1, 2, 3, 2, 3, 4);
  assert.deepEqual([ledger.twice(), ledger.disordered()], [['1#2', '1#3'], []]);
});

test('what came late for the first time is out of order', () => {
  assert.deepEqual(arrived(1, 3, 2).disordered(), ['1#2 after #3']);
});

test('what is excused is not complained about again, what comes later is', () => {
  const ledger = arrived(1, 1);
  assert.equal(ledger.excuse(), 1);
  ledger.add('1', 2);
  ledger.add('1', 2);
  assert.deepEqual(ledger.twice(), ['1#2']);
});
