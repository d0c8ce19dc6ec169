"""What the connections of one store share: the file's neighbours, and caches of what rarely changes."""

from collections.abc import Mapping
from pathlib import Path

from duly._ground.clock import Clock
from duly._store.port import StoredIndex
from duly._store.sqlite.lease import forget_lease, is_held, seconds_left

__all__ = ["Shared"]


class Shared:
    """`path` is None in memory. The caches are dropped when another process has committed.

    Args:
        path: The database file.
        clock: For leases.
    """

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self.path = path
        self.where = str(path) if path else "in memory"
        self._clock = clock
        self.indexes: dict[str, list[StoredIndex]] | None = None
        self.tables: dict[str, str] = {}
        # Statements of the user's that may run. See `user_sql`.
        self.checked_sql: set[str] = set()
        # In memory: when the lease of each worker expires.
        self.leases: dict[str, float] = {}
        # In memory: what the workers can run, as in their rows elsewhere.
        self.functions: dict[str, Mapping[str, str]] = {}

    @property
    def folder(self) -> Path:
        """Where leases and mailboxes are: beside the database, so that they are found by whoever finds it."""
        assert self.path is not None
        return self.path.with_name(self.path.name + "-workers")

    def lease_path(self, worker: str) -> Path:
        return self.folder / f"{worker}.lease"

    def lease_left(self, worker: str) -> float:
        """Seconds; 0 or less if nobody holds it any more."""
        if self.path is None:
            return self.leases[worker] - self._clock.monotonic() if worker in self.leases else 0
        return seconds_left(self.lease_path(worker), self._clock)

    def is_held(self, worker: str) -> bool:
        return worker in self.leases if self.path is None else is_held(self.lease_path(worker))

    def workers_having(self, function: str) -> list[tuple[str, str]]:
        """In memory: the workers that can run a function, and the fingerprint of its signature there."""
        having = [(worker, functions.get(function)) for worker, functions in self.functions.items()]
        return [(worker, fingerprint) for worker, fingerprint in having if fingerprint is not None]

    def forget_worker(self, worker: str) -> None:
        if self.path:
            forget_lease(self.lease_path(worker))
