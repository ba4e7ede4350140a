# SPDX-License-Identifier: AGPL-3.0-only
"""Sends requests to Discord's REST API and messages by webhooks as examples/python-worker does, and reports what came of
each."""

import asyncio
import json
import os
import pathlib
import sys

SETTINGS = json.loads(os.environ["E2E_BOT"])
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples" / "python-worker"))

from rest import DiscordError, Refused, Rest  # noqa: E402
from webhooks import Webhooks  # noqa: E402

URL, PREFIX, WHO = SETTINGS["url"], SETTINGS["prefix"], SETTINGS["who"]
MESSAGES = f"/channels/{SETTINGS['channel']}/messages"
WEBHOOKS = [int(webhook) for webhook in SETTINGS["webhooks"]]
TOKEN = "webhook-token"


def report(e, **details):
    print(json.dumps({"e": e, **details}), flush=True)


async def failure(asked):
    try:
        await asked
    except DiscordError as error:
        return {"status": error.status, "code": error.code}
    except Refused as error:
        return {"refused": error.code}


async def requests():
    async with Rest(URL, SETTINGS["token"], PREFIX) as rest:
        report("me", id=(await rest.request("GET", "/users/@me"))["id"])
        sent = [
            await rest.request("POST", MESSAGES, {"content": f"{WHO} {key}"}, key=f"{WHO}-{key}") for key in ["a", "b", "a"]
        ]
        report("messages", sent=[[message["id"], message["content"]] for message in sent])
        report("unknown", **await failure(rest.request("POST", "/channels/1/messages", {"content": "x"})))
        report("invalid", **await failure(rest.request("CONNECT", "/users/@me")))


async def messages():
    async with Webhooks(URL, PREFIX) as webhooks:

        async def say(send, webhook, n):
            return await send(webhook, TOKEN, {"content": f"{WHO} {n}"}, key=f"{WHO}-{webhook}-{n}")

        for n in range(SETTINGS["each"]):
            for webhook in WEBHOOKS:
                await say(webhooks.send, webhook, n)
        # What was sent before comes first; the last one twice.
        twice = [await say(webhooks.sent, WEBHOOKS[0], SETTINGS["each"]) for _ in range(2)]
        report("webhooks", sent=[[message["id"], message["content"]] for message in twice])
        report("nothing", **await failure(webhooks.sent(WEBHOOKS[0], TOKEN, {"content": ""}, key=f"{WHO}-nothing")))


async def main():
    await requests()
    await messages()
    report("over")


asyncio.run(main())
