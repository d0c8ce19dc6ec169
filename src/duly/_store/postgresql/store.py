"""The PostgreSQL store: groups of bodies in serializable transactions, run again when they lose against others.

What waits is taken together: each body runs in a savepoint of its own, in turn, and their rows are written at once and
committed with one flush of the server's log. If the group loses against another transaction it runs again, and is
halved if it goes on losing. No answer is given before the commit: what a body of the group saw may never have been.
"""

import asyncio
import contextlib
import json
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, cast

import psycopg

from duly._ground import values
from duly._ground.clock import Clock, SystemClock
from duly._ground.ids import ID_HIGHEST
from duly._ground.tasks import is_being_cancelled
from duly._model.schema import Table, index_key
from duly._store.port import Lease, Position, StoredIndex, Topic, Transaction
from duly._store.postgresql.address import Address
from duly._store.postgresql.clock import DatabaseClock
from duly._store.postgresql.drivers import Driver
from duly._store.postgresql.enlisted import EnlistedTransaction
from duly._store.postgresql.faults import is_connection_lost, translate
from duly._store.postgresql.following import Following
from duly._store.postgresql.lease import PostgreSQLLease
from duly._store.postgresql.pool import Pool
from duly._store.postgresql.reserving import Reserving
from duly._store.postgresql.schema import check_version, migrate
from duly._store.postgresql.shared import Shared
from duly._store.postgresql.transaction import PostgreSQLTransaction
from duly._store.postgresql.waking import Waking, channel_of
from duly._store.postgresql.wire import Answer, Statement, Wire
from duly._store.requests import Request
from duly._store.signal import Signal
from duly._store.statements import migrations_of
from duly.errors import AppNotOpenError, ConflictError, StoreError, StoreUnavailableError

__all__ = ["PostgreSQLStore"]

T = TypeVar("T")

Body = Callable[[Transaction], Awaitable[T]]

_GROUP_MAX = 256
_GROUP_S = 0.01
_CONFLICTS_MAX = 6
_LOSSES_MAX = 3
_FILL_MAX = 500
_RESOLVE_S = 30.0
_RESOLVE_PAUSE_S = 0.05
# Of the time for which a commit's token is kept.
_TOLD_S = 300
# Due mutations, due actions, and what these look up aside: possible however many queries take their time.
_NOT_FOR_READING = 4


class PostgreSQLStore:
    """See the port for what it promises.

    Args:
        address: Where the database is.
        clock: The door to time. The machine's own follows the database's; one that a test moves follows nobody.
        migrations: The schema's versions, for tests of migrating.
    """

    def __init__(self, address: Address, clock: Clock, migrations: Sequence[str] | None = None) -> None:
        self._address = address
        self._migrations = migrations_of("postgresql") if migrations is None else migrations
        self._follow = isinstance(clock, SystemClock)
        self._clock = DatabaseClock(clock)
        self._shared = Shared(f'"{address.schema}"', address.where, self._clock, self._aside)
        self._shared.follow = self._follow
        self._signal = Signal(self._clock)
        self._pool = Pool(address)
        self._reading = asyncio.Semaphore(max(1, address.pool - _NOT_FOR_READING))
        self._waking = Waking(address, self._shared, self._signal, self._aside)
        self._following = Following(self._shared, self._waking, self._aside)
        self._reserving = Reserving(self._shared, self._start)
        self._requests: deque[Request] = deque()
        self._groups: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._leases: list[PostgreSQLLease] = []
        self._opened = False
        self._snapshots: set[PostgreSQLTransaction] = set()

    def expect_bodies(self, seconds: float) -> None:
        self._shared.body_s = seconds

    @property
    def clock(self) -> Clock:
        return self._clock

    # Opening and closing.

    async def migrate(self) -> tuple[int, int]:
        return await migrate(self._address, self._migrations)

    async def open(self, tables: Sequence[Table[Any]]) -> None:
        self._opened = True
        try:
            await self._check_schema()
            await self._declare_indexes(tables)
        except BaseException:
            await self.close()
            raise

    async def _check_schema(self) -> None:
        table = f"{self._shared.schema}.schema_version"
        found = await self._aside([Statement("SELECT to_regclass($1)::text", (table,))])
        there = found[0].rows[0][0] is not None
        rows = (await self._aside([Statement(f"SELECT version FROM {table}")]))[0].rows if there else None
        check_version(rows, len(self._migrations), self._shared.where)
        if self._follow:
            # Not with the first question: it may have taken long to connect, and nobody knows when it was answered.
            asked = self._clock.own_ms()
            clock = await self._aside([Statement(self._shared.sql["clock"])])
            self._clock.learn(asked, clock[0].rows[0][0], self._clock.own_ms())

    async def close(self) -> None:
        """Runs what already waits, then lets go of the connections."""
        self._opened = False
        while self._groups:
            await asyncio.wait(self._groups)
        await self._waking.stop()
        for snapshot in list(self._snapshots):
            await snapshot.let_go()
        for lease in self._leases:
            lease.disconnect()
        self._leases.clear()
        await self._pool.close()

    # Indexes.

    async def _declare_indexes(self, tables: Sequence[Table[Any]]) -> None:
        """Declares what is missing, so that every writer keeps it up; then fills it in small transactions, which hold
        up nobody. Whoever else opens the store meanwhile helps."""

        async def declare(tx: Any) -> list[tuple[str, StoredIndex]]:
            for table in tables:
                await tx.remember_table(table.tag, table.name)
                stored = {stored.spec for stored in await tx.stored_indexes(table.tag)}
                for index in table.indexes.values():
                    if index not in stored:
                        await tx.create_index(table.tag, index)
            unfilled: list[tuple[str, StoredIndex]] = await tx.unfilled_indexes()
            return unfilled

        for tag, stored in await self._until_it_wins(declare):
            await self._fill(tag, stored)

    async def _fill(self, tag: str, stored: StoredIndex) -> None:
        after, before = Position(b"", tag), Position(b"", tag + ID_HIGHEST)

        async def fill(tx: Any) -> Position | None:
            entries = await tx.scan(None, after, before, descending=False, limit=_FILL_MAX)
            if not entries:
                await tx.set_index_ready(stored.id)
                return None
            keys = [(stored.id, index_key(stored.spec, values.decode(e.body)), e.position.id) for e in entries]
            await tx.fill_entries(keys)
            return cast("Position", entries[-1].position)

        while (reached := await self._until_it_wins(fill)) is not None:
            after = reached

    async def _until_it_wins(self, body: Body[T]) -> T:
        while True:
            with contextlib.suppress(ConflictError):
                return await self.transact(body)

    # Reading.

    async def read(self, body: Body[T], /, *, follows: bool = False) -> T:
        self._check_open()
        async with self._reading:
            conflicts = losses = 0
            while True:
                try:
                    return await self._read_once(body, follows=follows)
                except ConflictError:
                    conflicts += 1
                    if conflicts == _CONFLICTS_MAX:
                        raise
                except StoreUnavailableError:
                    losses += 1
                    if losses == _LOSSES_MAX:
                        raise

    async def _read_once(self, body: Body[T], *, follows: bool) -> T:
        tx = PostgreSQLTransaction(self._pool, self._shared, writable=False, follows=follows)
        try:
            result = await body(cast("Transaction", tx))
            if tx.fault is not None:
                raise tx.fault
            await tx.commit()
        except BaseException as error:
            if tx.lost is not None and tx.lost is not error:
                raise tx.lost from error
            raise
        finally:
            await tx.leave()
        self._shared.tables.update(tx.new_tables)
        return result

    async def snapshot(self) -> "PostgreSQLSnapshot":
        self._check_open()
        while True:
            tx = PostgreSQLTransaction(self._pool, self._shared, writable=False, follows=True)
            try:
                await tx.hold(await Wire.connect(self._address))
                break
            except BaseException as error:
                await tx.let_go()
                if not isinstance(error, ConflictError):
                    raise
        self._snapshots.add(tx)
        return PostgreSQLSnapshot(tx, self._snapshots)

    async def _aside(self, statements: Sequence[Statement], again: bool = True) -> list[Answer]:
        """In a short transaction of its own, that is not worth a flush of the server's log; `again` if its answer gets
        lost."""
        begin, end = Statement("BEGIN ISOLATION LEVEL READ COMMITTED"), Statement("COMMIT")
        losses = 0
        while True:
            wire = await self._pool.take()
            try:
                return (await wire.run([begin, Statement(self._shared.sql["aside"]), *statements, end]))[2:-1]
            except psycopg.Error as error:
                fault = translate(error, self._shared.where)
                losses += 1
                if losses == _LOSSES_MAX or not again or not is_connection_lost(error):
                    raise fault from error
                self._pool.forget_idle()
            finally:
                self._pool.give(wire)

    # Writing.

    def transact(self, body: Body[T], /, *, claims: bool = False) -> Awaitable[T]:
        self._check_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        request = Request(body, future)
        if claims:
            # By itself: what it reserves must be older than the transaction.
            self._start(self._run_claim(request))
            return future
        self._requests.append(request)
        if not self._draining:
            self._draining = True
            self._start(self._drain())
        return future

    def _check_open(self) -> None:
        if not self._opened:
            raise AppNotOpenError

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine, name="duly transactions")
        self._groups.add(task)
        task.add_done_callback(self._groups.discard)
        return task

    async def _drain(self) -> None:
        """Runs what waits, in the order in which it came, a group at a time, until nothing does.

        Several at a time would lose against each other wherever they touch the same.
        """
        try:
            while self._requests:
                group = [self._requests.popleft() for _ in range(min(_GROUP_MAX, len(self._requests)))]
                await self._run(group)
        finally:
            self._draining = False

    async def _run_claim(self, request: Request) -> None:
        await self._run([request], claims=True)

    async def _run(self, group: list[Request], *, claims: bool = False) -> None:
        """Until each of them has its answer."""
        try:
            await self._run_until_answered(group, claims=claims)
        except BaseException as error:
            for request in group:
                request.fail(AppNotOpenError() if isinstance(error, asyncio.CancelledError) else error)
            if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
                raise

    async def _run_until_answered(self, group: list[Request], *, claims: bool) -> None:
        parts = deque([group])
        while parts:
            part = parts.popleft()
            failures = 0
            while part := [request for request in part if not request.future.done()]:
                try:
                    rest = await self._attempt(part, claims=claims)
                    if rest:
                        part = rest
                        failures = 0
                except (ConflictError, StoreUnavailableError) as error:
                    failures += 1
                    if isinstance(error, StoreUnavailableError):
                        self._pool.forget_idle()
                    most = _CONFLICTS_MAX if isinstance(error, ConflictError) else _LOSSES_MAX
                    if failures < min(most, 2 if len(part) > 1 else most):
                        continue
                    if len(part) == 1 or isinstance(error, StoreUnavailableError):
                        for request in part:
                            request.fail(error)
                    else:
                        parts.extendleft([part[len(part) // 2 :], part[: len(part) // 2]])
                        break
                except Exception as error:  # noqa: BLE001 (whatever it is, it is one of theirs)
                    if len(part) == 1:
                        part[0].fail(error)
                    else:
                        # Each by itself: so that one which the store can't take spoils no other.
                        parts.extendleft([request] for request in reversed(part))
                        break

    async def _attempt(self, group: list[Request], *, claims: bool) -> list[Request]:
        """One transaction. Returns those that there was no time for.

        Raises:
            ConflictError, StoreError: Nothing of it was committed, and nobody has an answer.
        """
        tx = PostgreSQLTransaction(self._pool, self._shared, writable=True, claims=self._reserving if claims else None)
        failed: dict[Request, BaseException] = {}
        started = self._clock.monotonic()
        try:
            number = 0
            for number, request in enumerate(group, 1):  # noqa: B007 (how many had their turn)
                error = await self._run_body(tx, request)
                if error is not None:
                    failed[request] = error
                if self._clock.monotonic() - started > _GROUP_S:
                    break
            if tx.wrote:
                tx.sign_changes(self._clock.now_ms())
                tx.sign(self._shared.new_token())
            ahead = tx.look_ahead()
            word = self._waking.word_of(tx.made_work)
            answered = await tx.commit(afterwards=word and word.statement)
            committed = answered or await self._resolve(tx.token, patient=claims)
            if committed is False:
                raise StoreUnavailableError(f"the connection was lost before the commit: {tx.lost}")
        except psycopg.Error as error:
            raise translate(error, self._shared.where) from error
        finally:
            await tx.leave()
        if ahead is not None and committed:
            self._reserving.hand_on(ahead)
        self._shared.tables.update(tx.new_tables)
        self._waking.tell(tx.made_work, told=word.topics if word and answered else ())
        for request in group[:number]:
            if committed is None:
                # Nor is it run again: what has taken effect would take it twice.
                request.fail(self._in_doubt())
            elif request in failed:
                request.fail(failed[request])
            else:
                request.succeed()
        return group[number:]

    async def _run_body(self, tx: PostgreSQLTransaction, request: Request) -> BaseException | None:
        """What it raised, once that is undone."""
        savepoint = tx.savepoint()
        try:
            request.outcome = await request.body(tx)
            if tx.lost is not None or tx.fault is not None:
                raise tx.lost or cast("StoreError", tx.fault)
            await tx.release(savepoint)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or (
                isinstance(error, asyncio.CancelledError) and is_being_cancelled()
            ):
                raise
            if tx.lost is not None:
                raise tx.lost from error
            await tx.rollback(savepoint)
            return error
        return None

    async def _resolve(self, token: str | None, *, patient: bool) -> bool | None:
        """Whether a transaction was committed whose answer got lost (rule T2); None if that can't be told.

        Args:
            token: What it left, if it did.
            patient: Whether to wait for as long as the store is open, and not for a while only: what a worker has
                claimed may become its own at any time, and nobody else's.
        """
        self._pool.forget_idle()
        if token is None:
            return None
        deadline = math.inf if patient else self._clock.monotonic() + _RESOLVE_S
        sql = self._shared.sql
        while True:
            # A conflict as well: whoever asks may have to wait for the commit for longer than a lock_timeout allows.
            with contextlib.suppress(StoreError, ConflictError):
                answers = await self._aside(
                    [Statement(sql["commit_void"], (token,)), Statement(sql["commit_ask"], (token,))]
                )
                if not answers[1].rows[0][0]:
                    return True
                # We may have been stopped for so long that nobody kept what we left.
                return None if token < self._shared.token_time(_TOLD_S) else False
            if self._clock.monotonic() > deadline or not self._opened:
                return None
            await SystemClock().sleep(_RESOLVE_PAUSE_S)

    def _in_doubt(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the connection to {self._shared.where} was lost in the middle of a commit, and it can't be told whether "
            "it took effect; look before you try again"
        )

    def enlist(self, driver: Driver) -> EnlistedTransaction:
        """A transaction that somebody else has begun, and will end. The store need not be open."""
        channel = channel_of(self._address.schema)
        return EnlistedTransaction(driver, self._shared.sql, channel, self._clock, follow=self._follow)

    # Waking.

    def version(self, topic: Topic) -> int:
        return self._signal.version(topic)

    def due_since(self, topic: Topic, since: int) -> float | None:
        return self._signal.due_since(topic, since)

    async def wait(self, topic: Topic, since: int, until: float | None) -> None:
        await self._signal.wait(topic, since, until)

    # Workers.

    async def follow(self, follower: str, seconds: float) -> None:
        await self._following.follow(follower, seconds)

    async def unfollow(self, follower: str) -> None:
        await self._following.unfollow(follower)

    @property
    def shared(self) -> bool:
        return self._waking.others is not None

    async def register_worker(self, worker: str, lease_s: float, functions: Mapping[str, str]) -> Lease:
        self._shared.worker = worker
        self._shared.lease_ms = lease_s * 1_000
        lease = PostgreSQLLease(
            self._address,
            self._shared.sql,
            self._clock,
            worker,
            lease_s,
            json.dumps(dict(functions)),
            follow=self._follow,
        )
        self._leases.append(lease)
        await lease.ensure()
        await self._waking.poll()
        self._waking.start()
        self._waking.tell({"upkeep": None})
        return lease

    async def unregister_worker(self, worker: str) -> None:
        """Gives back what it had reserved. The lease itself is deleted with the last renewal."""
        await self._reserving.give_up()
        release = Statement(self._shared.sql["jobs_release"], (worker, self._clock.now_ms()), "jobs_release")
        await self._aside([release])
        self._waking.tell({"mutation": None, "action": None, "upkeep": None})


class PostgreSQLSnapshot:
    """A transaction that stays open, on a connection of its own."""

    def __init__(self, tx: PostgreSQLTransaction, held: set[PostgreSQLTransaction]) -> None:
        self._tx = tx
        self._held = held

    async def read(self, body: Body[T], /) -> T:
        result = await body(cast("Transaction", self._tx))
        if self._tx.lost is not None:
            raise self._tx.lost  # also if the body caught it
        return result

    async def close(self) -> None:
        self._held.discard(self._tx)
        await self._tx.let_go()
