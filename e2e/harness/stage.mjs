// SPDX-License-Identifier: AGPL-3.0-only
// In: a target ('direct' or 'holdfast') and a world. Out: everything that a scenario plays on:
// simulator, Holdfast where asked, REST front, cutter, bots. Takes all of it down afterwards.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ALL_INTENTS, Bot, CLIENTS } from './bot.mjs';
import { Cutter } from './cutter.mjs';
import { Holdfast } from './holdfast.mjs';
import { httpSection } from './http.mjs';
import { RestFront } from './rest.mjs';
import { Simulator, TOKEN } from './simulator.mjs';
import { until } from './until.mjs';

export const FULL = process.env.E2E_FULL === '1';

/** Only clients whose name contains this. */
const CLIENT = process.env.E2E_CLIENT ?? '';

const TARGETS = (process.env.E2E_TARGETS ?? 'direct,holdfast').split(',');

export class Stage {
  bots = [];
  /** Workers on RabbitMQ. */
  workers = [];
  holdfast = null;
  /** Bots that are meant to dial the simulator itself. */
  straight = new Set();
  /** What the simulator may hold against its clients in this scenario: a predicate per violation. */
  forgives = () => false;

  static async open(target, { shards = 2, world, limits = {}, ws = [], http = null, anyToken = false } = {}) {
    const stage = new Stage();
    stage.target = target;
    stage.shards = shards;
    try {
      await stage.#build({ world, limits: { shards, ...limits }, ws, http, anyToken });
    } catch (error) {
      const said = stage.said();
      await stage.#down();
      throw new Error(`${error.message}\n${said}`, { cause: error });
    }
    return stage;
  }

  async #build({ world, limits, ws, http, anyToken }) {
    this.cutter = await Cutter.open();
    if (this.target === 'holdfast') {
      this.simulator = await Simulator.start({ world, limits });
      this.holdfast = await Holdfast.prepare();
      this.cutter.leadTo(this.holdfast.port, this.holdfast.port);
      const sections = http && (await httpSection(this.simulator, http));
      const [apiUrl, publicUrl] = [this.simulator.urls.api, this.gatewayUrl];
      await this.holdfast.configure({ apiUrl, publicUrl, ws, http: sections ?? [] });
      await this.holdfast.start();
    } else {
      this.simulator = await Simulator.start({ world, limits });
      this.cutter.leadTo(this.simulator.port('gateway'), this.simulator.port('resume'));
    }
    this.rest = await RestFront.open({
      simulatorPort: this.simulator.port('api'),
      answer: () => ({ url: this.gatewayUrl, shards: this.shards }),
      token: anyToken ? TOKEN : null,
    });
  }

  /** Where clients find the gateway: always the cutter. */
  get gatewayUrl() {
    return this.cutter.gatewayUrl;
  }

  /** Where bots send requests: Holdfast's own service where it is there. */
  get restBase() {
    return this.holdfast?.rest ?? this.rest.base;
  }

  /** A bot that has not been started. */
  bot(client, connection = {}) {
    const bot = new Bot(client, {
      token: TOKEN,
      rest: this.restBase,
      gateway: this.gatewayUrl,
      intents: ALL_INTENTS,
      shards: this.shards,
      detour: this.#detour(),
      ...connection,
    });
    this.bots.push(bot);
    return bot;
  }

  /**
   * Port → port: READY names the simulator's own listener for RESUME; directly, bots turn that dial to
   * the cutter. Holdfast names its public address, which is the cutter's.
   */
  #detour() {
    return this.holdfast ? {} : { [this.simulator.port('resume')]: this.cutter.ports[1] };
  }

  /** A bot with a full cache. */
  async readyBot(client, connection) {
    const bot = this.bot(client, connection).start();
    await bot.ready();
    return bot;
  }

  /** Nobody is connected any more: what is written to a connection that has just died counts as given. */
  async alone() {
    if (!this.holdfast) return;
    await until('Holdfast has seen its clients go', async () => /^holdfast_ws_client_connections 0$/m.test(await this.holdfast.metrics()));
  }

  /**
   * Discord takes one IDENTIFY per shard bucket in five seconds and an operator who restarts a bot
   * at once gets op 9. Behind Holdfast nobody waits.
   */
  async identifyAllowed({ straight = false } = {}) {
    if (this.holdfast && !straight) return;
    await until('Discord accepts the next identify', async () => {
      const latest = Math.max(...(await this.simulator.sessions()).map((session) => session.identified_at_ms));
      return Date.now() - latest > 5_100;
    });
  }

  /** Every shard's session is connected at the simulator, and has been resumed `resumes` times. */
  upstreamResumed(resumes) {
    return until(
      `every shard has resumed ${resumes} times`,
      async () => {
        const live = (await this.simulator.sessions()).filter((session) => session.connected);
        return live.length >= this.shards && live.every((session) => session.resumes >= resumes);
      },
      { describe: async () => JSON.stringify(await this.simulator.sessions()) },
    );
  }

  /** Messages go on coming: `count` more per guild than are known now. */
  async flows(bot, count = 20) {
    const now = await this.simulator.sent();
    const goal = Object.fromEntries(this.simulator.guilds().map((guild) => [guild, (now[guild] ?? 0) + count]));
    await bot.until('messages flow', () => Object.entries(goal).every(([guild, n]) => bot.wire.highest(guild) >= n));
  }

  /** Stops the traffic; each message must have come once, in order, to the wire and to the handler. */
  async assertAll(bot, { from = {}, options } = {}) {
    const sent = await this.simulator.quiet();
    await bot.caughtUp(sent, options);
    await this.barrier(bot);
    for (const [place, ledger] of [['wire', bot.wire], ['handler', bot.handled]]) {
      assert.deepEqual(
        { lost: ledger.lost(sent, from).slice(0, 20), twice: ledger.twice().slice(0, 20) },
        { lost: [], twice: [] },
        `${bot.name}: ${place}, of ${ledger}`,
      );
    }
    this.assertOrdered(bot);
    return sent;
  }

  /** First arrivals came in the order in which they were sent, guild by guild. */
  assertOrdered(bot) {
    if (!CLIENTS[bot.name].keepsOrder) return;
    assert.deepEqual(bot.wire.disordered().slice(0, 20), [], `${bot.name}: order`);
  }

  /** An event after everything else on each shard: what still came before it has been counted. */
  async barrier(bot) {
    for (const guild of this.#oneGuildPerShard()) {
      const before = bot.of('typing').length;
      await this.simulator.emit({
        t: 'TYPING_START',
        guild,
        d: { guild_id: guild, channel_id: guild, user_id: '1000000000000000001', timestamp: 1_700_000_000 },
      });
      await bot.until('the barrier', () => bot.of('typing').length > before);
    }
  }

  #oneGuildPerShard() {
    const byShard = new Map();
    for (const guild of this.simulator.guilds()) byShard.set(this.shardOf(guild), guild);
    return [...byShard.values()];
  }

  shardOf(guild) {
    return Number((BigInt(guild) >> 22n) % BigInt(this.shards));
  }

  /** What has been said by everybody: the first thing to read when a scenario failed. */
  said() {
    const parts = [['simulator', this.simulator?.tail], ['holdfast', this.holdfast?.tail]];
    for (const each of [...this.bots, ...this.workers]) parts.push([each.name, each.tail]);
    return parts.map(([name, tail]) => `──── ${name}\n${String(tail ?? '').split('\n').slice(-60).join('\n')}`).join('\n');
  }

  /** Runs `play`; if it fails, adds what everybody said. */
  async withSaid(play) {
    try {
      await play();
    } catch (error) {
      error.message += `\n${this.said()}`;
      throw error;
    }
  }

  /** What must hold at the end of every scenario. */
  async assertClean() {
    const ports = this.cutter.ports.map((port) => `127.0.0.1:${port}`);
    const allowed = new Set([new URL(this.restBase).host, ...ports]);
    for (const bot of this.bots.filter((each) => !this.straight.has(each))) {
      assert.ok(bot.dialled.size > 0, `${bot.name} has not reported what it dialled`);
      const elsewhere = [...bot.dialled].filter((address) => !allowed.has(address));
      assert.deepEqual(elsewhere, [], `${bot.name} dialled elsewhere`);
    }
    // A connection that broke is recorded there too; that a bot was killed is nobody's offence.
    const punished = ({ kind, detail }) => !(kind === 'websocket' && detail.includes('reset by peer'));
    const violations = (await this.simulator.violations())
      .filter(punished)
      .filter((violation) => !this.forgives(violation));
    assert.deepEqual(violations, [], 'what Discord would punish');
  }

  async #down() {
    await Promise.all([...this.bots, ...this.workers].map((each) => each.kill()));
    await this.holdfast?.stop();
    await this.cutter?.close();
    await this.rest?.close();
    await this.simulator?.stop();
  }

  async close() {
    await this.#down();
  }
}

/**
 * Declares a story for each target and client: one stage, on which `steps` (name → play) follow each
 * other as subtests; each gets `(stage, client, told)`, where `told` is what earlier steps left.
 * `clients`: names; in the full run all of them unless `only` is set. `full`: only in the full run.
 */
export function story(name, { clients, only = false, targets = TARGETS, full = false, ...stageOptions }, steps) {
  if (full && !FULL) return;
  const chosen = (FULL && !only ? Object.keys(CLIENTS) : clients).filter((client) => client.includes(CLIENT));
  for (const target of targets.filter((each) => TARGETS.includes(each))) {
    for (const client of chosen) {
      test(`${target}: ${client}: ${name}`, { timeout: 300_000 }, async (t) => {
        const stage = await Stage.open(target, stageOptions);
        stage.note = (text) => t.diagnostic(text);
        const told = {};
        try {
          for (const [step, play] of Object.entries({ ...steps, 'nothing to punish': (s) => s.assertClean() })) {
            let done = false;
            await t.test(step, async () => {
              await stage.withSaid(() => play(stage, client, told));
              done = true;
            });
            // What follows builds on it.
            if (!done) break;
          }
        } finally {
          await stage.close();
        }
      });
    }
  }
}

/** A story of one step. */
export function scenario(name, options, play) {
  story(name, options, { plays: play });
}
