# SPDX-License-Identifier: AGPL-3.0-only
"""Tells Discord something through Holdfast, and asks for guilds. In: commands. Out: their replies.
The rules are in docs/contract.md, "Commands"."""

import json
import time

from asking import Asking, Refused
from holdfast.v1.command_pb2 import Command, CommandReply
from holdfast.v1.state_pb2 import GetGuild, Guild


class Commands(Asking):
    """What a worker has to tell Discord. Use `async with Commands(url) as commands`."""

    EXCHANGES = ("commands", "requests")

    async def send(self, command, seconds=10):
        """Gives each CommandReply. Raises `Refused` when a shard rejects it, `asyncio.TimeoutError` when the last
        reply of any shard doesn't come: whether the command was done isn't known then."""
        command.deadline_ms = int((time.time() + seconds) * 1000)
        to_all = command.WhichOneof("target") == "all"
        seen, ended = set(), 0
        # A margin: the last reply may be that the deadline has passed.
        async for message in self._ask("commands", "all" if to_all else "guild", command, seconds + 2, expiration=seconds + 2):
            reply = CommandReply.FromString(message.body)
            # A reply may come twice.
            if (reply.shard, reply.number) in seen:
                continue
            seen.add((reply.shard, reply.number))
            kind = reply.WhichOneof("reply")
            if kind == "rejected":
                raise Refused(reply.rejected.error)
            yield reply
            ended += kind == "done"
            if ended == (reply.shard_count if to_all else 1):
                return

    async def guild(self, guild_id, seconds=5):
        """The guild as it is now: the `d` of a GUILD_CREATE."""
        async for message in self._ask("requests", "state", GetGuild(guild_id=guild_id), seconds, expiration=seconds):
            guild = Guild.FromString(message.body)
            if guild.WhichOneof("found") == "data":
                return json.loads(guild.data)
            raise Refused(guild.error)
