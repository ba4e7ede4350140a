# SPDX-License-Identifier: AGPL-3.0-only
"""Answers a command, a button, autocomplete and a modal. Replace the handlers by what your bot does."""

import asyncio
import logging
import os

from interactions import serve

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
PREFIX = os.environ.get("PREFIX", "holdfast")

# Types of responses ("Interaction Callback Type" in Discord's documentation).
MESSAGE, UPDATE, CHOICES, MODAL = 4, 7, 8, 9

WORDS = ["chess", "cheese", "cherry"]


async def ping(_):
    return {"type": MESSAGE, "data": {"content": "pong"}}


async def think(_):
    # Longer than Discord waits: it is told to, and this becomes the message then.
    await asyncio.sleep(4)
    return {"type": MESSAGE, "data": {"content": "42"}}


async def vote(asked):
    # `vote:yes`: what stands behind the colon is ours.
    choice = asked.data["data"]["custom_id"].partition(":")[2]
    return {"type": UPDATE, "data": {"content": f"You voted {choice}.", "components": []}}


async def find(asked):
    focused = next(option for option in asked.data["data"]["options"] if option.get("focused"))
    choices = [{"name": word, "value": word} for word in WORDS if focused["value"] in word]
    return {"type": CHOICES, "data": {"choices": choices}}


async def feedback(_):
    word = {"type": 4, "custom_id": "word", "label": "In a word?", "style": 1}
    return {"type": MODAL, "data": {"custom_id": "feedback", "title": "Feedback", "components": [{"type": 1, "components": [word]}]}}


async def thanks(_):
    return {"type": MESSAGE, "data": {"content": "Thanks!"}}


HANDLERS = {
    "command.ping": ping,
    "command.think": think,
    "command.feedback": feedback,
    "component.vote": vote,
    "autocomplete.find": find,
    "modal.feedback": thanks,
}

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
try:
    asyncio.run(serve(URL, f"{PREFIX}.interactions.worker", HANDLERS, PREFIX))
except KeyboardInterrupt:
    pass
