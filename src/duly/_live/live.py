"""Live queries: each is computed once for all who watch it, and again only when a commit touched what it read.

All results belong to one moment. A step takes a snapshot, learns from the feed of changes what has been committed since
the last one, and computes in that snapshot what is new and what was touched. What was not touched still holds in it. So
after each step every result is that of the same snapshot, and whoever watches several sees them agree.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeVar

from duly._ground.clock import Clock, Timer
from duly._ground.entropy import Entropy
from duly._live.reading import recording
from duly._model.backoff import OUTAGE
from duly._model.changes import Changes, Reads
from duly._model.limits import out_of_time
from duly._store.port import Store, Transaction
from duly.errors import AppNotOpenError, ConflictError, StoreError

__all__ = ["Live", "LiveQuery", "Watcher"]

T = TypeVar("T")

_log = logging.getLogger("duly")

# For how long we follow, and how long before its end we say so again.
_FOLLOW_S = 30.0
# For so long everybody who commits leaves word; a transaction may be so old that it takes what follows for over.
_CERTAIN_S = 20.0
_RENEW_S = 10.0
_PRUNE_S = 120.0
_PRUNED_MAX = 1_000
# How long a step keeps the event loop from others.
_SLICE_S = 0.005
# What is new waits for another step once this one has taken so long: those who have something see it keep up.
_STEP_S = 0.05
# How long one query may take; then it is told to end, again and again: there is code that takes no notice of the first
# time.
_RUN_S = 10.0
_AGAIN_S = 1.0


class Watcher(Protocol):
    def wake(self) -> None:
        """A query that it watches has another result."""
        ...


class LiveQuery(Generic[T]):
    """A query that is watched. `outcome` is its result as of the last step, or None as long as `version` is 0."""

    __slots__ = ("fail", "key", "outcome", "reads", "run", "version", "watchers")

    def __init__(
        self,
        key: Hashable,
        run: Callable[[Transaction], Coroutine[Any, Any, T]],
        fail: Callable[[Exception], T],
    ) -> None:
        self.key = key
        self.run = run
        self.fail = fail
        self.outcome: T | None = None
        # Grows with each outcome that differs from the one before.
        self.version = 0
        self.reads = Reads()
        self.watchers: set[Watcher] = set()


class Live:
    """The live queries of a process on one store. Costs nothing until something is watched.

    Args:
        store: The store, open.
        clock: The store's.
        entropy: For the name under which this process follows.
    """

    def __init__(self, store: Store, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._clock = clock
        self._follower = entropy.token(16).hex()
        self._queries: dict[Hashable, LiveQuery[Any]] = {}
        self._by_id: dict[str, set[LiveQuery[Any]]] = {}
        self._by_index: dict[int, set[LiveQuery[Any]]] = {}
        # The newest moment that was given out, and that of the last step; in ns since the epoch.
        self._stamped = 0
        self.as_of = 0
        # How far the feed was read; None if it can't be told what has happened since.
        self._place: str | None = None
        self._followed_until = 0.0
        self._renew_at = 0.0
        self._poke = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self.closed = False
        # How often a query was computed: to see that it is not more than it takes.
        self.runs = 0

    def stamp(self) -> int:
        """A new moment, later than every other: ns since the epoch. A later step sees all that is committed by now."""
        self._stamped = max(self._stamped + 1, int(self._clock.now_ms() * 1_000_000))
        return self._stamped

    def pass_by(self, moment: int) -> None:
        """Moments to come are later than this one, which another server has given out."""
        self._stamped = max(self._stamped, moment)

    # Watching.

    def watch(
        self,
        key: Hashable,
        run: Callable[[Transaction], Coroutine[Any, Any, T]],
        watcher: Watcher,
        *,
        fail: Callable[[Exception], T],
    ) -> LiveQuery[T]:
        """Watches a query from the next step on, which comes soon.

        Args:
            key: Equal for queries that are the same computation; then that of the first goes on.
            run: Computes it. It lets no error out but the store's.
            watcher: Told of each new outcome.
            fail: Makes an outcome of the error that it took too long, or of such an error that is not our store's.
        """
        query = self._queries.get(key)
        if query is None:
            query = self._queries[key] = LiveQuery(key, run, fail)
            self._begin()
        query.watchers.add(watcher)
        return query

    def unwatch(self, query: LiveQuery[Any], watcher: Watcher) -> None:
        query.watchers.discard(watcher)
        if not query.watchers and self._queries.get(query.key) is query:
            del self._queries[query.key]
            self._file(query, Reads())

    def rename(self, query: LiveQuery[T], key: Hashable, watcher: Watcher) -> LiveQuery[T]:
        """Who comes with the old key from now on gets a query of his own.

        Returns:
            What the watcher watches now: that which has the new key already, if there is one.
        """
        other = self._queries.get(key)
        if other is None:
            del self._queries[query.key]
            query.key = key
            self._queries[key] = other = query
        elif other is not query:
            other.watchers.add(watcher)
            self.unwatch(query, watcher)
        return other

    async def reach(self, moment: int) -> None:
        """Returns once all results are of that moment or later."""
        if self.as_of < moment:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((moment, future))
            self._begin()
            await future

    @property
    def watched(self) -> int:
        """How many queries there are."""
        return len(self._queries)

    # Keeping up.

    def _begin(self) -> None:
        if self.closed:
            raise AppNotOpenError
        self._poke.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="duly live queries")

    async def close(self) -> None:
        """Wakes all who watch: nothing comes any more."""
        self.closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(AppNotOpenError())
        for query in self._queries.values():
            for watcher in query.watchers:
                watcher.wake()

    async def _run(self) -> None:
        try:
            failures = 0
            while self._queries or self._waiting:
                seen = self._store.version("change")
                self._poke.clear()
                try:
                    await self._keep_following()
                    await self._step()
                except Exception as error:  # noqa: BLE001 (those who wait are not forgotten, whatever it is)
                    failures += 1
                    if failures == 1:
                        unknown = None if isinstance(error, (StoreError, ConflictError)) else error
                        _log.warning(
                            "live queries can't be computed, and are once it works again: %s", error, exc_info=unknown
                        )
                    await self._clock.sleep(OUTAGE.delay_ms(failures, 0.5) / 1_000)
                    continue
                if failures:
                    _log.warning("live queries are computed again")
                failures = 0
                await self._until_something_happened(seen)
        finally:
            self._place = None
            if self._followed_until:
                self._followed_until = 0.0
                with contextlib.suppress(StoreError, ConflictError):
                    await self._store.unfollow(self._follower)
            # Not before: who comes meanwhile would be followed for, and that undone.
            self._task = None
        if (self._queries or self._waiting) and not self.closed:
            self._begin()

    async def _keep_following(self) -> None:
        # By the wall clock, as those who commit see it: it goes on while the machine sleeps.
        now = self._clock.now_ms()
        if now < self._renew_at and self._followed_until:
            return
        if now > self._followed_until:
            self._place = None  # what was committed meanwhile left no word
        await self._store.follow(self._follower, _FOLLOW_S)
        self._followed_until, self._renew_at = now + _CERTAIN_S * 1_000, now + _RENEW_S * 1_000
        before = now - _PRUNE_S * 1_000
        await self._store.transact(lambda tx: tx.prune_changes(before, _PRUNED_MAX))

    async def _until_something_happened(self, seen: int) -> None:
        loop = asyncio.get_running_loop()
        tasks = {
            loop.create_task(self._store.wait("change", seen, self._renew_at)),
            loop.create_task(self._poke.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _step(self) -> None:
        moment = self.stamp()  # before the snapshot is taken
        place, computed = await self._store.read(self._compute, follows=True)
        self._place = place
        for query, outcome, reads in computed:
            if self._queries.get(query.key) is not query:
                continue  # nobody watches it any more
            self._file(query, reads)
            if not query.version or outcome != query.outcome:
                query.outcome = outcome
                query.version += 1
                for watcher in query.watchers:
                    watcher.wake()
        self.as_of = moment
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if wanted <= moment:
                if not future.done():
                    future.set_result(None)
            else:
                self._waiting.append((wanted, future))
                self._poke.set()

    async def _compute(self, tx: Transaction) -> tuple[str, list[tuple[LiveQuery[Any], Any, Reads]]]:
        place, changes = await tx.changes_since(self._place)
        touched = self._touched(changes)
        began = started = self._clock.monotonic()
        computed: list[tuple[LiveQuery[Any], Any, Reads]] = []
        new = [query for query in self._queries.values() if not query.version]
        for query in [*(query for query in self._queries.values() if query.version and query in touched), *new]:
            if computed and not query.version and self._clock.monotonic() - began > _STEP_S:
                self._poke.set()
                break
            reads = Reads()
            try:
                outcome = await self._in_time(query, recording(tx, reads))
            except (StoreError, ConflictError) as error:
                if tx.fault is not None:
                    raise
                # Of its own making, or another store's: the others do not wait for that to pass.
                outcome = query.fail(error)
            if tx.fault is not None:
                raise tx.fault
            self.runs += 1
            computed.append((query, outcome, reads))
            if self._clock.monotonic() - started > _SLICE_S:
                await self._clock.sleep(0)
                started = self._clock.monotonic()
        return place, computed

    async def _in_time(self, query: LiveQuery[T], tx: Transaction) -> T:
        """One that waited for ever would hold up all others, which come after it."""
        began = self._clock.monotonic()
        task = asyncio.get_running_loop().create_task(query.run(tx), name="duly live query")

        timer: Timer

        def cancel() -> None:
            nonlocal timer
            task.cancel()
            timer = self._clock.call_later(_AGAIN_S, cancel)

        timer = self._clock.call_later(_RUN_S, cancel)
        try:
            await asyncio.wait({task})
        finally:
            timer.cancel()
            task.cancel()
        if not task.cancelled():
            return task.result()
        took_s = self._clock.monotonic() - began
        return query.fail(out_of_time("a live query", took_s, _RUN_S, "read less (rule T4)"))

    def _touched(self, changes: Changes) -> set[LiveQuery[Any]]:
        if changes.everything:
            return set(self._queries.values())
        touched: set[LiveQuery[Any]] = set()
        for id in changes.ids:
            touched |= self._by_id.get(id, set())
        for index in changes.entries:
            for query in self._by_index.get(index, set()) - touched:
                if query.reads.touched_by(changes):
                    touched.add(query)
        return touched

    def _file(self, query: LiveQuery[Any], reads: Reads) -> None:
        """Notes what a query reads from now on."""
        for id in query.reads.ids - reads.ids:
            _discard(self._by_id, id, query)
        for id in reads.ids - query.reads.ids:
            self._by_id.setdefault(id, set()).add(query)
        before, after = ({index for index, _, _ in known.ranges} for known in (query.reads, reads))
        for index in before - after:
            _discard(self._by_index, index, query)
        for index in after - before:
            self._by_index.setdefault(index, set()).add(query)
        query.reads = reads


Key = TypeVar("Key")


def _discard(queries: dict[Key, set[LiveQuery[Any]]], key: Key, query: LiveQuery[Any]) -> None:
    queries[key].discard(query)
    if not queries[key]:
        del queries[key]
