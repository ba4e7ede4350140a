// SPDX-License-Identifier: AGPL-3.0-only
// Two bots at once on the same shards: each gets everything, and only its own answers.

import assert from 'node:assert/strict';
import { story } from '../harness/stage.mjs';
import { sorted } from './world.mjs';

const OTHER = {
  'discord.js, zlib-sync': 'discord.py, zstd',
  'discord.py, zlib': '@discordjs/ws, payload compression',
};

story(
  'two at once',
  { clients: Object.keys(OTHER), only: true },
  {
    'both connect': async (stage, client, told) => {
      told.first = await stage.readyBot(client);
      await stage.identifyAllowed();
      told.second = await stage.readyBot(OTHER[client]);
    },
    'both get each message once, in order': async (stage, client, { first, second }) => {
      await stage.simulator.traffic({ rate: 200 });
      await stage.flows(first);
      await stage.flows(second);
      await stage.assertAll(first);
      await stage.assertAll(second);
    },
    'chunks of members go only to who asked': async (stage, client, { first, second }) => {
      const chunks = (bot) => bot.of('dispatch').filter(({ t }) => t === 'GUILD_MEMBERS_CHUNK').length;
      const [guild] = stage.simulator.guilds();
      const before = chunks(second);
      assert.equal((await first.ask('members', { guild, nonce: 'mine' })).length > 0, true);
      await stage.barrier(second);
      assert.equal(chunks(second), before);
    },
    'the end of one does not disturb the other': async (stage, client, { first, second }) => {
      await first.kill();
      await stage.simulator.traffic({ burst: 50 });
      await stage.simulator.trafficOver();
      await stage.assertAll(second);
      assert.equal(second.of('disconnected').length, 0);
    },
  },
);

const BARE = '@discordjs/ws, native zlib';

story(
  'what a client sees of a guild is what Discord says, field by field',
  { clients: [BARE], only: true, targets: ['holdfast'] },
  {
    'READY and GUILD_CREATE are equal, unknown and null fields included': async (stage) => {
      const behind = await stage.readyBot(BARE);
      const beside = stage.bot(BARE, { rest: stage.simulator.urls.api.replace(/\/v10$/, '') });
      stage.straight.add(beside);
      await stage.identifyAllowed({ straight: true });
      await beside.start().ready();
      assert.deepEqual(sorted(await behind.ask('guilds')), sorted(await beside.ask('guilds')));
      const ready = (bot) => bot.of('welcome').toSorted((a, b) => a.shard - b.shard).map(({ d }) => rest(d));
      assert.deepEqual(ready(behind), ready(beside));
    },
  },
);

/** READY without what is a session's own. */
function rest({ session_id, resume_gateway_url, _trace, guilds, ...rest }) {
  return { ...rest, guilds: sorted(guilds) };
}
