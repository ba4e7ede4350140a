# SPDX-License-Identifier: AGPL-3.0-only
"""Prints every message that the bot sees. Replace `handle` by what your bot does."""

import asyncio
import json
import logging
import os

from consumer import Gap, consume

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
QUEUE = os.environ.get("QUEUE", "holdfast.messages")


async def handle(message):
    if isinstance(message, Gap):
        # Whoever keeps state of the shard's guilds reads it anew here.
        print(f"shard {message.shard}: events may be missing between {getattr(message, 'from')} and {message.to}", flush=True)
        return
    # The same JSON that Discord's gateway sends as `d`.
    data = json.loads(message.data)
    author = data["author"]["username"]
    print(f"shard {message.shard}  guild {message.guild_id}  {author}: {data['content'][:80]}", flush=True)


logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
try:
    asyncio.run(consume(URL, QUEUE, handle))
except KeyboardInterrupt:
    pass
