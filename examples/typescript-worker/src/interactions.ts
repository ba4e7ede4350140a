// SPDX-License-Identifier: AGPL-3.0-only
// Answers what users do: commands, buttons, modals, as Discord posts them to Holdfast. In: handlers by routing key. Out:
// their responses. The rules are in docs/contract.md, "Interactions by AMQP".

import { setTimeout as pause } from 'node:timers/promises';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { connect, type ConfirmChannel, type ConsumeMessage } from 'amqplib';
import { InteractionReplySchema, InteractionSchema, type Interaction } from './gen/holdfast/v1/interaction_pb.js';

/** Handled at once. */
const AT_ONCE = 64;

/** What waits here at most when no worker runs: each goes by itself when nobody can answer it any more. */
const MAX_LENGTH = 10_000;

const PAUSE_MS = 1_000;

/** Types of responses that say that more follows, by kind; others are refused. */
const DEFERRALS: Record<string, number[]> = { command: [5], component: [5, 6], modal: [5, 6] };

/** An interaction response, as Discord's documentation has it. */
export interface InteractionResponse {
  type: number;
  data?: object;
}

/** Gives the response, or nothing if it has replied itself. */
export type Handler = (asked: Asked) => Promise<InteractionResponse | void>;

/** Nothing can be made of a reply any more. */
export class TooLate extends Error {}

/** An interaction that waits for its answer. `key` says what it is, `data` is Discord's JSON. */
export class Asked {
  readonly key: string;
  readonly data: any;
  readonly #interaction: Interaction;
  #deferredWith = 0;

  constructor(
    readonly delivery: ConsumeMessage,
    readonly channel: ConfirmChannel,
    readonly prefix: string,
  ) {
    this.key = delivery.fields.routingKey;
    this.#interaction = fromBinary(InteractionSchema, delivery.content);
    this.data = JSON.parse(new TextDecoder().decode(this.#interaction.body));
  }

  async reply(response: InteractionResponse): Promise<void> {
    const { ticket, answerByMs, lateUntilMs } = this.#interaction;
    const { replyTo, correlationId } = this.delivery.properties;
    const now = Date.now();
    const inTime = now < answerByMs;
    const deferredWith = this.#deferredWith;
    if (!inTime && !deferredWith && now >= lateUntilMs) throw new TooLate();
    const body = new TextEncoder().encode(JSON.stringify(response));
    const fields = { schema: 1, ticket, body, deferredWith };
    const reply = toBinary(InteractionReplySchema, create(InteractionReplySchema, fields));
    const properties = {
      type: InteractionReplySchema.typeName,
      contentType: 'application/x-protobuf',
      correlationId,
      persistent: true,
      // Only a queue can be: RabbitMQ returns what goes to a direct reply-to so.
      mandatory: !inTime,
    };
    // In time: straight to who asked, as the answer. Later Discord has been told to wait, and the reply goes to a queue
    // that outlives who asked.
    const to = inTime ? replyTo : `${this.prefix}.interactions.late`;
    await new Promise<void>((done, failed) => {
      this.channel.publish('', to, Buffer.from(reply), properties, (error) => (error ? failed(error) : done()));
    });
    // Discord has been told to wait by us: what follows becomes what fits that.
    const [kind] = this.key.split('.');
    if (DEFERRALS[kind!]?.includes(response.type)) this.#deferredWith = response.type;
  }
}

/**
 * `handlers`: routing key, such as `command.ping` or `component.vote`, to what is done. Connects again whenever the
 * connection ends.
 */
export async function serve(url: string, queue: string, handlers: Record<string, Handler>, prefix = 'holdfast'): Promise<never> {
  for (;;) {
    try {
      await session(url, queue, handlers, prefix);
    } catch (error) {
      console.warn(`no connection to RabbitMQ: ${(error as Error).message}`);
    }
    await pause(PAUSE_MS);
  }
}

/** One connection, from its beginning to its end, which is always an error. */
async function session(url: string, queue: string, handlers: Record<string, Handler>, prefix: string): Promise<void> {
  const connection = await connect(url);
  try {
    await new Promise<never>((_, end) => {
      connection.on('error', end);
      connection.on('close', () => end(new Error('the connection was closed')));
      const begin = async () => {
        const channel = await connection.createConfirmChannel();
        channel.on('error', end);
        channel.on('return', () => end(new Error('no queue takes late replies')));
        await channel.prefetch(AT_ONCE);
        // Durable: what comes while no worker runs waits.
        await channel.assertQueue(queue, { durable: true, maxLength: MAX_LENGTH });
        for (const key of Object.keys(handlers)) await channel.bindQueue(queue, `${prefix}.interactions`, key);
        const take = async (delivery: ConsumeMessage) => {
          if (delivery.properties.type === InteractionSchema.typeName) await answer(new Asked(delivery, channel, prefix), handlers);
          channel.ack(delivery);
        };
        await channel.consume(queue, (delivery) => {
          if (!delivery) return end(new Error('the queue was deleted'));
          // What isn't acknowledged comes again with the next connection.
          take(delivery).catch(end);
        });
      };
      begin().catch(end);
    });
  } finally {
    await connection.close().catch(() => {});
  }
}

/** Handle it, reply; whoever called acknowledges it. What comes again after a crash is handled again. */
async function answer(asked: Asked, handlers: Record<string, Handler>): Promise<void> {
  let response: InteractionResponse | void;
  try {
    response = await handlers[asked.key]!(asked);
  } catch (error) {
    // What the user is to be told then, the handler knows best. Coming again would do it no good.
    console.error(`${asked.key} failed`, error);
    return;
  }
  try {
    if (response) await asked.reply(response);
  } catch (error) {
    if (!(error instanceof TooLate)) throw error;
    console.warn(`${asked.key} took too long`);
  }
}
