# SPDX-License-Identifier: AGPL-3.0-only
"""Tells Discord something through Holdfast, and asks for guilds. In: commands. Out: their replies.
The rules are in docs/contract.md, "Commands"."""

import asyncio
import json
import pathlib
import sys
import time
import uuid

import aio_pika

# The generated modules import each other by their full names.
sys.path.append(str(pathlib.Path(__file__).parent / "generated"))
from holdfast.v1.command_pb2 import Command, CommandReply  # noqa: E402
from holdfast.v1.state_pb2 import GetGuild, Guild  # noqa: E402

# RabbitMQ hands what is sent there to the channel that asked, without a queue.
REPLY_TO = "amq.rabbitmq.reply-to"


class Refused(Exception):
    """Holdfast says no. `code` is an ErrorCode; its range says whether to try again."""

    def __init__(self, error):
        super().__init__(error.message)
        self.code = error.code


class Commands:
    """One connection for what a worker sends. Use `async with Commands(url) as commands`."""

    def __init__(self, url, prefix="holdfast"):
        self._url = url
        self._prefix = prefix
        self._replies = {}

    async def __aenter__(self):
        self._connection = await aio_pika.connect(self._url)
        # A message that nobody takes is an error.
        channel = await self._connection.channel(on_return_raises=True)
        self._exchanges = {
            name: await channel.get_exchange(f"{self._prefix}.{name}") for name in ("commands", "requests")
        }
        inbox = await channel.get_queue(REPLY_TO, ensure=False)
        await inbox.consume(self._take, no_ack=True)
        return self

    async def __aexit__(self, *_):
        await self._connection.close()

    async def _take(self, reply):
        waiting = self._replies.get(reply.correlation_id)
        if waiting:
            waiting.put_nowait(reply)

    async def _ask(self, exchange, key, request, seconds):
        """Gives the messages that answer it, until nobody wants any more or the time is over."""
        request_id = uuid.uuid4().hex
        waiting = self._replies[request_id] = asyncio.Queue()
        message = aio_pika.Message(
            request.SerializeToString(),
            type=request.DESCRIPTOR.full_name,
            content_type="application/x-protobuf",
            correlation_id=request_id,
            reply_to=REPLY_TO,
            expiration=seconds,
        )
        deadline = time.monotonic() + seconds
        try:
            await self._exchanges[exchange].publish(message, routing_key=key, mandatory=True, timeout=seconds)
            while True:
                yield await asyncio.wait_for(waiting.get(), deadline - time.monotonic())
        finally:
            del self._replies[request_id]

    async def send(self, command, seconds=10):
        """Gives each CommandReply. Raises `Refused` when a shard rejects it, `asyncio.TimeoutError` when the last
        reply of any shard doesn't come: whether the command was done isn't known then."""
        command.deadline_ms = int((time.time() + seconds) * 1000)
        to_all = command.WhichOneof("target") == "all"
        seen, ended = set(), 0
        # A margin: the last reply may be that the deadline has passed.
        async for message in self._ask("commands", "all" if to_all else "guild", command, seconds + 2):
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
        async for message in self._ask("requests", "state", GetGuild(guild_id=guild_id), seconds):
            guild = Guild.FromString(message.body)
            if guild.WhichOneof("found") == "data":
                return json.loads(guild.data)
            raise Refused(guild.error)
