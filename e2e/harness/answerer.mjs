// SPDX-License-Identifier: AGPL-3.0-only
// In: a language. Out: a worker that answers interactions and takes webhook events, in a process of its own, which
// reports what arrives. One that was killed can be born again.

import { existsSync } from 'node:fs';
import { Program } from './program.mjs';
import { until } from './until.mjs';
import { LANGUAGES } from './worker.mjs';

export class Answerer {
  #program;
  #settings;
  /** Reports of all lives, in order: `{ e: 'asked', key, id }`, `{ e: 'event', name, data, … }`, `{ e: 'bound' }`. */
  reports = [];

  /** `settings`: `{ url, prefix }`. */
  constructor(language, settings) {
    this.name = language;
    this.#settings = settings;
    const { command, built } = LANGUAGES[language];
    if (!existsSync(command) || !existsSync(built)) throw new Error(`${built} is missing: run e2e/setup.sh`);
  }

  start() {
    const { command, bot } = LANGUAGES[this.name];
    this.#program = new Program(this.name, command, bot('interactions'), {
      env: { E2E_BOT: JSON.stringify(this.#settings) },
      onLine: (line, stream) => {
        if (stream === 'stdout' && line.startsWith('{')) this.reports.push(JSON.parse(line));
      },
    });
    return this;
  }

  of(kind) {
    return this.reports.filter(({ e }) => e === kind);
  }

  /** Waits for something that it reports. */
  until(what, condition) {
    return until(`${this.name}: ${what}`, () => {
      if (this.#program.ended) throw new Error(`${this.name} has ended: ${what}`);
      return condition();
    });
  }

  /** Lets it answer `command.told`. */
  tell() {
    this.#program.write('now');
  }

  get tail() {
    return this.#program?.tail ?? '';
  }

  /** kill -9. */
  async kill() {
    await this.#program?.kill();
  }
}
