// SPDX-License-Identifier: AGPL-3.0-only
// In: RabbitMQ's address. Out: names there that no other stage has, what Holdfast's settings say of them, and two
// relays, by which Holdfast and its workers reach it and can be cut off. Takes the names away at the end.

import amqp from 'amqplib';
import { randomBytes } from 'node:crypto';
import { Cutter } from './cutter.mjs';
import { until } from './until.mjs';

const URL_ = new URL(process.env.E2E_AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2f');

/** What Holdfast and its workers declare. What isn't there is deleted without complaint. */
const QUEUES = [
  'messages',
  'commands.guild',
  'requests.state',
  'requests.rest',
  'interactions.late',
  'interactions.worker',
  'webhook-events.worker',
  ...[0, 1, 2, 3].map((partition) => `webhook.${partition}`),
];
const EXCHANGES = ['events', 'dead', 'commands', 'requests', 'interactions', 'webhook', 'webhook-events'];

export class RabbitMq {
  prefix = `e2e-${randomBytes(6).toString('hex')}`;
  #cutters = [];
  #connection;

  static async open() {
    const rabbitmq = new RabbitMq();
    rabbitmq.#connection = await amqp.connect(URL_.href);
    for (const _ of [0, 1]) {
      const cutter = await Cutter.open();
      cutter.leadTo(Number(URL_.port || 5672), Number(URL_.port || 5672));
      rabbitmq.#cutters.push(cutter);
    }
    return rabbitmq;
  }

  /** Between Holdfast and RabbitMQ. */
  get ofHoldfast() {
    return this.#cutters[0];
  }

  /** Between the workers and RabbitMQ. */
  get ofWorkers() {
    return this.#cutters[1];
  }

  /** The address that leads through a cutter. */
  url(cutter) {
    const url = new URL(URL_);
    [url.hostname, url.port] = ['127.0.0.1', cutter.ports[0]];
    return url.href;
  }

  get queue() {
    return `${this.prefix}.messages`;
  }

  /** Lines for Holdfast's settings, behind those of the section `[ws]`. */
  settings() {
    return [
      '[[ws.amqp.queues]]',
      'name = "messages"',
      'bindings = ["MESSAGE_CREATE.#", "GUILD_CREATE.#", "HOLDFAST_GAP.#"]',
      'single_active_consumer = true',
      ...this.broker(),
    ];
  }

  /** The section `[broker]`. */
  broker() {
    return [
      '[broker]',
      `url = "${this.url(this.ofHoldfast)}"`,
      `prefix = "${this.prefix}"`,
      'reconnect_max = "500ms"',
    ];
  }

  /** The next event that Holdfast publishes, as it is on the wire. */
  async capture(provoke) {
    const channel = await this.#connection.createChannel();
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, `${this.prefix}.events`, '#');
    let captured = null;
    await channel.consume(queue, (delivery) => (captured ??= delivery), { noAck: true });
    await provoke();
    await until('an event is published', () => captured);
    await channel.close();
    return captured;
  }

  /** Publishes an event as its shard's owner of another generation would, under another id. */
  async forge(captured, { generation, position }) {
    const channel = await this.#connection.createConfirmChannel();
    // Of a field that is given twice, readers take the last: position is field 6, generation field 8.
    const body = Buffer.concat([captured.content, varint((6 << 3) | 0), varint(position), varint((8 << 3) | 0), varint(generation)]);
    const messageId = `${captured.properties.messageId.split(':')[0]}:${position}`;
    channel.publish(captured.fields.exchange, captured.fields.routingKey, body, { ...captured.properties, messageId });
    await channel.waitForConfirms();
    await channel.close();
    return messageId;
  }

  /** Waits until somebody has declared a queue. */
  async declared(queue) {
    await until(`${queue} is declared`, async () => {
      // A queue that isn't there ends the channel.
      const channel = await this.#connection.createChannel();
      channel.on('error', () => {});
      const found = await channel.checkQueue(`${this.prefix}.${queue}`).catch(() => null);
      if (found) await channel.close();
      return found;
    });
  }

  /** Waits until a queue holds so many messages. */
  async holds(queue, count) {
    const channel = await this.#connection.createChannel();
    await until(`${queue} holds ${count}`, async () => {
      return (await channel.checkQueue(`${this.prefix}.${queue}`)).messageCount >= count;
    });
    await channel.close();
  }

  async close() {
    const channel = await this.#connection.createChannel();
    for (const queue of QUEUES) await channel.deleteQueue(`${this.prefix}.${queue}`);
    for (const exchange of EXCHANGES) await channel.deleteExchange(`${this.prefix}.${exchange}`);
    await this.#connection.close();
    for (const cutter of this.#cutters) await cutter.close();
  }
}

/** Protobuf's variable-length number. */
function varint(number) {
  const bytes = [];
  for (let rest = BigInt(number); ; rest >>= 7n) {
    if (rest < 128n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 127n) | 128);
  }
}
