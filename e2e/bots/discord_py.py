# SPDX-License-Identifier: AGPL-3.0-only
"""A discord.py bot as its users write it: only Discord's two addresses are not Discord's."""

import asyncio
import json
import logging
import os
import re
import sys
import threading
import time

SETTINGS = json.loads(os.environ["E2E_BOT"])


def report(e, **details):
    """One line, written before anything else happens: what was handled before kill -9 is counted."""
    sys.stdout.write(json.dumps({"e": e, **details}) + "\n")
    sys.stdout.flush()


def dialled(event, args):
    """Every connection that the process opens, whoever opens it, is reported with its address."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        report("dial", host=args[1][0], port=args[1][1])
    elif event == "socket.getaddrinfo" and args[0] not in (None, "127.0.0.1"):
        report("dial", host=str(args[0]), port=args[1])


sys.addaudithook(dialled)
if SETTINGS["compression"] == "zlib":
    # As if the optional package had never been installed.
    sys.modules["zstandard"] = None

import discord  # noqa: E402
import yarl  # noqa: E402
from discord.gateway import DiscordWebSocket  # noqa: E402
from discord.http import Route  # noqa: E402

Route.BASE = SETTINGS["rest"] + "/v10"
# Asked for only by AutoShardedClient: a session that can't be resumed starts again from here.
DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(SETTINGS["gateway"])

ws_connect = discord.http.HTTPClient.ws_connect


def detoured(self, url, **options):
    """Turned to the cutter where the stage can't have its address announced."""
    url = yarl.URL(url)
    return ws_connect(self, str(url.with_port(SETTINGS["detour"].get(str(url.port), url.port))), **options)


discord.http.HTTPClient.ws_connect = detoured

NUMBERED = re.compile(r"^sim (\d+) (\d+)")
SHOWN = {"VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE", "GUILD_MEMBERS_CHUNK", "RATE_LIMITED"}


def count(place, content):
    numbered = NUMBERED.match(content)
    if numbered:
        report(place, g=numbered[1], n=int(numbered[2]))


class Voice(discord.VoiceProtocol):
    """Stands for a voice library: gets both events, opens no connection."""

    async def on_voice_state_update(self, data):
        report("voice_state", data=data)

    async def on_voice_server_update(self, data):
        report("voice_server", data=data)

    async def connect(self, **_):
        await self.channel.guild.change_voice_state(channel=self.channel, self_deaf=True)

    async def disconnect(self, *, force):
        self.cleanup()


class Bot(discord.AutoShardedClient):
    identified = {}

    async def before_identify_hook(self, shard_id, *, initial=False):
        """Discord's own pace: one identify in 5 s per bucket; the default waits for every shard."""
        wait = self.identified.get(shard_id, 0) + 5.1 - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        self.identified[shard_id] = time.monotonic()

    async def on_socket_raw_receive(self, text):
        pass

    def dispatch(self, event, /, *args, **kwargs):
        # In the order of the wire: handlers run as tasks of their own.
        if event == "socket_raw_receive":
            wire(json.loads(args[0]))
        else:
            super().dispatch(event, *args, **kwargs)

    async def on_message(self, message):
        count("handled", message.content)

    async def on_ready(self):
        report("ready")

    async def on_shard_ready(self, shard):
        report("shard_ready", shard=shard)

    async def on_shard_resumed(self, shard):
        report("resumed", shard=shard)

    async def on_shard_disconnect(self, shard):
        report("disconnected", shard=shard)

    def cache(self):
        guilds = {}
        for guild in self.guilds:
            guilds[str(guild.id)] = {
                "available": not guild.unavailable,
                "name": guild.name,
                "channels": len(guild.channels),
                "threads": len(guild.threads),
                "roles": len(guild.roles),
                "members": len(guild.members),
                "member_count": guild.member_count,
                "emojis": len(guild.emojis),
                "stickers": len(guild.stickers),
                "voice_states": len(guild._voice_states),
                "stage_instances": len(guild.stage_instances),
                "guild_scheduled_events": len(guild.scheduled_events),
                "soundboard_sounds": len(guild.soundboard_sounds),
            }
        return guilds

    async def answer(self, ask, details):
        if ask == "cache":
            return self.cache()
        if ask == "presence":
            game = discord.Game(details["name"])
            return await self.change_presence(status=discord.Status.idle, activity=game)
        guild = self.get_guild(int(details["guild"]))
        if ask == "voice":
            await guild.get_channel(int(details["channel"])).connect(cls=Voice)
            return None
        if ask == "members":
            return [str(member.id) for member in await self.members(guild, details)]
        raise ValueError(ask)

    async def members(self, guild, details):
        if details.get("users"):
            return await guild.query_members(user_ids=[int(user) for user in details["users"]])
        if "query" in details:
            return await guild.query_members(query=details["query"], limit=100)
        return await guild.chunk(cache=False)


def wire(payload):
    event, data = payload.get("t"), payload.get("d")
    if event == "MESSAGE_CREATE":
        count("wire", data.get("content") or "")
    elif event == "TYPING_START":
        report("typing")
    elif event in SHOWN:
        report("dispatch", t=event, d=data)


def questions(bot, loop):
    """Reads stdin in a thread: the loop belongs to the library."""

    async def one(question):
        ask_id, ask = question.pop("id"), question.pop("ask")
        try:
            report("answer", id=ask_id, value=await bot.answer(ask, question))
        except Exception as error:
            report("answer", id=ask_id, error=repr(error))

    for line in sys.stdin:
        asyncio.run_coroutine_threadsafe(one(json.loads(line)), loop)
    # Nobody asks any more: the scenario is over, however it ended.
    os._exit(0)


async def main():
    shard = SETTINGS.get("shard")
    bot = Bot(
        intents=discord.Intents._from_value(SETTINGS["intents"]),
        enable_debug_events=True,
        # How long after the last guild it calls itself ready; the default of 2 s only waits.
        guild_ready_timeout=0.3,
        **({"shard_ids": [shard[0]], "shard_count": shard[1]} if shard else {}),
    )
    threading.Thread(target=questions, args=(bot, asyncio.get_running_loop()), daemon=True).start()
    try:
        await bot.start(SETTINGS["token"])
    except discord.ConnectionClosed as error:
        report("refused", code=error.code, shard=error.shard_id)
    except Exception as error:
        report("login_failed", error=repr(error))
        raise


logging.basicConfig(level=logging.INFO, stream=sys.stderr)
asyncio.run(main())
