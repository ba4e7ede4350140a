// SPDX-License-Identifier: AGPL-3.0-only
// In: a world, traffic and faults asked for by a scenario. Out: the simulator's control routes.

import { fileURLToPath } from 'node:url';
import { Program } from './program.mjs';
import { PATIENCE_MS, until } from './until.mjs';

const BINARY =
  process.env.HOLDFAST_SIMULATOR_BIN ??
  fileURLToPath(new URL('../../target/debug/holdfast-simulator', import.meta.url));

/** With the bot's id at its front, as Discord's have: some libraries read it there. */
export const TOKEN = 'MTAwMDAwMDAwMDAwMDAwMDAwMQ.sim.token';

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

/** The first guild of the simulator's world; the others follow. */
const FIRST_GUILD = 720_720n * 331_000n;

export class Simulator {
  #program;
  #world;
  /** `{ gateway, resume, api, control }`, once it listens. */
  urls = null;

  /** Starts on free ports, with `world` and `limits` set before anybody connects. */
  static async start({ world = WORLD, limits = {} } = {}) {
    const simulator = new Simulator();
    simulator.#world = world;
    simulator.#program = new Program(
      'simulator',
      BINARY,
      [
        `--token=${TOKEN}`,
        `--world=${JSON.stringify(world)}`,
        // 16 identify buckets: libraries then need not wait five seconds between two shards.
        `--limits=${JSON.stringify({ max_concurrency: 16, ...limits })}`,
      ],
      {
        env: { RUST_BACKTRACE: '1' },
        onLine: (line) => {
          if (line.startsWith('{')) simulator.urls ??= JSON.parse(line);
        },
      },
    );
    await until('the simulator listens', () => simulator.urls || simulator.#assertAlive());
    return simulator;
  }

  #assertAlive() {
    if (this.#program.ended) throw new Error(`the simulator has ended:\n${this.#program.tail}`);
  }

  /** The port of one of `urls`. */
  port(which) {
    return Number(new URL(this.urls[which]).port);
  }

  /** The guilds of its world. */
  guilds() {
    return Array.from({ length: this.#world.guilds }, (_, index) => String((FIRST_GUILD + BigInt(index)) << 22n));
  }

  get tail() {
    return this.#program.tail;
  }

  async control(method, path, body) {
    const answer = await fetch(`http://127.0.0.1:${this.port('control')}/control/${path}`, {
      method,
      signal: AbortSignal.timeout(PATIENCE_MS),
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
      body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
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

  /** What webhooks have sent, in its order: `{ webhook, id, body, files, deleted }`. */
  webhookMessages() {
    return this.control('GET', 'webhook_messages');
  }

  /** The application's key, which Discord signs with. */
  async publicKey() {
    return (await fetch(`http://127.0.0.1:${this.port('control')}/control/public_key`)).text();
  }

  /** A user does something, and Discord posts it to `url`: `{ kind, name, guild, … }`. What came of it. */
  press(url, press) {
    // Ids are numbers there, and JavaScript's aren't exact enough.
    const body = JSON.stringify({ url, ...press }).replace(/"guild":"(\d+)"/, '"guild":$1');
    return this.control('POST', 'press', body);
  }

  /** What has become of an interaction since. */
  followed({ token }) {
    return this.control('GET', `followed/${token}`);
  }

  /** Discord posts a webhook event. The status of the answer. */
  async postEvent(url, name, data) {
    return (await this.control('POST', 'post_event', { url, name, data })).status;
  }

  stop() {
    return this.#program.kill();
  }
}
