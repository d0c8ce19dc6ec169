"""The executor: what makes this process a worker."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import timedelta

from duly._call.runner import Runner
from duly._call.scope import Environment
from duly._store.port import Lease
from duly._work.actions import Actions
from duly._work.fit import published
from duly._work.lease import Keeper, LeaseKeeper
from duly._work.loop import Loop
from duly._work.mutations import Mutations
from duly._work.upkeep import Upkeep
from duly.errors import AppNotOpenError, ConflictError, StoreError

__all__ = ["Executor"]

_log = logging.getLogger("duly")

# How long a stop may take to end its looks for work before it says that it waits for that; and before it goes on, and
# does not know what became of them. No action has begun in them: others settle what they may have claimed.
_SILENCE_S = 5.0
_LOOKS_S = 30.0


class Executor:
    """Runs due functions in this process, from `start` to `stop`.

    Mutations and actions have loops of their own, so that neither holds up the other.

    Args:
        environment: The app's.
        runner: Runs the functions.
        concurrent_actions: How many actions may be in progress at once.
        lease: How long others wait before they settle what this worker had in progress.
        retention: How long finished functions are kept.
        keep: Makes what renews the lease, every so many seconds.
    """

    def __init__(
        self,
        environment: Environment,
        runner: Runner,
        *,
        concurrent_actions: int,
        lease: timedelta,
        retention: timedelta,
        keep: Callable[[Lease, float], Keeper] = LeaseKeeper,
    ) -> None:
        self._environment = environment
        self._runner = runner
        self._concurrent_actions = concurrent_actions
        self._lease_s = lease.total_seconds()
        self._retention = retention
        # Random for each start, so that nothing a former process left can be taken for ours.
        self.worker = environment.entropy.token(12).hex()
        self._keep = keep
        self._keeper: Keeper | None = None
        self.actions: Actions | None = None
        self.loops: list[Loop] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Registers the worker, settles what dead workers left, and begins to look for work."""
        await self.prepare()
        self._tasks = [asyncio.get_running_loop().create_task(loop.run()) for loop in self.loops]

    async def prepare(self) -> None:
        """Registers the worker and settles what dead workers left. Who does not `start` it takes the loops' turns."""
        environment = self._environment
        lease: Lease = await environment.store.register_worker(
            self.worker, self._lease_s, published(environment.registry)
        )
        self._keeper = self._keep(lease, self._lease_s / 3)
        mutations = Mutations(environment, self._runner)
        self.actions = Actions(environment, self._runner, self.worker, self._keeper, self._concurrent_actions)
        upkeep = Upkeep(environment, self.worker, self._retention, self._lease_s)
        self.loops = [
            Loop(environment, "upkeep", upkeep.look),
            Loop(environment, "mutation", mutations.look),
            Loop(environment, "action", self.actions.look),
        ]
        # Before anything due can hold it up: what dead workers left is settled within a second of a restart (rule A3).
        with contextlib.suppress(ConflictError, StoreError):  # the loop goes on trying
            environment.emit(*(await upkeep.look()).events)

    @property
    def running(self) -> bool:
        """Whether it looks for work: from `start` until it is stopped, or breaks down."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def abandon(self) -> None:
        """As if the process had been killed: what runs ends here, and nothing is recorded of it."""
        for task in self._tasks:
            task.cancel()
        if self.actions is not None:
            self.actions.abandon()
        if self._keeper is not None:
            self._keeper.close()

    async def stop(self, drain_s: float) -> None:
        """Takes nothing new, waits for running actions, records every outcome, and gives the lease back last."""
        try:
            for loop in self.loops:
                loop.stop()
            if self.actions is not None:
                self.actions.make_room()
            await self._end_looks()
            if self.actions is not None:
                await self.actions.drain(drain_s)
            await self._environment.store.unregister_worker(self.worker)
        except (ConflictError, StoreError, AppNotOpenError) as error:
            _log.warning("the worker could not sign off; others will notice that it is gone: %s", error)
        finally:
            # The last thing to stop: until here others must see that this worker lives.
            if self._keeper is not None:
                self._keeper.close()

    async def _end_looks(self) -> None:
        clock = self._environment.clock
        # A mutation that still runs has the time that it may take.
        longest_s = self._environment.mutation_timeout_s + _LOOKS_S
        timers = clock.call_later(_SILENCE_S, _say_that_it_waits), clock.call_later(longest_s, self._give_looks_up)
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            for timer in timers:
                timer.cancel()

    def _give_looks_up(self) -> None:
        _log.warning("the last look for due work is given up; what it may have claimed, others settle")
        for task in self._tasks:
            task.cancel()


def _say_that_it_waits() -> None:
    _log.warning("the stop waits for the last look for due work to end, and for the database to say what became of it")
