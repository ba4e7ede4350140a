# SPDX-License-Identifier: AGPL-3.0-only
"""Libraries in Python by the lines that docs/guides/connect.md gives, and nothing else: each says when it is ready, and
counts the messages that reach a bot's own handler."""

import json
import os
import re
import sys
import threading

SETTINGS = json.loads(os.environ["E2E_BOT"])
NUMBERED = re.compile(r"^sim (\d+) (\d+)")


def report(e, **details):
    sys.stdout.write(json.dumps({"e": e, **details}) + "\n")
    sys.stdout.flush()


def message(content):
    numbered = NUMBERED.match(content or "")
    for place in ("wire", "handled") if numbered else ():
        report(place, g=numbered[1], n=int(numbered[2]))


def dialled(event, args):
    """Every connection that the process opens, whoever opens it, is reported with its address."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        report("dial", host=args[1][0], port=args[1][1])
    elif event == "socket.getaddrinfo" and args[0] not in (None, "127.0.0.1"):
        report("dial", host=str(args[0]), port=args[1])


def end_with_the_story():
    sys.stdin.read()
    os._exit(0)


def hikari():
    import hikari

    bot = hikari.GatewayBot(
        SETTINGS["token"], rest_url=SETTINGS["rest"] + "/v10", intents=hikari.Intents(SETTINGS["intents"]), banner=None
    )
    available = set()

    @bot.listen()
    async def on_guild(event: hikari.GuildAvailableEvent):
        available.add(event.guild_id)
        if len(available) == SETTINGS["guilds"]:
            report("ready")

    @bot.listen()
    async def on_message(event: hikari.GuildMessageCreateEvent):
        message(event.content)

    bot.run(check_for_updates=False)


def nextcord():
    import nextcord

    nextcord.http.Route.BASE = SETTINGS["rest"] + "/v10"
    bot = nextcord.AutoShardedClient(intents=nextcord.Intents._from_value(SETTINGS["intents"]))

    @bot.event
    async def on_ready():
        if len(bot.guilds) == SETTINGS["guilds"]:
            report("ready")

    @bot.event
    async def on_message(received):
        message(received.content)

    bot.run(SETTINGS["token"])


sys.addaudithook(dialled)
threading.Thread(target=end_with_the_story, daemon=True).start()
{"hikari": hikari, "nextcord": nextcord}[SETTINGS["library"]]()
