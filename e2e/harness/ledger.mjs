// SPDX-License-Identifier: AGPL-3.0-only
// In: the numbered messages that a bot received. Out: what was lost, came twice, or out of order.
// One ledger counts one bot over all of its lives, so that nothing is forgotten at a restart.

export class Ledger {
  /** guild → numbers in the order of their arrival */
  #arrivals = new Map();
  /** guild → number → how often */
  #counts = new Map();
  #total = 0;
  #excused = new Set();

  add(guild, n) {
    if (!this.#arrivals.has(guild)) {
      this.#arrivals.set(guild, []);
      this.#counts.set(guild, new Map());
    }
    this.#arrivals.get(guild).push(n);
    const counts = this.#counts.get(guild);
    counts.set(n, (counts.get(n) ?? 0) + 1);
    this.#total += 1;
  }

  /** Arrivals, those that came twice included. */
  get total() {
    return this.#total;
  }

  count(guild, n) {
    return this.#counts.get(guild)?.get(n) ?? 0;
  }

  /** The highest number of a guild, 0 if none came. */
  highest(guild) {
    return Math.max(0, ...(this.#counts.get(guild)?.keys() ?? []));
  }

  /** The numbers from `from` (guild → n, exclusive) to `to` (guild → n, inclusive) that never came. */
  lost(to, from = {}) {
    const lost = [];
    for (const [guild, last] of Object.entries(to)) {
      for (let n = (from[guild] ?? 0) + 1; n <= last; n += 1) {
        if (this.count(guild, n) === 0) lost.push(`${guild}#${n}`);
      }
    }
    return lost;
  }

  /** What came more than once and is not excused. */
  twice() {
    const twice = [];
    for (const [guild, counts] of this.#counts) {
      for (const [n, count] of counts) if (count > 1) twice.push(`${guild}#${n}`);
    }
    return twice.filter((which) => !this.#excused.has(which));
  }

  /** Excuses what has come twice up to now, and says how much it is. */
  excuse() {
    const twice = this.twice();
    for (const which of twice) this.#excused.add(which);
    return twice.length;
  }

  /** First arrivals that came after a higher number of their guild. */
  disordered() {
    const disordered = [];
    for (const [guild, numbers] of this.#arrivals) {
      const seen = new Set();
      let highest = 0;
      for (const n of numbers) {
        if (!seen.has(n) && n < highest) disordered.push(`${guild}#${n} after #${highest}`);
        seen.add(n);
        highest = Math.max(highest, n);
      }
    }
    return disordered;
  }

  toString() {
    return `${this.#total} arrivals over ${this.#arrivals.size} guilds`;
  }
}
