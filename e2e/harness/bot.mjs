// SPDX-License-Identifier: AGPL-3.0-only
// In: a library's name and where it should connect. Out: a bot in its own process, which reports
// what it receives as JSON lines and does what it is told. A bot that was killed can be born again:
// its ledgers go on.

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Ledger } from './ledger.mjs';
import { Program } from './program.mjs';
import { until } from './until.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Every documented intent, the privileged ones included. */
export const ALL_INTENTS = 53_608_447;

const PYTHON = process.env.E2E_PYTHON ?? here('../.venv/bin/python');

const client = (script, compression, keepsOrder = true) => ({ script, options: { compression }, keepsOrder });

/** name → what runs it, with which options, and whether it hands events over in the order they came. */
export const CLIENTS = {
  'discord.js, zlib-sync': client('discord-js.mjs', 'zlib-sync'),
  'discord.js, no zlib-sync': client('discord-js.mjs', null),
  '@discordjs/ws, none': client('discordjs-ws.mjs', null),
  '@discordjs/ws, zlib-sync': client('discordjs-ws.mjs', 'zlib-sync'),
  '@discordjs/ws, native zlib': client('discordjs-ws.mjs', 'zlib'),
  // It inflates payloads in parallel and hands over what is ready first.
  '@discordjs/ws, payload compression': client('discordjs-ws.mjs', 'payload', false),
  'discord.py, zstd': client('discord_py.py', 'zstd'),
  'discord.py, zlib': client('discord_py.py', 'zlib'),
};

/** Those that only have to connect and to get their messages, by the line that docs/guides/connect.md gives. */
export const OTHERS = {
  Oceanic: { script: 'others.mjs', options: { library: 'oceanic' } },
  'Oceanic, by address': { script: 'others.mjs', options: { library: 'oceanicByAddress' } },
  Eris: { script: 'others.mjs', options: { library: 'eris' } },
  Discordeno: { script: 'others.mjs', options: { library: 'discordeno' } },
  hikari: { script: 'others.py', options: { library: 'hikari' } },
  nextcord: { script: 'others.py', options: { library: 'nextcord' } },
};

export class Bot {
  #program;
  #client;
  #connection;
  #lives = 0;
  #asked = 0;
  #answers = new Map();

  /** Every dispatch MESSAGE_CREATE, as the library decoded it. */
  wire = new Ledger();
  /** Every message that reached the bot's own handler. */
  handled = new Ledger();
  /** Other reports, in order: `{ life, e, … }`. */
  reports = [];
  /** `host:port` of every address that any life dialled. */
  dialled = new Set();

  constructor(client, connection) {
    this.name = client;
    this.#client = CLIENTS[client] ?? OTHERS[client];
    this.#connection = connection;
  }

  /** Starts a life. `ready()` says when it has a full cache. */
  start(overrides = {}) {
    this.#lives += 1;
    const life = this.#lives;
    const script = here(`../bots/${this.#client.script}`);
    const settings = JSON.stringify({ ...this.#connection, ...this.#client.options, ...overrides });
    const [command, args] = script.endsWith('.py')
      ? [PYTHON, ['-u', script]]
      : [process.execPath, ['--no-warnings', script]];
    if (!existsSync(command)) throw new Error(`${command} is missing: run e2e/setup.sh`);
    this.#program = new Program(this.name, command, args, {
      env: { E2E_BOT: settings },
      onLine: (line, stream) => stream === 'stdout' && this.#report(life, line),
    });
    return this;
  }

  #report(life, line) {
    if (!line.startsWith('{')) return false;
    const report = JSON.parse(line);
    switch (report.e) {
      case 'wire':
        this.wire.add(report.g, report.n);
        return true;
      case 'handled':
        this.handled.add(report.g, report.n);
        return true;
      case 'dial':
        this.dialled.add(`${report.host}:${report.port}`);
        return true;
      case 'answer':
        this.#answers.get(report.id)?.(report);
        this.#answers.delete(report.id);
        return true;
      default:
        this.reports.push({ ...report, life });
        return false;
    }
  }

  get tail() {
    return this.#program.tail;
  }

  get ended() {
    return this.#program.ended;
  }

  /** Reports of this kind, of the present life. */
  of(kind) {
    return this.reports.filter((report) => report.e === kind && report.life === this.#lives);
  }

  /** Waits for something this bot reports. */
  until(what, condition, options) {
    return until(
      `${this.name}: ${what}`,
      () => {
        const value = condition();
        if (!value && this.ended) throw new Error(`${this.name} has ended: ${what}`);
        return value;
      },
      { describe: () => `wire ${this.wire}; handled ${this.handled}`, ...options },
    );
  }

  /** The library says that it is ready: READY and every guild have come. */
  ready(options) {
    return this.until('ready', () => this.of('ready').length > 0, options);
  }

  /** Waits until the wire has brought every number up to `to`. */
  caughtUp(to, options) {
    return this.until(
      'all messages',
      () => Object.entries(to).every(([guild, n]) => this.wire.count(guild, n) > 0 && this.handled.count(guild, n) > 0),
      options,
    );
  }

  /** Tells the bot to do something and waits for its answer. */
  async ask(what, details = {}) {
    this.#asked += 1;
    const id = this.#asked;
    const answer = new Promise((resolve) => this.#answers.set(id, resolve));
    this.#program.write(JSON.stringify({ id, ask: what, ...details }));
    let report = null;
    answer.then((value) => (report = value));
    await this.until(`an answer to ${what}`, () => report);
    if (report.error) throw new Error(`${this.name}: ${what}: ${report.error}`);
    return report.value;
  }

  /** kill -9; resolves when the process is gone and its last lines are counted. */
  kill() {
    return this.#program.kill();
  }
}
