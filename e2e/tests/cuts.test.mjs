// SPDX-License-Identifier: AGPL-3.0-only
// Connections break under traffic, on Discord's side and on the bot's: nothing is lost, nothing comes
// twice, nothing out of order.

import assert from 'node:assert/strict';
import { setTimeout as pass } from 'node:timers/promises';
import { story } from '../harness/stage.mjs';

const CLIENTS = ['discord.js, zlib-sync', '@discordjs/ws, native zlib', 'discord.py, zstd'];

/** Events a second on each shard. */
const RATE = 200;

const flowing = async (stage, client, told) => {
  told.bot = await stage.readyBot(client);
  await stage.simulator.traffic({ rate: RATE });
  await stage.flows(told.bot);
};

const counted = (stage, client, { bot }) => stage.assertAll(bot);

/** Discord breaks every shard's connection; behind Holdfast the bot must not even notice. */
function broken(fault, excuse = () => {}) {
  return async (stage, client, { bot }) => {
    const resumed = Math.max(...(await stage.simulator.sessions()).map((session) => session.resumes));
    const noticed = bot.of('disconnected').length;
    await stage.simulator.fault(fault);
    await stage.upstreamResumed(resumed + 1);
    await stage.flows(bot);
    if (stage.holdfast) assert.equal(bot.of('disconnected').length, noticed, 'the bot noticed');
    excuse(stage, bot);
    assert.deepEqual(bot.wire.twice(), [], 'twice');
  };
}

/**
 * Directly, the JavaScript libraries read their session for RESUME on the same connection before what
 * came in the same read has raised its sequence: they ask for those few again. Not the server's fault.
 */
function carelessResume(stage, bot) {
  if (stage.holdfast || bot.name.startsWith('discord.py')) return;
  stage.note(`${bot.wire.excuse() + bot.handled.excuse()} asked for twice by the library`);
}

/** The bot's own connections break, and what it dials is not answered before `away` ms are over. */
function cut(how, away) {
  return async (stage, client, { bot }) => {
    const resumed = bot.of('resumed').length;
    stage.cutter.hold();
    stage.cutter.cut(how);
    // Not synchronisation: how long the bot is away is what is tested.
    await pass(away);
    stage.cutter.release();
    await bot.until('every shard has resumed', () => bot.of('resumed').length >= resumed + stage.shards);
    await stage.flows(bot);
  };
}

story(
  'connections break',
  { clients: CLIENTS },
  {
    'messages flow': flowing,
    'Discord closes with FIN': broken({ kind: 'fin' }),
    'Discord closes with RST': broken({ kind: 'rst' }),
    'Discord closes with FIN and at once RST': broken({ kind: 'fin_rst' }),
    'Discord asks to reconnect (op 7)': broken({ kind: 'op7' }),
    'Discord invalidates resumably (op 9 true)': broken({ kind: 'op9', resumable: true }, carelessResume),
    'Discord closes with 4000': broken({ kind: 'close', code: 4000 }),
    'the bot is cut by FIN, back after 2 s': cut('fin', 2_000),
    'the bot is cut by RST, back at once': cut('rst', 0),
    'every message once, in order': counted,
  },
);

story(
  'the bot is away for 30 s',
  { clients: CLIENTS, full: true },
  { 'messages flow': flowing, 'cut by FIN, back after 30 s': cut('fin', 30_000), 'every message once, in order': counted },
);

story(
  'Discord drops the session (op 9 false)',
  { clients: CLIENTS },
  {
    'the bot has a new session and a full cache': async (stage, client, told) => {
      told.bot = await stage.readyBot(client);
      await stage.simulator.traffic({ rate: RATE });
      await stage.flows(told.bot);
      await stage.identifyAllowed();
      const welcomed = told.bot.of('shard_ready').length;
      await stage.simulator.fault({ kind: 'op9', resumable: false });
      await told.bot.until('every shard is ready anew', () => told.bot.of('shard_ready').length >= welcomed + stage.shards);
      await stage.flows(told.bot);
    },
    // What Discord did not keep can't be had; but nothing may come twice or in another order.
    'nothing twice, nothing out of order, the rest complete': async (stage, client, { bot }) => {
      const from = await stage.simulator.sent();
      await stage.flows(bot);
      const sent = await stage.simulator.quiet();
      await bot.until('the rest', () => Object.entries(sent).every(([guild, n]) => bot.wire.count(guild, n)));
      await stage.barrier(bot);
      assert.deepEqual(bot.wire.lost(sent, from), []);
      assert.deepEqual(bot.wire.twice(), []);
      stage.assertOrdered(bot);
    },
  },
);

