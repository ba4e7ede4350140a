// SPDX-License-Identifier: AGPL-3.0-only
// Sends commands as examples/typescript-worker does, and reports what came of each.

import { Commands, Refused } from '../../examples/typescript-worker/dist/commands.js';

const settings = JSON.parse(process.env.E2E_BOT);
const { guild, playing } = settings;
const NO_GUILD = '4';

const report = (e, details = {}) => process.stdout.write(`${JSON.stringify({ e, ...details })}\n`);

async function refusal(asked) {
  try {
    await asked;
    return null;
  } catch (error) {
    if (error instanceof Refused) return error.code;
    throw error;
  }
}

/** The names of the .proto file. */
const kind = ({ reply }) => reply.case.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

async function kinds(replies) {
  const all = [];
  for await (const reply of replies) all.push([reply.shard, reply.number, kind(reply)]);
  return all;
}

const membersOf = (guildId) => ({
  target: { case: 'guildId', value: guildId },
  payload: { case: 'requestGuildMembers', value: { query: '' } },
});

const commands = await Commands.open(settings.url, settings.prefix);
report('guild', { guild: await commands.guild(guild) });
report('noGuild', { code: await refusal(commands.guild(NO_GUILD)) });

const members = [];
const replies = [];
for await (const reply of commands.send(membersOf(guild))) {
  replies.push([reply.shard, reply.number, kind(reply)]);
  if (reply.reply.case !== 'membersChunk') continue;
  const chunk = JSON.parse(new TextDecoder().decode(reply.reply.value.data));
  members.push(...chunk.members.map((member) => member.user.id));
}
report('members', { members, replies });
report('noMembers', { code: await refusal(kinds(commands.send(membersOf(NO_GUILD)))) });

const presence = {
  target: { case: 'all', value: {} },
  payload: { case: 'updatePresence', value: { status: 'idle', activities: [{ name: playing }] } },
};
report('presence', { replies: await kinds(commands.send(presence)) });
report('over');
await commands.close();
