"""A store whose commits fail on demand, and that is gone for a worker that was killed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from duly._ground.clock import Clock
from duly._model.schema import Table
from duly._store.port import Lease, Snapshot, Store, Topic, Transaction
from duly.errors import StoreUnavailableError

__all__ = ["Faults", "MortalStore", "StoreView"]

T = TypeVar("T")


class Faults:
    """What is to go wrong; shared by all that use one store."""

    def __init__(self) -> None:
        self.commits_to_fail = 0


class StoreView:
    """A store as it is. What goes wrong on the way to it, others add in `read` and `transact`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def expect_bodies(self, seconds: float) -> None:
        self._store.expect_bodies(seconds)

    @property
    def clock(self) -> Clock:
        return self._store.clock

    async def migrate(self) -> tuple[int, int]:
        return await self._store.migrate()

    async def open(self, tables: Sequence[Table[Any]]) -> None:
        await self._store.open(tables)

    async def close(self) -> None:
        await self._store.close()

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /, *, follows: bool = False) -> T:
        return await self._store.read(body, follows=follows)

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        return await self._store.transact(body, claims=claims)

    def version(self, topic: Topic) -> int:
        return self._store.version(topic)

    def due_since(self, topic: Topic, since: int) -> float | None:
        return self._store.due_since(topic, since)

    async def wait(self, topic: Topic, since: int, until: float | None) -> None:
        await self._store.wait(topic, since, until)

    async def register_worker(self, worker: str, lease_s: float, functions: Mapping[str, str]) -> Lease:
        return await self._store.register_worker(worker, lease_s, functions)

    async def unregister_worker(self, worker: str) -> None:
        await self._store.unregister_worker(worker)

    async def snapshot(self) -> Snapshot:
        return await self._store.snapshot()

    async def follow(self, follower: str, seconds: float) -> None:
        await self._store.follow(follower, seconds)

    async def unfollow(self, follower: str) -> None:
        await self._store.unfollow(follower)

    @property
    def shared(self) -> bool:
        return self._store.shared


class MortalStore(StoreView):
    """One worker's view of a store.

    Args:
        store: The store, opened and closed by whoever made it.
        faults: What is to go wrong.
    """

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store)
        self._faults = faults
        self.dead = False

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /, *, follows: bool = False) -> T:
        self._check_alive()
        return await self._store.read(body, follows=follows)

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        self._check_alive()

        async def mortal(tx: Transaction) -> T:
            result = await body(tx)
            # Whoever was killed meanwhile commits nothing.
            self._check_alive()
            if tx.wrote and self._faults.commits_to_fail:
                self._faults.commits_to_fail -= 1
                raise StoreUnavailableError("the commit failed, as `fail_commits` asked for")
            return result

        return await self._store.transact(mortal, claims=claims)

    def _check_alive(self) -> None:
        if self.dead:
            raise StoreUnavailableError("this worker was killed, as `crash` asked for")
