// SPDX-License-Identifier: AGPL-3.0-only
// Tells Discord something through Holdfast, and asks for guilds. In: commands. Out: their replies.
// The rules are in docs/contract.md, "Commands".

import { randomUUID } from 'node:crypto';
import { EventEmitter, on } from 'node:events';
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { connect, type Channel, type ChannelModel, type ConsumeMessage } from 'amqplib';
import { CommandReplySchema, CommandSchema, type CommandReply } from './gen/holdfast/v1/command_pb.js';
import type { Error as Problem } from './gen/holdfast/v1/error_pb.js';
import { GetGuildSchema, GuildSchema } from './gen/holdfast/v1/state_pb.js';

/** RabbitMQ hands what is sent there to the channel that asked, without a queue. */
const REPLY_TO = 'amq.rabbitmq.reply-to';

/** Holdfast says no. `code` is an ErrorCode; its range says whether to try again. */
export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message);
  }

  get code(): number {
    return this.problem.code;
  }
}

/** A body, and its message's full name. */
interface Request {
  type: string;
  body: Uint8Array;
}

/** One connection for what a worker sends. */
export class Commands {
  /** Emits the body of each reply under its correlation id, or the error that there is none. */
  #replies = new EventEmitter();

  private constructor(
    readonly prefix: string,
    readonly connection: ChannelModel,
    readonly channel: Channel,
  ) {}

  static async open(url: string, prefix = 'holdfast'): Promise<Commands> {
    const connection = await connect(url);
    const channel = await connection.createChannel();
    const commands = new Commands(prefix, connection, channel);
    const emit = (id: string, body: Buffer | null) => void commands.#replies.emit(id, body);
    const take = (reply: ConsumeMessage | null) => reply && emit(reply.properties.correlationId, reply.content);
    await channel.consume(REPLY_TO, take, { noAck: true });
    // A message that nobody takes comes back.
    channel.on('return', (message) => emit(message.properties.correlationId, null));
    return commands;
  }

  close(): Promise<void> {
    return this.connection.close();
  }

  /**
   * Gives each reply. Throws `Refused` when a shard rejects it, an AbortError when the last reply of any shard doesn't
   * come: whether the command was done isn't known then.
   */
  async *send(command: MessageInitShape<typeof CommandSchema>, seconds = 10): AsyncGenerator<CommandReply> {
    const deadlineMs = BigInt(Date.now() + seconds * 1000);
    const message = create(CommandSchema, { ...command, deadlineMs });
    const toAll = message.target.case === 'all';
    const seen = new Set<string>();
    let ended = 0;
    // A margin: the last reply may be that the deadline has passed.
    const request = { type: CommandSchema.typeName, body: toBinary(CommandSchema, message) };
    for await (const body of this.#ask('commands', toAll ? 'all' : 'guild', request, seconds + 2)) {
      const reply = fromBinary(CommandReplySchema, body);
      // A reply may come twice.
      const which = `${reply.shard}/${reply.number}`;
      if (seen.has(which)) continue;
      seen.add(which);
      if (reply.reply.case === 'rejected') throw new Refused(reply.reply.value.error!);
      yield reply;
      if (reply.reply.case === 'done') ended += 1;
      if (ended === (toAll ? reply.shardCount : 1)) return;
    }
  }

  /** The guild as it is now: the `d` of a GUILD_CREATE. */
  async guild(guildId: string, seconds = 5): Promise<any> {
    const body = toBinary(GetGuildSchema, create(GetGuildSchema, { guildId }));
    const request = { type: GetGuildSchema.typeName, body };
    for await (const answer of this.#ask('requests', 'state', request, seconds)) {
      const { found } = fromBinary(GuildSchema, answer);
      if (found.case === 'data') return JSON.parse(new TextDecoder().decode(found.value));
      throw new Refused(found.value!);
    }
  }

  /** Gives the messages that answer it, until nobody wants any more or the time is over. */
  async *#ask(exchange: string, key: string, request: Request, seconds: number): AsyncGenerator<Buffer> {
    const correlationId = randomUUID();
    const replies = on(this.#replies, correlationId, { signal: AbortSignal.timeout(seconds * 1000) });
    this.channel.publish(`${this.prefix}.${exchange}`, key, Buffer.from(request.body), {
      type: request.type,
      correlationId,
      contentType: 'application/x-protobuf',
      replyTo: REPLY_TO,
      expiration: seconds * 1000,
      mandatory: true,
    });
    for await (const [reply] of replies) {
      if (!reply) throw new Error(`nobody takes ${key}`);
      yield reply;
    }
  }
}
