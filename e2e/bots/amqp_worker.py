# SPDX-License-Identifier: AGPL-3.0-only
"""The worker of examples/python-worker, reporting what arrives and what it handles."""

import asyncio
import json
import os
import pathlib
import re
import sys
import threading

SETTINGS = json.loads(os.environ["E2E_BOT"])
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples" / "python-worker"))

from consumer import Event, consume  # noqa: E402
from inbox import Inbox  # noqa: E402

NUMBERED = re.compile(r"^sim (\d+) (\d+)")


def number(message):
    """The guild and number of one of the simulator's messages."""
    found = isinstance(message, Event) and NUMBERED.match(json.loads(message.data).get("content") or "")
    return {"g": found[1], "n": int(found[2])} if found else {}


def report(e, message, **details):
    """One line, written before anything else happens: what was handled before kill -9 is counted."""
    numbers = number(message)
    if isinstance(message, Event):
        numbers["position"] = message.position
    else:
        numbers.update({"from": getattr(message, "from"), "to": message.to, "reason": message.reason})
    known = {"name": message.name, "shard": message.shard, "stream": message.stream, "generation": message.generation}
    sys.stdout.write(json.dumps({"e": e, **known, **numbers, **details}) + "\n")
    sys.stdout.flush()


class ReportedInbox(Inbox):
    def judge(self, message, message_id, redelivered):
        verdict = super().judge(message, message_id, redelivered)
        report("arrived", message, id=message_id, redelivered=redelivered, verdict=verdict.value)
        return verdict


async def handle(message):
    if SETTINGS.get("failOn") and number(message) == SETTINGS["failOn"]:
        raise RuntimeError("as asked")
    report("handled", message)


def until_nobody_asks():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=until_nobody_asks, daemon=True).start()
asyncio.run(consume(SETTINGS["url"], SETTINGS["queue"], handle, ReportedInbox()))
