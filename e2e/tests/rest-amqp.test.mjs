// SPDX-License-Identifier: AGPL-3.0-only
// Workers ask Discord's REST API and send messages by webhooks, through RabbitMQ and `holdfast up`, as the examples do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RabbitMq } from '../harness/rabbitmq.mjs';
import { TOKEN } from '../harness/simulator.mjs';
import { Stage } from '../harness/stage.mjs';
import { until } from '../harness/until.mjs';
import { LANGUAGES, reports } from '../harness/worker.mjs';
import { guildAtDiscord } from './world.mjs';

const SERVICES = ['[api]', 'listen = "127.0.0.1:0"', '[webhook]'];
const WEBHOOKS = ['1181384788765712385', '1181384788765712386', '1181384788765712387'];
/** Messages by each webhook. */
const EACH = 10;

/** Codes of the contract, and Discord's. */
const [INVALID_ARGUMENT, REFUSED_BY_DISCORD, UNKNOWN_CHANNEL] = [3, 12, 10003];

for (const language of Object.keys(LANGUAGES)) {
  test(`holdfast: ${language} asks by AMQP, and sends by webhooks`, { timeout: 60_000 }, async () => {
    const rabbitmq = await RabbitMq.open();
    let stage;
    try {
      stage = await Stage.open('holdfast', { shards: 1, ws: [...rabbitmq.broker(), ...SERVICES] });
      await rabbitmq.declared('requests.rest');
      const [guild] = stage.simulator.guilds();
      const { channels } = await guildAtDiscord(stage, guild);
      const channel = channels.find(({ type }) => type === 0).id;
      const url = rabbitmq.url(rabbitmq.ofWorkers);
      const settings = { url, prefix: rabbitmq.prefix, token: TOKEN, who: language, channel, webhooks: WEBHOOKS, each: EACH };
      await stage.withSaid(async () => {
        const said = await reports(stage, language, 'rest', settings);
        await assertRequests(stage, said, language, channel);
        await assertMessages(stage, said, language);
        await stage.assertClean();
      });
    } finally {
      await stage?.close();
      await rabbitmq.close();
    }
  });
}

async function assertRequests({ simulator }, { me, messages, unknown, invalid }, who, channel) {
  assert.match(me.id, /^\d+$/);
  const [a, b, again] = messages.sent;
  assert.deepEqual([a[1], b[1]], [`${who} a`, `${who} b`]);
  assert.notEqual(a[0], b[0]);
  // The same idempotency key: the answer of the first time.
  assert.deepEqual(again, a);
  assert.deepEqual(unknown, { status: 404, code: UNKNOWN_CHANNEL });
  assert.deepEqual(invalid, { refused: INVALID_ARGUMENT });
  // And Discord was asked once for each.
  const seen = await simulator.control('GET', 'rest');
  const of = (end) => seen.filter(({ method, path }) => method === 'POST' && path.endsWith(end)).map(({ status }) => status);
  assert.deepEqual(of(`/channels/${channel}/messages`), [200, 200]);
  assert.deepEqual(of('/channels/1/messages'), [404]);
}

async function assertMessages({ simulator }, { webhooks, nothing }, who) {
  const [first, again] = webhooks.sent;
  assert.equal(first[1], `${who} ${EACH}`);
  assert.deepEqual(again, first);
  assert.deepEqual(nothing, { refused: REFUSED_BY_DISCORD });
  // Of the other webhooks nobody was told when they were done.
  const sent = await until('all messages', async () => {
    const all = await simulator.webhookMessages();
    return all.length >= WEBHOOKS.length * EACH + 1 && all;
  });
  for (const [index, id] of WEBHOOKS.entries()) {
    const contents = sent.filter(({ webhook }) => webhook === id).map(({ body }) => body.content);
    const count = EACH + (index === 0 ? 1 : 0);
    assert.deepEqual(contents, Array.from({ length: count }, (_, n) => `${who} ${n}`));
  }
}
