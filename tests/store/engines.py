"""The engines that the suite runs on. A new engine is one more entry; no test changes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from duly._ground.clock import Clock
from duly._store.open import make_store
from duly._store.port import Store

__all__ = ["ENGINES", "Engine"]


@dataclass(frozen=True)
class Engine:
    """How to get a store of one kind, and what only some kinds can do.

    Args:
        name: For the tests' names.
        make: A store that is not opened yet, on the one database that belongs to a temporary folder. For PostgreSQL its
            URL stands there, in the file `postgresql`.
        durable: Whether the database outlives the store: it can be opened again, and by several stores at once.
        snapshots: Whether reads go on beside a commit. Where they don't, they take turns with it.
    """

    name: str
    make: Callable[[Path, Clock], Store]
    durable: bool
    snapshots: bool


def _sqlite_file(folder: Path, clock: Clock) -> Store:
    return make_store(f"sqlite:///{folder / 'test.db'}", clock)


def _sqlite_memory(_: Path, clock: Clock) -> Store:
    return make_store("sqlite:///:memory:", clock)


def _postgresql(folder: Path, clock: Clock) -> Store:
    return make_store((folder / "postgresql").read_text(), clock)


ENGINES = [
    Engine("sqlite-file", _sqlite_file, durable=True, snapshots=True),
    Engine("sqlite-memory", _sqlite_memory, durable=False, snapshots=False),
    Engine("postgresql", _postgresql, durable=True, snapshots=True),
]
