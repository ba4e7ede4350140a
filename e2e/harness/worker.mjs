// SPDX-License-Identifier: AGPL-3.0-only
// In: a language and a queue. Out: a worker of examples/ in its own process, which reports what arrives from RabbitMQ
// and what it handles. A worker that was killed can be born again: its ledgers go on.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Ledger } from './ledger.mjs';
import { Program, built } from './program.mjs';
import { until } from './until.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/**
 * language → its command, a file that tells whether it has been set up, and its arguments for each bot: `worker`,
 * `interactions`, and `commands` and `rest`, which end by themselves.
 */
export const LANGUAGES = {
  python: {
    command: here('../../examples/python-worker/.venv/bin/python'),
    bot: (name) => ['-u', here(`../bots/${name === 'interactions' ? 'interactions_worker' : `amqp_${name}`}.py`)],
    built: here('../../examples/python-worker/generated/holdfast/v1/event_pb2.py'),
  },
  typescript: {
    command: process.execPath,
    bot: (name) => ['--no-warnings', here(`../bots/${name === 'interactions' ? 'interactions-worker' : `amqp-${name}`}.mjs`)],
    built: here('../../examples/typescript-worker/dist/consumer.js'),
  },
  rust: {
    command: built('holdfast-e2e-rust'),
    bot: (name) => [name],
    built: built('holdfast-e2e-rust'),
  },
};

/** Runs a bot to its end; its reports by name. */
export async function reports(stage, language, name, settings) {
  const { command, bot } = LANGUAGES[language];
  const said = {};
  const program = new Program(language, command, bot(name), {
    env: { E2E_BOT: JSON.stringify(settings) },
    onLine: (line, stream) => {
      if (stream !== 'stdout') return;
      const { e, ...report } = JSON.parse(line);
      said[e] = report;
    },
  });
  stage.workers.push(program);
  await until('the bot is over', () => program.ended, { describe: () => program.tail });
  assert.deepEqual([program.ended.code, said.over], [0, {}], String(program.tail));
  return said;
}

export class Worker {
  #language;
  #settings;
  #program;

  /** What came from RabbitMQ: `{ id, verdict, redelivered, name, shard, stream, position, generation, g, n }`. */
  arrived = [];
  /** What reached the worker's own code, in order. */
  handled = [];
  /** The numbered messages among `handled`. */
  ledger = new Ledger();

  /** `settings`: `{ url, queue }`. */
  constructor(language, settings) {
    this.name = language;
    this.#language = LANGUAGES[language];
    this.#settings = settings;
    const { command, built } = this.#language;
    if (!existsSync(command) || !existsSync(built)) throw new Error(`${built} is missing: run e2e/setup.sh`);
  }

  start(overrides = {}) {
    const { command, bot } = this.#language;
    this.#program = new Program(this.name, command, bot('worker'), {
      env: { E2E_BOT: JSON.stringify({ ...this.#settings, ...overrides }) },
      onLine: (line, stream) => stream === 'stdout' && this.#report(line),
    });
    return this;
  }

  #report(line) {
    if (!line.startsWith('{')) return false;
    const { e, ...report } = JSON.parse(line);
    this[e].push(report);
    if (e === 'handled' && report.g) this.ledger.add(report.g, report.n);
    return true;
  }

  /** Arrivals with this verdict. */
  judged(verdict) {
    return this.arrived.filter((report) => report.verdict === verdict);
  }

  get gaps() {
    return this.handled.filter(({ name }) => name === 'HOLDFAST_GAP');
  }

  /** Positions that were handled behind a higher one of their shard's stream. */
  disordered() {
    const highest = new Map();
    return this.handled.filter(({ shard, stream, position }) => {
      const key = `${shard}/${stream}`;
      const late = position <= (highest.get(key) ?? 0);
      if (position !== undefined && !late) highest.set(key, position);
      return late;
    });
  }

  /** Waits until every number up to `sent` (guild → n) has been handled. */
  caughtUp(sent) {
    return this.until('all messages', () => this.ledger.lost(sent).length === 0);
  }

  /** Waits for `count` more messages than now. */
  flows(count = 50) {
    const goal = this.ledger.total + count;
    return this.until('messages flow', () => this.ledger.total >= goal);
  }

  until(what, condition) {
    return until(
      `${this.name}: ${what}`,
      () => {
        const value = condition();
        if (!value && this.#program.ended) throw new Error(`${this.name} has ended: ${what}`);
        return value;
      },
      { describe: () => `${this.arrived.length} arrived; handled ${this.ledger}` },
    );
  }

  /** Waits for its end: `{ code, signal }`. */
  over() {
    return until(`${this.name}: its end`, () => this.#program.ended);
  }

  get tail() {
    return this.#program?.tail ?? '';
  }

  async kill() {
    await this.#program?.kill();
  }
}
