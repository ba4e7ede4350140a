# SPDX-License-Identifier: AGPL-3.0-only
"""What a consumer has to remember to handle each event once and in order. In: deliveries. Out: verdicts."""

import enum
import time

# Longer than Discord holds a session: nothing is repeated after that.
REMEMBER_SECONDS = 600


class Verdict(enum.Enum):
    """What to do with a delivery."""

    NEW = "new"
    REPEATED = "repeated"
    """It has been finished: acknowledge it."""
    OUTDATED = "outdated"
    """From a former owner of the shard that woke too late: acknowledge it."""


class Inbox:
    """Lives as long as the process. If doing a thing twice does harm, keep the ids where they outlive it."""

    def __init__(self, now=time.monotonic):
        self._now = now
        self._generations = {}
        self._finished = {}

    def judge(self, message, message_id, redelivered):
        """`message`: an Event or a Gap."""
        shard = (message.shard, message.shard_count)
        highest = self._generations.setdefault(shard, message.generation)
        self._generations[shard] = max(highest, message.generation)
        # A redelivered message may be older than the new owner, and not have been handled yet.
        if message.generation < highest and not redelivered:
            return Verdict.OUTDATED
        return Verdict.REPEATED if message_id in self._finished else Verdict.NEW

    def finish(self, message_id):
        """To be called when the message has been handled, before it is acknowledged."""
        now = self._now()
        self._finished[message_id] = now
        # In the order of their times: the oldest are the first.
        while (oldest := next(iter(self._finished))) and now - self._finished[oldest] > REMEMBER_SECONDS:
            del self._finished[oldest]
