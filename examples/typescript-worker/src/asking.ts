// SPDX-License-Identifier: AGPL-3.0-only
// Sends requests through RabbitMQ and takes what answers them. In: messages of the contract. Out: the bodies that answer
// each, by its correlation id. The rules are in docs/contract.md, "Properties and headers".

import { randomUUID } from 'node:crypto';
import { EventEmitter, on } from 'node:events';
import { create, toBinary, type DescMessage, type MessageInitShape } from '@bufbuild/protobuf';
import { connect, type ChannelModel, type ConfirmChannel, type ConsumeMessage, type Options } from 'amqplib';
import type { Error as Problem } from './gen/holdfast/v1/error_pb.js';

/** RabbitMQ hands what is sent there to the channel that asked, without a queue. */
const REPLY_TO = 'amq.rabbitmq.reply-to';

/**
 * Holdfast says no. `code` is an ErrorCode; its range says what to do: from 1 to 99 don't repeat it; from 100 to 199 it
 * wasn't done and may succeed later; from 200 to 299 nobody knows whether it was done.
 */
export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message);
  }

  get code(): number {
    return this.problem.code;
  }
}

/** Where a message goes: an exchange, without the prefix, and a key. */
export type Destination = [exchange: string, key: string];

/** One connection for what a worker sends. */
export class Asking {
  /** Emits the body of each reply under its correlation id. */
  #replies = new EventEmitter();
  /** Emits the id of each message that no queue took. */
  #returned = new EventEmitter();

  private constructor(
    readonly prefix: string,
    readonly connection: ChannelModel,
    readonly channel: ConfirmChannel,
  ) {}

  static async open(url: string, prefix: string): Promise<Asking> {
    const connection = await connect(url);
    const channel = await connection.createConfirmChannel();
    const asking = new Asking(prefix, connection, channel);
    const take = (reply: ConsumeMessage | null) => void (reply && asking.#replies.emit(reply.properties.correlationId, reply.content));
    await channel.consume(REPLY_TO, take, { noAck: true });
    channel.on('return', ({ properties }) => void asking.#returned.emit(properties.messageId));
    return asking;
  }

  close(): Promise<void> {
    return this.connection.close();
  }

  /** Resolves when RabbitMQ has it, and rejects if it doesn't want it: it is full, or no queue is there. */
  async publish<D extends DescMessage>(
    [exchange, key]: Destination,
    schema: D,
    message: MessageInitShape<D>,
    seconds: number,
    options: Options.Publish = {},
  ): Promise<void> {
    const id = options.messageId ?? randomUUID();
    const body = Buffer.from(toBinary(schema, create(schema, message)));
    const late = AbortSignal.timeout(seconds * 1000);
    try {
      await new Promise<void>((done, failed) => {
        late.addEventListener('abort', () => failed(late.reason));
        // This comes before the confirm.
        this.#returned.once(id, () => failed(new Error(`no queue takes ${exchange}`)));
        const properties = { ...options, messageId: id, type: schema.typeName, contentType: 'application/x-protobuf', mandatory: true };
        this.channel.publish(`${this.prefix}.${exchange}`, key, body, properties, (error) => (error ? failed(error) : done()));
      });
    } finally {
      this.#returned.removeAllListeners(id);
    }
  }

  /** Gives the bodies that answer it, until nobody wants any more or the time is over. */
  async *ask<D extends DescMessage>(
    to: Destination,
    schema: D,
    message: MessageInitShape<D>,
    seconds: number,
    options: Options.Publish = {},
  ): AsyncGenerator<Buffer> {
    const correlationId = randomUUID();
    const replies = on(this.#replies, correlationId, { signal: AbortSignal.timeout(seconds * 1000) });
    await this.publish(to, schema, message, seconds, { ...options, correlationId, replyTo: REPLY_TO });
    for await (const [reply] of replies) yield reply;
  }
}
