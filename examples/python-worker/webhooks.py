# SPDX-License-Identifier: AGPL-3.0-only
"""Messages by webhooks, through RabbitMQ and Holdfast: each webhook's in the order in which they are sent. In: a webhook
and JSON. Out: that RabbitMQ has it, or what Discord made of it. The rules are in docs/contract.md, "Webhook messages"."""

import json
import time

import aio_pika

from asking import Asking, Refused
from holdfast.v1.webhook_pb2 import ExecuteWebhook, WebhookMessage, WebhookReply


class Webhooks(Asking):
    """Use `async with Webhooks(url) as webhooks`."""

    EXCHANGES = ("webhook",)

    async def send(self, webhook, token, body, *, key):
        """Comes back when RabbitMQ has it, which outlives this process and Holdfast. `key`, the idempotency key, names
        the message: it is sent once, however often this is called."""
        message = execute(webhook, token, body, key)
        await self._publish("webhook", "", message, 10, **properties(webhook))

    async def sent(self, webhook, token, body, *, key, seconds=60):
        """Gives the message that Discord made. Raises `Refused`, or `asyncio.TimeoutError`: it may be sent later then."""
        message = execute(webhook, token, body, key, wait=True)
        message.deadline_ms = int((time.time() + seconds) * 1000)
        # A margin: the reply may be that the deadline has passed.
        async for answer in self._ask("webhook", "", message, seconds + 2, **properties(webhook)):
            reply = WebhookReply.FromString(answer.body)
            if reply.HasField("error"):
                raise Refused(reply.error)
            return json.loads(reply.response.body)


def execute(webhook, token, body, key, wait=False):
    return WebhookMessage(
        schema=1,
        webhook_id=webhook,
        token=token,
        execute=ExecuteWebhook(body=json.dumps(body).encode(), wait=wait),
        idempotency_key=key,
    )


def properties(webhook):
    """The header says which queue it goes to, and so in which order."""
    return {"headers": {"webhook": str(webhook)}, "delivery_mode": aio_pika.DeliveryMode.PERSISTENT}
