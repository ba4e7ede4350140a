// SPDX-License-Identifier: AGPL-3.0-only
// The bot is killed with -9 under traffic and comes back: nothing that came meanwhile is lost.

import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CLIENTS as ALL } from '../harness/bot.mjs';
import { story } from '../harness/stage.mjs';
import { assertCacheIsTheWorld } from './world.mjs';

const CLIENTS = ['discord.js, zlib-sync', '@discordjs/ws, native zlib', 'discord.py, zstd'];
const RATE = 200;

/** Starts the bot anew after kill -9 and says what had been sent when it was gone. */
async function diesAndComesBack(stage, bot) {
  await bot.kill();
  await stage.alone();
  // Asked after its end: all that comes from here on comes while it is away.
  const gone = await stage.simulator.sent();
  await stage.identifyAllowed();
  bot.start();
  await bot.ready();
  return gone;
}

const flowing = async (stage, client, told) => {
  told.bot = await stage.readyBot(client);
  await stage.simulator.traffic({ rate: RATE });
  await stage.flows(told.bot);
};

story(
  'the bot is killed with -9 under traffic and started again',
  { clients: CLIENTS },
  {
    'messages flow': flowing,

    'it comes back with a full cache': async (stage, client, told) => {
      told.gone = await diesAndComesBack(stage, told.bot);
      told.back = await stage.simulator.sent();
      await assertCacheIsTheWorld(stage, told.bot);
      await stage.flows(told.bot);
    },

    // Discord itself forgets what a bot that identifies anew has missed.
    'it has every message from its end on, once, in order': async (stage, client, { bot, gone, back }) => {
      const from = stage.holdfast ? gone : back;
      const sent = await stage.simulator.quiet();
      await bot.until('the last messages', () => Object.entries(sent).every(([guild, n]) => bot.handled.count(guild, n)));
      await stage.barrier(bot);
      assert.deepEqual(bot.wire.lost(sent, from).slice(0, 20), [], 'lost on the wire');
      assert.deepEqual(bot.handled.lost(sent, from).slice(0, 20), [], 'lost for the handler');
      assert.deepEqual(bot.wire.twice().slice(0, 20), [], 'twice');
      stage.assertOrdered(bot);
      const inFlight = bot.wire.lost(gone);
      stage.note(`${inFlight.length} of ${bot.wire.total} were on their way when the bot died`);
      assert.ok(inFlight.length < RATE, `in flight: ${inFlight.length}`);
    },
  },
);

story(
  'the bot is killed with -9; catch-up from the last confirmation',
  { clients: CLIENTS, targets: ['holdfast'], ws: ['catch_up_from = "confirmed"', 'heartbeat_interval = "1s"'] },
  {
    'messages flow, heartbeats confirm them': async (stage, client, told) => {
      await flowing(stage, client, told);
      told.confirmed = await stage.simulator.sent();
      // 50 a second in each guild: three seconds, in which every shard's heartbeat came at least once.
      await stage.flows(told.bot, 150);
    },
    'none is lost; nothing comes twice that was confirmed': async (stage, client, { bot, confirmed }) => {
      await diesAndComesBack(stage, bot);
      await stage.flows(bot);
      const sent = await stage.simulator.quiet();
      await bot.caughtUp(sent);
      await stage.barrier(bot);
      assert.deepEqual(bot.wire.lost(sent), []);
      stage.assertOrdered(bot);
      const twice = bot.wire.twice();
      stage.note(`${twice.length} of ${bot.wire.total} came twice`);
      const before = twice.filter((which) => Number(which.split('#')[1]) <= confirmed[which.split('#')[0]]);
      assert.deepEqual(before, [], 'confirmed, and yet again');
    },
  },
);

story(
  'a bot that keeps its session in a file resumes after kill -9',
  { clients: Object.keys(ALL).filter((name) => name.startsWith('@discordjs/ws')), only: true },
  {
    'each message once, in order': async (stage, client) => {
      const sessions = join(await mkdtemp(join(tmpdir(), 'holdfast-e2e-bot-')), 'sessions.json');
      const bot = await stage.readyBot(client, { sessions });
      await stage.simulator.traffic({ rate: RATE });
      await stage.flows(bot);
      await bot.kill();
      bot.start();
      await bot.until('every shard has resumed', () => bot.of('resumed').length === stage.shards);
      await stage.flows(bot);
      // Killed between counting a message and writing the file: at most one on each shard.
      assert.ok(bot.wire.twice().length <= stage.shards, `twice: ${bot.wire.twice()}`);
      bot.wire.excuse();
      bot.handled.excuse();
      await stage.assertAll(bot);
    },
  },
);
