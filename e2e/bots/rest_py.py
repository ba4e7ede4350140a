# SPDX-License-Identifier: AGPL-3.0-only
"""discord.py's HTTP client as its users use it: only the base of the API isn't Discord's. One JSON line of outcomes."""

import asyncio
import io
import json
import os
import sys

import discord
from discord.http import Route

SETTINGS = json.loads(os.environ["E2E_BOT"])
Route.BASE = SETTINGS["rest"] + "/v10"


async def main():
    client = discord.Client(intents=discord.Intents.none())
    await client.login(SETTINGS["token"])
    http, channel, guild = client.http, SETTINGS["channel"], SETTINGS["guild"]
    outcome = {}
    with discord.http.handle_message_parameters(content="from discord.py") as parameters:
        outcome["message"] = (await http.send_message(channel, params=parameters))["content"]
    file = discord.File(io.BytesIO(b"x" * 200_000), filename="x.bin")
    with discord.http.handle_message_parameters(content="with a file", file=file) as parameters:
        outcome["upload"] = "id" in await http.send_message(channel, params=parameters)
    await http.add_reaction(channel, "5", "\N{FIRE}")
    outcome["member"] = (await http.get_member(guild, SETTINGS["member"]))["user"]["id"]
    await http.request(Route("GET", "/channels/{channel_id}/messages", channel_id=channel), params={"limit": 5})
    try:
        await http.get_channel("1")
    except discord.NotFound as error:
        outcome["error"] = error.code
    await client.close()
    sys.stdout.write(json.dumps(outcome) + "\n")


asyncio.run(main())
