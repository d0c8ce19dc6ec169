"""What is sent to PostgreSQL and what comes back is one step: nothing of it is forgotten, whoever gives up."""

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from typing import Any

import psycopg
import pytest
from psycopg.pq import Trace

from duly._ground import values
from duly._ground.clock import SystemClock
from duly._ground.ids import ID_HIGHEST
from duly._model.schema import Index, Table
from duly._store.open import make_store
from duly._store.port import Position, Store, Transaction
from duly._store.postgresql import exchange, shared
from duly._store.postgresql import wire as wires
from duly._store.postgresql.address import Address
from duly._store.postgresql.pool import Pool
from duly._store.postgresql.store import PostgreSQLStore
from duly._store.postgresql.transaction import PostgreSQLTransaction
from duly._store.postgresql.wire import Statement, Wire
from duly.errors import ConflictError, StoreError, StoreUnavailableError
from tests.proxy import Proxy
from tests.store.rows import NOTES, add_jobs, new_id, new_job
from tests.support import LOADED_S, eventually

HIGHEST = Position(b"", NOTES + "~")
LOWEST = Position(b"", NOTES)


@pytest.fixture
async def store(postgresql_url: str) -> Any:
    opened = make_store(postgresql_url, SystemClock())
    await opened.open([])
    yield opened
    await opened.close()


async def test_a_connection_that_fails_in_the_middle_of_a_group_loses_nothing_of_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has written and asks nothing; the next asks, and there is no connection."""
    id, take, failures = new_id(), Pool.take, [True]

    async def fails_once(pool: Pool) -> Wire:
        if failures:
            failures.clear()
            raise StoreUnavailableError("as the test asked for")
        return await take(pool)

    async def writes(tx: Transaction) -> None:
        await tx.insert_document(id, "{}")

    async def asks(tx: Transaction) -> int:
        return len(await tx.scan(None, LOWEST, HIGHEST, descending=False, limit=9))

    monkeypatch.setattr(Pool, "take", fails_once)
    written, seen = await asyncio.gather(store.transact(writes), store.transact(asks))
    assert (written, seen) == (None, 1)
    assert await store.read(lambda tx: tx.get_document(id)) == "{}"
    assert not failures


async def test_two_bodies_one_of_which_got_no_connection_are_serializable_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its BEGIN each statement would commit by itself."""
    id, run, begins = new_id(), Wire.run_here, list[str]()
    await store.transact(lambda tx: tx.insert_document(id, "0"))
    take, failures = Pool.take, [True]

    async def fails_once(pool: Pool) -> Wire:
        if failures:
            failures.clear()
            raise StoreUnavailableError("as the test asked for")
        return await take(pool)

    async def watched(wire: Wire, statements: Any, afterwards: Any = None) -> Any:
        begins.append(statements[0].text)
        return await run(wire, statements, afterwards)

    async def adds(tx: Transaction) -> None:
        with contextlib.suppress(StoreUnavailableError):
            await tx.get_document(new_id())
        await tx.replace_document(id, str(int(await tx.get_document(id) or "") + 1))

    monkeypatch.setattr(Pool, "take", fails_once)
    monkeypatch.setattr(Wire, "run_here", watched)
    await store.transact(adds)
    assert await store.read(lambda tx: tx.get_document(id)) == "1"
    assert begins[0].startswith("BEGIN")


async def test_a_body_that_gives_up_waiting_takes_nothing_of_others_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, run = new_id(), Wire.run_here

    async def slowly(wire: Wire, statements: Any, afterwards: Any = None) -> Any:
        await asyncio.sleep(0.05)
        return await run(wire, statements, afterwards)

    async def writes(tx: Transaction) -> None:
        await tx.insert_document(id, "{}")

    async def gives_up(tx: Transaction) -> str:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(tx.scan(None, LOWEST, HIGHEST, descending=False, limit=9), 0.01)
            return "in time"
        return "gave up"

    monkeypatch.setattr(Wire, "run_here", slowly)
    _, outcome = await asyncio.gather(store.transact(writes), store.transact(gives_up))
    assert outcome == "gave up"
    assert await store.read(lambda tx: tx.get_document(id)) == "{}"


async def test_a_document_that_an_index_does_not_hold_yet_can_be_deleted(store: Store, postgresql_url: str) -> None:
    """While the index is being filled: this document's turn has not come."""
    id = new_id()
    await store.transact(lambda tx: tx.insert_document(id, '{"n":1}'))
    stored = await store.transact(lambda tx: tx.create_index(NOTES, Index("by_n", ("n",))))

    async def deletes(tx: Transaction) -> None:
        for index in await tx.stored_indexes(NOTES):
            await tx.delete_entry(index.id, Position(b"key", id))
        await tx.delete_document(id)

    await store.transact(deletes)
    assert await store.read(lambda tx: tx.get_document(id)) is None
    # Whoever opens it next fills it.
    other = make_store(postgresql_url, SystemClock())
    await other.open([Table("notes", indexes={"by_n": ["n"]})])
    await other.close()
    with psycopg.connect(postgresql_url) as connection:
        ready = connection.execute("SELECT ready FROM duly.indexes WHERE id = %s", [stored.id]).fetchall()
    assert ready == [(True,)]


async def test_a_row_that_another_transaction_holds_does_not_make_workers_spin(
    store: Store, postgresql_url: str
) -> None:
    job = new_job(due=store.clock.now_ms() - 1_000)
    await add_jobs(store, job)

    async def look(tx: Transaction) -> tuple[int, float | None]:
        return len(await tx.due_jobs("mutation", store.clock.now_ms(), 10)), await tx.next_due("mutation")

    with psycopg.connect(postgresql_url) as connection:
        connection.execute("SELECT 1 FROM duly.scheduled_functions FOR UPDATE")
        found, next_due = await store.transact(look, claims=True)
        assert found == 0
        assert next_due is not None
        assert next_due > store.clock.now_ms()
    found, _ = await store.transact(look, claims=True)
    assert found == 1


async def test_a_mutation_that_only_writes_is_one_round_trip(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run, trips = Wire.run_here, list[list[str]]()

    async def watched(wire: Wire, statements: Any, afterwards: Any = None) -> Any:
        trips.append([statement.text for statement in statements])
        return await run(wire, statements, afterwards)

    monkeypatch.setattr(Wire, "run_here", watched)
    await store.transact(lambda tx: tx.insert_document(new_id(), "{}"))
    assert len(trips) == 1
    assert (trips[0][0][:5], trips[0][-1]) == ("BEGIN", "COMMIT")


async def test_a_row_that_is_gone_takes_all_of_its_commit_along(store: Store) -> None:
    """As after a hand in the database. The commit is sent with the statement that finds it gone."""
    other = new_id()

    async def deletes(tx: Transaction) -> None:
        await tx.delete_document(new_id())
        await tx.insert_document(other, "{}")

    with pytest.raises(StoreError, match="document_delete changed 0 of 1 rows; was it changed by hand"):
        await store.transact(deletes)
    assert await store.read(lambda tx: tx.get_document(other)) is None


async def test_who_loses_against_others_keeps_the_connection(
    store: Store, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = new_id()
    await store.transact(lambda tx: tx.insert_document(id, "0"))
    runs = list[str | None]()

    async def adds(tx: Transaction) -> None:
        runs.append(await tx.get_document(id))
        if len(runs) < 3:
            with psycopg.connect(postgresql_url) as connection:
                connection.execute("UPDATE duly.documents SET body = body || '1' WHERE id = %s", [id])
        await tx.replace_document(id, f"{runs[-1]}+")

    async def refuses(_: Any) -> Wire:
        raise AssertionError("another connection")

    monkeypatch.setattr(Wire, "connect", refuses)
    await store.transact(adds)
    assert runs == ["0", "01", "011"]


async def test_a_server_that_left_unnoticed_leaves_nothing_in_doubt(postgresql_url: str) -> None:
    """A commit goes out with what it commits: on a connection that is dead, nobody could tell what became of it."""
    with Proxy(postgresql_url) as proxy:
        opened: Any = make_store(proxy.url(), SystemClock())
        await opened.open([])
        await opened.transact(lambda tx: tx.insert_document(new_id(), "{}"))
        assert opened._pool._idle
        proxy.cut()

        async def left() -> bool:
            return all(wire.hung_up for wire in opened._pool._idle)

        await eventually(left)
        with pytest.raises(StoreUnavailableError, match="can't be reached"):
            await opened.transact(lambda tx: tx.insert_document(new_id(), "{}"))
        proxy.heal()
        await opened.transact(lambda tx: tx.insert_document(new_id(), "{}"))
        await opened.close()


async def test_what_is_sent_after_the_rest_is_nobodys_trouble(postgresql_url: str) -> None:
    wire = await Wire.connect(Address.parse(postgresql_url))
    answers = await wire.run_here([Statement("SELECT 1"), Statement("SELECT 2")], Statement("SELECT 1 / 0"))
    assert [answer.rows for answer in answers] == [[(1,)], [(2,)]]
    assert [answer.rows for answer in await wire.run([Statement("SELECT 3")])] == [[(3,)]]
    await wire.close()


async def test_what_is_sent_after_the_rest_goes_along_with_it(postgresql_url: str) -> None:
    """A step has one end, for which the client waits once."""
    wire = await Wire.connect(Address.parse(postgresql_url))
    with tempfile.TemporaryFile("w+b") as file:
        wire.connection.pgconn.trace(file.fileno())
        wire.connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        await wire.run_here([Statement("BEGIN"), Statement("COMMIT")], Statement("SELECT pg_notify('words', 'told')"))
        wire.connection.pgconn.untrace()
        await wire.close()
        file.seek(0)
        messages = [(line.split()[0], line.split()[2]) for line in file.read().decode().splitlines()]
    assert messages.count(("F", "Execute")) == 3
    assert messages.count(("F", "Sync")) == 1
    assert messages.count(("B", "ReadyForQuery")) == 1


async def test_more_than_the_network_takes_at_once_gets_through(
    store: Store, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver could not send yet is sent before its answer is waited for."""
    jobs = [new_job(args=values.encode({"text": "x" * 100_000})) for _ in range(40)]
    connect = Wire.connect

    async def narrowly(address: Address) -> Wire:
        wire = await connect(address)
        with socket.socket(fileno=os.dup(wire.connection.fileno())) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        return wire

    async def overdue(wire: Wire) -> None:
        raise AssertionError("it waits for what waits for it")

    async def add(tx: Transaction) -> None:
        for job in jobs:
            await tx.insert_job(job)

    monkeypatch.setattr(Wire, "connect", narrowly)
    monkeypatch.setattr(PostgreSQLStore, "_resolve", overdue)
    narrow = make_store(postgresql_url, SystemClock())
    await narrow.open([])
    await narrow.transact(add)
    await narrow.close()
    assert await store.read(lambda tx: tx.count_jobs("", ID_HIGHEST)) == len(jobs)


async def test_much_is_given_more_time(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the server's silence is a sign that it is gone, and not what a slow network makes of many bytes."""
    monkeypatch.setattr(wires, "ANSWER_S", 0.3)
    wire = await Wire.connect(Address.parse(postgresql_url))
    slow = "SELECT length($1::text) FROM pg_sleep(0.6)"
    text = "x" * int(LOADED_S * wires.SLOWEST)
    assert (await wire.run_here([Statement(slow, (text,), size=len(text))]))[0].rows == [(len(text),)]
    with pytest.raises(psycopg.OperationalError):
        await wire.run_here([Statement(slow, ("x",), size=1)])
    await wire.close()


async def test_more_than_fits_in_one_statement_goes_in_several(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, run, sent = [new_id() for _ in range(10)], Wire.run_here, list[tuple[str, int]]()

    async def watched(wire: Wire, statements: Any, afterwards: Any = None) -> Any:
        sent.extend((statement.name, statement.size) for statement in statements if statement.size)
        return await run(wire, statements, afterwards)

    async def write(tx: Transaction) -> None:
        for id in ids:
            await tx.insert_document(id, '"old"')
        await tx.insert_document(ids[0][:-1] + "~", json.dumps("é" * 3_000))

    async def change(tx: Transaction) -> None:
        for id in ids:
            await tx.replace_document(id, json.dumps("x" * 400))

    monkeypatch.setattr(exchange, "_PIECE_MAX", 1_000)
    monkeypatch.setattr(Wire, "run_here", watched)
    await store.transact(write)
    await store.transact(change)
    assert {name for name, _ in sent} == {"document_insert", "document_replace"}
    assert sorted(size for _, size in sent)[-2] <= 1_000 < max(size for _, size in sent)
    found = await store.read(lambda tx: tx.scan(None, LOWEST, HIGHEST, descending=False, limit=99))
    assert sorted(len(entry.body) for entry in found) == [402] * 10 + [18_002]


async def test_a_commit_that_fails_tells_nobody(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url, autocommit=True) as listener:
        listener.execute("LISTEN words")
        wire = await Wire.connect(Address.parse(postgresql_url))
        fails = [Statement("BEGIN"), Statement("SELECT 1 / 0"), Statement("COMMIT")]
        with pytest.raises(psycopg.errors.DivisionByZero):
            await wire.run_here(fails, Statement("SELECT pg_notify('words', 'never')"))
        await wire.run([Statement("ROLLBACK")])
        commits = [Statement("BEGIN"), Statement("COMMIT")]
        await wire.run_here(commits, Statement("SELECT pg_notify('words', 'told')"))
        await wire.close()
        heard = [notification.payload for notification in listener.notifies(timeout=LOADED_S, stop_after=1)]
    assert heard == ["told"]


async def test_a_commit_tells_of_its_work_once(store: Store, postgresql_url: str) -> None:
    """The first right behind it, those that follow at once soon after."""
    with psycopg.connect(postgresql_url, autocommit=True) as listener:
        listener.execute("LISTEN duly_duly")
        for _ in range(3):
            await add_jobs(store, new_job(due=store.clock.now_ms()))
        await store.close()
        listener.execute("SELECT pg_notify('duly_duly', 'last')")
        heard = list[str]()
        for notification in listener.notifies(timeout=LOADED_S):
            if notification.payload == "last":
                break
            heard.append(notification.payload[0])
    assert 2 <= len(heard) <= 3
    assert set(heard) == {"m"}


async def test_jobs_whose_reservation_got_no_answer_are_found_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are reserved, and nobody knows for which look: it is not left to the end of the reservation."""
    await store.register_worker("w", 10, {})
    await add_jobs(store, new_job(due=store.clock.now_ms() - 1_000))
    run, lost = Wire.run_here, asyncio.Event()

    async def loses_an_answer(wire: Wire, statements: Any, afterwards: Any = None) -> Any:
        answers = await run(wire, statements, afterwards)
        if not lost.is_set() and "jobs_reserve" in [statement.name for statement in statements]:
            lost.set()
            wire.break_off()
            await run(wire, statements, afterwards)
        return answers

    async def look(tx: Transaction) -> int:
        return len(await tx.due_jobs("mutation", store.clock.now_ms(), 10))

    monkeypatch.setattr(Wire, "run_here", loses_an_answer)
    assert await store.transact(look, claims=True) == 1
    assert lost.is_set()


async def test_what_a_worker_runs_is_left_to_it_for_as_long_as_a_function_may_take(
    store: Store, postgresql_url: str
) -> None:
    """However short its lease is: otherwise two workers take the same job from each other for ever."""
    other = make_store(postgresql_url, SystemClock())
    await other.open([])
    for number, worker in enumerate((store, other)):
        worker.expect_bodies(60)
        await worker.register_worker(f"worker {number}", 0.01, {})
    await add_jobs(store, new_job(due=store.clock.now_ms() - 1_000))

    async def takes(tx: Transaction) -> int:
        jobs = await tx.due_jobs("mutation", store.clock.now_ms(), 10)
        lease_ends = store.clock.now_ms() + 11

        async def has_ended() -> bool:
            return store.clock.now_ms() > lease_ends

        await eventually(has_ended)
        assert await other.transact(looks, claims=True) == 0
        return len(jobs)

    async def looks(tx: Transaction) -> int:
        return len(await tx.due_jobs("mutation", store.clock.now_ms(), 10))

    assert await store.transact(takes, claims=True) == 1
    await other.close()


async def test_a_reader_that_is_cancelled_as_it_ends_gives_its_connection_back(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ending = Wire.run_here, asyncio.Event()

    async def watched(wire: Wire, statements: Any, afterwards: Any = None) -> Any:
        if statements[0].text == "ROLLBACK":
            ending.set()
        return await run(wire, statements, afterwards)

    async def asks(tx: Transaction) -> int:
        return len(await tx.scan(None, LOWEST, HIGHEST, descending=False, limit=9))

    monkeypatch.setattr(Wire, "run_here", watched)
    monkeypatch.setattr(shared, "_NOT_WAITING_S", 0.0)
    opened = make_store(f"{postgresql_url}?pool=5", SystemClock())
    await opened.open([])
    async with await psycopg.AsyncConnection.connect(postgresql_url) as other:
        # Whoever follows waits for this one in vain, and loses.
        await other.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        await other.execute("SELECT count(*) FROM duly.catalog")
        for _ in range(5):
            ending.clear()
            reading = asyncio.ensure_future(opened.read(asks, follows=True))
            await asyncio.wait_for(ending.wait(), LOADED_S)
            reading.cancel()
            await asyncio.wait({reading})
            assert reading.cancelled()
    assert await asyncio.wait_for(opened.read(asks), LOADED_S) == 0
    await opened.close()


async def test_a_statement_timeout_of_the_roles_is_not_taken_for_a_wait_for_others(postgresql_url: str) -> None:
    async def asks(tx: Transaction) -> int:
        return len(await tx.scan(None, LOWEST, HIGHEST, descending=False, limit=9))

    opened = make_store(postgresql_url, SystemClock())
    await opened.open([])
    await opened.close()
    opened = make_store(f"{postgresql_url}?options=-c%20statement_timeout%3D300", SystemClock())
    await opened.open([])
    async with await psycopg.AsyncConnection.connect(postgresql_url) as other:
        await other.execute("LOCK TABLE duly.documents")
        with pytest.raises(StoreError, match="statement timeout"):
            await opened.read(asks, follows=True)
    await opened.close()


async def test_a_server_that_speaks_another_language_is_understood(store: Store) -> None:
    """lc_messages is set by the machine's language, and each has its own quotation marks."""
    said = psycopg.errors.InvalidTextRepresentation(
        "ungültige Eingabesyntax für Typ integer: »job_update touched 1 of 2 rows«"
    )
    tx = PostgreSQLTransaction(store._pool, store._shared, writable=True)  # type: ignore[attr-defined]
    assert isinstance(tx._translate(said), ConflictError)
