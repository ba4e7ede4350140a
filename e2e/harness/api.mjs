// SPDX-License-Identifier: AGPL-3.0-only
// In: the address of Discord's REST API. Out: `holdfast api` before it, in a process of its own.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BINARY } from './holdfast.mjs';
import { Program } from './program.mjs';
import { TOKEN } from './simulator.mjs';
import { until } from './until.mjs';

/** What Holdfast says when its REST service listens, without the version. */
export function restUrl(line) {
  return line.match(/^ +REST +(http:\S+)\/v10/)?.[1] ?? null;
}

export class Api {
  #program;
  #directory;
  /** `http://127.0.0.1:PORT/api`, once it listens. */
  url = null;

  static async start(discord) {
    const api = new Api();
    api.#directory = await mkdtemp(join(tmpdir(), 'holdfast-e2e-api-'));
    const configuration = join(api.#directory, 'holdfast.toml');
    const lines = ['[discord]', `token = "${TOKEN}"`, `api_url = "${discord}"`, '[api]', 'listen = "127.0.0.1:0"'];
    await writeFile(configuration, [...lines, '[admin]', 'enabled = false', ''].join('\n'));
    api.#program = new Program('holdfast api', BINARY, ['api', '--config', configuration], {
      cwd: api.#directory,
      onLine: (line) => {
        api.url ??= restUrl(line);
      },
    });
    await until('the REST service listens', () => {
      if (api.#program.ended) throw new Error(`it has ended:\n${api.#program.tail}`);
      return api.url;
    });
    return api;
  }

  async stop() {
    this.#program.signal('SIGTERM');
    const ended = await this.#program.exit;
    await rm(this.#directory, { recursive: true, force: true });
    return ended;
  }
}
