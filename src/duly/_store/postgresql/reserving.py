"""Due work that this worker has reserved, and is about to run.

While a group of due mutations is being committed, the next is reserved: the server does both at once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from duly._store.postgresql.shared import Shared
from duly._store.postgresql.wire import Statement
from duly.errors import DulyError

__all__ = ["Reserved", "ReservedAhead", "Reserving"]

# The least by which two times differ for certain, as floating-point numbers.
_TICK_MS = 0.001


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a look reserved; `until` (ms) tells it from what other looks did."""

    until: float
    rows: list[Any]


@dataclass(frozen=True, slots=True)
class ReservedAhead:
    """What is being reserved for the next look, if it looks for so many."""

    limit: int
    task: asyncio.Task[Reserved | None]


class Reserving:
    """Of one store.

    Args:
        shared: Its statements and clock.
        start: Makes a task that the store waits for before it closes.
    """

    def __init__(
        self,
        shared: Shared,
        start: Callable[[Coroutine[Any, Any, Reserved | None]], asyncio.Task[Reserved | None]],
    ) -> None:
        self._shared = shared
        self._start = start
        self._until = 0.0
        self._ahead: ReservedAhead | None = None
        self._under_way: asyncio.Task[Reserved | None] | None = None

    def new(self) -> float:
        """Until when what a look reserves is reserved: for a lease, and for longer than a function may take. If it
        ended before, two workers would take the same job from each other for ever.

        No two looks have the same: by it one tells what it has already from what earlier looks gave up, also while the
        clock stands still.
        """
        shared = self._shared
        lasts_ms = max(shared.lease_ms, 2_000 * shared.body_s)
        self._until = max(shared.clock.now_ms() + lasts_ms, self._until + _TICK_MS)
        return self._until

    async def reserve(self, statement: str, *parameters: Any, until: float, besides: float | None = None) -> Reserved:
        """Reserves for the look that has this `until`, beside what another one runs at the moment.

        Raises:
            StoreUnavailableError: Some may be reserved, and nobody has heard which. A new look finds them.
        """
        shared = self._shared
        besides = until if besides is None else besides
        question = Statement(shared.sql[statement], (*parameters, shared.worker, until, besides), statement)
        return Reserved(until, (await shared.aside([question], False))[0].rows)

    def look_ahead(self, limit: int, running: float) -> ReservedAhead:
        """Begins to reserve so many due mutations, beside those of a look (its `until`) about to be committed."""
        now, until = self._shared.clock.now_ms(), self.new()

        async def reserve() -> Reserved | None:
            try:
                return await self.reserve("jobs_reserve", "mutation", now, limit, until=until, besides=running)
            except DulyError:
                return None  # the next look finds out what is wrong

        self._under_way = self._start(reserve())
        return ReservedAhead(limit, self._under_way)

    def hand_on(self, ahead: ReservedAhead | None) -> None:
        """The look is committed, and what was reserved beside it is for the next. If not, that is given up."""
        self._ahead = ahead

    async def take(self, limit: int) -> Reserved | None:
        """What was reserved for this look, if anything was. What is not taken is given up: the next look finds it."""
        ahead = self._ahead
        await self.give_up()
        if ahead is None or ahead.limit != limit:
            return None
        reserved = ahead.task.result()
        if reserved is None or not reserved.rows:
            return None
        # Otherwise others may have some of it soon.
        is_fresh = reserved.until - self._shared.clock.now_ms() > self._shared.lease_ms / 2
        return reserved if is_fresh else None

    async def give_up(self) -> None:
        """What was reserved for the next look is not for it any more. What is under way has its end first: later, it
        would take from that look what it has found by then, or reserve for a worker that has stopped."""
        self._ahead = None
        if self._under_way is not None:
            await asyncio.wait({self._under_way})
            self._under_way = None
