"""Moving a database: out of every engine, into every engine."""

import asyncio
import io
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import duly
from duly._app import Parts
from duly._ground import values
from duly._ground.clock import SystemClock
from duly._ground.ids import ID_HIGHEST
from duly._model.job import Job, settle, start
from duly._model.schema import Index, Table, index_key
from duly._store.port import Entry, Position, Store, Transaction
from duly._store.transfer import KINDS, export_to, import_from
from duly.errors import StoreError
from duly.testing.faults import StoreView
from tests.ground import strategies
from tests.store.conftest import Stores, empty_database
from tests.store.engines import ENGINES, Engine
from tests.store.rows import NOTES, NOW, new_id, new_job
from tests.support import eventually

T = TypeVar("T")

LOWEST, HIGHEST = Position(b"", ""), Position(b"", ID_HIGHEST)
FIRST, LAST = Position(b"", ""), Position(b"\xff\xff", "")
BY_N = Index("by_n", ("n",))


PAIRS = list(itertools.product(ENGINES, ENGINES))


@pytest.fixture(params=PAIRS, ids=[f"{a.name} to {b.name}" for a, b in PAIRS])
async def sides(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """An opened store of an engine and another of any engine: from the one to the other."""
    opened = [Stores(tmp_path / "source"), Stores(tmp_path / "target")]
    sides: list[Store] = []
    for stores, engine in zip(opened, request.param, strict=True):
        stores.folder.mkdir()
        empty_database(engine, stores.folder, request, other=stores is opened[1])
        sides.append(await stores.open(engine))
    yield sides[0], sides[1]
    for stores in opened:
        await stores.close_all()


async def exported(store: Store) -> bytes:
    file = io.BytesIO()
    await export_to(file.write, store)
    return file.getvalue()


async def all_in(store: Store) -> tuple[Any, list[Entry], list[Job]]:
    """All that a store holds: tables and their indexes, documents, jobs."""

    async def body(tx: Transaction) -> tuple[Any, list[Entry], list[Job]]:
        tables = await tx.list_tables()
        indexes = {tag: sorted(stored.spec for stored in await tx.stored_indexes(tag)) for tag, _ in tables}
        return (
            [tables, indexes],
            await tx.scan(None, LOWEST, HIGHEST, descending=False, limit=99_999),
            await tx.scan_jobs("", ID_HIGHEST, descending=False, limit=99_999),
        )

    return await store.read(body)


async def entries_of(store: Store) -> list[tuple[bytes, str]]:
    """Those of the index `BY_N`."""

    async def body(tx: Transaction) -> list[tuple[bytes, str]]:
        (index,) = [stored for stored in await tx.stored_indexes(NOTES) if stored.spec == BY_N]
        return [
            (entry.position.key, entry.position.id)
            for entry in await tx.scan(index.id, FIRST, LAST, descending=False, limit=99_999)
        ]

    return await store.read(body)


def jobs_of_all_states() -> list[Job]:
    pending = new_job(args=values.encode({"n": 1, "b": b"hi"}))
    action = new_job("mails:send", "action")
    running = start(new_job("mails:send", "action"), NOW, "a-worker-that-is-gone")
    return [
        pending,
        action,
        new_job(args=values.encode({"text": "x" * 5_000})),
        new_job(due=NOW + 0.125, attempts=3, pending_reason="the disk is full"),
        new_job("gone:function", parked=True, pending_reason="no such function"),
        running,
        settle(new_job(), "success", NOW + 1, None, NOW),
        settle(new_job(), "failed", NOW + 2, "ValueError: nö\n  line 2", NOW),
        settle(new_job(), "canceled", NOW + 3, None, None),
        settle(start(new_job("mails:send", "action"), NOW, "w"), "failed", NOW + 4, "timeout", None),
    ]


async def fill(store: Store, documents: list[Any], jobs: list[Job]) -> list[str]:
    """Returns the ids of the documents, which are in the index."""

    async def body(tx: Transaction) -> list[str]:
        await tx.remember_table(NOTES, "notes")
        index = await tx.create_index(NOTES, BY_N)
        ids: list[str] = []
        for document in documents:
            ids.append(new_id())
            await tx.insert_document(ids[-1], values.encode(document))
            await tx.insert_entry(index.id, Position(index_key(BY_N, document), ids[-1]))
        for job in jobs:
            await tx.insert_job(job)
        return ids

    return await store.transact(body)


async def test_everything_arrives_as_it_was(sides: tuple[Store, Store]) -> None:
    source, target = sides
    jobs = jobs_of_all_states()
    ids = await fill(source, [{"n": number % 7, "text": "é\0"} for number in range(120)], jobs)
    counts = await import_from(io.BytesIO(await exported(source)), target)
    assert counts == {"table": 1, "index": 1, "document": 120, "job": len(jobs)}
    before, after = await all_in(source), await all_in(target)
    assert after == before
    assert [entry.position.id for entry in after[1]] == ids
    assert after[2] == sorted(jobs)
    assert await entries_of(target) == await entries_of(source)
    assert await exported(target) == await exported(source)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(st.dictionaries(strategies.keys, strategies.values, max_size=3), max_size=4))
def test_every_value_arrives_as_it_was(
    request: pytest.FixtureRequest, engine: Engine, documents: list[dict[str, Any]]
) -> None:
    # Of the other engine, where there is one.
    other = ENGINES[(ENGINES.index(engine) + 1) % len(ENGINES)]

    async def move() -> None:
        with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
            empty_database(engine, Path(a), request)
            empty_database(other, Path(b), request, other=True)
            source, target = engine.make(Path(a), SystemClock()), other.make(Path(b), SystemClock())
            await source.open([])
            await target.open([])
            job = new_job(args=values.encode({"all": documents}))
            await fill(source, documents, [job])
            await import_from(io.BytesIO(await exported(source)), target)
            assert await all_in(target) == await all_in(source)
            assert await entries_of(target) == await entries_of(source)
            await source.close()
            await target.close()

    asyncio.run(move())


async def test_indexes_that_only_the_new_app_declares_are_filled_too(
    durable_engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "new").mkdir()
    empty_database(durable_engine, tmp_path / "new", request, other=True)
    old, new = Stores(tmp_path), Stores(tmp_path / "new")
    source = await old.open(durable_engine, [Table("notes", indexes={"by_text": ["text"]})])
    target = await new.open(durable_engine, [Table("notes", indexes={"by_n": ["n"]}), Table("others")])
    await source.transact(lambda tx: tx.insert_document(new_id(), '{"n":1,"text":"a"}'))
    await import_from(io.BytesIO(await exported(source)), target)
    assert [key for key, _ in await entries_of(target)] == [index_key(BY_N, {"n": 1})]
    tables, indexes = (await all_in(target))[0]
    assert sorted(name for _, name in tables) == ["notes", "others"]
    assert [index.name for index in indexes[NOTES]] == ["by_n", "by_text"]
    await old.close_all()
    await new.close_all()


async def test_the_export_is_of_one_moment_while_others_write(sides: tuple[Store, Store]) -> None:
    source, target = sides
    await fill(source, [{"n": 1}], [])
    added = new_id()
    adding: list[asyncio.Future[None]] = []

    async def add(tx: Transaction) -> None:
        await tx.insert_document(added, "{}")

    lines: list[bytes] = []

    def write(line: bytes) -> None:
        if not adding:
            adding.append(asyncio.ensure_future(source.transact(add)))
        lines.append(line)

    await export_to(write, source)
    await adding[0]
    await import_from(io.BytesIO(b"".join(lines)), target)
    assert added not in {entry.position.id for entry in (await all_in(target))[1]}


# What is refused.


async def test_a_store_that_is_not_empty_is_left_as_it_is(sides: tuple[Store, Store]) -> None:
    source, target = sides
    await fill(source, [{"n": 1}], [new_job()])
    file = await exported(source)
    await target.transact(lambda tx: tx.insert_job(new_job()))
    before = await all_in(target)
    with pytest.raises(StoreError, match="not empty, it holds scheduled functions; import into a new one"):
        await import_from(io.BytesIO(file), target)
    assert await all_in(target) == before
    with pytest.raises(StoreError, match="not empty, it holds documents"):
        await import_from(io.BytesIO(file), source)


def _drop_lines(file: bytes, kind: str) -> bytes:
    return b"".join(line for line in file.splitlines(True) if not line.startswith(b'{"%s"' % kind.encode()))


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda file: b"", "no export"),
    "something else": (lambda file: b"\x89PNG\r\n", "no export"),
    "json": (lambda file: b"[1, 2]\n", "no export"),
    "of a later format": (lambda file: file.replace(b'"format":1', b'"format":2'), "of format 2"),
    "cut off between lines": (lambda file: b"".join(file.splitlines(True)[:-1]), "cut off after line"),
    "cut off in a line": (lambda file: file[: len(file) // 2], "is not as it was written"),
    "without its documents": (lambda file: _drop_lines(file, "document"), "does not hold what was written"),
    "without its jobs": (lambda file: _drop_lines(file, "job"), "does not hold what was written"),
    "with a bit turned": (lambda file: file.replace(b"TEA", b"TEE"), "does not hold what was written"),
    "with another id": (lambda file: file.replace(b'{"document":{"id":"', b'{"document":{"id":"0', 1), "line 4 is not"),
    "with a field too many": (lambda file: file.replace(b'"attempts":0', b'"attempts":0,"more":1'), "is not as"),
    "with an unknown line": (lambda file: file.replace(b'{"table"', b'{"tables"'), "line 2 is not"),
    "twice": (lambda file: file + file, "goes on after line"),
}


@pytest.mark.parametrize("damage", DAMAGED)
async def test_a_damaged_file_leaves_the_store_empty(sides: tuple[Store, Store], damage: str) -> None:
    source, target = sides
    await fill(source, [{"n": number, "text": "TEA"} for number in range(20)], [new_job()])
    file = await exported(source)
    before = await all_in(target)
    change, message = DAMAGED[damage]
    assert change(file) != file
    with pytest.raises(StoreError, match=message):
        await import_from(io.BytesIO(change(file)), target)
    assert await all_in(target) == before
    await import_from(io.BytesIO(file), target)
    assert await all_in(target) == await all_in(source)


def test_every_kind_of_line_is_known() -> None:
    assert set(KINDS) == {"table", "index", "document", "job"}


HALF_AN_IMPORT = """
import asyncio, sys, time
from pathlib import Path
from duly._ground.clock import SystemClock
from duly._store.transfer import import_from
from tests.store.engines import ENGINES

class Slow:
    def __init__(self, file): self.file = file
    def seek(self, to): self.file.seek(to)
    def __iter__(self):
        for number, line in enumerate(self.file):
            if number == 30:
                print("half", flush=True)
                time.sleep(600)
            yield line

async def main():
    (engine,) = [engine for engine in ENGINES if engine.name == sys.argv[1]]
    store = engine.make(Path(sys.argv[2]), SystemClock())
    await store.open([])
    with open(sys.argv[3], "rb") as file:
        await import_from(Slow(file), store)

asyncio.run(main())
"""


async def test_an_import_that_is_killed_leaves_nothing_and_can_be_made_again(
    durable_engine: Engine, stores: Stores, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = await stores.open(durable_engine)
    (tmp_path / "target").mkdir()
    empty_database(durable_engine, tmp_path / "target", request, other=True)
    # Long ones, so that some have been handed over and written to the disk by then.
    await fill(source, [{"n": number, "text": "x" * 900_000} for number in range(60)], jobs_of_all_states())
    (tmp_path / "file").write_bytes(file := await exported(source))
    script = [sys.executable, "-c", textwrap.dedent(HALF_AN_IMPORT)]
    victim = subprocess.Popen(
        [*script, durable_engine.name, str(tmp_path / "target"), str(tmp_path / "file")], stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"half\n"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    others = Stores(tmp_path / "target")
    target = await others.open(durable_engine)
    assert (await all_in(target))[1:] == ([], [])
    await import_from(io.BytesIO(file), target)
    assert await all_in(target) == await all_in(source)
    await others.close_all()


# Where a transaction has documents and jobs: before it hands them over, on the way, and as the engine has them.
HOLDING = ("_documents", "_jobs", "_known", "_queue", "_read_bodies")


async def test_what_is_imported_is_handed_over_bit_by_bit(sides: tuple[Store, Store]) -> None:
    """Forty megabytes in the file are not forty in memory."""
    source, target = sides
    jobs = [new_job(args=values.encode({"text": "x" * 100_000})) for _ in range(200)]
    await fill(source, [{"n": number, "text": "x" * 100_000} for number in range(200)], jobs)
    kept: list[int] = []

    class Watched(StoreView):
        async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
            async def watched(tx: Transaction) -> T:
                insert, insert_job = tx.insert_document, tx.insert_job

                def look() -> None:
                    kept.append(sum(len(getattr(tx, name, ())) for name in HOLDING))

                async def insert_and_look(id: str, body: str) -> None:
                    await insert(id, body)
                    look()

                async def insert_job_and_look(job: Job) -> None:
                    await insert_job(job)
                    look()

                tx.insert_document = insert_and_look  # type: ignore[method-assign]
                tx.insert_job = insert_job_and_look  # type: ignore[method-assign]
                return await body(tx)

            return await super().transact(watched, claims=claims)

    await import_from(io.BytesIO(await exported(source)), Watched(target))
    assert len(kept) == 400
    assert max(kept) < 50


# Its jobs, once they are there.

ran: list[int] = []


@duly.mutation
async def note(ctx: duly.MutationCtx, n: int) -> int:
    ran.append(n)
    await ctx.db.insert("notes", {"n": n})
    return await ctx.db.query("others").count()


@duly.action
async def act(ctx: duly.ActionCtx) -> None:
    raise AssertionError("an action that was in progress does not run again")


@duly.query
async def all_of(ctx: duly.QueryCtx) -> Any:
    return [
        [document["n"] for document in await ctx.db.query("notes").collect()],
        {str(duly.id_of(job)): job["state"] for job in await ctx.db.system.query("_scheduled_functions").collect()},
    ]


def app_on(engine: Engine, folder: Path) -> duly.App:
    app = duly.App(__name__, mutation_timeout=timedelta(minutes=1))
    app._parts = Parts(store=lambda url, clock: engine.make(folder, clock))
    return app


@pytest.mark.parametrize("working", [False, True], ids=["no worker", "a worker"])
async def test_pending_jobs_run_exactly_once_after_the_import(
    durable_engine: Engine, tmp_path: Path, request: pytest.FixtureRequest, working: bool
) -> None:
    ran.clear()
    (tmp_path / "new").mkdir()
    empty_database(durable_engine, tmp_path / "new", request, other=True)
    file = io.BytesIO()
    interrupted = start(new_job(f"{__name__.rpartition('.')[2]}:act", "action"), NOW, "gone")
    async with app_on(durable_engine, tmp_path).client() as old:
        assert old._store is not None
        now = old._parts.clock.now_ms()
        ids = [await old.scheduler.run_at(now - 1_000 + number, note, n=number) for number in range(40)]
        await old.scheduler.cancel(ids[7])
        await old._store.transact(lambda tx: tx.insert_job(interrupted))
        await export_to(file.write, old._store)
    expected = [number for number in range(40) if number != 7]

    async def finished(app: duly.App) -> bool:
        # Not all the time: whoever reads all jobs while they run makes them lose against it, and try again later.
        await asyncio.sleep(0.2)
        _, states = await app.query(all_of)
        return not any(state["kind"] in ("pending", "inProgress") for state in states.values())

    new = app_on(durable_engine, tmp_path / "new")
    async with new if working else new.client():
        assert new._store is not None
        await import_from(file, new._store)
        if working:

            async def ran_all() -> bool:
                return len(ran) == 39

            await eventually(ran_all)
        else:
            assert ran == []
    async with app_on(durable_engine, tmp_path / "new") as again:
        await eventually(lambda: finished(again), deadline_s=60)
        numbers, states = await again.query(all_of)
    assert ran == numbers == expected
    assert states[ids[7]] == {"kind": "canceled"}
    assert states[interrupted.id]["kind"] == "failed"
    assert states[interrupted.id]["error"].startswith("interrupted")
    assert len(states) == 41


async def test_a_person_can_read_it(store: Store) -> None:
    await fill(store, [{"n": 1}], [new_job()])
    lines = [json.loads(line) for line in (await exported(store)).splitlines()]
    assert [next(iter(line)) for line in lines] == ["header", "table", "index", "document", "job", "end"]
    assert lines[1] == {"table": {"tag": NOTES, "name": "notes"}}
    assert lines[3]["document"]["body"] == '{"n":1}'
    assert lines[4]["job"]["state"] == "pending"
    assert lines[5]["end"]["counts"] == {"table": 1, "index": 1, "document": 1, "job": 1}
