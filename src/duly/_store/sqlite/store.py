"""The SQLite store: one writer lane on the event loop, with group commit; readers on snapshots.

The lane takes what waits, runs each body in a savepoint of its own, and commits them together with one fsync; callers
are released after it. So hundreds of transactions share what is dear, and none can see that it had company.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from duly._ground.clock import Clock
from duly._ground.tasks import is_being_cancelled
from duly._model.changes import Changes
from duly._model.schema import Table
from duly._store.indexes import ensure_indexes
from duly._store.port import Lease, Savepoint, Topic, Transaction
from duly._store.requests import GroupLostError, Request
from duly._store.signal import Signal
from duly._store.sqlite.connection import WriteLock, connect, migrate, patiently
from duly._store.sqlite.faults import translate, translated
from duly._store.sqlite.lease import FileLease, MemoryLease
from duly._store.sqlite.peers import Peers
from duly._store.sqlite.shared import Shared
from duly._store.sqlite.snapshot import SQLiteSnapshot, copy
from duly._store.sqlite.transaction import SQLiteTransaction
from duly._store.statements import migrations_of
from duly.errors import AppNotOpenError, StoreError, StoreUnavailableError

__all__ = ["SQLiteStore"]

T = TypeVar("T")

_GROUP_MAX = 256
_GROUP_S = 0.005
_SLOW_COMMIT_S = 0.002
_IDLE_READERS_MAX = 8


class SQLiteStore:
    """See the port for what it promises.

    Args:
        path: The database file; None for one in memory, which ends with the store.
        clock: The door to time.
        migrations: The schema's versions, for tests of migrating.
    """

    def __init__(self, path: Path | None, clock: Clock, migrations: Sequence[str] | None = None) -> None:
        self._path = path
        self._clock = clock
        self._migrations = migrations_of("sqlite") if migrations is None else migrations
        self._shared = Shared(path, clock)
        self._signal = Signal(clock)
        # Owned by the lane from open() to close(): the only connection that writes, and what waits for it.
        self._writer: apsw.Connection
        self._lock: WriteLock | None = None
        # For what may block: waiting for another process, and a commit on a slow disk. Its own, so that functions which
        # fill the loop's default pool hold nobody up; started only when it is needed.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="duly store")
        self._requests: deque[Request] = deque()
        self._memory_reads: deque[Request] = deque()
        self._lane: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._closing = False
        self._alone = 0
        self._commit_s = 0.0
        self._data_version = 0
        # Readers that no query uses at the moment.
        self._readers: list[apsw.Connection] = []
        self._reading = 0
        self._snapshots: set[apsw.Connection] = set()
        self._peers = Peers(self._shared, self._signal, clock, self._on_message)

    def expect_bodies(self, seconds: float) -> None:
        """Who writes here holds the lock of the file for as long as it takes."""

    @property
    def clock(self) -> Clock:
        return self._clock

    # Opening and closing.

    async def migrate(self) -> tuple[int, int]:
        """Opening it does."""
        await self.open([])
        await self.close()
        return len(self._migrations), len(self._migrations)

    async def open(self, tables: Sequence[Table[Any]]) -> None:
        if self._path is not None:
            if self._path.is_dir():
                raise StoreError(f"the database {self._path} is a folder; give a file name")
            self._writer = connect(self._path)
            try:
                self._lock = WriteLock(self._path)
            except StoreError:
                self._writer.close()
                raise
        else:
            self._writer = connect(None)
        self._writer.set_busy_timeout(0)  # see `patiently`, which leaves the event loop to others
        try:
            await self._prepare()
        except BaseException:
            self._disconnect()
            raise
        self._closing = False
        self._lane = asyncio.get_running_loop().create_task(self._run_lane(), name="duly writer lane")
        try:
            await self.transact(lambda tx: ensure_indexes(tx, tables))
        except BaseException:
            await self.close()
            raise

    async def _prepare(self) -> None:
        if self._lock is not None:
            await self._lock.acquire(self._thread)
        try:
            if self._path is not None:
                await patiently(self._writer, "PRAGMA journal_mode=WAL", self._clock, self._shared.where)
                with translated(self._shared.where):
                    if self._writer.execute("PRAGMA journal_mode").fetchall() != [("wal",)]:
                        raise StoreError(
                            f"the database {self._shared.where} is on a file system that can't share memory between "
                            "processes; put it on a local disk"
                        )
            await patiently(self._writer, "BEGIN IMMEDIATE", self._clock, self._shared.where)
            with translated(self._shared.where):
                try:
                    migrate(self._writer, self._migrations, f"the database {self._shared.where}")
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        finally:
            if self._lock is not None:
                self._lock.release()

    async def close(self) -> None:
        """Runs what already waits, then lets go of the file."""
        if self._lane is not None:
            self._closing = True
            self._wake_lane()
            await asyncio.wait({self._lane})
            self._lane = None
        await self._peers.stop_watching()
        self._disconnect()

    def _disconnect(self) -> None:
        self._peers.close()
        for connection in (*self._readers, *self._snapshots, self._writer):
            connection.close()
        self._readers.clear()
        self._snapshots.clear()
        self._thread.shutdown(wait=False)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # Reading.

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /, *, follows: bool = False) -> T:  # noqa: ARG002 (readers hold up nobody)
        if self._lane is None or self._closing:
            raise AppNotOpenError
        if self._path is None:
            # One connection holds a database in memory. Reads run between two groups, and see only what is committed.
            return await self._enqueue(self._memory_reads, body)
        reader = self._readers.pop() if self._readers else connect(self._path)
        try:
            return await self._read_on(reader, body)
        finally:
            if len(self._readers) < _IDLE_READERS_MAX and not self._closing:
                self._readers.append(reader)
            else:
                reader.close()

    async def snapshot(self) -> SQLiteSnapshot:
        if self._path is not None:
            reader = connect(self._path)
        else:
            reader = connect(None)
            # There is but one connection to a database in memory: a copy is what stays as it is.
            await self._enqueue(self._memory_reads, lambda _: copy(self._writer, reader))
        with translated(self._shared.where):
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM _tables").fetchall()  # it is the first read that decides which moment it is
        self._snapshots.add(reader)
        return SQLiteSnapshot(reader, self._shared, self._snapshots)

    async def _read_on(self, connection: apsw.Connection, body: Callable[[Transaction], Awaitable[T]]) -> T:
        with translated(self._shared.where):
            connection.execute("BEGIN")
        try:
            return await body(cast("Transaction", SQLiteTransaction(connection, self._shared, writable=False)))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    # Writing.

    def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> Awaitable[T]:  # noqa: ARG002 (there is one writer: nobody is in the way)
        return self._enqueue(self._requests, body)

    def _enqueue(self, queue: deque[Request], body: Callable[[Transaction], Awaitable[T]]) -> asyncio.Future[T]:
        if self._lane is None or self._closing:
            raise AppNotOpenError
        if self._lane.done():
            # Somebody cancelled it: a function its own task, which the lane's is, or the event loop all there are. Who
            # asks for a transaction now has something to write all the same.
            self._lane = asyncio.get_running_loop().create_task(self._run_lane(), name="duly writer lane")
        future: asyncio.Future[T] = asyncio.Future(loop=self._lane.get_loop())
        queue.append(Request(body, future))
        if self._idle is not None:
            self._wake_lane()
        return future

    def _wake_lane(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _run_lane(self) -> None:
        try:
            await self._serve()
        finally:
            # Nothing is left as a rule. If the event loop is being shut down, nobody may wait for ever.
            for request in (*self._requests, *self._memory_reads):
                request.fail(AppNotOpenError())
            self._requests.clear()
            self._memory_reads.clear()

    async def _serve(self) -> None:
        while True:
            while self._memory_reads:
                await self._run_memory_read(self._memory_reads.popleft())
            if self._requests:
                await self._run_group()
            elif self._closing:
                return
            else:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
                self._idle = None

    async def _run_memory_read(self, request: Request) -> None:
        if request.future.cancelled():
            return

        async def run() -> None:
            try:
                request.outcome = await self._read_on(self._writer, request.body)
            except BaseException as error:  # noqa: BLE001 (it is the caller's)
                request.fail(error)
            else:
                request.succeed()

        # In a task of its own: a query may wait for long, and must not go on, and hold up the lane, once its caller
        # has given up.
        reading = asyncio.get_running_loop().create_task(run(), name="duly read")
        request.future.add_done_callback(lambda _: reading.cancel())
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()

    async def _run_group(self) -> None:
        """One transaction: BEGIN, the bodies that wait, COMMIT, and only then the answers."""
        group: list[Request] = []
        try:
            await self._begin()
            try:
                tx = SQLiteTransaction(self._writer, self._shared, writable=True)
                if self._peers.anybody_follows():
                    tx.changes = Changes()
                await self._run_bodies(tx, group)
                tx.sign_changes(self._clock.now_ms())
                await self._commit()
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                self._shared.indexes = None
                raise
            finally:
                if self._lock is not None:
                    self._lock.release()
        except BaseException as error:
            self._answer_lost_group(group, error)
            if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
                raise  # the loop is being shut down, or somebody wants the process to end now
        else:
            self._shared.tables.update(tx.new_tables)
            self._peers.tell(tx.made_work)
            for request in group:
                request.succeed()

    async def _begin(self) -> None:
        if self._lock is not None:
            await self._lock.acquire(self._thread)
        try:
            await patiently(self._writer, "BEGIN IMMEDIATE", self._clock, self._shared.where)
            if self._path is not None:
                self._look_for_strangers()
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if self._lock is not None:
                self._lock.release()
            raise

    def _look_for_strangers(self) -> None:
        """If another process has committed since our last group, what we remember of the file may be old."""
        with translated(self._shared.where):
            version = cast("int", self._writer.execute("PRAGMA data_version").fetchall()[0][0])
        if version != self._data_version:
            self._data_version = version
            self._shared.indexes = None
            tx = SQLiteTransaction(self._writer, self._shared, writable=True)
            self._peers.meet(tx)

    async def _run_bodies(self, tx: SQLiteTransaction, group: list[Request]) -> None:
        limit = _GROUP_MAX
        if self._alone:
            self._alone -= 1
            limit = 1
        started = self._clock.monotonic()
        while self._requests and len(group) < limit:
            request = self._requests.popleft()
            if request.future.cancelled():
                continue
            savepoint = tx.savepoint()
            try:
                request.outcome = await request.body(tx)
                if tx.fault is not None:
                    raise tx.fault  # the body caught it, but what it did is not whole
                await tx.release(savepoint)
            except BaseException as error:  # noqa: BLE001 (it is the caller's)
                await self._undo_body(tx, request, savepoint, error)
            else:
                group.append(request)
            if self._clock.monotonic() - started > _GROUP_S:
                break

    async def _undo_body(
        self, tx: SQLiteTransaction, request: Request, savepoint: Savepoint, error: BaseException
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            request.fail(error)
            raise error  # a second Ctrl-C: nobody may swallow it
        if tx.lost is not None or not self._writer.in_transaction:
            self._requests.appendleft(request)  # answered, or tried again alone, with the group
            raise GroupLostError(tx.lost or tx.fault or error) from error
        try:
            await tx.rollback(savepoint)
        except BaseException as lost:  # noqa: BLE001 (nobody may be forgotten)
            self._requests.appendleft(request)
            raise GroupLostError(lost) from error
        request.fail(error)
        if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
            raise error  # the event loop is being shut down

    async def _commit(self) -> None:
        started = self._clock.monotonic()
        with translated(self._shared.where):
            if self._commit_s > _SLOW_COMMIT_S and self._path is not None:
                # A slow disk: the loop serves others meanwhile. Not worth a thread's hop otherwise.
                await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.execute, "COMMIT")
            else:
                self._writer.execute("COMMIT")
        self._commit_s += (self._clock.monotonic() - started - self._commit_s) / 8

    def _answer_lost_group(self, group: list[Request], error: BaseException) -> None:
        """Nothing of the group was committed. One alone is told; of several, each is tried again by itself."""
        if isinstance(error, GroupLostError):
            group.append(self._requests.popleft())
            error = error.fault
        if isinstance(error, apsw.Error):
            error = translate(error, self._shared.where)
        if not group:
            # It did not even begin: whoever waits would fare the same.
            group.extend(self._requests)
            self._requests.clear()
        elif len(group) > 1:
            self._alone = len(group)
            self._requests.extendleft(reversed(group))
            return
        for request in group:
            request.fail(error)

    # Waking.

    def version(self, topic: Topic) -> int:
        return self._signal.version(topic)

    def due_since(self, topic: Topic, since: int) -> float | None:
        return self._signal.due_since(topic, since)

    async def wait(self, topic: Topic, since: int, until: float | None) -> None:
        await self._signal.wait(topic, since, until)

    # Workers.

    @property
    def shared(self) -> bool:
        return bool(self._peers.addresses) or len(self._shared.leases) > 1

    async def register_worker(self, worker: str, lease_s: float, functions: Mapping[str, str]) -> Lease:
        if self._path is None:
            self._shared.functions[worker] = functions
            return MemoryLease(self._shared.leases, worker, self._clock, lease_s)
        lease = self._take_lease(worker, lease_s)
        try:
            await self._sign_on(worker, functions)
        except BaseException:
            lease.release()
            raise
        return lease

    async def _sign_on(self, worker: str, functions: Mapping[str, str]) -> None:
        address = self._peers.open_mailbox(worker)

        async def insert(tx: Any) -> None:
            await tx.insert_worker(worker, address, self._clock.now_ms(), functions)
            self._peers.meet(tx)

        await self.transact(insert)

    async def follow(self, follower: str, seconds: float) -> None:
        until = self._clock.now_ms() + seconds * 1_000
        if self._path is None:
            self._peers.followers[follower] = until
            return
        address = self._peers.open_mailbox(follower)

        async def put(tx: Any) -> None:
            await tx.put_follower(follower, address, until)
            self._peers.meet(tx)

        await self.transact(put)

    async def unfollow(self, follower: str) -> None:
        self._peers.followers.pop(follower, None)
        if self._path is not None:
            await self.transact(lambda tx: cast("SQLiteTransaction", tx).delete_follower(follower))

    def _take_lease(self, worker: str, lease_s: float) -> FileLease:
        path = self._shared.lease_path(worker)
        try:
            return FileLease(path, self._clock, lease_s)
        except OSError as error:
            raise StoreUnavailableError(f"the lease {path} can't be written: {error.strerror}") from error

    async def unregister_worker(self, worker: str) -> None:
        if self._path is None:
            return

        async def delete(tx: Any) -> None:
            await tx.delete_worker(worker)

        await self.transact(delete)

    def _on_message(self, topic: Topic) -> None:
        if topic == "upkeep":
            # Somebody came or went: the next group reads who is there. It has to be now, so make one.
            self._data_version = -1
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_shrug)
            self._requests.append(Request(_nothing, future))
            self._wake_lane()
        self._signal.notify(topic)


async def _nothing(_: Any) -> None: ...


def _shrug(future: asyncio.Future[Any]) -> None:
    """A failure is everybody's, so it is reported by somebody who asked for something."""
    if not future.cancelled():
        future.exception()
