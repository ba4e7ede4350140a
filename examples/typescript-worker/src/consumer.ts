// SPDX-License-Identifier: AGPL-3.0-only
// Receives what Holdfast publishes, one after the other. In: a queue's name. Out: calls of `handle`, in order.
// The rules are in docs/contract.md, "Consumers that need order".

import { setTimeout as pause } from 'node:timers/promises';
import { fromBinary } from '@bufbuild/protobuf';
import { connect, type Channel, type ConsumeMessage } from 'amqplib';
import { EventSchema, GapSchema, type Event, type Gap } from './gen/holdfast/v1/event_pb.js';
import { Inbox } from './inbox.js';

/** Messages on their way to us. They are handled one by one all the same. */
const PREFETCH = 64;

const PAUSE_MS = 1_000;

export type Handler = (message: Event | Gap) => Promise<void>;

/** An event could not be handled. Going on with the next one would break the order. */
export class HandlerFailed extends Error {}

/**
 * Calls `handle` for each Event and Gap. Connects again whenever the connection ends; ends itself only with
 * `HandlerFailed`: everything that isn't acknowledged then comes again, to whoever consumes next.
 */
export async function consume(url: string, queue: string, handle: Handler, inbox = new Inbox()): Promise<never> {
  for (;;) {
    try {
      await session(url, queue, (delivery) => receive(delivery, handle, inbox));
    } catch (error) {
      if (error instanceof HandlerFailed) throw error;
      console.warn(`no connection to RabbitMQ: ${(error as Error).message}`);
    }
    await pause(PAUSE_MS);
  }
}

/** One connection, from its beginning to its end, which is always an error. */
async function session(url: string, queue: string, receive: (delivery: ConsumeMessage) => Promise<void>): Promise<void> {
  const connection = await connect(url);
  let ended = false;
  let line = Promise.resolve();
  try {
    await new Promise<never>((_, end) => {
      connection.on('error', end);
      connection.on('close', () => end(new Error('the connection was closed')));
      const take = (channel: Channel, delivery: ConsumeMessage | null) => {
        if (!delivery) return end(new Error('the queue was deleted'));
        // One after the other; after a failure nothing more, or it would be out of order.
        line = line.then(async () => {
          if (ended) return;
          await receive(delivery);
          if (!ended) channel.ack(delivery);
        });
        line.catch(end);
      };
      const begin = async () => {
        const channel = await connection.createChannel();
        channel.on('error', end);
        await channel.prefetch(PREFETCH);
        // Holdfast declares the queue: here it only has to be there.
        await channel.checkQueue(queue);
        await channel.consume(queue, (delivery) => take(channel, delivery));
      };
      begin().catch(end);
    });
  } finally {
    ended = true;
    // What is being handled is finished before the next connection brings it again.
    await line.catch(() => {});
    await connection.close().catch(() => {});
  }
}

/** Finish it, remember it; whoever called acknowledges it. */
async function receive(delivery: ConsumeMessage, handle: Handler, inbox: Inbox): Promise<void> {
  const message = decode(delivery);
  const id = delivery.properties.messageId;
  if (!message || inbox.judge(message, id, delivery.fields.redelivered) !== 'new') return;
  try {
    await handle(message);
  } catch (error) {
    throw new HandlerFailed(id, { cause: error });
  }
  inbox.finish(id);
}

/** What a body is, is told by the AMQP property `type`. Others may be added: they are passed over. */
function decode({ properties, content }: ConsumeMessage): Event | Gap | null {
  switch (properties.type) {
    case 'holdfast.v1.Event':
      return fromBinary(EventSchema, content);
    case 'holdfast.v1.Gap':
      return fromBinary(GapSchema, content);
    default:
      return null;
  }
}
