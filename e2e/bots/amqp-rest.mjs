// SPDX-License-Identifier: AGPL-3.0-only
// Sends requests to Discord's REST API and messages by webhooks as examples/typescript-worker does, and reports what came
// of each.

import { DiscordError, Rest } from '../../examples/typescript-worker/dist/rest.js';
import { Refused } from '../../examples/typescript-worker/dist/asking.js';
import { Webhooks } from '../../examples/typescript-worker/dist/webhooks.js';

const { url, prefix, token, who, channel, webhooks: ids, each } = JSON.parse(process.env.E2E_BOT);
const messages = `/channels/${channel}/messages`;

const report = (e, details = {}) => process.stdout.write(`${JSON.stringify({ e, ...details })}\n`);

async function failure(asked) {
  try {
    await asked;
    return null;
  } catch (error) {
    if (error instanceof DiscordError) return { status: error.status, code: error.code };
    if (error instanceof Refused) return { refused: error.code };
    throw error;
  }
}

const rest = await Rest.open(url, token, prefix);
report('me', { id: (await rest.request('GET', '/users/@me')).id });
const sent = [];
for (const key of ['a', 'b', 'a']) {
  const { id, content } = await rest.request('POST', messages, { content: `${who} ${key}` }, { key: `${who}-${key}` });
  sent.push([id, content]);
}
report('messages', { sent });
report('unknown', await failure(rest.request('POST', '/channels/1/messages', { content: 'x' })));
report('invalid', await failure(rest.request('CONNECT', '/users/@me')));
await rest.close();

const webhooks = await Webhooks.open(url, prefix);
const say = (send, id, n) => send.call(webhooks, { id, token: 'webhook-token' }, { content: `${who} ${n}` }, `${who}-${id}-${n}`);
for (let n = 0; n < each; n += 1) for (const id of ids) await say(webhooks.send, id, n);
// What was sent before comes first; the last one twice.
const twice = [];
for (const _ of [0, 1]) {
  const { id, content } = await say(webhooks.sent, ids[0], each);
  twice.push([id, content]);
}
report('webhooks', { sent: twice });
report('nothing', await failure(webhooks.sent({ id: ids[0], token: 'webhook-token' }, { content: '' }, `${who}-nothing`)));
await webhooks.close();
report('over');
