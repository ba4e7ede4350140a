# SPDX-License-Identifier: AGPL-3.0-only
"""Sends requests through RabbitMQ and takes what answers them. In: messages of the contract. Out: the messages that
answer each, by its correlation id. The rules are in docs/contract.md, "Properties and headers"."""

import asyncio
import pathlib
import sys
import time
import uuid

import aio_pika

# The generated modules import each other by their full names: all that ask find them from here on.
sys.path.append(str(pathlib.Path(__file__).parent / "generated"))

# RabbitMQ hands what is sent there to the channel that asked, without a queue.
REPLY_TO = "amq.rabbitmq.reply-to"


class Refused(Exception):
    """Holdfast says no. `code` is an ErrorCode; its range says what to do: from 1 to 99 don't repeat it; from 100 to 199
    it wasn't done and may succeed later; from 200 to 299 nobody knows whether it was done."""

    def __init__(self, error):
        super().__init__(error.message)
        self.code = error.code


class Asking:
    """One connection for what a worker sends. Use `async with`."""

    # The exchanges that it sends to, without the prefix.
    EXCHANGES = ()

    def __init__(self, url, prefix="holdfast"):
        self._url = url
        self._prefix = prefix
        self._replies = {}

    async def __aenter__(self):
        self._connection = await aio_pika.connect(self._url)
        # A message that nobody takes is an error.
        channel = await self._connection.channel(on_return_raises=True)
        self._exchanges = {name: await channel.get_exchange(f"{self._prefix}.{name}") for name in self.EXCHANGES}
        inbox = await channel.get_queue(REPLY_TO, ensure=False)
        await inbox.consume(self._take, no_ack=True)
        return self

    async def __aexit__(self, *_):
        await self._connection.close()

    async def _take(self, reply):
        waiting = self._replies.get(reply.correlation_id)
        if waiting:
            waiting.put_nowait(reply)

    async def _publish(self, exchange, key, request, seconds, **properties):
        """Comes back when RabbitMQ has it, and raises if it doesn't want it: it is full, or no queue is there."""
        message = aio_pika.Message(
            request.SerializeToString(),
            type=request.DESCRIPTOR.full_name,
            content_type="application/x-protobuf",
            **properties,
        )
        await self._exchanges[exchange].publish(message, routing_key=key, mandatory=True, timeout=seconds)

    async def _ask(self, exchange, key, request, seconds, **properties):
        """Gives the messages that answer it, until nobody wants any more or the time is over."""
        request_id = uuid.uuid4().hex
        waiting = self._replies[request_id] = asyncio.Queue()
        deadline = time.monotonic() + seconds
        try:
            await self._publish(exchange, key, request, seconds, correlation_id=request_id, reply_to=REPLY_TO, **properties)
            while True:
                yield await asyncio.wait_for(waiting.get(), deadline - time.monotonic())
        finally:
            del self._replies[request_id]
