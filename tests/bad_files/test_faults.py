"""Faults in the middle of a group: of the disk, of the file's contents, of the person at the keyboard.

The disk's are made by a VFS between SQLite and the real file, which fails a read or a write when it is told to.
"""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import duly
from duly._store.sqlite.transaction import SQLiteTransaction
from duly.errors import StoreUnavailableError
from tests.docs.readme import ROOT, environment
from tests.support import eventually

app = duly.App(__name__)

Order = duly.Table("orders", indexes={"by_status": ["status"]})
RUNS: list[str] = []


@pytest.fixture(autouse=True)
def no_runs() -> None:
    RUNS.clear()


@duly.mutation
async def fill(ctx: duly.MutationCtx) -> str:
    """More than the cache of a fresh connection has read."""
    return [await ctx.db.insert("big", {"x": "y" * 20_000}) for _ in range(100)][50]


@duly.mutation
async def add(ctx: duly.MutationCtx, items: list[str], *, count: bool = False) -> int:
    RUNS.append(items[0])
    items.append("vat")
    await ctx.db.insert("notes", {"items": items})
    return await ctx.db.query("notes").count() if count else len(items)


@duly.query
async def notes(ctx: duly.QueryCtx) -> list[list[str]]:
    return [document["items"] async for document in ctx.db.query("notes")]


@duly.mutation
async def read(ctx: duly.MutationCtx, id: str) -> None:
    RUNS.append("read")
    FAULTS.fail_read = RUNS.count("read") == 1
    await ctx.db.get(id)


@duly.mutation
async def create(ctx: duly.MutationCtx) -> str:
    return await ctx.db.insert(Order, {"status": "open"})


@duly.internal_mutation
async def archive(ctx: duly.MutationCtx, id: str) -> None:
    await ctx.db.patch(duly.Id(id), {"status": "archived"})


@duly.internal_mutation
async def fine(ctx: duly.MutationCtx) -> None:
    await ctx.db.insert("notes", {"items": ["fine"]})


@duly.query
async def state_of(ctx: duly.QueryCtx, id: str) -> str:
    job = await ctx.db.system.get(id)
    assert job is not None
    return job["state"]["kind"]


class Faults:
    fail_read = False


FAULTS = Faults()


class FaultyFile(apsw.VFSFile):
    def xRead(self, amount: int, offset: int) -> bytes:
        if FAULTS.fail_read:
            FAULTS.fail_read = False
            raise apsw.IOError("as the test asked for")
        return super().xRead(amount, offset)


class FaultyVFS(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("faulty", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> FaultyFile:
        return FaultyFile("unix", name, flags)


@pytest.fixture
def faulty_disk() -> Iterator[None]:
    FAULTS.fail_read = False
    vfs = FaultyVFS()
    yield
    vfs.unregister()


def app_on(path: Path) -> duly.App:
    return duly.App(__name__, database=f"sqlite:///{path}")


async def test_a_transaction_that_sqlite_gave_up_is_not_healed_by_a_savepoint(
    tmp_path: Path, faulty_disk: None
) -> None:
    """An error of the disk while a job reads rolls everything back; what is buffered is not committed by itself."""
    async with app_on(tmp_path / "a.db").client() as opened:
        cold = await opened.mutation(fill)
        await opened.scheduler.run_after(0, read, id=cold)
    async with app_on(tmp_path / "a.db") as opened:
        await asyncio.gather(opened.mutation(add, ["A"]), opened.mutation(add, ["B"]))

        async def has_read() -> bool:
            return RUNS.count("read") >= 2

        await eventually(has_read)
        assert sorted(await opened.query(notes)) == [["A", "vat"], ["B", "vat"]]


@pytest.mark.parametrize("harm", ["edited", "trigger"])
async def test_a_job_that_the_file_does_not_suit_holds_up_no_other(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "a.db"
    async with app_on(path).client() as opened:
        order_id = await opened.mutation(create)
        connection = apsw.Connection(str(path))
        if harm == "edited":
            connection.execute("""UPDATE _documents SET body = '{"status":"paid"}' WHERE id = ?""", (order_id,))
        else:
            connection.execute("CREATE TABLE audit (id)")
            connection.execute(
                "CREATE TRIGGER audited AFTER UPDATE ON _documents BEGIN INSERT INTO audit VALUES (new.id); END"
            )
        connection.close()
        archiving = await opened.scheduler.run_after(0, archive, id=order_id)
        others = [await opened.scheduler.run_after(0, fine) for _ in range(3)]
    async with app_on(path) as opened:

        async def others_succeeded() -> bool:
            return {await opened.query(state_of, id=id) for id in others} == {"success"}

        await eventually(others_succeeded)
        state = await opened.query(state_of, id=archiving)
        assert state == ("pending" if harm == "edited" else "success")


async def test_a_body_that_runs_again_gets_arguments_that_nobody_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule T1: a mutation may run again, and what the first run did to its arguments is no business of the second."""
    async with app_on(tmp_path / "a.db").client() as opened:
        await opened.mutation(add, ["0"])
        write_out, failures = SQLiteTransaction._write_out, [True]

        def fails_once(self: SQLiteTransaction) -> None:
            if failures:
                failures.clear()
                self.fault = StoreUnavailableError("as the test asked for")
                raise self.fault
            write_out(self)

        monkeypatch.setattr(SQLiteTransaction, "_write_out", fails_once)
        counts = await asyncio.gather(opened.mutation(add, ["A"]), opened.mutation(add, ["B"]))
        assert list(counts) == [2, 2]
        assert RUNS == ["0", "A", "B", "A", "B"]
        assert await opened.query(notes) == [["0", "vat"], ["A", "vat"], ["B", "vat"]]


INTERRUPTED = """
    import asyncio, signal, sys
    from pathlib import Path
    from duly._store.sqlite.transaction import SQLiteTransaction
    from tests.bad_files.test_faults import RUNS, add, app_on

    async def main():
        async with app_on(Path(sys.argv[1])).client() as opened:
            await opened.mutation(add, ["0"])
            write_out = SQLiteTransaction._write_out

            def interrupted(self):
                write_out(self)
                if RUNS[-1] == "B":
                    signal.raise_signal(signal.SIGINT)

            SQLiteTransaction._write_out = interrupted
            signal.signal(signal.SIGINT, signal.default_int_handler)
            await asyncio.gather(
                opened.mutation(add, ["A"], count=True), opened.mutation(add, ["B"], count=True), return_exceptions=True
            )

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted", RUNS)
"""


def test_a_ctrl_c_while_writes_are_handed_over_is_not_swallowed(tmp_path: Path) -> None:
    """Rule A4: it ends the process, and nothing is run again."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path / "a.db")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "interrupted ['0', 'A', 'B']\n", done.stdout + done.stderr
