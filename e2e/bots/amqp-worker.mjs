// SPDX-License-Identifier: AGPL-3.0-only
// The worker of examples/typescript-worker, reporting what arrives and what it handles.

import { consume } from '../../examples/typescript-worker/dist/consumer.js';
import { Inbox } from '../../examples/typescript-worker/dist/inbox.js';

const settings = JSON.parse(process.env.E2E_BOT);

/** The guild and number of one of the simulator's messages. */
function number(message) {
  if (message.$typeName !== 'holdfast.v1.Event') return {};
  const found = /^sim (\d+) (\d+)/.exec(JSON.parse(new TextDecoder().decode(message.data)).content ?? '');
  if (!found) return {};
  if (message.guildId !== found[1]) throw new Error(`guild ${message.guildId} isn't exact`);
  return { g: found[1], n: Number(found[2]) };
}

/** One line, written before anything else happens: what was handled before kill -9 is counted. */
function report(e, message, details = {}) {
  const { name, shard, stream } = message;
  const of = message.$typeName === 'holdfast.v1.Event'
    ? { position: Number(message.position), ...number(message) }
    : { from: Number(message.from), to: Number(message.to), reason: message.reason };
  const generation = Number(message.generation);
  process.stdout.write(`${JSON.stringify({ e, name, shard, stream, generation, ...of, ...details })}\n`);
}

class ReportedInbox extends Inbox {
  judge(message, id, redelivered) {
    const verdict = super.judge(message, id, redelivered);
    report('arrived', message, { id, redelivered, verdict });
    return verdict;
  }
}

async function handle(message) {
  const { g, n } = number(message);
  if (settings.failOn && g === settings.failOn.g && n === settings.failOn.n) throw new Error('as asked');
  report('handled', message);
}

// Nobody asks any more: the scenario is over, however it ended.
process.stdin.on('end', () => process.exit()).resume();

await consume(settings.url, settings.queue, handle, new ReportedInbox());
