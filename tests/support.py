"""Helpers for tests: waiting with a deadline, a clock to turn by hand, a store that fails on demand."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from duly._ground.clock import Clock, SystemClock
from duly._store.open import make_store
from duly._store.port import Transaction
from duly.testing.clock import VirtualClock
from duly.testing.faults import StoreView

T = TypeVar("T")

DEADLINE_S = 60.0
# What a machine under load may add to a time that a rule gives; `make soak` prints the times themselves.
LOADED_S = 8.0
_PAUSES_S = (0.005, 0.1)


async def eventually(look: Callable[[], Awaitable[T]], *, deadline_s: float = DEADLINE_S) -> T:
    """The first true value that `look` returns; fails the test when there is none by the deadline."""
    clock = SystemClock()
    end = clock.monotonic() + deadline_s
    pause, longest = _PAUSES_S
    while True:
        value = await look()
        if value:
            return value
        assert clock.monotonic() < end, f"still {value!r} after {deadline_s} s"
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)


def own_table(engine: str, name: str) -> str:
    """What a statement calls one of duly's own tables, on an engine or the URL of a database."""
    return f"duly.{name}" if engine.startswith("postgresql") else f"_{name}"


class ManualClock(VirtualClock):
    """A clock that stands still until it is turned.

    Pass it to an app before it is opened: `app._parts = Parts(clock=clock)`.
    """

    def __init__(self, start_ms: float = 1_800_000_000_000.0) -> None:
        super().__init__(start_ms)

    async def advance(self, seconds: float) -> None:
        """Moves time forward, ringing each alarm at its moment and letting what it wakes run."""
        end = self.now_ms() + seconds * 1_000
        await self._settle()
        while (at := self.next_alarm_ms()) is not None and at <= end:
            self.move_to(at)
            await self._settle()
        self.move_to(end)
        await self._settle()

    async def _settle(self) -> None:
        await turns()
        quiet = 0
        while quiet < 2:
            # What a server is asked takes real time, and on a busy machine so does what comes between two questions.
            await asyncio.sleep(0.0005)
            await turns()
            quiet = 0 if any(task.get_name() in ON_THE_WIRE for task in asyncio.all_tasks()) else quiet + 1


ON_THE_WIRE = ("duly statement", "duly connect", "duly leave")


async def turns() -> None:
    """Lets what is ready run."""
    for _ in range(50):
        await asyncio.sleep(0)


class FaultyStore(StoreView):
    """A store that fails when told to.

    Pass it to an app before it is opened: `app._parts = Parts(store=lambda url, clock: FaultyStore(url, clock))`.
    `fail` lists the errors of the next transactions, first first; an error raised `after` the commit models a commit
    that happened but was reported as failed.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(make_store(url, clock))
        self.fail: list[Exception] = []
        self.fail_after: list[Exception] = []
        self.transactions = 0

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        self.transactions += 1
        if self.fail:
            raise self.fail.pop(0)
        result = await self._store.transact(body, claims=claims)
        if self.fail_after:
            raise self.fail_after.pop(0)
        return result
