// SPDX-License-Identifier: AGPL-3.0-only
// What Discord refuses for good is refused for good, with the same close code.

import assert from 'node:assert/strict';
import { story } from '../harness/stage.mjs';

const CLIENTS = ['discord.js, zlib-sync', '@discordjs/ws, none', 'discord.py, zlib'];

const refused = (code, connection) => async (stage, client) => {
  stage.forgives = () => stage.target === 'direct';
  const bot = stage.bot(client, connection).start();
  const [refusal] = await bot.until(`close code ${code}`, () => bot.of('refused').length && bot.of('refused'));
  assert.equal(refusal.code, code);
  assert.equal(bot.of('ready').length, 0);
  await bot.kill();
};

story(
  'refusals',
  { clients: CLIENTS, anyToken: true },
  {
    'a wrong token: 4004': refused(4004, { token: 'MTAwMDAwMDAwMDAwMDAwMDAwMQ.wrong.wrong' }),
    'a shard that is none: 4010': refused(4010, { shard: [5, 2] }),
    'a right one is served as if nothing had been': (stage, client) => stage.readyBot(client),
  },
);
