// SPDX-License-Identifier: AGPL-3.0-only
// Workers tell Discord something through RabbitMQ and Holdfast, and ask for guilds, with code generated from proto/.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RabbitMq } from '../harness/rabbitmq.mjs';
import { Stage } from '../harness/stage.mjs';
import { until } from '../harness/until.mjs';
import { LANGUAGES, reports } from '../harness/worker.mjs';
import { guildAtDiscord } from './world.mjs';

const UNKNOWN_GUILD = 8;

for (const language of Object.keys(LANGUAGES)) {
  test(`holdfast: ${language} sends commands`, { timeout: 120_000 }, async () => {
    const rabbitmq = await RabbitMq.open();
    let stage;
    try {
      stage = await Stage.open('holdfast', { ws: rabbitmq.settings() });
      for (const queue of ['commands.guild', 'requests.state']) await rabbitmq.declared(queue);
      const [, guild] = stage.simulator.guilds();
      const settings = {
        url: rabbitmq.url(rabbitmq.ofWorkers),
        prefix: rabbitmq.prefix,
        guild,
        playing: `from ${language}`,
      };
      await stage.withSaid(async () => {
        const said = await reports(stage, language, 'commands', settings);
        await assertAnswers(stage, guild, said);
        await until('op 3 at the simulator on every shard', async () => {
          const updates = await stage.simulator.records(3);
          const ours = updates.filter(({ d }) => d.status === 'idle' && d.activities[0]?.name === settings.playing);
          return new Set(ours.map(({ shard }) => shard[0])).size === stage.shards;
        });
        await stage.assertClean();
      });
    } finally {
      await stage?.close();
      await rabbitmq.close();
    }
  });
}

async function assertAnswers(stage, guild, said) {
  const atDiscord = await guildAtDiscord(stage, guild);
  for (const field of ['id', 'name', 'member_count']) assert.equal(said.guild.guild[field], atDiscord[field]);
  for (const list of ['channels', 'roles', 'members']) {
    assert.equal(said.guild.guild[list].length, atDiscord[list].length, list);
  }
  assert.equal(said.noGuild.code, UNKNOWN_GUILD);
  assert.equal(said.noMembers.code, UNKNOWN_GUILD);

  const ids = atDiscord.members.map((member) => member.user.id);
  assert.deepEqual(said.members.members.toSorted(), ids.toSorted());
  const shard = Number((BigInt(guild) >> 22n) % BigInt(stage.shards));
  const chunks = said.members.replies.length - 2;
  const kinds = ['accepted', ...Array(chunks).fill('members_chunk'), 'done'];
  assert.ok(chunks >= 1);
  assert.deepEqual(said.members.replies, kinds.map((kind, number) => [shard, number, kind]));

  const each = Array.from({ length: stage.shards }, (_, number) => [[number, 0, 'accepted'], [number, 1, 'done']]);
  assert.deepEqual(said.presence.replies.toSorted(), each.flat());
}
