// SPDX-License-Identifier: AGPL-3.0-only
// Prints every message that the bot sees. Replace `handle` by what your bot does.

import { consume } from './consumer.js';
import type { Event, Gap } from './gen/holdfast/v1/event_pb.js';

const url = process.env.AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2f';
const queue = process.env.QUEUE ?? 'holdfast.messages';

async function handle(message: Event | Gap): Promise<void> {
  if (message.$typeName === 'holdfast.v1.Gap') {
    // Whoever keeps state of the shard's guilds reads it anew here.
    console.log(`shard ${message.shard}: events may be missing between ${message.from} and ${message.to}`);
    return;
  }
  // The same JSON that Discord's gateway sends as `d`.
  const data = JSON.parse(new TextDecoder().decode(message.data));
  const text = String(data.content).slice(0, 80);
  console.log(`shard ${message.shard}  guild ${message.guildId}  ${data.author.username}: ${text}`);
}

await consume(url, queue, handle);
