"""What a group of due mutations reads before its transaction begins is as it was when it commits, or the group runs
again. On PostgreSQL only: elsewhere nobody else writes meanwhile."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from duly._model.schema import Index
from duly._store.port import Position, Store, Transaction
from duly._store.postgresql.wire import Answer, Statement, Wire
from duly.errors import StoreError
from tests.store.conftest import Stores, prepared
from tests.store.engines import ENGINES, Engine
from tests.store.rows import NOTES, NOW, add_jobs, new_id, new_job, put

POSTGRESQL = [engine for engine in ENGINES if engine.name == "postgresql"]


@pytest.fixture(params=POSTGRESQL, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    return prepared(request)


async def _replaces(tx: Transaction, id: str, body: str | None) -> None:
    await tx.replace_document(id, f"{body}+mine")


async def _deletes(tx: Transaction, id: str, body: str | None) -> None:
    await tx.delete_document(id)


async def _inserts(tx: Transaction, id: str, body: str | None) -> None:
    await tx.insert_document(new_id(), f"copy of {body}")


async def _takes_it_back(tx: Transaction, id: str, body: str | None) -> None:
    savepoint = tx.savepoint()
    await tx.replace_document(id, "never")
    await tx.rollback(savepoint)
    await tx.insert_document(new_id(), f"copy of {body}")


async def _asks_first(tx: Transaction, id: str, body: str | None) -> None:
    await tx.stored_indexes(NOTES)
    await tx.count_jobs("", "~")
    await tx.replace_document(id, f"{body}+mine")


async def _writes_twice(tx: Transaction, id: str, body: str | None) -> None:
    await tx.replace_document(id, "at first")
    await tx.count_jobs("", "~")
    await tx.replace_document(id, f"{body}+mine")


WRITES = [_replaces, _deletes, _inserts, _takes_it_back, _asks_first, _writes_twice]
Write = Callable[[Transaction, str, str | None], Awaitable[None]]


async def _replace_by(other: Store, id: str) -> None:
    async def body(tx: Transaction) -> None:
        await tx.get_document(id)
        await tx.replace_document(id, "theirs")

    await other.transact(body)


async def _run(store: Store, id: str, write: Write, meanwhile: Callable[[], Awaitable[None]]) -> list[str | None]:
    """What each attempt of a group read."""
    read: list[str | None] = []

    async def group(tx: Transaction) -> None:
        await tx.due_jobs("mutation", NOW, 10)
        read.append(await tx.get_document(id))
        await meanwhile()
        await write(tx, id, read[-1])

    await store.transact(group, claims=True)
    return read


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__.strip("_"))
async def test_a_group_runs_again_if_what_it_read_was_changed_meanwhile(
    engine: Engine, stores: Stores, write: Write
) -> None:
    ours, theirs = await stores.open(engine), await stores.open(engine)
    id = await put(ours, "before")
    await add_jobs(ours, new_job(args=f'{{"note":"{id}"}}'))
    times = 0

    async def meanwhile() -> None:
        nonlocal times
        times += 1
        if times == 1:
            await _replace_by(theirs, id)

    assert await _run(ours, id, write, meanwhile) == ["before", "theirs"]
    left = await theirs.read(lambda tx: tx.get_document(id))
    expected: dict[Write, str | None] = {_deletes: None, _inserts: "theirs", _takes_it_back: "theirs"}
    assert left == expected.get(write, "theirs+mine")


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__.strip("_"))
async def test_a_group_runs_once_if_nobody_interferes(engine: Engine, stores: Stores, write: Write) -> None:
    ours = await stores.open(engine)
    id = await put(ours, "before")
    await add_jobs(ours, new_job(args=f'{{"note":"{id}"}}'))

    async def meanwhile() -> None: ...

    assert await _run(ours, id, write, meanwhile) == ["before"]


async def test_groups_that_share_no_document_do_not_lose_against_each_other(engine: Engine, stores: Stores) -> None:
    """Though their documents and jobs stand on the same pages."""
    ours, theirs = await stores.open(engine), await stores.open(engine)
    mine, yours = await put(ours, "mine"), await put(ours, "yours")
    await add_jobs(ours, *[new_job(args=f'{{"note":"{id}"}}') for id in (mine, yours)])

    async def their_group() -> None:
        async def nothing() -> None: ...

        assert await _run(theirs, yours, _replaces, nothing) == ["yours"]

    assert await _run(ours, mine, _replaces, their_group) == ["mine"]


async def test_an_index_that_came_meanwhile_is_kept_up(engine: Engine, stores: Stores) -> None:
    ours, theirs = await stores.open(engine), await stores.open(engine)
    id = await put(ours, "before")
    known: list[int] = []
    await ours.transact(lambda tx: tx.stored_indexes(NOTES))

    async def group(tx: Transaction) -> None:
        await tx.due_jobs("mutation", NOW, 10)
        body = await tx.get_document(id)
        known.append(len(await tx.stored_indexes(NOTES)))
        if len(known) == 1:
            await theirs.transact(lambda tx: tx.create_index(NOTES, Index("by_n", ("n",))))
        await tx.replace_document(id, f"{body}+mine")

    await ours.transact(group, claims=True)
    assert known[-1] == 1


@pytest.mark.parametrize("begins_first", [False, True])
async def test_of_what_is_expected_to_be_read_long_documents_are_not_fetched(
    engine: Engine, stores: Stores, monkeypatch: pytest.MonkeyPatch, begins_first: bool
) -> None:
    """What the other jobs of a group may read first is not to take the time of this one."""
    ours, gone = await stores.open(engine), new_id()
    asked_for, short, long = [await put(ours, "x" * length) for length in (100_000, 1_000, 100_001)]
    await add_jobs(ours, *[new_job(args=f'{{"note":"{id}"}}') for id in (long, short, asked_for, gone)])
    run, fetched = Wire.run_here, list[set[str]]()

    async def watched(wire: Wire, statements: Sequence[Statement], afterwards: Statement | None = None) -> list[Answer]:
        answers = await run(wire, statements, afterwards)
        for statement, answer in zip(statements, answers, strict=True):
            if statement.name in ("documents_ahead", "documents_get"):
                fetched.append({row[0] for row in answer.rows})
        return answers

    async def group(tx: Transaction) -> list[int | None]:
        await tx.due_jobs("mutation", NOW, 10)
        if begins_first:
            await tx.count_jobs("", "~")
        bodies = [await tx.get_document(id) for id in (asked_for, short, long, gone)]
        return [None if body is None else len(body) for body in bodies]

    monkeypatch.setattr(Wire, "run_here", watched)
    assert await ours.transact(group, claims=True) == [100_000, 1_000, 100_001, None]
    assert fetched[:2] == [{asked_for, short}, {long}]


async def test_an_entry_that_others_made_of_what_was_read_ahead_is_no_fault(engine: Engine, stores: Stores) -> None:
    """Both give the document the same new value, and so the same entry."""
    ours, theirs = await stores.open(engine), await stores.open(engine)
    index = await ours.transact(lambda tx: tx.create_index(NOTES, Index("by_body", ("body",))))
    id, read = new_id(), list[str]()

    async def insert(tx: Transaction) -> None:
        await tx.insert_document(id, "open")
        await tx.insert_entry(index.id, Position(b"open", id))

    async def archive(tx: Transaction) -> str:
        body = await tx.get_document(id) or ""
        await tx.stored_indexes(NOTES)
        await tx.replace_document(id, "archived")
        await tx.delete_entry(index.id, Position(body.encode(), id))
        await tx.insert_entry(index.id, Position(b"archived", id))
        return body

    async def group(tx: Transaction) -> None:
        await tx.due_jobs("mutation", NOW, 10)
        read.append(await tx.get_document(id) or "")
        if len(read) == 1:
            await theirs.transact(archive)
        await archive(tx)

    await ours.transact(insert)
    await ours.transact(lambda tx: tx.stored_indexes(NOTES))
    await add_jobs(ours, new_job(args=f'{{"note":"{id}"}}'))
    await ours.transact(group, claims=True)
    assert read == ["open", "archived"]


async def test_an_entry_that_is_there_though_nobody_interfered_is_told(engine: Engine, stores: Stores) -> None:
    """Somebody made it by hand: to run again would be in vain, and for ever."""
    ours = await stores.open(engine)
    index = await ours.transact(lambda tx: tx.create_index(NOTES, Index("by_body", ("body",))))
    id, runs = await put(ours, "open"), 0
    await ours.transact(lambda tx: tx.insert_entry(index.id, Position(b"archived", id)))
    await ours.transact(lambda tx: tx.stored_indexes(NOTES))
    await add_jobs(ours, new_job(args=f'{{"note":"{id}"}}'))

    async def group(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await tx.due_jobs("mutation", NOW, 10)
        await tx.get_document(id)
        await tx.stored_indexes(NOTES)
        await tx.replace_document(id, "archived")
        await tx.insert_entry(index.id, Position(b"archived", id))

    with pytest.raises(StoreError, match="UniqueViolation"):
        await ours.transact(group, claims=True)
    assert runs == 1
