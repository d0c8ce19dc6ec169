"""`transact` is all or nothing, one after the other, and durable; `read` sees one state of the database."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from duly._ground.clock import SystemClock
from duly._model.schema import Index
from duly._store.port import Position, Store, Transaction
from duly.errors import AppNotOpenError, StoreError
from tests.store.conftest import Stores
from tests.store.engines import Engine
from tests.store.rows import NOTES, NOW, add_jobs, new_id, new_job, put
from tests.support import DEADLINE_S


class NoneOfTheirsError(Exception):
    """What a body raises."""


class NotEvenAnException(BaseException):
    """What a body should not raise, and does."""


# --- all or nothing -------------------------------------------------------------------------------------------------


async def test_what_a_body_returns_is_returned(store: Store) -> None:
    async def body(_: Transaction) -> str:
        return "done"

    assert await store.transact(body) == "done"
    assert await store.read(body) == "done"


async def test_a_transaction_sees_what_it_wrote(store: Store) -> None:
    id, job = new_id(), new_job()

    async def body(tx: Transaction) -> None:
        await tx.insert_document(id, '{"n":1}')
        await tx.insert_job(job)
        await tx.remember_table(NOTES, "notes")
        assert await tx.get_document(id) == '{"n":1}'
        assert await tx.get_job(job.id) == job
        assert await tx.get_job_state(job.id) == "pending"
        assert await tx.table_name(NOTES) == "notes"
        await tx.replace_document(id, '{"n":2}')
        assert await tx.get_document(id) == '{"n":2}'
        await tx.delete_document(id)
        assert await tx.get_document(id) is None

    await store.transact(body)


@pytest.mark.parametrize(
    "error", [NoneOfTheirsError("no"), NotEvenAnException()], ids=lambda error: type(error).__name__
)
async def test_a_body_that_raises_leaves_nothing(store: Store, error: BaseException) -> None:
    kept, id, job = await put(store, '{"n":1}'), new_id(), new_job()

    async def body(tx: Transaction) -> None:
        index = await tx.create_index(NOTES, Index("by_n", ("n",)))
        await tx.remember_table(NOTES, "notes")
        await tx.insert_document(id, "{}")
        await tx.insert_entry(index.id, Position(b"k", id))
        await tx.replace_document(kept, '{"n":2}')
        await tx.insert_job(job)
        raise error

    with pytest.raises(type(error)) as caught:
        await store.transact(body)
    assert caught.value is error

    async def look(tx: Transaction) -> None:
        assert await tx.get_document(id) is None
        assert await tx.get_document(kept) == '{"n":1}'
        assert await tx.get_job(job.id) is None
        assert await tx.due_jobs("mutation", NOW, 10) == []
        assert await tx.table_name(NOTES) is None
        assert list(await tx.stored_indexes(NOTES)) == []

    await store.read(look)
    await store.transact(look)


async def test_a_fault_that_a_body_swallows_is_raised_all_the_same(store: Store) -> None:
    first, second = new_id(), new_id()

    async def body(tx: Transaction) -> str:
        await tx.insert_document(first, "{}")
        assert not tx.fault
        with pytest.raises(StoreError):
            await tx.insert_document(first, "{}")  # an id is there once
        assert isinstance(tx.fault, StoreError)
        with pytest.raises(StoreError):
            await tx.insert_document(second, "{}")  # nothing goes on until a savepoint before it is rolled back
        return "all is well"

    with pytest.raises(StoreError):
        await store.transact(body)
    assert await present(store, first, second) == [False, False]
    await put(store)  # and the next is not hurt


async def test_a_fault_is_healed_by_rolling_back_to_a_savepoint_before_it(store: Store) -> None:
    id, other = new_id(), new_id()

    async def body(tx: Transaction) -> None:
        await tx.insert_document(id, "{}")
        savepoint = tx.savepoint()
        with pytest.raises(StoreError):
            await tx.insert_document(id, "{}")
        await tx.rollback(savepoint)
        assert tx.fault is None
        await tx.insert_document(other, "{}")

    await store.transact(body)
    assert await present(store, id, other) == [True, True]


# --- savepoints -----------------------------------------------------------------------------------------------------


async def test_rolling_back_to_a_savepoint_undoes_what_came_after_it_only(store: Store) -> None:
    before, within, after, job = new_id(), new_id(), new_id(), new_job()

    async def body(tx: Transaction) -> None:
        await tx.insert_document(before, "{}")
        savepoint = tx.savepoint()
        await tx.insert_document(within, "{}")
        await tx.insert_job(job)
        await tx.replace_document(before, '{"changed":true}')
        await tx.rollback(savepoint)
        assert await tx.get_document(within) is None
        await tx.insert_document(after, "{}")

    await store.transact(body)
    assert await present(store, before, within, after) == [True, False, True]
    assert await store.read(lambda tx: tx.get_document(before)) == "{}"
    assert await store.read(lambda tx: tx.get_job(job.id)) is None


async def test_a_released_savepoint_keeps_what_came_after_it(store: Store) -> None:
    within = new_id()

    async def body(tx: Transaction) -> None:
        savepoint = tx.savepoint()
        await tx.insert_document(within, "{}")
        await tx.release(savepoint)

    await store.transact(body)
    assert await present(store, within) == [True]


async def test_savepoints_nest(store: Store) -> None:
    ids = [new_id() for _ in range(5)]

    async def body(tx: Transaction) -> None:
        outer = tx.savepoint()
        await tx.insert_document(ids[0], "{}")
        inner = tx.savepoint()
        await tx.insert_document(ids[1], "{}")
        await tx.rollback(inner)
        inner = tx.savepoint()
        await tx.insert_document(ids[2], "{}")
        innermost = tx.savepoint()
        await tx.insert_document(ids[3], "{}")
        await tx.release(innermost)
        await tx.release(inner)
        await tx.release(outer)
        await tx.insert_document(ids[4], "{}")

    await store.transact(body)
    assert await present(store, *ids) == [True, False, True, True, True]


async def test_an_outer_rollback_takes_what_was_released_within(store: Store) -> None:
    within, after = new_id(), new_id()

    async def body(tx: Transaction) -> None:
        outer = tx.savepoint()
        inner = tx.savepoint()
        await tx.insert_document(within, "{}")
        await tx.release(inner)
        await tx.rollback(outer)
        await tx.insert_document(after, "{}")

    await store.transact(body)
    assert await present(store, within, after) == [False, True]


async def test_an_error_takes_open_savepoints_with_it(store: Store) -> None:
    ids = [new_id() for _ in range(2)]

    async def body(tx: Transaction) -> None:
        tx.savepoint()
        await tx.insert_document(ids[0], "{}")
        tx.savepoint()
        await tx.insert_document(ids[1], "{}")
        raise NoneOfTheirsError

    with pytest.raises(NoneOfTheirsError):
        await store.transact(body)
    assert await present(store, *ids) == [False, False]
    await put(store)


# --- reading --------------------------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[Transaction], Awaitable[object]]] = {
    "insert_document": lambda tx: tx.insert_document(new_id(), "{}"),
    "insert_entry": lambda tx: tx.insert_entry(1, Position(b"", new_id())),
    "create_index": lambda tx: tx.create_index(NOTES, Index("by_n", ("n",))),
    "remember_table": lambda tx: tx.remember_table(NOTES, "notes"),
    "insert_job": lambda tx: tx.insert_job(new_job()),
    "prune_jobs": lambda tx: tx.prune_jobs(NOW, 10),
}


@pytest.mark.parametrize("verb", WRITES)
async def test_writing_in_a_read_raises(store: Store, verb: str) -> None:
    with pytest.raises((AssertionError, StoreError)):
        await store.read(WRITES[verb])


CHANGES: dict[str, Callable[[Transaction, str], Awaitable[object]]] = {
    "park_job": lambda tx, id: tx.park_job(id, 0, "why"),
    "refuse_job": lambda tx, id: tx.refuse_job(id, 0, "me", "why"),
    "set_job_kind": lambda tx, id: tx.set_job_kind(id, 0, "action"),
    "start_job": lambda tx, id: tx.start_job(id, 0, NOW, "w"),
    "settle_job": lambda tx, id: tx.settle_job(id, "pending", 0, "canceled", NOW),
    "postpone_job": lambda tx, id: tx.postpone_job(id, 0, NOW, "why"),
}


@pytest.mark.parametrize("verb", CHANGES)
async def test_changing_a_job_in_a_read_raises(store: Store, verb: str) -> None:
    job = new_job()
    await add_jobs(store, job)
    with pytest.raises((AssertionError, StoreError)):
        await store.read(lambda tx: CHANGES[verb](tx, job.id))
    assert await store.read(lambda tx: tx.get_job(job.id)) == job


async def test_a_read_sees_what_was_committed_before_it_began(store: Store) -> None:
    for _ in range(20):
        id = await put(store)
        assert await present(store, id) == [True]


async def test_a_read_keeps_its_snapshot_while_others_commit(engine: Engine, store: Store) -> None:
    id, job = new_id(), new_job()

    async def write(tx: Transaction) -> None:
        await tx.insert_document(id, "{}")
        await tx.insert_job(job)

    async def look(tx: Transaction) -> asyncio.Task[None]:
        assert await tx.get_document(id) is None
        writing = asyncio.ensure_future(store.transact(write))
        if engine.snapshots:
            await writing
        else:
            await turns()
            assert not writing.done(), "it has to wait for the read to end"
        assert await tx.get_document(id) is None
        assert await tx.get_job(job.id) is None
        assert await tx.scan(None, Position(b"", NOTES), Position(b"", NOTES + "~"), descending=False, limit=9) == []
        return writing

    await (await store.read(look))
    assert await present(store, id) == [True]


async def test_a_read_does_not_see_what_is_not_committed_yet(engine: Engine, store: Store) -> None:
    id = new_id()
    written, goon = asyncio.Event(), asyncio.Event()

    async def write(tx: Transaction) -> None:
        await tx.insert_document(id, "{}")
        written.set()
        await goon.wait()
        raise NoneOfTheirsError

    writing = asyncio.ensure_future(store.transact(write))
    await written.wait()
    reading = asyncio.create_task(present(store, id))
    if engine.snapshots:
        await asyncio.wait([reading], timeout=DEADLINE_S)
    else:
        await turns()
    goon.set()
    with pytest.raises(NoneOfTheirsError):
        await writing
    assert await reading == [False]


async def test_many_reads_run_at_once(store: Store) -> None:
    id = await put(store, '{"n":1}')
    assert await asyncio.gather(*(store.read(lambda tx: tx.get_document(id)) for _ in range(40))) == ['{"n":1}'] * 40


async def test_a_read_that_raises_hurts_no_other(store: Store) -> None:
    async def body(_: Transaction) -> None:
        raise NoneOfTheirsError

    id = await put(store)
    results = await asyncio.gather(store.read(body), present(store, id), return_exceptions=True)
    assert isinstance(results[0], NoneOfTheirsError)
    assert results[1] == [True]


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_transactions_that_wait_together_take_effect_one_after_the_other(store: Store) -> None:
    counter = await put(store, "[]")

    def append(number: int) -> Callable[[Transaction], Awaitable[None]]:
        async def body(tx: Transaction) -> None:
            numbers = json.loads(await tx.get_document(counter) or "")
            await asyncio.sleep(0)  # a chance for another to come between, which none may
            await tx.replace_document(counter, json.dumps([*numbers, number]))

        return body

    await asyncio.gather(*(store.transact(append(number)) for number in range(300)))
    # In the order in which they were asked for.
    assert await store.read(lambda tx: tx.get_document(counter)) == json.dumps(list(range(300)))


async def test_one_failing_body_does_not_hurt_the_others(store: Store) -> None:
    ids = [new_id() for _ in range(100)]

    def insert(number: int) -> Callable[[Transaction], Awaitable[int]]:
        async def body(tx: Transaction) -> int:
            await tx.insert_document(ids[number], "{}")
            if number % 7 == 3:
                raise NoneOfTheirsError(number)
            if number % 7 == 5:
                await tx.insert_document(ids[number], "{}")  # a fault of the store
            return number

        return body

    results = await asyncio.gather(*(store.transact(insert(number)) for number in range(100)), return_exceptions=True)
    for number, result in enumerate(results):
        if number % 7 == 3:
            assert isinstance(result, NoneOfTheirsError)
            assert result.args == (number,)
        elif number % 7 == 5:
            assert isinstance(result, StoreError)
        else:
            assert result == number
    assert await present(store, *ids) == [number % 7 not in (3, 5) for number in range(100)]


async def test_a_caller_is_released_only_when_its_commit_can_be_seen_by_all(
    durable_engine: Engine, stores: Stores
) -> None:
    store, other = await stores.open(durable_engine), await stores.open(durable_engine)
    id = new_id()
    goon, started = asyncio.Event(), asyncio.Event()

    async def dawdle(_: Transaction) -> None:
        started.set()
        await goon.wait()

    first = asyncio.ensure_future(store.transact(lambda tx: tx.insert_document(id, "{}")))
    second = asyncio.ensure_future(store.transact(dawdle))
    await started.wait()
    await turns()
    # Its body has returned. Whether its caller has been told is the engine's affair, but if so, then it is committed.
    told, found = first.done(), await present(other, id)
    goon.set()
    assert not told or found == [True]
    await first
    assert await present(other, id) == [True]
    await second


async def test_a_caller_that_gives_up_leaves_all_or_nothing(store: Store) -> None:
    started, goon, ids = asyncio.Event(), asyncio.Event(), [new_id() for _ in range(3)]

    async def dawdle(tx: Transaction) -> None:
        started.set()
        await goon.wait()
        await tx.insert_document(ids[0], "{}")

    async def both(tx: Transaction) -> None:
        await tx.insert_document(ids[1], "{}")
        await tx.insert_document(ids[2], "{}")

    first = asyncio.ensure_future(store.transact(dawdle))
    await started.wait()
    waiting = asyncio.ensure_future(store.transact(both))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    goon.set()
    await first
    found = await present(store, *ids)
    assert found[0]
    assert found[1] == found[2]


async def test_several_stores_on_one_database_do_not_lose_each_others_writes(
    durable_engine: Engine, stores: Stores
) -> None:
    several = [await stores.open(durable_engine) for _ in range(3)]
    counter = await put(several[0], "0")

    async def add(tx: Transaction) -> None:
        number = int(await tx.get_document(counter) or "")
        await asyncio.sleep(0)
        await tx.replace_document(counter, str(number + 1))

    await asyncio.gather(*(store.transact(add) for _ in range(40) for store in several))
    assert await several[1].read(lambda tx: tx.get_document(counter)) == "120"


# --- opening and closing --------------------------------------------------------------------------------------------


async def test_what_was_committed_is_there_when_it_is_opened_again(durable_engine: Engine, stores: Stores) -> None:
    store = await stores.open(durable_engine)
    id, job = await put(store, '{"n":1}'), new_job(args='{"long":"' + "ä" * 5_000 + '"}')
    await add_jobs(store, job)
    await store.transact(lambda tx: tx.remember_table(NOTES, "notes"))
    await stores.close(store)
    again = await stores.open(durable_engine)
    assert await again.read(lambda tx: tx.get_document(id)) == '{"n":1}'
    assert await again.read(lambda tx: tx.get_job(job.id)) == job
    assert await again.read(lambda tx: tx.table_name(NOTES)) == "notes"
    assert [job.id for job in await again.read(lambda tx: tx.due_jobs("mutation", NOW, 10))] == [job.id]


async def test_a_store_that_is_not_open_says_so(engine: Engine, stores: Stores) -> None:
    store = await stores.open(engine)
    await stores.close(store)
    with pytest.raises(AppNotOpenError):
        await put(store)
    with pytest.raises(AppNotOpenError):
        await present(store, new_id())


async def test_a_store_that_was_never_opened_says_so(engine: Engine, stores: Stores) -> None:
    store = engine.make(stores.folder, SystemClock())
    with pytest.raises(AppNotOpenError):
        await put(store)
    with pytest.raises(AppNotOpenError):
        await present(store, new_id())


async def test_what_waits_when_it_is_closed_is_committed_first(durable_engine: Engine, stores: Stores) -> None:
    store = await stores.open(durable_engine)
    ids = [new_id() for _ in range(20)]
    waiting = [asyncio.ensure_future(store.transact(inserting(id))) for id in ids]
    await asyncio.sleep(0)
    await stores.close(store)
    await asyncio.gather(*waiting)
    assert await present(await stores.open(durable_engine), *ids) == [True] * 20


# --- help -----------------------------------------------------------------------------------------------------------


async def present(store: Store, *ids: str) -> list[bool]:
    """Which of the documents are committed."""

    async def body(tx: Transaction) -> list[bool]:
        return [await tx.get_document(id) is not None for id in ids]

    return await store.read(body)


def inserting(id: str) -> Callable[[Transaction], Awaitable[None]]:
    return lambda tx: tx.insert_document(id, "{}")


async def turns() -> None:
    """A chance for whatever can go on to go on."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_snapshot_stays_as_it_was(store: Store) -> None:
    first = await put(store, "before")
    snapshot = await store.snapshot()
    second = await put(store, "after")

    async def change(tx: Transaction) -> None:
        assert await tx.get_document(first) == "before"
        await tx.replace_document(first, "changed")

    await store.transact(change)
    for _ in range(2):
        assert await snapshot.read(lambda tx: tx.get_document(first)) == "before"
        assert await snapshot.read(lambda tx: tx.get_document(second)) is None
    later = await store.snapshot()
    assert await later.read(lambda tx: tx.get_document(first)) == "changed"
    await snapshot.close()
    assert await later.read(lambda tx: tx.get_document(second)) == "after"
    # What is left open, the store closes.
