// SPDX-License-Identifier: AGPL-3.0-only
// Tells Discord something through Holdfast, and asks for guilds. In: commands. Out: their replies.
// The rules are in docs/contract.md, "Commands".

import { fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { Asking, Refused } from './asking.js';
import { CommandReplySchema, CommandSchema, type CommandReply } from './gen/holdfast/v1/command_pb.js';
import { GetGuildSchema, GuildSchema } from './gen/holdfast/v1/state_pb.js';

export { Refused };

/** What a worker has to tell Discord. */
export class Commands {
  private constructor(readonly asking: Asking) {}

  static async open(url: string, prefix = 'holdfast'): Promise<Commands> {
    return new Commands(await Asking.open(url, prefix));
  }

  close(): Promise<void> {
    return this.asking.close();
  }

  /**
   * Gives each reply. Throws `Refused` when a shard rejects it, an AbortError when the last reply of any shard doesn't
   * come: whether the command was done isn't known then.
   */
  async *send(command: MessageInitShape<typeof CommandSchema>, seconds = 10): AsyncGenerator<CommandReply> {
    const deadlineMs = BigInt(Date.now() + seconds * 1000);
    const toAll = command.target?.case === 'all';
    const seen = new Set<string>();
    let ended = 0;
    // A margin: the last reply may be that the deadline has passed.
    const wait = seconds + 2;
    const options = { expiration: wait * 1000 };
    const replies = this.asking.ask(['commands', toAll ? 'all' : 'guild'], CommandSchema, { ...command, deadlineMs }, wait, options);
    for await (const body of replies) {
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
    const options = { expiration: seconds * 1000 };
    for await (const answer of this.asking.ask(['requests', 'state'], GetGuildSchema, { guildId }, seconds, options)) {
      const { found } = fromBinary(GuildSchema, answer);
      if (found.case === 'data') return JSON.parse(new TextDecoder().decode(found.value));
      throw new Refused(found.value!);
    }
  }
}
