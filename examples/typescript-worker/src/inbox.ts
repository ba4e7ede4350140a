// SPDX-License-Identifier: AGPL-3.0-only
// What a consumer has to remember to handle each event once and in order. In: deliveries. Out: verdicts.

import type { Event, Gap } from './gen/holdfast/v1/event_pb.js';

/** Longer than Discord holds a session: nothing is repeated after that. */
const REMEMBER_MS = 600_000;

/**
 * What to do with a delivery. `repeated`: it has been finished, acknowledge it. `outdated`: from a former owner of the
 * shard that woke too late, acknowledge it.
 */
export type Verdict = 'new' | 'repeated' | 'outdated';

/** Lives as long as the process. If doing a thing twice does harm, keep the ids where they outlive it. */
export class Inbox {
  #generations = new Map<string, bigint>();
  #finished = new Map<string, number>();

  judge(message: Event | Gap, id: string, redelivered: boolean): Verdict {
    const shard = `${message.shard}/${message.shardCount}`;
    const highest = this.#generations.get(shard) ?? message.generation;
    this.#generations.set(shard, message.generation > highest ? message.generation : highest);
    // A redelivered message may be older than the new owner, and not have been handled yet.
    if (message.generation < highest && !redelivered) return 'outdated';
    return this.#finished.has(id) ? 'repeated' : 'new';
  }

  /** To be called when the message has been handled, before it is acknowledged. */
  finish(id: string, now = performance.now()): void {
    this.#finished.set(id, now);
    // In the order of their times: the oldest are the first.
    for (const [oldest, at] of this.#finished) {
      if (now - at <= REMEMBER_MS) break;
      this.#finished.delete(oldest);
    }
  }
}
