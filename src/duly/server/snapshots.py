"""Moments that clients were given, and read again: `query_ts` and `query_at_ts`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from duly._ground.clock import Clock
from duly._store.port import Snapshot, Store, Transaction
from duly.errors import ConflictError

__all__ = ["SnapshotGoneError", "Snapshots", "TooManySnapshotsError"]

T = TypeVar("T")

# A client takes one moment for all it asks: it stays as long as it is asked for, within reason. A snapshot that is held
# keeps the engine from tidying up.
_KEPT_S = 90.0
_KEPT_LONGEST_S = 600.0
_SNAPSHOTS_MAX = 20
_SWEEP_S = 10.0


class SnapshotGoneError(Exception):
    """The moment was not given out here, or too long ago."""


class TooManySnapshotsError(Exception):
    """More moments are held than is good."""


class _Held:
    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self.snapshot = snapshot
        self.begun = now
        self.used = now
        self.readers = 0


class Snapshots:
    """The moments that this process holds.

    Args:
        store: The store, once it is open.
        clock: When a moment is let go is told by it.
    """

    def __init__(self, store: Callable[[], Store], clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._held: dict[int, _Held] = {}
        self._coming = 0
        self._sweeper: asyncio.Task[None] | None = None

    async def hold(self, stamp: Callable[[], int]) -> int:
        """Holds what is committed now, for a minute at least, and longer while it is read.

        Args:
            stamp: Gives the moment its name.

        Raises:
            TooManySnapshotsError: So many are held already.
        """
        await self._let_go()
        if len(self._held) + self._coming >= _SNAPSHOTS_MAX:
            raise TooManySnapshotsError
        moment = stamp()  # before the snapshot is taken, which so shows all that was committed by then
        self._coming += 1
        try:
            snapshot = await self._store().snapshot()
        finally:
            self._coming -= 1
        self._held[moment] = _Held(snapshot, self._clock.monotonic())
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), name="duly snapshots")
        return moment

    async def read(self, moment: int, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """Reads what was committed then.

        Raises:
            SnapshotGoneError: It is not held, or others have spoilt it.
        """
        held = self._held.get(moment)
        if held is None:
            raise SnapshotGoneError
        held.readers += 1
        try:
            return await held.snapshot.read(body)
        except ConflictError as lost:
            # Where others take long it was not waited for a moment that nobody can spoil. Nothing reads it any more.
            if self._held.pop(moment, None) is not None:
                await held.snapshot.close()
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
                del self._held[moment]
                await held.snapshot.close()
