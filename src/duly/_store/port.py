"""The store port: the one narrow seam between duly and an engine. Verbs, not SQL.

A store runs bodies. `read(body)` runs `body(tx)` on one snapshot; `transact(body)` runs it serializably, perhaps again,
and returns when the commit is durable. Whatever a body schedules is a row it inserts; whoever sleeps in `wait` is woken
by the commit, in this process and in every other on the same store. Nothing below this port ever calls up.

What must hold, and is checked on every engine by the same suite:

- `transact` is all or nothing, and its effects are visible to every `read` that begins after it returned.
- A job verb with an `attempts` argument changes a row only while its id, state and attempt are as given, in one
  statement, and says whether it did.
- `wait` never misses: it returns at once if anything came since the `version` it is given.
- Time is passed in, never read.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

from duly._ground.clock import Clock
from duly._model.changes import Changes
from duly._model.job import Job, JobKind, JobState
from duly._model.schema import Index, Table

__all__ = [
    "TOPICS",
    "Entry",
    "Lease",
    "Position",
    "Rescued",
    "Savepoint",
    "Snapshot",
    "Store",
    "StoredIndex",
    "Tally",
    "Topic",
    "Transaction",
]

T = TypeVar("T")

Savepoint = int

Topic = Literal["mutation", "action", "upkeep", "change"]
"""What a sleeper waits for: due mutations, due actions, workers that came and went, or whatever is committed."""
TOPICS: tuple[Topic, ...] = get_args(Topic)


class Position(NamedTuple):
    """A place in an index: a key and an id. In creation order the key is empty."""

    key: bytes
    id: str


class Entry(NamedTuple):
    """A document as a scan yields it."""

    position: Position
    body: str


class StoredIndex(NamedTuple):
    """An index that the store keeps up for a table."""

    id: int
    spec: Index


class Tally(NamedTuple):
    """How many jobs there are of a state, and of a kind where that is told apart; and when the first of them is due.

    Pending ones are `due`, for `later`, or `parked`.
    """

    state: str
    kind: JobKind | None
    number: int
    due: float | None


@dataclass(frozen=True, slots=True)
class Rescued:
    """What `rescue` did, and when it should look again (ms since the epoch), if anything is still in progress."""

    jobs: Sequence[Job]
    look_again: float | None


class Transaction(Protocol):
    """What a body may do. In `read`, writing raises."""

    # Documents. Bodies are JSON text; entries of the table's stored indexes are the caller's to keep in step.
    async def get_document(self, id: str) -> str | None: ...
    async def insert_document(self, id: str, body: str) -> None: ...
    async def replace_document(self, id: str, body: str) -> None: ...
    async def delete_document(self, id: str) -> None: ...
    async def insert_entry(self, index: int, position: Position) -> None: ...
    async def delete_entry(self, index: int, position: Position) -> None: ...
    async def scan(
        self, index: int | None, after: Position, before: Position, descending: bool, limit: int
    ) -> list[Entry]:
        """Documents between two positions, both exclusive, in the order of an index, or of creation without one."""
        ...

    async def count(self, index: int | None, after: Position, before: Position) -> int: ...
    async def stored_indexes(self, tag: str) -> Sequence[StoredIndex]: ...
    async def create_index(self, tag: str, index: Index) -> StoredIndex:
        """Keeps an index up from now on. Its entries for existing documents are the caller's to insert."""
        ...

    async def remember_table(self, tag: str, name: str) -> None: ...
    async def table_name(self, tag: str) -> str | None: ...
    async def list_tables(self) -> list[tuple[str, str]]:
        """Tag and name of every table that was remembered."""
        ...

    # Jobs.
    async def insert_job(self, job: Job) -> None: ...
    async def get_job(self, id: str) -> Job | None: ...
    async def get_job_state(self, id: str) -> JobState | None: ...
    async def scan_jobs(self, after: str, before: str, descending: bool, limit: int) -> list[Job]: ...
    async def list_jobs(self, state: JobState, before: str, limit: int) -> list[Job]:
        """Jobs of one state, last scheduled first."""
        ...

    async def count_jobs(self, after: str, before: str) -> int: ...
    async def tally_jobs(self, now: float, limit: int) -> list[Tally]:
        """How many jobs there are in each state but `success`. What is counted up to the limit may be more."""
        ...

    async def due_jobs(self, kind: JobKind, now: float, limit: int) -> list[Job]:
        """Jobs to run in start order: due, not parked. `args` is empty where they are long: see `get_arguments`."""
        ...

    async def get_arguments(self, job: Job) -> str:
        """The arguments of a job that a look-up gave."""
        ...

    async def parked_names(self) -> list[tuple[str, str, float]]:
        """Functions that have parked jobs, by what has refused them, and when the first of each is due."""
        ...

    async def parked_jobs(self, name: str, fingerprint: str, now: float, limit: int) -> list[Job]:
        """Parked jobs of a function that are due, in start order, without those that this fingerprint refused."""
        ...

    async def refused_jobs(self, name: str, fingerprint: str, limit: int) -> list[Job]:
        """Parked jobs of a function that this fingerprint refused, in start order, whenever they are due."""
        ...

    async def next_due(self, kind: JobKind) -> float | None:
        """When the next job of a kind that is not parked comes due."""
        ...

    async def park_job(self, id: str, attempts: int, reason: str) -> bool: ...
    async def refuse_job(self, id: str, attempts: int, fingerprint: str, reason: str) -> bool:
        """Parks a job that a signature does not take, for workers with another one."""
        ...

    async def set_job_kind(self, id: str, attempts: int, kind: JobKind) -> bool: ...
    async def start_job(self, id: str, attempts: int, now: float, worker: str) -> bool: ...
    async def settle_job(
        self,
        id: str,
        before: JobState,
        attempts: int,
        after: JobState,
        now: float,
        *,
        error: str | None = None,
        started: float | None = None,
    ) -> bool:
        """Finishes a job. `started` is given for one that was pending and did run: it counts as an attempt."""
        ...

    async def postpone_job(self, id: str, attempts: int, due: float, reason: str) -> bool: ...
    async def rescue(self, worker: str, now: float, error: str) -> Rescued:
        """Settles as failed what *other* workers had in progress and no longer have a lease for, one by one."""
        ...

    async def jobs_in_progress(self, worker: str) -> list[Job]: ...
    async def live_fingerprints(self, name: str, now: float) -> set[str]:
        """The fingerprints that workers which live publish for a function, one's own among them."""
        ...

    async def prune_jobs(self, completed_before: float, limit: int) -> int: ...
    async def oldest_completed(self) -> float | None: ...

    # Those who follow what is committed, and clients that are far away.
    async def changes_since(self, place: str | None) -> tuple[str, Changes]:
        """What this snapshot shows that an earlier one did not, and a word for how far that is: the next `place`.

        Complete as long as somebody followed all the time. What is too old may have been forgotten: see the store's
        `follow`.
        """
        ...

    async def prune_changes(self, before: float, limit: int) -> int: ...
    async def get_client_request(self, session: str, request: int) -> str | None:
        """What a client was answered, if it asked before and that took effect."""
        ...

    async def insert_client_request(self, session: str, request: int, now: float, answer: str) -> None: ...
    async def prune_client_requests(self, before: float, limit: int) -> int: ...
    async def insert_admin_key(self, hash: str, label: str, now: float) -> None: ...
    async def list_admin_keys(self) -> list[tuple[str, str, float]]:
        """Hash, label and time of making, oldest first."""
        ...

    async def delete_admin_key(self, hash: str) -> bool: ...

    # The user's own tables.
    async def sql(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        """Runs one statement of the user's, with `$1`, `$2` … bound to values of plain types; its rows by column name.

        One call at a time, no other verb meanwhile. Raises `TypeError` if the number of parameters is wrong, and
        `SQLError` if the statement is refused: then it alone is undone, and the transaction goes on.
        """
        ...

    # All or nothing within the transaction.
    def savepoint(self) -> Savepoint: ...
    async def release(self, savepoint: Savepoint) -> None: ...
    async def rollback(self, savepoint: Savepoint) -> None: ...

    async def push(self) -> None:
        """Gives the engine what was written so far, so that one that writes much holds little in memory."""
        ...

    @property
    def wrote(self) -> bool:
        """Whether the transaction has written anything so far."""
        ...

    @property
    def suspends(self) -> bool:
        """Whether its verbs may take time, so that others of the same mutation could come in between."""
        ...

    @property
    def asking(self) -> int:
        """How many of its verbs wait for the engine at the moment: who waits for them does not wait for the world."""
        ...

    @property
    def fault(self) -> Exception | None:
        """The store fault that happened in this transaction, if any, even if the body caught it.

        Until it is healed by rolling back to a savepoint from before it, the transaction can't go on or commit.
        """
        ...


class Snapshot(Protocol):
    """A moment of the database that is held."""

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /) -> T: ...
    async def close(self) -> None: ...


class Lease(Protocol):
    """A worker's word that it lives. Renewed from a thread of its own."""

    @property
    def lapses(self) -> bool:
        """Whether a worker that has nothing in progress has to renew it as well, to be taken for alive."""
        ...

    def renew(self) -> None:
        """In any thread; may take its time."""
        ...

    async def ensure(self) -> None:
        """On the event loop: returns once nobody will find it expired before the next renewal is due."""
        ...

    def release(self) -> None:
        """In any thread."""
        ...


class Store(Protocol):
    """A durable engine, opened on the running event loop."""

    def expect_bodies(self, seconds: float) -> None:
        """How long a body may take: one that is silent for much longer is taken for gone, where others wait for it."""
        ...

    @property
    def clock(self) -> Clock:
        """The time that all who share the store go by."""
        ...

    async def migrate(self) -> tuple[int, int]:
        """Brings the schema to the newest version; not to be called while it is open. The version before and after."""
        ...

    async def open(self, tables: Sequence[Table[Any]]) -> None:
        """Connects, and makes the indexes that the tables declare and the store lacks.

        An embedded engine migrates, too; one that others share refuses a schema that is not up to date.
        """
        ...

    async def close(self) -> None: ...

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /, *, follows: bool = False) -> T:
        """`follows`: reads again and again, and is to hold up nobody by it. It may begin a little later for that."""
        ...

    async def snapshot(self) -> "Snapshot":
        """Holds what is committed now, to be read again and again. To be closed: the engine tidies up nothing since."""
        ...

    def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> Awaitable[T]:
        """`claims`: the body begins by looking for due jobs. Where workers have to keep out of each other's way, only
        such a one finds any, and only by looks that come before everything else."""
        ...

    def version(self, topic: Topic) -> int:
        """Grows whenever a commit may have made work of this kind. Read it *before* looking for work."""
        ...

    def due_since(self, topic: Topic, since: int) -> float | None:
        """When (ms) the first of the work that was committed since a version comes due, as far as it is known; None
        if nothing was committed. What is for later need not be looked for now."""
        ...

    async def wait(self, topic: Topic, since: int, until: float | None) -> None:
        """Sleeps until `version(topic)` is greater than `since`, or until the time `until` (ms) has come."""
        ...

    async def register_worker(self, worker: str, lease_s: float, functions: Mapping[str, str]) -> Lease:
        """Makes a worker known, with the fingerprints of the functions that it can run, by their paths."""
        ...

    async def unregister_worker(self, worker: str) -> None: ...

    async def follow(self, follower: str, seconds: float) -> None:
        """Once this has returned, and for so long, every commit on the store by whomever leaves word of what it wrote,
        and wakes those who wait for "change". To be repeated in time."""
        ...

    async def unfollow(self, follower: str) -> None: ...

    @property
    def shared(self) -> bool:
        """Whether other workers are registered on the same store."""
        ...
