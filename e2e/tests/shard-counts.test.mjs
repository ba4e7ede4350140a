// SPDX-License-Identifier: AGPL-3.0-only
// A bot with another shard count than Holdfast's four: one shard for everything.

import assert from 'node:assert/strict';
import { story } from '../harness/stage.mjs';
import { assertCacheIsTheWorld, guildAtDiscord } from './world.mjs';

const RATE = 200;

story(
  'one shard before four',
  { clients: ['discord.js, zlib-sync', '@discordjs/ws, native zlib'], only: true, targets: ['holdfast'], shards: 4 },
  {
    'connects with a full cache, equal to the world': async (stage, client, told) => {
      told.bot = await stage.readyBot(client, { shard: [0, 1] });
      await assertCacheIsTheWorld(stage, told.bot);
    },

    'members of a guild on another of the four': async (stage, client, { bot }) => {
      const guild = stage.simulator.guilds().find((id) => (BigInt(id) >> 22n) % 4n === 3n);
      const expected = (await guildAtDiscord(stage, guild)).members.map((member) => member.user.id);
      const members = await bot.ask('members', { guild, nonce: 'all of them' });
      assert.deepEqual(members.toSorted(), expected.toSorted());
    },

    'cut under traffic, it resumes: every message once, in order': async (stage, client, { bot }) => {
      await stage.simulator.traffic({ rate: RATE });
      for (const how of ['fin', 'rst']) {
        await stage.flows(bot);
        const resumed = bot.of('resumed').length;
        stage.cutter.cut(how);
        await bot.until('it has resumed', () => bot.of('resumed').length > resumed);
      }
      await stage.flows(bot);
      await stage.assertAll(bot);
    },

    'started again, it gets what came meanwhile': async (stage, client, { bot }) => {
      await bot.kill();
      const from = Object.fromEntries(stage.simulator.guilds().map((guild) => [guild, bot.wire.highest(guild)]));
      await stage.simulator.traffic({ burst: 100 });
      await stage.simulator.trafficOver();
      const again = await stage.readyBot(client, { shard: [0, 1] });
      await stage.simulator.traffic({ burst: 20 });
      await stage.simulator.trafficOver();
      await stage.assertAll(again, { from });
    },
  },
);
