# SPDX-License-Identifier: AGPL-3.0-only
"""Receives what Holdfast publishes, one after the other. In: a queue's name. Out: calls of `handle`, in order.
The rules are in docs/contract.md, "Consumers that need order"."""

import asyncio
import logging
import pathlib
import sys

import aio_pika
import aio_pika.exceptions

from inbox import Inbox, Verdict

# The generated modules import each other by their full names.
sys.path.append(str(pathlib.Path(__file__).parent / "generated"))
from holdfast.v1.event_pb2 import Event, Gap  # noqa: E402

log = logging.getLogger(__name__)

# What a body is, is told by the AMQP property `type`. Others may be added: they are passed over.
TYPES = {"holdfast.v1.Event": Event, "holdfast.v1.Gap": Gap}

# Messages on their way to us. They are handled one by one all the same.
PREFETCH = 64

PAUSE_SECONDS = 1


class HandlerFailed(Exception):
    """An event could not be handled. Going on with the next one would break the order."""


async def consume(url, queue, handle, inbox=None):
    """Calls `await handle(message)` for each Event and Gap. Connects again whenever the connection ends; ends itself
    only with `HandlerFailed`: everything that isn't acknowledged then comes again, to whoever consumes next."""
    inbox = inbox or Inbox()
    while True:
        try:
            await session(url, queue, handle, inbox)
            log.warning("the connection to RabbitMQ ended")
        except (aio_pika.exceptions.AMQPError, OSError) as error:
            log.warning("no connection to RabbitMQ: %s", error)
        await asyncio.sleep(PAUSE_SECONDS)


async def session(url, queue, handle, inbox):
    """One connection, from its beginning to its end."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        # Holdfast declares the queue: here it only has to be there.
        deliveries = await channel.get_queue(queue)
        # Without `async with`: leaving that would give back what waits here before what is being handled, and so put it
        # first. The end of the connection gives everything back in order.
        async for delivery in deliveries.iterator():
            await receive(delivery, handle, inbox)


async def receive(delivery, handle, inbox):
    """Finish it, remember it, acknowledge it, in this order."""
    kind = TYPES.get(delivery.type)
    if kind:
        message = kind.FromString(delivery.body)
        if inbox.judge(message, delivery.message_id, delivery.redelivered) is Verdict.NEW:
            try:
                await handle(message)
            except Exception as error:
                raise HandlerFailed(delivery.message_id) from error
            inbox.finish(delivery.message_id)
    try:
        await delivery.ack()
    except Exception as error:
        # The library raises whatever it has, a bare Exception too, when the connection ends meanwhile.
        raise ConnectionError(f"not acknowledged: {error!r}") from error
