"""The failure matrix of `docs/guarantees.md`, row by row: a process kills itself there, and another goes on."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import duly
from duly._ground.clock import SystemClock
from duly._store.sqlite.store import SQLiteStore
from duly._store.statements import migrations_of
from tests.docs import mortal
from tests.docs.readme import ROOT
from tests.support import eventually

INTERRUPTED = "interrupted: the worker stopped before"


def start(*arguments: str, ends: int = 0) -> str:
    """What another Python prints, which must end like that."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ends, f"it ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Remains:
    """What a process that died at a point has left, and what becomes of it."""

    def __init__(self, folder: Path, point: str) -> None:
        self.path = folder / "test.db"
        self.file = folder / "file.txt"
        self.app = duly.App(mortal.__name__, database=f"sqlite:///{self.path}")
        self.jobs: list[duly.ScheduledFunction] = []
        self.notes: list[str] = []
        start("-m", mortal.__name__, self.app.database, str(self.file), point, ends=-signal.SIGKILL)

    async def look(self) -> list[str]:
        """The states of the jobs."""
        self.jobs = await self.app.query(mortal.all_jobs)
        self.notes = sorted(await self.app.query(mortal.all_notes))
        return [job["state"]["kind"] for job in self.jobs]

    async def states_left(self) -> list[str]:
        async with self.app.client():
            return await self.look()

    async def states_in_the_end(self) -> list[str]:
        """Once a new worker has done what there is to do."""

        async def finished() -> bool:
            return not {"pending", "inProgress"} & set(await self.look())

        async with self.app:
            await eventually(finished)
            return await self.look()

    @property
    def lines(self) -> int:
        return self.file.read_text().count("written") if self.file.exists() else 0


async def test_M1_died_before_the_commit_that_schedules_neither_effect_nor_job_exists(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "before the commit that schedules")
    assert await remains.states_in_the_end() == []
    assert remains.notes == []


async def test_T2_died_after_the_commit_that_schedules_both_exist_and_the_job_runs(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "after the commit that schedules")
    assert await remains.states_left() == ["pending"]
    assert await remains.states_in_the_end() == ["success"]
    assert remains.notes == ["ran", "scheduled"]


async def test_M1_died_in_a_mutation_nothing_of_it_remains_and_it_runs_again(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "in a mutation")
    assert await remains.states_left() == ["pending"]
    assert remains.notes == ["scheduled"]
    assert await remains.states_in_the_end() == ["success"]
    assert remains.notes == ["ran", "scheduled"]


async def test_M1_died_after_the_commit_of_a_mutation_it_does_not_run_again(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "after a mutation")
    assert await remains.states_left() == ["success"]
    assert await remains.states_in_the_end() == ["success"]
    assert remains.notes == ["ran", "scheduled"]


async def test_M2_died_before_a_failure_is_recorded_it_runs_again_and_leaves_nothing(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "before a failure is recorded")
    assert await remains.states_left() == ["pending"]
    assert await remains.states_in_the_end() == ["failed"]
    assert remains.notes == ["scheduled"]


async def test_A1_died_before_an_action_is_claimed_it_starts(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "before an action is claimed")
    assert await remains.states_left() == ["pending"]
    assert remains.lines == 0
    await remains.states_in_the_end()
    assert remains.jobs[0]["state"]["kind"] == "success"
    assert remains.lines == 1


async def test_A1_died_after_an_action_is_claimed_it_is_interrupted_and_never_starts(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "after an action is claimed")
    assert await remains.states_left() == ["inProgress"]
    assert await remains.states_in_the_end() == ["failed"]
    assert remains.jobs[0]["state"].get("error", "").startswith(INTERRUPTED)
    assert remains.lines == 0


@pytest.mark.parametrize("point", ["in an action", "before an outcome is recorded", "while draining"])
async def test_A3_died_in_or_after_the_body_of_an_action_it_is_interrupted_and_what_it_did_remains(
    tmp_path: Path, point: str
) -> None:
    remains = Remains(tmp_path, point)
    assert (await remains.states_left())[0] == "inProgress"
    assert await remains.states_in_the_end() == ["failed", "success"]
    assert remains.jobs[0]["state"].get("error", "").startswith(INTERRUPTED)
    assert remains.lines == 1
    assert remains.notes == ["by the action", "scheduled"]


async def test_C1_died_before_a_cancel_is_committed_the_job_runs(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "before a cancel")
    assert await remains.states_in_the_end() == ["success"]
    assert remains.notes == ["ran", "scheduled"]


async def test_C1_died_after_a_cancel_is_committed_the_job_never_runs(tmp_path: Path) -> None:
    remains = Remains(tmp_path, "after a cancel")
    assert await remains.states_in_the_end() == ["canceled"]
    assert remains.notes == ["canceled", "scheduled"]


async def test_M3_died_while_a_job_waits_to_be_tried_again_it_is_tried_at_the_time_that_was_set(
    tmp_path: Path,
) -> None:
    remains = Remains(tmp_path, "while waiting")
    assert await remains.states_left() == ["pending"]
    (before,) = remains.jobs
    assert before["attempts"] == 1
    assert before.get("nextAttemptTime", 0) > before["scheduledTime"]
    assert await remains.states_in_the_end() == ["success"]
    (after,) = remains.jobs
    assert after["attempts"] == 2
    assert after.get("startedTime", 0) >= before.get("nextAttemptTime", 0)
    assert after["scheduledTime"] == before["scheduledTime"]


@pytest.mark.parametrize(("side", "left"), [("before", ["success"]), ("after", [])])
async def test_died_while_old_rows_are_deleted_they_are_gone_or_there_and_the_next_start_goes_on(
    tmp_path: Path, side: str, left: list[str]
) -> None:
    remains = Remains(tmp_path, f"{side} rows are deleted")
    assert await remains.states_left() == left
    assert remains.notes == ["ran", "scheduled"]

    async def gone() -> bool:
        return await remains.look() == []

    remains.app = duly.App(mortal.__name__, database=remains.app.database, retention=timedelta(milliseconds=1))
    async with remains.app:
        await eventually(gone)


async def test_died_while_an_index_is_built_the_next_start_builds_it(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    start("-c", INDEXING, str(path), "fill")
    start("-c", INDEXING, str(path), "die", ends=-signal.SIGKILL)
    assert start("-c", INDEXING, str(path), "count") == "3\n"


INDEXING = """
import asyncio, sys
import duly
from tests.docs import mortal

_, path, mode = sys.argv
tea = duly.Table("tea", indexes={} if mode == "fill" else {"by_kind": ["kind"]})

@duly.mutation
async def fill(ctx: duly.MutationCtx) -> None:
    for _ in range(3):
        await ctx.db.insert(tea, {"kind": "green"})

@duly.query
async def count(ctx: duly.QueryCtx) -> int:
    return len(await ctx.db.query(tea).with_index("by_kind", kind="green").collect())

async def main() -> None:
    async with duly.App("__main__", database=f"sqlite:///{path}").client() as app:
        if mode == "fill":
            await app.mutation(fill)
        else:
            print(await app.query(count))

if mode == "die":
    mortal.point = "while an index is built"
    mortal.prepare()
asyncio.run(main())
"""


async def test_died_while_migrating_the_file_is_as_before(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    app = duly.App(mortal.__name__, database=f"sqlite:///{path}")
    async with app.client():
        await app.mutation(mortal.note, text="from before")
    start("-c", MIGRATING, str(path), ends=-signal.SIGKILL)
    known = len(migrations_of("sqlite"))
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT schema_version FROM _duly").fetchall() == [(known,)]
        assert not database.execute("SELECT name FROM sqlite_schema WHERE name = 'new'").fetchall()
    async with app.client():
        assert await app.query(mortal.all_notes) == ["from before"]
    store = SQLiteStore(path, SystemClock(), [*migrations_of("sqlite"), "CREATE TABLE new (x)"])
    await store.open([])
    await store.close()
    with pytest.raises(duly.errors.StoreError, match="newer duly"):
        await app.client().__aenter__()


MIGRATING = """
import asyncio, pathlib, sys
from duly._ground.clock import SystemClock
from duly._store.statements import migrations_of
from duly._store.sqlite import store
from tests.docs.mortal import die

original = store.migrate

def migrate(*args):
    original(*args)
    die()

store.migrate = migrate
opened = store.SQLiteStore(pathlib.Path(sys.argv[1]), SystemClock(), [*migrations_of("sqlite"), "CREATE TABLE new (x)"])
asyncio.run(opened.open([]))
"""


async def test_a_file_that_is_no_database_is_one_clear_error_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear customer, " * 1_000)
    with pytest.raises(duly.errors.StoreError, match="is not a duly database"):
        await duly.App(mortal.__name__, database=f"sqlite:///{path}").client().__aenter__()
    assert path.read_text() == "Dear customer, " * 1_000
