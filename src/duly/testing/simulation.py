"""Several workers on one store in virtual time, with faults; everything that happens follows from one seed.

The machinery behind `tests/simulation`: a `World` holds the clock, the store and the workers; whoever drives it decides
on the functions that run in it and on what must hold afterwards. Nothing in it waits for real time, uses a thread or
touches a disk, so that the same seed gives the same history.

What may go wrong: a worker is killed before, in the middle of or right after a commit; a commit that happened is
reported as failed, or told too late; the store is unavailable for a while; a worker stalls beyond its lease and comes
back; clocks differ; workers are stopped and come back at any moment.
"""

import asyncio
import hashlib
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from duly._app import App, Parts
from duly._ground.clock import Clock, SystemClock, Timer, datetime_of
from duly._model.event import Event
from duly._model.schema import Table
from duly._model.signature import Signature
from duly._store.open import make_store
from duly._store.port import Lease, Store, Topic, Transaction
from duly._work.executor import Executor
from duly.errors import StoreUnavailableError
from duly.testing.clock import VirtualClock
from duly.testing.entropy import SeededEntropy
from duly.testing.faults import StoreView

__all__ = ["QUIET", "Chaos", "Worker", "World"]

T = TypeVar("T")

_START_MS = 1_800_000_000_000.0
_ON_THE_WIRE = ("duly statement", "duly connect")


@dataclass(frozen=True)
class Chaos:
    """How likely is what, each time there is occasion; and how far clocks differ.

    Args:
        kill: A worker is killed at a transaction of its own.
        fail: A transaction fails.
        doubt: A transaction that was committed is reported as failed.
        late: A transaction is told of late, by some virtual seconds.
        skew_ms: The most by which a worker's clock is off.
    """

    kill: float = 0.004
    fail: float = 0.02
    doubt: float = 0.01
    late: float = 0.02
    skew_ms: float = 0.0


QUIET = Chaos(0, 0, 0, 0)


class _SkewedClock:
    """A worker's own idea of what time it is. Durations are everybody's."""

    nap_s = float("inf")

    def __init__(self, clock: VirtualClock, skew_ms: float) -> None:
        self._clock = clock
        self.skew_ms = skew_ms
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep

    def now_ms(self) -> float:
        return self._clock.now_ms() + self.skew_ms

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self._clock.call_later(seconds, callback)


class _Keeper:
    """Renews a lease on the virtual clock, while its worker is not stalled."""

    def __init__(self, lease: Lease, every_s: float, worker: "Worker") -> None:
        self._lease = lease
        self._every_s = every_s
        self._worker = worker
        self._timer: Timer | None = None
        worker.lives_ms = (worker.world.clock.now_ms(), math.inf)
        worker.lapses = lease.lapses
        if lease.lapses:
            self._hold()

    async def hold(self) -> None:
        self._hold()

    def _hold(self) -> None:
        if not self._worker.stalled:
            self._lease.renew()
        if self._timer is None:
            self._timer = self._worker.world.clock.call_later(self._every_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._hold()

    def rest(self) -> None:
        if not self._lease.lapses:
            self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        self._stop()
        self._lease.release()
        start, end = self._worker.lives_ms
        self._worker.lives_ms = (start, min(end, self._worker.world.clock.now_ms()))


class Worker:
    """One process: an app with an executor, on the world's store.

    `app` makes calls from this process; they fail once it is dead.
    """

    def __init__(self, world: "World", name: str, skew_ms: float) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.stalled = False
        # Whether anything ever became of it.
        self.troubled = False
        # From when to when others find it registered.
        self.lives_ms = (math.inf, math.inf)
        # Whether they find it so only as long as it renews its lease.
        self.lapses = False
        # Functions of which its code has another version than the template.
        self._changed = set[str]()
        # When it was dead or stalled; once it is back, it has to renew its lease first.
        self._sick: list[tuple[float, float]] = []
        # From when to when its transactions ran.
        self.transactions_ms: list[tuple[float, float]] = []
        self._awake = asyncio.Event()
        self._awake.set()
        self.clock = clock = _SkewedClock(world.clock, skew_ms)
        self.skew_ms = skew_ms
        parts = Parts(
            clock,
            SeededEntropy(world.random.getrandbits(64)),
            self._observe,
            strict=False,
            store=lambda _url, _clock: _SimulatedStore(world, self),
            keep=lambda lease, every_s: _Keeper(lease, every_s, self),
        )
        self.app = world.template._twin("sqlite:///:memory:", parts)
        self.executor: Executor | None = None

    def _observe(self, event: Event) -> None:
        if self.alive:
            self.world.note(f"{self.name} {event.kind} {event.path} {event.job_id or ''}")
            self.world.observe(self, event)

    def was_well(self, at_ms: float) -> bool:
        """Whether it lived then, and its lease should have been good."""
        return not any(start <= at_ms <= end for start, end in self._sick)

    async def start(self) -> None:
        await self.app._open()
        self.executor = self.app._make_executor()
        try:
            await self.executor.start()
        finally:
            if not self.alive:  # it was stopped or killed meanwhile: a dead process holds no lease
                self.executor.abandon()

    async def stop(self, drain_s: float) -> None:
        """Gracefully (rule A4)."""
        self.world.note(f"{self.name} stops")
        self.troubled = True
        if self.executor is not None:
            await self.executor.stop(drain_s)
        self.alive = False

    def forget(self, path: str) -> None:
        """Its code has no such function. To be called before it starts."""
        self.world.note(f"{self.name} has no {path}")
        registry = self.app._registry
        registry.load()
        gone = registry.functions.pop(path)
        registry._by_reference = {key: known for key, known in registry._by_reference.items() if known is not gone}

    def change(self, path: str) -> None:
        """Its code has another version of a function, which takes no arguments that there are. Before it starts."""
        self.world.note(f"{self.name} has another {path}")

        async def changed(ctx: Any, *, new: int) -> None: ...

        self.app._registry.load()
        self.app._registry.functions[path].signature = Signature(path, changed)
        self._changed.add(path)

    def saw_as_of(self, at_ms: float) -> float:
        """Since when what it decided then may stand: it knew what was so when its transaction began."""
        return min((start for start, end in self.transactions_ms if start - 1 <= at_ms <= end + 1), default=at_ms)

    def could_run(self, path: str, at_ms: float) -> bool:
        """Whether it was registered then with a version of a function that takes the arguments there are."""
        start, end = self.lives_ms
        lives = start < at_ms < end and (not self.lapses or self.was_well(at_ms))
        return lives and path in self.app._registry.functions and path not in self._changed

    def kill(self) -> None:
        if self.alive:
            self.world.note(f"{self.name} is killed")
            self.troubled = True
            self._sick.append((self.world.clock.now_ms(), math.inf))
            self.alive = False
            self._awake.set()
            if self.executor is not None:
                self.executor.abandon()

    def stall(self, seconds: float) -> None:
        """Stands still: takes no step, and renews nothing, until then."""
        if self.alive and not self.stalled:
            self.world.note(f"{self.name} stalls for {seconds:.1f} s")
            self.stalled = self.troubled = True
            start = self.world.clock.now_ms()
            self._sick.append((start, start + (seconds + self.app._lease.total_seconds()) * 1_000))
            self._awake.clear()
            self.world.clock.call_later(seconds, self._wake)

    def _wake(self) -> None:
        self.world.note(f"{self.name} is back")
        self.stalled = False
        self._awake.set()

    async def step(self) -> None:
        """Before and after whatever it does outside of its own memory."""
        await self._awake.wait()
        if not self.alive:
            raise StoreUnavailableError(f"{self.name} is dead")


class _SimulatedStore(StoreView):
    """A worker's way to the store, with what goes wrong on it."""

    def __init__(self, world: "World", worker: Worker) -> None:
        # On a server each process has connections of its own.
        super().__init__(make_store(world.database, world.clock) if world.database else world.store)
        self._world = world
        self._worker = worker
        self._own = bool(world.database)

    @property
    def clock(self) -> Clock:
        return self._worker.clock

    async def open(self, tables: Sequence[Table[Any]]) -> None:
        """The world has opened the store that all share."""
        if self._own:
            self._world.opened.append(self._store)
            await self._store.open(tables)

    async def close(self) -> None:
        """The world closes what it has opened, and what the dead leave open."""
        if self._own and self._worker.alive:
            self._world.opened.remove(self._store)
            await self._store.close()

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /, *, follows: bool = False) -> T:
        await self._world.dawdle()
        await self._worker.step()
        self._world.check_available()
        result = await self._store.read(body, follows=follows)
        await self._worker.step()
        return result

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        world, worker = self._world, self._worker
        await world.dawdle()
        await worker.step()
        world.check_available()
        kill_at = world.choose_kill()
        if kill_at == "before":
            worker.kill()
            await worker.step()

        async def mortal(tx: Transaction) -> T:
            began = world.clock.now_ms()
            try:
                result = await body(tx)
            finally:
                worker.transactions_ms.append((began, world.clock.now_ms()))
            if kill_at == "during":
                worker.kill()
            if not worker.alive:
                raise StoreUnavailableError(f"{worker.name} was killed before the commit")
            if world.commit_fails():
                world.note(f"{worker.name} commit fails")
                raise StoreUnavailableError("simulated: the commit failed")
            return result

        result = await self._store.transact(mortal, claims=claims)
        if kill_at == "after":
            worker.kill()
        await worker.step()
        if world.happens(world.chaos.late):
            await world.clock.sleep(world.random.uniform(0, 20))
            await worker.step()
        if world.happens(world.chaos.doubt):
            world.note(f"{worker.name} commit in doubt")
            raise StoreUnavailableError("simulated: the commit happened, and was reported as failed")
        return result

    async def wait(self, topic: Topic, since: int, until: float | None) -> None:
        # The store knows the true time, and `until` is by the worker's clock.
        await self._store.wait(topic, since, None if until is None else until - self._worker.skew_ms)

    @property
    def shared(self) -> bool:
        return True


class World:
    """The clock, the store and the workers of one simulation.

    Args:
        template: The app whose functions run.
        seed: Decides everything, if the database is in memory.
        chaos: How likely is what.
        database: The URL of an empty database on a server, for each worker to connect to; default: one in memory.
    """

    def __init__(self, template: App, seed: int, chaos: Chaos, database: str | None = None) -> None:
        self.template = template
        self.random = random.Random(seed)
        self.chaos = chaos
        self.clock = VirtualClock(_START_MS)
        self.database = database
        self.store: Store = make_store(database or "sqlite:///:memory:", self.clock)
        self.opened: list[Store] = []
        self.workers: list[Worker] = []
        self.history: list[str] = []
        # What must not be, seen as it happened.
        self.wrongs: list[str] = []
        self._owners: dict[str, Worker] = {}
        self._unavailable_until = 0.0
        self._failing = False
        self._named = 0

    async def open(self) -> None:
        self.template._registry.load()
        await self.store.open(list(self.template._registry.tables.values()))

    async def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        await self.turns(50)
        for store in (*self.opened, self.store):
            await store.close()

    def add_worker(self) -> Worker:
        """A worker that is not started yet."""
        self._named += 1
        skew = self.random.uniform(-self.chaos.skew_ms, self.chaos.skew_ms)
        worker = Worker(self, f"w{self._named}", skew)
        self.workers.append(worker)
        return worker

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    # Chance.

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def choose_kill(self) -> str | None:
        return self.random.choice(["before", "during", "after"]) if self.happens(self.chaos.kill) else None

    def commit_fails(self) -> bool:
        """Faults come in company: after one the next is likely."""
        self._failing = self.happens(0.5 if self._failing and self.chaos.fail else self.chaos.fail)
        return self._failing

    async def dawdle(self) -> None:
        """Some turns of the event loop, or some time: whoever asked first need not come first."""
        if self.happens(0.2):
            await self.clock.sleep(self.random.uniform(0, 0.05))
        else:
            await self.turns(self.random.randrange(4))

    # Faults of the whole.

    def lose_store(self, seconds: float) -> None:
        self.note(f"the store is away for {seconds:.1f} s")
        self._unavailable_until = self.clock.monotonic() + seconds

    def check_available(self) -> None:
        if self.clock.monotonic() < self._unavailable_until:
            raise StoreUnavailableError("simulated: the store is unavailable")

    # Time.

    async def turns(self, number: int) -> None:
        clock = SystemClock()
        for _ in range(number):
            await clock.sleep(0)
        while self.database and any(task.get_name() in _ON_THE_WIRE for task in asyncio.all_tasks()):
            # What a server is asked takes real time; nothing else does.
            await clock.sleep(0.0002)
            for _ in range(number):
                await clock.sleep(0)

    async def run(self, delta: timedelta) -> None:
        """Lets time pass, from alarm to alarm."""
        end = self.clock.now_ms() + delta.total_seconds() * 1_000
        while True:
            await self.turns(self.random.randrange(10, 40))
            at = self.clock.next_alarm_ms()
            if at is None or at > end:
                break
            self.clock.move_to(at)
        self.clock.move_to(end)

    # History.

    def note(self, line: str) -> None:
        self.history.append(f"{datetime_of(self.clock.now_ms()):%m-%d %H:%M:%S.%f} {line}")

    def observe(self, worker: Worker, event: Event) -> None:
        """Rule A3: only of a worker that is not well anybody else settles what it has in progress.

        Rule S3: what one version can't run fails only if no other worker could.
        """
        if event.job_id is None:
            return
        unfit = f"ArgumentError: the arguments don't fit {event.path!r}"
        if event.kind == "failed" and str(event.detail).startswith(unfit):
            seen = worker.saw_as_of(event.at_ms - worker.skew_ms)
            able = [other.name for other in self.workers if other.could_run(event.path, seen)]
            if able:
                self.wrongs.append(f"{worker.name} failed {event.job_id}, which {', '.join(able)} could run")
        if event.kind == "started":
            self._owners[event.job_id] = worker
        owner = self._owners.get(event.job_id)
        others = event.kind == "interrupted" and owner is not None and owner is not worker
        # It may be told of late; it happened then.
        if others and owner is not None and owner.was_well(event.at_ms - worker.skew_ms):
            self.wrongs.append(f"{worker.name} gave up {event.job_id}, which {owner.name} has in progress")

    def fingerprint(self) -> str:
        """The same for the same history."""
        return hashlib.sha256("\n".join(self.history).encode()).hexdigest()
