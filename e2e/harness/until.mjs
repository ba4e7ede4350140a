// SPDX-License-Identifier: AGPL-3.0-only
// In: a condition. Out: its first truthy value, or an error that says what was waited for.
// The only place in e2e that waits: scenarios wait for conditions, never for a time to pass.

import { setTimeout as pause } from 'node:timers/promises';

/** How long a condition may take before the scenario fails. */
export const PATIENCE_MS = 20_000;

/**
 * Asks `condition` until it is truthy and returns its value.
 * `describe` is called on failure and says what was seen instead.
 */
export async function until(what, condition, { timeout = PATIENCE_MS, every = 15, describe } = {}) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) {
      const seen = describe ? `; seen: ${await describe()}` : '';
      throw new Error(`waited ${timeout} ms in vain: ${what}${seen}`);
    }
    await pause(every);
  }
}
