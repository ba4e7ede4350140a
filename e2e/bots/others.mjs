// SPDX-License-Identifier: AGPL-3.0-only
// Libraries in JavaScript by the lines that docs/guides/connect.md gives, and nothing else: each says when it is ready,
// and counts the messages that reach a bot's own handler.

import { count, report, settings } from './report.mjs';

const guilds = Number(settings.guilds);
const message = (content) => ['wire', 'handled'].forEach((place) => count(place, content));

/** A library, and what of it there is; each bot is ready once all guilds are there. */
const LIBRARIES = {
  async eris() {
    const { Client } = await import('eris');
    const client = new Client(`Bot ${settings.token}`, { intents: settings.intents, maxShards: settings.shards });
    client.getGateway = client.getBotGateway = async () => ({ url: settings.gateway, shards: settings.shards });
    client.on('ready', () => client.guilds.size === guilds && report('ready'));
    client.on('messageCreate', ({ content }) => message(content));
    client.on('error', (error) => process.stderr.write(`${error.stack}\n`));
    await client.connect();
  },

  oceanic: () => oceanic({
    rest: { baseURL: `${settings.rest}/v10` },
    gateway: { intents: settings.intents, maxShards: 'auto' },
  }),

  oceanicByAddress: () => oceanic({
    gateway: {
      intents: settings.intents,
      maxShards: settings.shards,
      concurrency: settings.shards,
      override: { url: async () => `${settings.gateway}/?v=10&encoding=json`, timeBetweenShardConnects: 0 },
    },
  }),

  async discordeno() {
    const { createBot } = await import('@discordeno/bot');
    const expected = new Set();
    let shards = 0;
    const bot = createBot({
      token: settings.token,
      intents: settings.intents,
      rest: { proxy: { baseUrl: settings.rest, authorization: `Bot ${settings.token}` } },
      desiredProperties: { message: { content: true }, guild: { id: true } },
      events: {
        ready: (payload) => {
          shards += 1;
          payload.guilds.forEach((id) => expected.add(id));
        },
        guildCreate: ({ id }) => {
          expected.delete(id);
          if (shards === settings.shards && expected.size === 0) report('ready');
        },
        messageCreate: ({ content }) => message(content),
      },
    });
    await bot.start();
  },
};

async function oceanic(options) {
  const { Client } = await import('oceanic.js');
  const client = new Client({ auth: `Bot ${settings.token}`, ...options });
  client.on('ready', () => client.guilds.size === guilds && report('ready'));
  client.on('messageCreate', ({ content }) => message(content));
  client.on('error', (error) => process.stderr.write(`${error?.stack ?? error}\n`));
  await client.connect();
}

await LIBRARIES[settings.library]();
