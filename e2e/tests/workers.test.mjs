// SPDX-License-Identifier: AGPL-3.0-only
// Workers on RabbitMQ, with code generated from proto/: every message, once, in order, through whatever is cut or
// killed. What the workers of examples/ do to keep order is tried with them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Stage } from '../harness/stage.mjs';
import { RabbitMq } from '../harness/rabbitmq.mjs';
import { until } from '../harness/until.mjs';
import { LANGUAGES, Worker } from '../harness/worker.mjs';

const RATE = 100;

/** Stops the traffic; all of it has been handled, each message once unless a worker has forgotten, in order. */
async function assertAll(stage, { worker, forgotten = false }) {
  const sent = await stage.simulator.quiet();
  await worker.caughtUp(sent);
  const { ledger } = worker;
  assert.deepEqual(ledger.lost(sent), []);
  assert.deepEqual(ledger.disordered(), [], 'order within a guild');
  if (!forgotten) {
    assert.deepEqual(ledger.twice(), [], 'each once');
    assert.deepEqual(worker.disordered(), [], 'order within a shard');
  }
  ledger.excuse();
  return sent;
}

/** While messages flow: something happens, they flow again, and all of them have been handled. */
function whileFlowing(happens, { forgotten } = {}) {
  return async (stage, told) => {
    await stage.simulator.traffic({ rate: RATE });
    await told.worker.flows();
    await happens(stage, told);
    await told.worker.flows();
    await assertAll(stage, { worker: told.worker, forgotten });
  };
}

const steps = {
  '1,000 messages, each once, in order, with ids of their own': async (stage, told) => {
    const { worker } = told;
    await stage.simulator.traffic({ burst: 500 });
    await stage.simulator.trafficOver();
    const sent = await assertAll(stage, { worker });
    assert.ok(Object.values(sent).reduce((sum, n) => sum + n, 0) >= 1_000);
    assert.deepEqual(worker.arrived.filter(({ redelivered }) => redelivered), []);
    const { length } = worker.arrived;
    assert.equal(new Set(worker.arrived.map(({ id }) => id)).size, length);
    assert.ok(worker.arrived.every(({ id, stream, position }) => id === `${stream}:${position}`));
    assert.equal(new Set(worker.arrived.map(({ shard }) => shard)).size, stage.shards);
    assert.deepEqual(worker.gaps, []);
  },

  "the worker's connection is cut: what comes again is known": whileFlowing(async ({ rabbitmq }, { worker }) => {
    for (const how of ['rst', 'fin']) {
      rabbitmq.ofWorkers.cut(how);
      await until('the worker is connected again', () => rabbitmq.ofWorkers.connections > 0);
      await worker.flows();
    }
  }),

  "Holdfast's connection is cut: it goes on from what was confirmed": whileFlowing(async ({ rabbitmq }, { worker }) => {
    for (const how of ['rst', 'fin']) {
      await until('Holdfast is connected', () => rabbitmq.ofHoldfast.connections >= 3);
      rabbitmq.ofHoldfast.cut(how);
      await worker.flows();
    }
  }),

  'RabbitMQ is out of reach for Holdfast: the log keeps what comes': whileFlowing(async (stage) => {
    const { ofHoldfast } = stage.rabbitmq;
    ofHoldfast.hold();
    ofHoldfast.cut('rst');
    const goal = Object.fromEntries(Object.entries(await stage.simulator.sent()).map(([guild, n]) => [guild, n + 20]));
    await until('messages come to Holdfast', async () => {
      const sent = await stage.simulator.sent();
      return Object.entries(goal).every(([guild, n]) => sent[guild] >= n);
    });
    ofHoldfast.release();
  }),

  'Holdfast is killed with -9: nothing is lost, and what comes again is known': whileFlowing(async (stage) => {
    for (const _ of [1, 2]) {
      await stage.holdfast.kill();
      await stage.holdfast.start();
    }
  }),

  'an event that cannot be handled stops the worker, and nothing overtakes it': async (stage, told) => {
    const { worker } = told;
    const [guild] = stage.simulator.guilds();
    const number = (await stage.simulator.sent())[guild] + 20;
    await worker.kill();
    worker.start({ failOn: { g: guild, n: number } });
    await stage.simulator.traffic({ rate: RATE });
    const { code } = await worker.over();
    assert.notEqual(code, 0);
    assert.equal(worker.ledger.highest(guild), number - 1);
    worker.start();
    await worker.until('it is handled now', () => worker.ledger.count(guild, number) > 0);
    // A worker that begins anew has forgotten what it finished and could not acknowledge.
    await assertAll(stage, { worker, forgotten: true });
  },

  'a worker killed with -9 loses nothing': whileFlowing(
    async (stage, { worker }) => {
      await worker.kill();
      worker.start();
    },
    { forgotten: true },
  ),

  'a second worker waits, and takes over in order': whileFlowing(
    async (stage, told) => {
      const heir = stage.worker(told.worker.name);
      heir.ledger = told.worker.ledger;
      heir.start();
      await told.worker.flows();
      assert.deepEqual(heir.arrived, []);
      await told.worker.kill();
      told.worker = heir;
    },
    { forgotten: true },
  ),

  "a former owner's late event is dropped": async (stage, { worker }) => {
    const burst = () => stage.simulator.traffic({ burst: 5 });
    const captured = await stage.rabbitmq.capture(burst);
    await assertAll(stage, { worker, forgotten: true });
    const { generation, position } = worker.arrived.at(-1);
    const late = { generation: generation - 1, position: position + 1_000_000 };
    const id = await stage.rabbitmq.forge(captured, late);
    await worker.until('it arrives', () => worker.arrived.some((report) => report.id === id));
    await burst();
    await stage.simulator.trafficOver();
    await assertAll(stage, { worker, forgotten: true });
    assert.deepEqual(worker.judged('outdated').map((report) => report.id), [id]);
    assert.ok(!worker.handled.some((report) => report.position === late.position));
  },

  'a session that Discord has dropped is told by a gap, then the guilds': async (stage, { worker }) => {
    const before = worker.handled.length;
    const guilds = stage.simulator.guilds().length;
    await stage.simulator.fault({ kind: 'op9', resumable: false });
    const since = () => worker.handled.slice(before);
    await worker.until('a gap and the guilds', () => {
      const names = since().map(({ name }) => name);
      return names.filter((name) => name === 'GUILD_CREATE').length >= guilds && worker.gaps.length >= stage.shards;
    });
    for (let shard = 0; shard < stage.shards; shard += 1) {
      const [gap, ...rest] = since().filter((report) => report.shard === shard);
      assert.equal(gap.name, 'HOLDFAST_GAP');
      assert.equal(gap.reason, 1, 'NEW_SESSION');
      assert.ok(gap.to > gap.from);
      assert.ok(rest.every(({ stream, position }) => stream !== gap.stream && position >= gap.to), 'another stream');
    }
    await stage.simulator.traffic({ burst: 50 });
    await stage.simulator.trafficOver();
    await assertAll(stage, { worker, forgotten: true });
  },
};

for (const language of Object.keys(LANGUAGES)) {
  test(`holdfast: ${language} worker`, { timeout: 300_000 }, async (t) => {
    const rabbitmq = await RabbitMq.open();
    let stage;
    try {
      stage = await Stage.open('holdfast', { ws: rabbitmq.settings() });
      stage.rabbitmq = rabbitmq;
      stage.worker = (name) => {
        const settings = { url: rabbitmq.url(rabbitmq.ofWorkers), queue: rabbitmq.queue };
        stage.workers.push(new Worker(name, settings));
        return stage.workers.at(-1);
      };
      const told = { worker: stage.worker(language).start() };
      for (const [step, play] of Object.entries({ ...steps, 'nothing to punish': (s) => s.assertClean() })) {
        let done = false;
        await t.test(step, async () => {
          await stage.withSaid(() => play(stage, told));
          done = true;
        });
        // What follows builds on it.
        if (!done) break;
      }
    } finally {
      await stage?.close();
      await rabbitmq.close();
    }
  });
}
