// SPDX-License-Identifier: AGPL-3.0-only
// A bot on a calm day: connects, has its cache, gets its messages, asks for things.

import assert from 'node:assert/strict';
import { CLIENTS } from '../harness/bot.mjs';
import { story } from '../harness/stage.mjs';
import { until } from '../harness/until.mjs';
import { assertCacheIsTheWorld, guildAtDiscord } from './world.mjs';

story(
  'a calm day',
  { clients: Object.keys(CLIENTS) },
  {
    'connects with a full cache, equal to the world': async (stage, client, told) => {
      told.bot = await stage.readyBot(client);
      await assertCacheIsTheWorld(stage, told.bot);
    },

    '1,000 messages arrive, each once, in order': async (stage, client, { bot }) => {
      await stage.simulator.traffic({ burst: 500 });
      await stage.simulator.trafficOver();
      await stage.assertAll(bot);
      assert.ok(bot.wire.total >= 1_000, `${bot.wire}`);
    },

    'the complete list of members': async (stage, client, told) => {
      [told.guild] = stage.simulator.guilds();
      const expected = (await guildAtDiscord(stage, told.guild)).members.map((member) => member.user.id);
      told.members = await told.bot.ask('members', { guild: told.guild, nonce: 'all of them' });
      assert.deepEqual(told.members.toSorted(), expected.toSorted());
    },

    'members by the beginning of their name': async (stage, client, { bot, guild, members }) => {
      const whole = await guildAtDiscord(stage, guild);
      const named = whole.members.find((member) => member.user.id !== '1000000000000000001');
      const query = (named.nick ?? named.user.username).slice(0, -1);
      const matches = (member) =>
        [member.user.username, member.nick].some((name) => name?.toLowerCase().startsWith(query.toLowerCase()));
      const found = await bot.ask('members', { guild, query, nonce: 'by name' });
      assert.deepEqual(found.toSorted(), whole.members.filter(matches).map((member) => member.user.id).toSorted());
      assert.ok(found.length < members.length || members.length === 1);
    },

    'members by id; others\' chunks do not come': async (stage, client, { bot, guild, members }) => {
      const before = bot.of('dispatch').filter(({ t }) => t === 'GUILD_MEMBERS_CHUNK').length;
      const users = members.slice(0, 3);
      const found = await bot.ask('members', { guild, users, nonce: 'by id' });
      assert.deepEqual(found.toSorted(), users.toSorted());
      const chunks = bot.of('dispatch').filter(({ t }) => t === 'GUILD_MEMBERS_CHUNK').slice(before);
      assert.equal(chunks.length, 1);
      assert.equal(typeof chunks[0].d.nonce, 'string');
    },

    'a presence update reaches Discord': async (stage, client, { bot }) => {
      await bot.ask('presence', { name: 'in the open' });
      await until('op 3 at the simulator on every shard', async () => {
        const updates = (await stage.simulator.records(3)).filter(
          ({ d }) => d.status === 'idle' && d.activities?.[0]?.name === 'in the open',
        );
        return new Set(updates.map(({ shard }) => shard[0])).size === stage.shards;
      });
    },

    'joining voice brings both events to who asked': async (stage, client, { bot, guild }) => {
      const channel = (await guildAtDiscord(stage, guild)).channels.find(({ type }) => type === 2).id;
      await bot.ask('voice', { guild, channel });
      await bot.until('both voice events', () => {
        const dispatches = bot.of('dispatch');
        const state = dispatches.find(({ t, d }) => t === 'VOICE_STATE_UPDATE' && d.channel_id === channel);
        const server = dispatches.find(({ t, d }) => t === 'VOICE_SERVER_UPDATE' && d.guild_id === guild);
        return state?.d.session_id && server?.d.token && server.d.endpoint;
      });
      if (client.startsWith('@discordjs/ws')) return;
      await bot.until('the voice library has both', () => bot.of('voice_state').length && bot.of('voice_server').length);
    },
  },
);
