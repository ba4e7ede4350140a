// SPDX-License-Identifier: AGPL-3.0-only
// @discordjs/ws without a framework: what a gateway service of somebody's own looks like. Keeps raw
// GUILD_CREATEs, and with `sessions` its sessions in a file, so that it resumes after kill -9.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { REST } from '@discordjs/rest';
import { CompressionMethod, WebSocketManager, WebSocketShardEvents } from '@discordjs/ws';
import { answer, count, report, settings, wire } from './report.mjs';

const rest = new REST({ api: settings.rest, version: '10' }).setToken(settings.token);

const kept = settings.sessions && existsSync(settings.sessions) ? readFileSync(settings.sessions, 'utf8') : '[]';
const sessions = new Map(JSON.parse(kept));
/** The same, with the sequence of what has been handled. */
const handled = new Map(sessions);

const manager = new WebSocketManager({
  token: settings.token,
  intents: settings.intents,
  rest,
  compression: { 'zlib-sync': CompressionMethod.ZlibSync, zlib: CompressionMethod.ZlibNative }[settings.compression] ?? null,
  useIdentifyCompression: settings.compression === 'payload',
  ...(settings.shard ? { shardIds: [settings.shard[0]], shardCount: settings.shard[1] } : {}),
  retrieveSessionInfo: (shard) => sessions.get(shard) ?? null,
  updateSessionInfo: (shard, session) => {
    if (session) sessions.set(shard, session);
    else sessions.delete(shard);
  },
});

/** guild id → the `d` of its last GUILD_CREATE */
const guilds = new Map();
/** shard → ids that READY announced and that have not come yet */
const expected = new Map();

function dispatch(payload, shard) {
  const { t, d } = payload;
  if (t === 'READY') expected.set(shard, new Set(d.guilds.map((guild) => guild.id)));
  if (t === 'READY') report('welcome', { shard, d });
  if (t === 'GUILD_CREATE') guilds.set(d.id, d);
  wire(payload, shard);
  if (t === 'MESSAGE_CREATE') count('handled', d.content ?? '');
  if (t === 'GUILD_CREATE' || t === 'GUILD_DELETE' || t === 'READY') arrived(shard, d.id);
  // After the message has been counted: what the file says was received was received.
  if (settings.sessions) keep(shard, payload.s);
}

/**
 * Whole or not at all: kill -9 may come at any moment. The library's own sequence is ahead: it has
 * counted all that came in the same read before it hands the first of it over.
 */
function keep(shard, sequence) {
  handled.set(shard, { ...sessions.get(shard), sequence });
  writeFileSync(`${settings.sessions}.new`, JSON.stringify([...handled]));
  renameSync(`${settings.sessions}.new`, settings.sessions);
}

let announced = false;
function arrived(shard, guild) {
  expected.get(shard)?.delete(guild);
  const shards = settings.shard ? 1 : settings.shards;
  if (!announced && expected.size >= shards && [...expected.values()].every((left) => left.size === 0)) {
    announced = true;
    report('ready');
  }
}

// Version 2 emits (value, shard).
manager.on(WebSocketShardEvents.Dispatch, dispatch);
manager.on(WebSocketShardEvents.Resumed, (shard) => report('resumed', { shard }));
manager.on(WebSocketShardEvents.Ready, (_, shard) => report('shard_ready', { shard }));
manager.on(WebSocketShardEvents.Closed, (code, shard) => {
  const fatal = [4004, 4010, 4011, 4012, 4013, 4014].includes(code);
  report(fatal ? 'refused' : 'disconnected', { code, shard });
});
manager.on(WebSocketShardEvents.Error, (error, shard) => report('shard_error', { shard, error: String(error) }));
manager.on(WebSocketShardEvents.SocketError, (error, shard) => process.stderr.write(`socket ${shard}: ${error}\n`));
manager.on(WebSocketShardEvents.Debug, (line, shard) => process.stderr.write(`shard ${shard}: ${line}\n`));

const COUNTED = [
  'channels',
  'threads',
  'roles',
  'members',
  'emojis',
  'stickers',
  'presences',
  'voice_states',
  'stage_instances',
  'guild_scheduled_events',
  'soundboard_sounds',
];

function cache() {
  const counts = {};
  for (const [id, guild] of guilds) {
    counts[id] = { available: !guild.unavailable, name: guild.name, member_count: guild.member_count };
    for (const kind of COUNTED) counts[id][kind] = guild[kind]?.length ?? null;
  }
  return counts;
}

const shardOf = (guild) => Number((BigInt(guild) >> 22n) % BigInt(settings.shard?.[1] ?? settings.shards));

async function members({ guild, query, users, nonce }) {
  const ids = [];
  let received = 0;
  const done = new Promise((resolve, reject) => {
    manager.on(WebSocketShardEvents.Dispatch, ({ t, d }) => {
      if (t === 'RATE_LIMITED') reject(new Error(JSON.stringify(d)));
      if (t !== 'GUILD_MEMBERS_CHUNK' || d.nonce !== nonce) return;
      ids.push(...d.members.map((member) => member.user.id));
      received += 1;
      if (received === d.chunk_count) resolve();
    });
  });
  const d = users ? { user_ids: users } : { query: query ?? '', limit: query ? 100 : 0 };
  await manager.send(shardOf(guild), { op: 8, d: { guild_id: guild, nonce, ...d } });
  await done;
  return ids;
}

answer({
  cache,
  members,
  guilds: () => Object.fromEntries(guilds),
  send: ({ shard, payload }) => manager.send(shard, payload),
  voice: ({ guild, channel }) =>
    manager.send(shardOf(guild), {
      op: 4,
      d: { guild_id: guild, channel_id: channel, self_mute: false, self_deaf: true },
    }),
  presence: async ({ name }) => {
    const shards = settings.shard ? [settings.shard[0]] : [...Array(settings.shards).keys()];
    for (const shard of shards) {
      await manager.send(shard, {
        op: 3,
        d: { since: null, activities: [{ name, type: 0 }], status: 'idle', afk: false },
      });
    }
  },
});

manager.connect().catch((error) => report('login_failed', { error: String(error) }));
