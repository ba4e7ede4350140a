# SPDX-License-Identifier: AGPL-3.0-only
"""A worker for interactions as in examples/python-worker, with handlers that are slow, say nonsense or say it twice, and
one for webhook events. Reports what arrives."""

import asyncio
import json
import os
import pathlib
import sys
import threading

SETTINGS = json.loads(os.environ["E2E_BOT"])
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples" / "python-worker"))

import aio_pika  # noqa: E402
from interactions import serve  # noqa: E402
from holdfast.v1.interaction_pb2 import WebhookEvent  # noqa: E402

URL, PREFIX = SETTINGS["url"], SETTINGS["prefix"]
NEVER = asyncio.Event()
TOLD = asyncio.Event()


def report(e, **details):
    """One line, written before anything else happens: what was taken before kill -9 is known."""
    print(json.dumps({"e": e, **details}), flush=True)


def message(content):
    return {"type": 4, "data": {"content": content}}


def gives(response, seconds=0):
    async def handler(_):
        await asyncio.sleep(seconds)
        return response

    return handler


def gives_after(event, response):
    async def handler(_):
        await event.wait()
        return response

    return handler


def twice(seconds):
    async def handler(asked):
        await asyncio.sleep(seconds)
        await asked.reply(message("once"))
        return message("twice")

    return handler


async def again(asked):
    await asked.reply(message("once"))
    await asyncio.sleep(2.5)
    return message("again")


async def nonsense(asked):
    # A deferred update answers no command.
    await asked.reply({"type": 6})
    await asyncio.sleep(2.5)
    return message("sense")


async def find(asked):
    word = asked.data["data"]["options"][0]["value"]
    return {"type": 8, "data": {"choices": [{"name": f"{word}llo", "value": f"{word}llo"}]}}


ROW = {"type": 1, "components": [{"type": 4, "custom_id": "word", "label": "A word", "style": 1}]}

HANDLERS = {
    "command.ping": gives(message("pong")),
    "command.form": gives({"type": 9, "data": {"custom_id": "form", "title": "A form", "components": [ROW]}}),
    "component.vote": gives({"type": 7, "data": {"content": "voted"}}),
    "autocomplete.find": find,
    "modal.form": gives(message("read")),
    "command.after-1": gives(message("after 1 s"), 1),
    "command.after-2.5": gives(message("after 2.5 s"), 2.5),
    "command.after-10": gives(message("after 10 s"), 10),
    "component.after-2.5": gives({"type": 7, "data": {"content": "voted late"}}, 2.5),
    "autocomplete.after-2.5": gives({"type": 8, "data": {"choices": []}}, 2.5),
    "command.never": gives_after(NEVER, None),
    "command.told": gives_after(TOLD, message("as told")),
    "command.twice": twice(0),
    "command.twice-late": twice(2.5),
    "command.again": again,
    "component.again": again,
    "command.nonsense": nonsense,
}


def reported(handler):
    async def of(asked):
        report("asked", key=asked.key, id=asked.data["id"])
        return await handler(asked)

    return of


async def events():
    """Webhook events, each acknowledged when it has been handled."""
    connection = await aio_pika.connect(URL)
    channel = await connection.channel()
    queue = await channel.declare_queue(f"{PREFIX}.webhook-events.worker", durable=True)
    await queue.bind(f"{PREFIX}.webhook-events", "#")
    report("bound")
    async for delivery in queue.iterator():
        event = WebhookEvent.FromString(delivery.body)
        data = json.loads(event.body)["event"]["data"]
        report("event", type=delivery.type, name=event.name, data=data, known=delivery.message_id == event.hash)
        await delivery.ack()


def until_nobody_asks(loop):
    for _ in sys.stdin:
        loop.call_soon_threadsafe(TOLD.set)
    # The scenario is over, however it ended.
    os._exit(0)


async def main():
    threading.Thread(target=until_nobody_asks, args=(asyncio.get_running_loop(),), daemon=True).start()
    handlers = {key: reported(handler) for key, handler in HANDLERS.items()}
    await asyncio.gather(events(), serve(URL, f"{PREFIX}.interactions.worker", handlers, PREFIX))


asyncio.run(main())
