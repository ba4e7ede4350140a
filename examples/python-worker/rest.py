# SPDX-License-Identifier: AGPL-3.0-only
"""Discord's REST API through RabbitMQ and Holdfast, which waits for rate limits. In: method, path, JSON. Out: Discord's
answer. The rules are in docs/contract.md, "Requests to Discord's REST API"."""

import asyncio
import json
import time

from asking import Asking, Refused
from holdfast.v1.error_pb2 import ERROR_CODE_UNDECIDED
from holdfast.v1.rest_pb2 import RestHeader, RestReply, RestRequest


class DiscordError(Exception):
    """Discord says no. `code` is one of its JSON error codes, if it gave any."""

    def __init__(self, status, body):
        try:
            told = json.loads(body)
        except ValueError:
            # A page for people, as of a proxy before Discord.
            told = {}
        super().__init__(f"{status}: {told.get('message', '')}")
        self.status = status
        self.code = told.get("code")


class Rest(Asking):
    """Use `async with Rest(url, token) as rest`."""

    EXCHANGES = ("requests",)

    def __init__(self, url, token, prefix="holdfast"):
        super().__init__(url, prefix)
        self._authorization = RestHeader(name="Authorization", value=f"Bot {token}".encode())

    async def request(self, method, path, body=None, *, key="", seconds=30):
        """Gives Discord's JSON. `key`, the idempotency key, names what is to be done: with it, it is done once, however
        often this is called. Raises `DiscordError`, `Refused`, or `asyncio.TimeoutError` when nobody has answered."""
        deadline = time.time() + seconds
        asked = RestRequest(
            schema=1,
            method=method,
            path=path,
            headers=[self._authorization],
            deadline_ms=int(deadline * 1000),
            idempotency_key=key,
        )
        if body is not None:
            asked.headers.append(RestHeader(name="Content-Type", value=b"application/json"))
            asked.body = json.dumps(body).encode()
        pause = 0.5
        while True:
            reply = await self._once(asked, deadline - time.time())
            if reply.WhichOneof("result") == "response":
                return answer(reply.response)
            # Not done; or begun under this key, so that asking again does nothing twice.
            later = 100 <= reply.error.code < 200 or reply.error.code == ERROR_CODE_UNDECIDED
            pause = max(2 * pause, reply.error.retry_after_ms / 1000)
            if not later or time.time() + pause >= deadline:
                raise Refused(reply.error)
            await asyncio.sleep(pause)

    async def _once(self, asked, seconds):
        # A margin: the reply may be that the deadline has passed.
        async for message in self._ask("requests", "rest", asked, seconds + 2, expiration=seconds):
            return RestReply.FromString(message.body)


def answer(response):
    if response.status >= 400:
        raise DiscordError(response.status, response.body)
    return json.loads(response.body) if response.body else None
