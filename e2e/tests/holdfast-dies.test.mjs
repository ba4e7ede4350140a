// SPDX-License-Identifier: AGPL-3.0-only
// Holdfast dies under traffic, by kill -9 and by SIGTERM, and comes back: both sides go on where they were.

import assert from 'node:assert/strict';
import { story } from '../harness/stage.mjs';
import { assertCacheIsTheWorld } from './world.mjs';

const CLIENTS = ['discord.js, zlib-sync', '@discordjs/ws, native zlib', 'discord.py, zstd'];
const RATE = 200;

const flowing = async (stage, client, told) => {
  told.bot = await stage.readyBot(client);
  await stage.simulator.traffic({ rate: RATE });
  await stage.flows(told.bot);
};

/** Holdfast goes by `end` and is started again while the network swallows what clients dial. */
function holdfastRestarts(end) {
  return async (stage, client, { bot }) => {
    const identifies = (await stage.simulator.records(2)).length;
    const resumed = bot.of('resumed').length;
    stage.cutter.hold();
    await end(stage);
    await stage.holdfast.start();
    stage.cutter.release();
    await bot.until('every shard has resumed', () => bot.of('resumed').length >= resumed + stage.shards);
    await stage.flows(bot);
    assert.equal((await stage.simulator.records(2)).length, identifies, 'upstream was resumed, not identified');
  };
}

story(
  'Holdfast dies under traffic and is started again',
  { clients: CLIENTS, targets: ['holdfast'] },
  {
    'messages flow': flowing,
    'kill -9: both sides resume': holdfastRestarts((stage) => stage.holdfast.kill()),
    'SIGTERM: both sides resume': holdfastRestarts(async (stage) => {
      assert.deepEqual(await stage.holdfast.terminate(), { code: 0, signal: null });
    }),
    'every message once, in order': (stage, client, { bot }) => stage.assertAll(bot),
    'a bot that comes afterwards has a full cache': async (stage, client) => {
      const late = await stage.readyBot(client);
      await assertCacheIsTheWorld(stage, late);
    },
  },
);

for (const trim of ['count', 'heartbeat']) {
  story(
    `Holdfast is killed with -9 and Discord trims its resume buffer by ${trim}`,
    { clients: ['discord.js, zlib-sync'], only: true, targets: ['holdfast'], limits: { resume_trim: trim } },
    {
      'messages flow': flowing,
      'kill -9: both sides resume': holdfastRestarts((stage) => stage.holdfast.kill()),
      'every message once, in order': (stage, client, { bot }) => stage.assertAll(bot),
    },
  );
}

story(
  'Holdfast is killed with -9 and refuses connections until it is back',
  { clients: CLIENTS, targets: ['holdfast'] },
  {
    'messages flow': flowing,
    // Libraries forget their session when the connection is refused, and identify anew.
    'the bot is ready again': async (stage, client, { bot }) => {
      const welcomed = bot.of('shard_ready').length + bot.of('resumed').length;
      await stage.holdfast.kill();
      await bot.until('the bot has noticed', () => bot.of('disconnected').length >= stage.shards);
      await stage.holdfast.start();
      await bot.until(
        'every shard is ready anew',
        () => bot.of('shard_ready').length + bot.of('resumed').length >= welcomed + stage.shards,
        { timeout: 40_000 },
      );
      await stage.flows(bot);
    },
    'no message is lost, none out of order': async (stage, client, { bot }) => {
      const sent = await stage.simulator.quiet();
      await bot.caughtUp(sent);
      await stage.barrier(bot);
      assert.deepEqual(bot.wire.lost(sent).slice(0, 20), []);
      stage.assertOrdered(bot);
      stage.note(`${bot.wire.twice().length} of ${bot.wire.total} came twice`);
    },
  },
);
