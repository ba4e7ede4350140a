# SPDX-License-Identifier: AGPL-3.0-only
"""Answers what users do: commands, buttons, modals, as Discord posts them to Holdfast. In: handlers by routing key. Out:
their responses. The rules are in docs/contract.md, "Interactions by AMQP"."""

import asyncio
import json
import logging
import pathlib
import sys
import time

import aio_pika
import aio_pika.exceptions

# The generated modules import each other by their full names.
sys.path.append(str(pathlib.Path(__file__).parent / "generated"))
from holdfast.v1.interaction_pb2 import Interaction, InteractionReply  # noqa: E402

log = logging.getLogger(__name__)

# Handled at once.
AT_ONCE = 64

# What waits here at most when no worker runs: each goes by itself when nobody can answer it any more.
MAX_LENGTH = 10_000

PAUSE_SECONDS = 1

# Types of responses that say that more follows, by kind; others are refused.
DEFERRALS = {"command": (5,), "component": (5, 6), "modal": (5, 6)}


class TooLate(Exception):
    """Nothing can be made of a reply any more."""


class Asked:
    """An interaction that waits for its answer. `key` says what it is, `data` is Discord's JSON."""

    def __init__(self, delivery, exchange, late):
        self._delivery = delivery
        self._exchange = exchange
        self._late = late
        self._interaction = Interaction.FromString(delivery.body)
        self.key = delivery.routing_key
        self.data = json.loads(self._interaction.body)
        self._deferred_with = 0

    async def reply(self, response):
        """`response` is an interaction response, `type` and `data`, as Discord's documentation has it."""
        now = time.time() * 1000
        in_time = now < self._interaction.answer_by_ms
        if not in_time and not self._deferred_with and now >= self._interaction.late_until_ms:
            raise TooLate
        reply = InteractionReply(
            schema=1,
            ticket=self._interaction.ticket,
            body=json.dumps(response).encode(),
            deferred_with=self._deferred_with,
        )
        message = aio_pika.Message(
            reply.SerializeToString(),
            type=reply.DESCRIPTOR.full_name,
            content_type="application/x-protobuf",
            correlation_id=self._delivery.correlation_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        # In time: straight to who asked, as the answer. Later Discord has been told to wait, and the reply goes to a queue
        # that outlives who asked. Only a queue can be `mandatory`: RabbitMQ returns what goes to a direct reply-to so.
        to = self._delivery.reply_to if in_time else self._late
        await self._exchange.publish(message, routing_key=to, mandatory=not in_time)
        if response["type"] in DEFERRALS.get(self.key.partition(".")[0], ()):
            # Discord has been told to wait by us: what follows becomes what fits that.
            self._deferred_with = response["type"]


async def serve(url, queue, handlers, prefix="holdfast"):
    """`handlers`: routing key, such as `command.ping` or `component.vote`, to `async def handler(asked)`, which gives the
    response, or None if it has replied itself. Connects again whenever the connection ends."""
    while True:
        try:
            await session(url, queue, handlers, prefix)
            log.warning("the connection to RabbitMQ ended")
        except (aio_pika.exceptions.AMQPError, OSError) as error:
            log.warning("no connection to RabbitMQ: %s", error)
        await asyncio.sleep(PAUSE_SECONDS)


async def session(url, queue, handlers, prefix):
    """One connection, from its beginning to its end."""
    async with await aio_pika.connect(url) as connection:
        # A late reply that no queue takes is an error.
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=AT_ONCE)
        # Durable: what comes while no worker runs waits.
        waiting = await channel.declare_queue(queue, durable=True, arguments={"x-max-length": MAX_LENGTH})
        for key in handlers:
            await waiting.bind(f"{prefix}.interactions", key)

        async def take(delivery):
            try:
                if delivery.type == Interaction.DESCRIPTOR.full_name:
                    await answer(Asked(delivery, channel.default_exchange, f"{prefix}.interactions.late"), handlers)
                await delivery.ack()
            except Exception as error:
                # It isn't acknowledged, so it comes again with the next connection.
                log.warning("not answered: %r", error)
                await connection.close()

        await waiting.consume(take)
        await channel.closed()


async def answer(asked, handlers):
    """Handle it, reply; whoever called acknowledges it. What comes again after a crash is handled again."""
    try:
        response = await handlers[asked.key](asked)
    except Exception:
        # What the user is to be told then, the handler knows best. Coming again would do it no good.
        log.exception("%s failed", asked.key)
        return
    try:
        if response is not None:
            await asked.reply(response)
    except TooLate:
        log.warning("%s took too long", asked.key)
