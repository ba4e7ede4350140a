// SPDX-License-Identifier: AGPL-3.0-only
// REST as libraries speak it: directly, and through `holdfast api`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { REST } from '@discordjs/rest';
import { Routes } from 'discord-api-types/v10';
import { Api } from '../harness/api.mjs';
import { Program } from '../harness/program.mjs';
import { Simulator, TOKEN } from '../harness/simulator.mjs';

const TARGETS = (process.env.E2E_TARGETS ?? 'direct,holdfast').split(',');
const PYTHON = process.env.E2E_PYTHON ?? fileURLToPath(new URL('../.venv/bin/python', import.meta.url));

for (const target of TARGETS) {
  test(`REST, ${target}`, async (t) => {
    const simulator = await Simulator.start();
    const discord = `http://127.0.0.1:${simulator.port('control')}/api`;
    const api = target === 'holdfast' ? await Api.start(`${discord}/v10`) : null;
    const rest = api?.url ?? discord;
    const place = await somewhere(discord, simulator.guilds()[0]);
    try {
      await t.test('discord.js', () => discordJs(rest, place));
      await t.test('discord.py', () => discordPy(rest, place));
      const seen = await simulator.control('GET', 'rest');
      // Uploads and queries arrived as they were sent, and nobody was sent too often.
      assert.ok(seen.some(({ path }) => path.includes('/messages?limit=5')));
      assert.equal(seen.filter(({ status }) => status === 429).length, 0);
      if (api) assert.equal((await api.stop()).code, 0);
    } finally {
      await api?.stop();
      await simulator.stop();
    }
  });
}

/** A text channel of the guild, and a member. */
async function somewhere(discord, guild) {
  const ask = async (path) => {
    const answer = await fetch(`${discord}/v10${path}`, { headers: { authorization: `Bot ${TOKEN}` } });
    return answer.json();
  };
  const channels = await ask(`/guilds/${guild}/channels`);
  const me = await ask('/users/@me');
  return { guild, channel: channels.find(({ type }) => type === 0).id, member: me.id };
}

async function discordJs(api, { guild, channel, member }) {
  const rest = new REST({ api }).setToken(TOKEN);
  const message = await rest.post(Routes.channelMessages(channel), { body: { content: 'from discord.js' } });
  assert.equal(message.content, 'from discord.js');
  const files = [{ name: 'x.bin', data: Buffer.alloc(200_000, 'x') }];
  assert.ok((await rest.post(Routes.channelMessages(channel), { body: { content: 'with a file' }, files })).id);
  await rest.put(Routes.channelMessageOwnReaction(channel, '5', encodeURIComponent('🔥')));
  assert.equal((await rest.get(Routes.guildMember(guild, member))).user.id, member);
  await rest.get(Routes.channelMessages(channel), { query: new URLSearchParams({ limit: '5' }) });
  await assert.rejects(rest.get(Routes.channel('1')), { code: 10003, status: 404 });
}

async function discordPy(api, { guild, channel, member }) {
  let said = null;
  const bot = new Program('discord.py', PYTHON, [fileURLToPath(new URL('../bots/rest_py.py', import.meta.url))], {
    env: { E2E_BOT: JSON.stringify({ rest: api, token: TOKEN, guild, channel, member }) },
    onLine: (line, from) => {
      if (from === 'stdout') said = JSON.parse(line);
    },
  });
  assert.equal((await bot.exit).code, 0, String(bot.tail));
  assert.deepEqual(said, { message: 'from discord.py', upload: true, member, error: 10003 });
}
