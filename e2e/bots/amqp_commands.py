# SPDX-License-Identifier: AGPL-3.0-only
"""Sends commands as examples/python-worker does, and reports what came of each."""

import asyncio
import json
import os
import pathlib
import sys

SETTINGS = json.loads(os.environ["E2E_BOT"])
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples" / "python-worker"))

from commands import Command, Commands, Refused  # noqa: E402
from holdfast.v1.command_pb2 import Activity, AllShards, RequestGuildMembers, UpdatePresence  # noqa: E402

GUILD = int(SETTINGS["guild"])
NO_GUILD = 4


def report(e, **details):
    print(json.dumps({"e": e, **details}), flush=True)


async def refusal(asked):
    try:
        await asked
    except Refused as error:
        return error.code


async def kinds(replies):
    return [(reply.shard, reply.number, reply.WhichOneof("reply")) async for reply in replies]


async def main():
    async with Commands(SETTINGS["url"], SETTINGS["prefix"]) as commands:
        report("guild", guild=await commands.guild(GUILD))
        report("noGuild", code=await refusal(commands.guild(NO_GUILD)))

        everybody = Command(guild_id=GUILD, request_guild_members=RequestGuildMembers(query=""))
        members, replies = [], []
        async for reply in commands.send(everybody):
            kind = reply.WhichOneof("reply")
            replies.append((reply.shard, reply.number, kind))
            if kind == "members_chunk":
                members += [member["user"]["id"] for member in json.loads(reply.members_chunk.data)["members"]]
        report("members", members=members, replies=replies)
        nobody = Command(guild_id=NO_GUILD, request_guild_members=RequestGuildMembers(query=""))
        report("noMembers", code=await refusal(kinds(commands.send(nobody))))

        presence = UpdatePresence(status="idle", activities=[Activity(name=SETTINGS["playing"])])
        report("presence", replies=await kinds(commands.send(Command(all=AllShards(), update_presence=presence))))
    report("over")


asyncio.run(main())
