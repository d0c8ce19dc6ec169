"""The wake-up that a store owns: set by commits, slept on by whoever looks for work.

A version per topic makes it lossless: a sleeper says which version it has seen, so what comes between looking and
sleeping is never missed. (An event that is cleared after looking loses exactly that.)
"""

import asyncio
import math
from collections import deque
from functools import partial

from duly._ground.clock import Clock
from duly._store.port import TOPICS, Topic

__all__ = ["Signal"]

_REMEMBERED_MAX = 64


class Signal:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._versions: dict[Topic, int] = dict.fromkeys(TOPICS, 0)
        self._recent: dict[Topic, deque[tuple[int, float]]] = {
            topic: deque(maxlen=_REMEMBERED_MAX) for topic in self._versions
        }
        self._sleepers: dict[Topic, dict[asyncio.Future[None], float | None]] = {topic: {} for topic in TOPICS}

    def version(self, topic: Topic) -> int:
        return self._versions[topic]

    def due_since(self, topic: Topic, since: int) -> float | None:
        """When the first of what was notified after the version `since` matters; None if nothing was."""
        if self._versions[topic] == since:
            return None
        recent = self._recent[topic]
        if recent[0][0] > since + 1:
            return -math.inf  # more came than is remembered
        return min(due for version, due in recent if version > since)

    def notify(self, topic: Topic, due: float | None = None) -> None:
        """Something changed; `due` is when it matters (now if None). Who would wake before that anyway sleeps on."""
        self._versions[topic] += 1
        self._recent[topic].append((self._versions[topic], -math.inf if due is None else due))
        for future, until in self._sleepers[topic].items():
            if not future.done() and (due is None or until is None or due < until):
                future.set_result(None)

    async def wait(self, topic: Topic, since: int, until: float | None) -> None:
        loop = asyncio.get_running_loop()
        sleepers = self._sleepers[topic]
        while self._versions[topic] == since:
            timer = None
            future: asyncio.Future[None] = loop.create_future()
            if until is not None:
                remaining = (until - self._clock.now_ms()) / 1_000
                if remaining <= 0:
                    return
                # The wall clock may be set, or the machine sleep: look at it again from time to time. Upkeep, which is
                # all that an idle worker waits for, may as well come late.
                if topic != "upkeep":
                    remaining = min(remaining, self._clock.nap_s)
                timer = self._clock.call_later(remaining, partial(_wake, future))
            sleepers[future] = until
            try:
                await future
            finally:
                del sleepers[future]
                if timer is not None:
                    timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
