// SPDX-License-Identifier: AGPL-3.0-only
// A discord.js bot as its users write it: only the REST base is not Discord's.

import Module from 'node:module';
import { answer, count, report, settings, wire } from './report.mjs';

if (settings.compression === null) {
  // As if the optional package had never been installed.
  const resolve = Module._resolveFilename;
  Module._resolveFilename = function without(name, ...rest) {
    if (name === 'zlib-sync') throw Object.assign(new Error(`without ${name}`), { code: 'MODULE_NOT_FOUND' });
    return resolve.call(this, name, ...rest);
  };
}

const { ActionRowBuilder, ActivityType, Client, Events, ModalBuilder, TextInputBuilder, TextInputStyle } = await import('discord.js');

const client = new Client({
  intents: settings.intents,
  rest: { api: settings.rest },
  ...(settings.shard ? { shards: [settings.shard[0]], shardCount: settings.shard[1] } : { shards: 'auto' }),
});

client.on(Events.Raw, wire);
client.on(Events.MessageCreate, (message) => count('handled', message.content));
client.on(Events.InteractionCreate, interact);
client.on(Events.ClientReady, () => report('ready'));
client.on(Events.ShardReady, (shard) => report('shard_ready', { shard }));
client.on(Events.ShardResume, (shard, replayed) => report('resumed', { shard, replayed }));
client.on(Events.ShardReconnecting, (shard) => report('disconnected', { shard }));
client.on(Events.ShardDisconnect, ({ code }, shard) => report('refused', { shard, code }));
client.on(Events.ShardError, (error, shard) => report('shard_error', { shard, error: String(error) }));
client.on(Events.Debug, (line) => process.stderr.write(`${line}\n`));

/** What a bot does with interactions, however they come: it answers by the REST API. */
async function interact(interaction) {
  const name = interaction.commandName ?? interaction.customId;
  report('interaction', { kind: interaction.type, name, interaction: interaction.id, guild: interaction.guildId });
  if (interaction.isAutocomplete()) {
    const word = interaction.options.getFocused();
    return interaction.respond([{ name: `${word}llo`, value: `${word}llo` }]);
  }
  if (interaction.isButton()) return interaction.update({ content: `${name} was pressed`, components: [] });
  if (interaction.isModalSubmit()) return interaction.reply(`you wrote ${interaction.fields.getTextInputValue('word')}`);
  if (name === 'form') return interaction.showModal(form());
  if (name === 'ping') return interaction.reply('pong');
  await interaction.deferReply();
  return interaction.editReply(`${name}, thought over`);
}

function form() {
  const word = new TextInputBuilder().setCustomId('word').setLabel('A word').setStyle(TextInputStyle.Short);
  const row = new ActionRowBuilder().addComponents(word);
  return new ModalBuilder().setCustomId('form').setTitle('A form').addComponents(row);
}

/** Counts per guild, in the world's words. Threads live among the channels here. */
function cache() {
  const guilds = {};
  for (const guild of client.guilds.cache.values()) {
    guilds[guild.id] = {
      available: guild.available,
      name: guild.name,
      channels: guild.channels.cache.filter((channel) => !channel.isThread()).size,
      threads: guild.channels.cache.filter((channel) => channel.isThread()).size,
      roles: guild.roles.cache.size,
      members: guild.members.cache.size,
      member_count: guild.memberCount,
      emojis: guild.emojis.cache.size,
      stickers: guild.stickers.cache.size,
      presences: guild.presences.cache.size,
      voice_states: guild.voiceStates.cache.size,
      stage_instances: guild.stageInstances.cache.size,
      guild_scheduled_events: guild.scheduledEvents.cache.size,
    };
  }
  return guilds;
}

async function members({ guild, query, users }) {
  const manager = client.guilds.cache.get(guild).members;
  if (users) return (await manager.fetch({ user: users })).map((member) => member.id);
  if (query !== undefined) return (await manager.fetch({ query, limit: 100 })).map((member) => member.id);
  return (await manager.fetch()).map((member) => member.id);
}

/** Joins as voice libraries do: through the adapter, which hands both events over. */
function voice({ guild, channel }) {
  const adapter = client.guilds.cache.get(guild).voiceAdapterCreator({
    onVoiceStateUpdate: (data) => report('voice_state', { data }),
    onVoiceServerUpdate: (data) => report('voice_server', { data }),
    destroy() {},
  });
  const sent = adapter.sendPayload({
    op: 4,
    d: { guild_id: guild, channel_id: channel, self_mute: false, self_deaf: true },
  });
  if (!sent) throw new Error('the adapter refused the payload');
}

answer({
  cache,
  members,
  voice,
  presence: ({ name }) => {
    client.user.setPresence({ status: 'idle', activities: [{ name, type: ActivityType.Playing }] });
  },
});

client.login(settings.token).catch((error) => report('login_failed', { error: String(error), code: error.code }));
