"""What is sent to PostgreSQL and what comes back is one step: nothing of it is forgotten, whoever gives up."""

import asyncio
import contextlib
from typing import Any

import psycopg
import pytest

from duly._ground.clock import SystemClock
from duly._model.schema import Index, Table
from duly._store.open import make_store
from duly._store.port import Position, Store, Transaction
from duly._store.postgresql.pool import Pool
from duly._store.postgresql.wire import Wire
from duly.errors import StoreUnavailableError
from tests.store.rows import NOTES, new_id
from tests.support import eventually

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

    async def watched(wire: Wire, statements: Any) -> Any:
        begins.append(statements[0].text)
        return await run(wire, statements)

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

    async def slowly(wire: Wire, statements: Any) -> Any:
        await asyncio.sleep(0.05)
        return await run(wire, statements)

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
    from tests.store.rows import add_jobs, new_job

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


async def test_jobs_whose_reservation_got_no_answer_are_found_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are reserved, and nobody knows for which look: it is not left to the end of the reservation."""
    from tests.store.rows import add_jobs, new_job

    await store.register_worker("w", 10, {})
    await add_jobs(store, new_job(due=store.clock.now_ms() - 1_000))
    run, lost = Wire.run_here, asyncio.Event()

    async def loses_an_answer(wire: Wire, statements: Any) -> Any:
        answers = await run(wire, statements)
        if not lost.is_set() and "jobs_reserve" in [statement.name for statement in statements]:
            lost.set()
            wire.break_off()
            await run(wire, statements)
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
    from tests.store.rows import add_jobs, new_job

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
