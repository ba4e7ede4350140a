// SPDX-License-Identifier: AGPL-3.0-only
// In: a world, traffic and faults asked for by a scenario. Out: the simulator's control routes.

import { fileURLToPath } from 'node:url';
import { Program } from './program.mjs';
import { until } from './until.mjs';

const BINARY =
  process.env.HOLDFAST_SIMULATOR_BIN ??
  fileURLToPath(new URL('../../target/debug/holdfast-simulator', import.meta.url));

export const TOKEN = 'sim-token';

/** Small enough to be whole in one GUILD_CREATE for every library (large_threshold 50 to 250). */
export const WORLD = {
  guilds: 8,
  channels: 12,
  roles: 6,
  members: 40,
  emojis: 5,
  stickers: 2,
  presences: 20,
  voice_states: 3,
  threads: 3,
  stage_instances: 1,
  scheduled_events: 2,
  soundboard_sounds: 3,
};

export class Simulator {
  #program;
  port = 0;

  /** Starts on a free port, with `world` and `limits` set before anybody connects. */
  static async start({ world = WORLD, limits = {} } = {}) {
    const simulator = new Simulator();
    simulator.#program = new Program('simulator', BINARY, ['--listen', '127.0.0.1:0'], {
      env: { RUST_BACKTRACE: '1' },
      onLine: (line) => {
        const address = /127\.0\.0\.1:(\d+)/.exec(line);
        if (address && !simulator.port) simulator.port = Number(address[1]);
      },
    });
    await until('the simulator listens', () => simulator.port || simulator.#assertAlive());
    // 16 identify buckets: libraries then need not wait five seconds between two shards.
    await simulator.limits({ max_concurrency: 16, ...limits });
    await simulator.control('POST', 'world', world);
    return simulator;
  }

  #assertAlive() {
    if (this.#program.ended) throw new Error(`the simulator has ended:\n${this.#program.tail}`);
  }

  get apiUrl() {
    return `http://127.0.0.1:${this.port}/api/v10`;
  }

  get tail() {
    return this.#program.tail;
  }

  async control(method, path, body) {
    const answer = await fetch(`http://127.0.0.1:${this.port}/control/${path}`, {
      method,
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} /control/${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  limits(limits) {
    return this.control('POST', 'limits', limits);
  }

  async sessions() {
    return (await this.control('GET', 'state')).sessions;
  }

  fault(fault) {
    return this.control('POST', 'fault', { shard: 'all', ...fault });
  }

  /** One event, as Discord would send it. */
  emit(event) {
    return this.control('POST', 'emit', event);
  }

  traffic(traffic) {
    return this.control('POST', 'traffic', { kind: 'messages', ...traffic });
  }

  /** Guild → the number of its last message. */
  async sent() {
    return (await this.control('GET', 'traffic')).sent;
  }

  /** Stops all traffic and says what was sent. */
  async quiet() {
    await this.control('DELETE', 'traffic');
    return this.sent();
  }

  /** Waits for traffic that ends by itself. */
  async trafficOver() {
    await until('the traffic is over', async () => !(await this.control('GET', 'traffic')).running);
    return this.sent();
  }

  records(op) {
    return this.control('GET', `records?op=${op}`);
  }

  violations() {
    return this.control('GET', 'violations');
  }

  stop() {
    return this.#program.kill();
  }
}
