"""Moments that clients were given, and read again: `query_ts` and `query_at_ts`."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from duly._ground.clock import Clock
from duly._store.port import Snapshot, Store, Transaction
from duly.errors import ConflictError, StoreError

__all__ = ["SnapshotGoneError", "Snapshots"]

T = TypeVar("T")

# A client takes one moment for all it asks: it stays for a minute at least, and as long as it is asked for, within
# reason. A snapshot that is held keeps the engine from tidying up.
_KEPT_LEAST_S = 60.0
_KEPT_S = 90.0
_KEPT_LONGEST_S = 600.0
_SNAPSHOTS_MAX = 20
# So many are to be had at once. What is left lasts until the oldest may go.
_SPARE = 10
_BUSY_S = 0.1
_SWEEP_S = 10.0


class SnapshotGoneError(Exception):
    """The moment was not given out here, or too long ago."""


class _Held:
    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self.snapshot = snapshot
        self.begun = now
        self.used = now
        self.readers = 0


class Snapshots:
    """The moments that this process holds.

    There are few, and anyone may ask. So the more are held, the longer one waits for another; those who wait share it.
    Nobody is turned away, however many come.

    Args:
        store: The store, once it is open.
        clock: When a moment is let go is told by it.
    """

    def __init__(self, store: Callable[[], Store], clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._held: dict[int, _Held] = {}
        self._next: asyncio.Task[int] | None = None
        self._taken = -math.inf
        # Taking one, and waiting to, is one at a time.
        self._turn = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None

    async def hold(self, stamp: Callable[[], int]) -> int:
        """Holds what is committed now, for a minute at least, and longer while it is read. May take a few seconds.

        Args:
            stamp: Gives the moment its name.

        Raises:
            AppNotOpenError, StoreError: There is nothing to be had of the store.
        """
        if self._next is None or self._next.done():
            self._next = asyncio.get_running_loop().create_task(self._take(stamp), name="duly snapshot")
            self._next.add_done_callback(_shrug)
        return await asyncio.shield(self._next)

    async def _take(self, stamp: Callable[[], int]) -> int:
        async with self._turn:
            try:
                while (wait_s := await self._until_there_is_room()) > 0:
                    await self._clock.sleep(wait_s)
            finally:
                self._next = None  # who comes from here on may have seen more than is shown of this moment
            moment = stamp()  # before the snapshot is taken, which so shows all that was committed by then
            snapshot = await self._store().snapshot()
            self._taken = self._clock.monotonic()
            self._held[moment] = _Held(snapshot, self._taken)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), name="duly snapshots")
        return moment

    async def _until_there_is_room(self) -> float:
        """How many seconds, as it is now."""
        await self._let_go()
        now = self._clock.monotonic()
        room = _SNAPSHOTS_MAX - len(self._held)
        if room > _SPARE:
            return 0.0
        soonest = min(held.begun for held in self._held.values()) + _KEPT_LEAST_S
        if room > 0:
            return self._taken + (soonest - self._taken) / room - now
        if now < soonest:
            return soonest - now
        unread = [moment for moment, held in self._held.items() if not held.readers]
        if not unread:
            return _BUSY_S
        await self._drop(min(unread, key=lambda moment: self._held[moment].begun))
        return 0.0

    async def read(self, moment: int, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """Reads what was committed then.

        Raises:
            SnapshotGoneError: It is not held, or others have spoilt it, or what held it was cut off.
        """
        held = self._held.get(moment)
        if held is None:
            raise SnapshotGoneError
        held.readers += 1
        try:
            return await held.snapshot.read(body)
        except (ConflictError, StoreError) as lost:
            # Where others take long it was not waited for a moment that nobody can spoil. And another connection does
            # not see what the one that broke has seen. Nothing reads it any more.
            await self._drop(moment)
            raise SnapshotGoneError from lost
        finally:
            held.readers -= 1
            held.used = self._clock.monotonic()

    async def _sweep(self) -> None:
        try:
            while self._held:
                await self._clock.sleep(_SWEEP_S)
                await self._let_go()
        finally:
            self._sweeper = None

    async def _let_go(self) -> None:
        now = self._clock.monotonic()
        for moment, held in list(self._held.items()):
            old = now - held.used > _KEPT_S or now - held.begun > _KEPT_LONGEST_S
            if old and not held.readers:
                await self._drop(moment)

    async def _drop(self, moment: int) -> None:
        held = self._held.pop(moment, None)
        if held is not None:
            await held.snapshot.close()


def _shrug(task: asyncio.Task[int]) -> None:
    """All who waited for it may have left."""
    if not task.cancelled():
        task.exception()
