// SPDX-License-Identifier: AGPL-3.0-only
// In: the simulator, which posts as Discord does. Out: `holdfast http` in a process of its own, which can be killed and
// started again, and the section `[http]` for whoever has the service in another.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BINARY } from './holdfast.mjs';
import { Program } from './program.mjs';
import { until } from './until.mjs';

/** The section `[http]` with further lines, such as routes. */
export async function httpSection(simulator, lines = []) {
  return ['[http]', 'listen = "127.0.0.1:0"', `public_key = "${await simulator.publicKey()}"`, ...lines];
}

/** Where Discord posts interactions: what Holdfast says when it listens. */
export function interactionsUrl(line) {
  return line.match(/^ +webhooks +(http:\S+)/)?.[1] ?? null;
}

export class Http {
  name = 'holdfast http';
  #program;
  #directory;
  #admin = null;
  /** Where Discord posts interactions; another one in each life. */
  interactions = null;

  /** `lines` belong to the section `[http]`; other sections may follow. */
  static async start(simulator, lines) {
    const http = new Http();
    http.#directory = await mkdtemp(join(tmpdir(), 'holdfast-e2e-http-'));
    const section = await httpSection(simulator, lines);
    const settings = ['[discord]', `api_url = "${simulator.urls.api}"`, ...section, '[admin]', 'listen = "127.0.0.1:0"', ''];
    await writeFile(http.#configuration, settings.join('\n'));
    await http.start();
    return http;
  }

  get #configuration() {
    return join(this.#directory, 'holdfast.toml');
  }

  async start() {
    this.interactions = this.#admin = null;
    this.#program = new Program(this.name, BINARY, ['http', '--config', this.#configuration], {
      cwd: this.#directory,
      onLine: (line) => {
        this.interactions ??= interactionsUrl(line);
        this.#admin ??= line.match(/^ +admin +(http:\S+)/)?.[1] ?? null;
      },
    });
    await until('http is ready', () => this.isReady(), { describe: () => this.tail });
  }

  async isReady() {
    if (this.#program.ended) throw new Error(`http has ended:\n${this.tail}`);
    if (!this.#admin) return false;
    return (await fetch(`${this.#admin}/readyz`)).ok;
  }

  /** Where Discord posts webhook events. */
  get events() {
    return this.interactions.replace('/interactions', '/events');
  }

  /** The sum of a metric's samples whose name and labels begin so. */
  async metric(start) {
    const text = await (await fetch(`${this.#admin}/metrics`)).text();
    const samples = text.split('\n').filter((line) => line.startsWith(start));
    return samples.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  get tail() {
    return this.#program?.tail ?? '';
  }

  /** kill -9. */
  kill() {
    return this.#program.kill();
  }

  /** SIGTERM; how it ended. */
  terminate() {
    this.#program.signal('SIGTERM');
    return this.#program.exit;
  }

  async stop() {
    await this.#program?.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }
}
