"""What the transactions of one store share: the statements, and caches of what rarely changes."""

import json
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from duly._ground.entropy import SystemEntropy
from duly._model.schema import Index
from duly._store.port import StoredIndex
from duly._store.postgresql.clock import DatabaseClock
from duly._store.postgresql.wire import Answer, Statement
from duly._store.statements import statements_of
from duly.errors import ConflictError

__all__ = ["Catalog", "Shared"]

_NOT_WAITING_S = 5.0
_IDLE_MS = 10 * 1_000
_IDLE_READ_MS = 10 * 60 * 1_000


@dataclass(frozen=True, slots=True)
class Catalog:
    """The indexes that are kept up, by the tag of their table, as of a version."""

    version: int
    indexes: dict[str, list[StoredIndex]]
    # Those that do not hold yet what was there before them.
    filling: frozenset[int]

    @classmethod
    def of(cls, version: int, rows: list[Any]) -> "Catalog":
        indexes: dict[str, list[StoredIndex]] = {}
        for number, tag, name, fields, _ready in rows:
            indexes.setdefault(tag, []).append(StoredIndex(number, Index(name, tuple(json.loads(fields)))))
        return cls(version, indexes, frozenset(row[0] for row in rows if not row[4]))


class Shared:
    """One for each store.

    Args:
        schema: The PostgreSQL schema.
        where: The database, for messages.
        clock: Tells the time as the database does.
        aside: Runs statements outside of any transaction of ours; told whether once more if their answer gets lost.
    """

    def __init__(
        self,
        schema: str,
        where: str,
        clock: DatabaseClock,
        aside: Callable[[Sequence[Statement], bool], Awaitable[list[Answer]]],
    ) -> None:
        self.schema = schema
        self.where = where
        self.clock = clock
        self.body_s = 5.0
        # Whether our clock follows the database's.
        self.follow = False
        self.aside = aside
        self.sql = {name: text.replace("{schema}", schema) for name, text in statements_of("postgresql").items()}
        # This process as a worker, if it is one.
        self.worker = ""
        # And as a follower.
        self.follows = ""
        self.lease_ms = 10_000.0
        self._wait_again = -math.inf
        # When (ms) all transactions below a number had ended.
        self._horizons: deque[tuple[float, str]] = deque()
        # As of the last poll, and nobody has told of any since.
        self.nothing_parked = False
        self.catalog: Catalog | None = None
        self.tables: dict[str, str] = {}

    def expecting(self, name: str, count: int) -> str:
        """The statement `name`, which fails unless it touches so many rows."""
        step = self.sql[name]
        step = step if step.startswith("SELECT") else f"{step} RETURNING 1"
        return self.sql["expecting"].format(step=step, name=name, expected=count)

    def idle_ms(self, *, writable: bool) -> int:
        """How long a transaction may be silent before the server ends it: twice as long as a body may take."""
        return int(max(2_000 * self.body_s, _IDLE_MS if writable else _IDLE_READ_MS))

    def new_token(self) -> str:
        """For a commit. Begins with the time, so that old ones stand together."""
        return f"{self.token_time(0)}{SystemEntropy().token(12).hex()}"

    def token_time(self, ago_s: float) -> str:
        """How tokens of so many seconds ago begin."""
        return f"{max(0, int(self.clock.now_ms() - ago_s * 1_000)):012x}"

    def ended_before(self, time: float, place: str) -> str:
        """A number below which every transaction had ended at a time (ms), as far as was noted: to be asked often.

        Args:
            time: In the past.
            place: The snapshot of a transaction that has just begun.
        """
        self._horizons.append((self.clock.now_ms(), place.partition(":")[0]))
        while len(self._horizons) > 1 and self._horizons[1][0] <= time:
            self._horizons.popleft()
        noted, number = self._horizons[0]
        return number if noted <= time else "0"

    def may_wait(self) -> bool:
        """Whether a moment is likely to come soon at which nobody writes what could spoil a snapshot."""
        return self.clock.monotonic() >= self._wait_again

    def waited_in_vain(self) -> ConflictError:
        """Somebody's transaction takes long: until it may have ended, nobody waits for it."""
        self._wait_again = self.clock.monotonic() + _NOT_WAITING_S
        return ConflictError("the transaction waited for others that take long; the next one does not")

    def overtaken(self) -> ConflictError:
        return ConflictError("the transaction rests on what others had changed before it began")
