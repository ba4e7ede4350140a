// SPDX-License-Identifier: AGPL-3.0-only
// In: the simulator's address. Out: a Holdfast process that can be killed, ended and started again.
// Ports and state directory stay the same over its lives.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ALL_INTENTS } from './bot.mjs';
import { restUrl } from './api.mjs';
import { interactionsUrl } from './http.mjs';
import { Program } from './program.mjs';
import { TOKEN } from './simulator.mjs';
import { until } from './until.mjs';

export const BINARY =
  process.env.HOLDFAST_BIN ?? fileURLToPath(new URL('../../target/debug/holdfast', import.meta.url));

const CACHED = [
  'channels',
  'roles',
  'members',
  'emojis',
  'stickers',
  'presences',
  'voice_states',
  'threads',
  'stage_instances',
  'scheduled_events',
  'soundboard_sounds',
];

export class Holdfast {
  #program;
  #directory;
  #admin;
  port;
  /** Where Discord posts interactions, and where bots send requests, if `[http]` and `[api]` are there. */
  interactions = null;
  rest = null;

  /** Ports are picked first: the front's public address must be known to its configuration. */
  static async prepare() {
    const holdfast = new Holdfast();
    [holdfast.port, holdfast.#admin] = await freePorts(2);
    holdfast.#directory = await mkdtemp(join(tmpdir(), 'holdfast-e2e-'));
    return holdfast;
  }

  /** `ws` are further lines of the section `[ws]`, `http` those of sections behind it. */
  async configure({ apiUrl, publicUrl, ws = [], http = [] }) {
    const lines = [
      '[discord]',
      `token = "${TOKEN}"`,
      `api_url = "${apiUrl}"`,
      `intents = ${ALL_INTENTS}`,
      '[ws]',
      `listen = "127.0.0.1:${this.port}"`,
      `public_url = "${publicUrl}"`,
      `state_dir = "${join(this.#directory, 'state')}"`,
      `cache = { ${CACHED.map((kind) => `${kind} = true`).join(', ')} }`,
      ...ws,
      ...http,
      '[admin]',
      `listen = "127.0.0.1:${this.#admin}"`,
      '',
    ];
    await writeFile(this.#configuration, lines.join('\n'));
  }

  get #configuration() {
    return join(this.#directory, 'holdfast.toml');
  }

  async start() {
    this.#program = new Program('holdfast', BINARY, ['up', '--config', this.#configuration], {
      env: { RUST_BACKTRACE: '1' },
      cwd: this.#directory,
      onLine: (line) => {
        this.interactions = interactionsUrl(line) ?? this.interactions;
        this.rest = restUrl(line) ?? this.rest;
      },
    });
    await until('Holdfast is ready', () => this.#ready(), { describe: () => this.tail });
  }

  async #ready() {
    if (this.#program.ended) throw new Error(`Holdfast has ended:\n${this.tail}`);
    const answer = await fetch(`http://127.0.0.1:${this.#admin}/readyz`, { signal: AbortSignal.timeout(2_000) }).catch(() => null);
    return answer?.ok;
  }

  /** The admin listener. */
  get admin() {
    return `http://127.0.0.1:${this.#admin}`;
  }

  async metrics() {
    return (await fetch(`${this.admin}/metrics`)).text();
  }

  kill() {
    return this.#program.kill();
  }

  /** SIGTERM; resolves with the exit code and signal once it has drained. */
  terminate() {
    this.#program.signal('SIGTERM');
    return this.#program.exit;
  }

  get tail() {
    return this.#program?.tail ?? '';
  }

  async stop() {
    await this.#program?.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Ports that nobody listens on at the moment. */
async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
      return server;
    }),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
