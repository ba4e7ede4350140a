// SPDX-License-Identifier: AGPL-3.0-only
// A worker for interactions as in examples/typescript-worker, with handlers that are slow, say nonsense or say it twice,
// and one for webhook events. Reports what arrives.

import { once } from 'node:events';
import { createRequire } from 'node:module';
import { setTimeout as pause } from 'node:timers/promises';
import amqp from 'amqplib';
import { WebhookEventSchema } from '../../examples/typescript-worker/dist/gen/holdfast/v1/interaction_pb.js';
import { serve } from '../../examples/typescript-worker/dist/interactions.js';

// The example's own: it isn't installed here.
const { fromBinary } = createRequire(new URL('../../examples/typescript-worker/dist/', import.meta.url))('@bufbuild/protobuf');

const { url, prefix } = JSON.parse(process.env.E2E_BOT);

/** One line, written before anything else happens: what was taken before kill -9 is known. */
const report = (e, details = {}) => process.stdout.write(`${JSON.stringify({ e, ...details })}\n`);

const told = once(process.stdin.setEncoding('utf8'), 'data');
// Nobody asks any more: the scenario is over, however it ended.
process.stdin.on('end', () => process.exit());

const message = (content) => ({ type: 4, data: { content } });

const gives = (response, seconds = 0) => async () => {
  await pause(seconds * 1_000);
  return response;
};

const givesAfter = (event, response) => async () => {
  await event;
  return response;
};

const twice = (seconds) => async (asked) => {
  await pause(seconds * 1_000);
  await asked.reply(message('once'));
  return message('twice');
};

async function again(asked) {
  await asked.reply(message('once'));
  await pause(2_500);
  return message('again');
}

async function nonsense(asked) {
  // A deferred update answers no command.
  await asked.reply({ type: 6 });
  await pause(2_500);
  return message('sense');
}

async function find({ data }) {
  const word = `${data.data.options[0].value}llo`;
  return { type: 8, data: { choices: [{ name: word, value: word }] } };
}

const row = { type: 1, components: [{ type: 4, custom_id: 'word', label: 'A word', style: 1 }] };

const HANDLERS = {
  'command.ping': gives(message('pong')),
  'command.form': gives({ type: 9, data: { custom_id: 'form', title: 'A form', components: [row] } }),
  'component.vote': gives({ type: 7, data: { content: 'voted' } }),
  'autocomplete.find': find,
  'modal.form': gives(message('read')),
  'command.after-1': gives(message('after 1 s'), 1),
  'command.after-2.5': gives(message('after 2.5 s'), 2.5),
  'command.after-10': gives(message('after 10 s'), 10),
  'component.after-2.5': gives({ type: 7, data: { content: 'voted late' } }, 2.5),
  'autocomplete.after-2.5': gives({ type: 8, data: { choices: [] } }, 2.5),
  'command.never': givesAfter(new Promise(() => {})),
  'command.told': givesAfter(told, message('as told')),
  'command.twice': twice(0),
  'command.twice-late': twice(2.5),
  'command.again': again,
  'component.again': again,
  'command.nonsense': nonsense,
};

const reported = (handler) => async (asked) => {
  report('asked', { key: asked.key, id: asked.data.id });
  return handler(asked);
};

/** Webhook events, each acknowledged when it has been handled. */
async function events() {
  const connection = await amqp.connect(url);
  connection.on('error', () => {});
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue(`${prefix}.webhook-events.worker`, { durable: true });
  await channel.bindQueue(queue, `${prefix}.webhook-events`, '#');
  await channel.consume(queue, (delivery) => {
    const { type, messageId } = delivery.properties;
    const { name, hash, body } = fromBinary(WebhookEventSchema, delivery.content);
    const { data } = JSON.parse(new TextDecoder().decode(body)).event;
    report('event', { type, name, data, known: messageId === hash });
    channel.ack(delivery);
  });
  report('bound');
}

await events();
const handlers = Object.fromEntries(Object.entries(HANDLERS).map(([key, handler]) => [key, reported(handler)]));
await serve(url, `${prefix}.interactions.worker`, handlers, prefix);
