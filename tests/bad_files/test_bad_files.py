"""Each gives one clear error that says what to do; nothing acknowledged is lost; the worker lives on."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import duly
from duly._app import Parts
from duly._ground.clock import SystemClock
from duly._store.sqlite.lease import FileLease, is_held
from duly._store.sqlite.store import SQLiteStore
from duly._store.statements import migrations_of
from duly.errors import StoreError, StoreUnavailableError
from tests.store.rows import new_job
from tests.support import eventually

ROOT = Path(__file__).parent.parent.parent


@duly.mutation
async def note(ctx: duly.MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@duly.query
async def notes(ctx: duly.QueryCtx) -> list[str]:
    return [document["text"] async for document in ctx.db.query("notes")]


class Gate:
    event: asyncio.Event


@duly.action
async def wait_for_gate(ctx: duly.ActionCtx) -> None:
    await Gate.event.wait()


@duly.query
async def job(ctx: duly.QueryCtx, id: duly.Id[duly.ScheduledFunction]) -> duly.ScheduledFunction | None:
    return await ctx.db.system.get(id)


async def state_of(app: duly.App, id: duly.Id[duly.ScheduledFunction]) -> str:
    found = await app.query(job, id=id)
    assert found is not None
    return found["state"]["kind"]


def app_on(path: Path) -> duly.App:
    return duly.App(__name__, database=f"sqlite:///{path}")


async def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        async with app_on(path):
            pass
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, this is a letter and not a database.\n" * 100)
    before = path.read_bytes()
    assert "is not a duly database" in await refusal(path)
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    async with app_on(path) as app:
        await app.mutation(note, text="hello")
        assert await app.query(notes) == ["hello"]


async def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in await refusal(tmp_path)


async def test_a_missing_folder(tmp_path: Path) -> None:
    message = await refusal(tmp_path / "nowhere" / "shop.db")
    assert "does not exist; create it" in message


async def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with app_on(path) as app:
        for number in range(200):
            await app.mutation(note, text=f"{number}" * 100)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(StoreError, match="is damaged; restore it from a backup"):
        async with app_on(path) as app:
            await app.query(notes)


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with app_on(path) as app:
        await app.mutation(note, text="hello")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE _duly SET schema_version = 99")
    connection.close()
    assert "written by a newer duly (schema version 99" in await refusal(path)


async def test_an_older_schema_is_migrated_forward(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with app_on(path) as app:
        await app.mutation(note, text="hello")
    now = migrations_of("sqlite")
    store = SQLiteStore(path, SystemClock(), [*now, "CREATE TABLE _next (id INTEGER); INSERT INTO _next VALUES (7);"])
    await store.open([])
    await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT schema_version FROM _duly").fetchall() == [(len(now) + 1,)]
    assert connection.execute("SELECT id FROM _next").fetchall() == [(7,)]
    assert connection.execute("SELECT count(*) FROM _documents").fetchall() == [(1,)]
    connection.close()


async def test_a_file_of_the_first_schema_goes_on(tmp_path: Path) -> None:
    """What was parked then is found by who can run it now."""
    path = tmp_path / "shop.db"
    parked = new_job(f"{__name__.rpartition('.')[2]}:note", args='{"text":"hello"}')
    with sqlite3.connect(path) as connection:
        connection.executescript(migrations_of("sqlite")[0])
        connection.execute("CREATE TABLE _duly (schema_version INTEGER NOT NULL)")
        connection.execute("INSERT INTO _duly VALUES (1)")
        connection.execute(
            "INSERT INTO _scheduled_functions (id, name, kind, state, due, scheduled_time, parked, args) "
            "VALUES (?, ?, 'mutation', 'pending', 1, 1, 1, ?)",
            (parked.id, parked.name, parked.args),
        )
        connection.execute("INSERT INTO _workers VALUES ('gone', 'udp:1', 1)")
    connection.close()
    async with app_on(path) as app:

        async def noted() -> bool:
            return bool(await app.query(notes) == ["hello"])

        await eventually(noted)


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with app_on(path) as app:
        await app.mutation(note, text="hello")
    now = migrations_of("sqlite")
    store = SQLiteStore(path, SystemClock(), [*now, "CREATE TABLE _next (id INTEGER);", "CREATE TABLE _next (oops);"])
    with pytest.raises(StoreError):
        await store.open([])
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT schema_version FROM _duly").fetchall() == [(len(now),)]
    assert connection.execute("SELECT name FROM sqlite_master WHERE name = '_next'").fetchall() == []
    connection.close()
    async with app_on(path) as app:
        assert await app.query(notes) == ["hello"]


async def test_another_program_that_holds_the_file_is_waited_for(tmp_path: Path) -> None:
    """In a process of its own: two copies of SQLite in one process don't see each other's locks."""
    path = tmp_path / "shop.db"
    clock = NappingClock()
    app = app_on(path)
    app._parts = Parts(clock=clock)
    async with app:
        await app.mutation(note, text="before")
        with subprocess.Popen(
            [sys.executable, "-c", _HOLD_THE_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            call = asyncio.create_task(app.mutation(note, text="after"))
            assert await app.query(notes) == ["before"]
            naps = clock.naps

            async def tried_again() -> bool:
                return clock.naps > naps + 10

            await eventually(tried_again)
            assert not call.done()
            other.stdin.close()
            assert other.wait() == 0
        await call
        assert await app.query(notes) == ["before", "after"]


class NappingClock(SystemClock):
    """Counts how often somebody waits for a moment before trying again."""

    naps = 0

    async def sleep(self, seconds: float) -> None:
        self.naps += 1
        await super().sleep(seconds)


_HOLD_THE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
connection.close()
"""


async def test_a_new_file_that_another_program_has_locked_is_waited_for(tmp_path: Path) -> None:
    """As it is while another process makes it, recovers it after a crash, or is the last to close it.

    SQLite itself waits then, and the event loop with it: so the other program lets go by itself, after a moment.
    """
    path = tmp_path / "shop.db"
    with subprocess.Popen([sys.executable, "-c", _LOCK_A_NEW_FILE, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        async with app_on(path) as app:
            await app.mutation(note, text="hello")
            assert await app.query(notes) == ["hello"]
        assert other.wait() == 0


_LOCK_A_NEW_FILE = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("CREATE TABLE theirs (id)")
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(0.4)
connection.execute("COMMIT")
connection.close()
"""


async def test_a_link_to_the_file_is_the_file(tmp_path: Path) -> None:
    """Who opens it by the link sees that a worker lives that opened it by its name, and the other way round."""
    path, link = tmp_path / "shop.db", tmp_path / "link.db"
    link.symlink_to(path)
    Gate.event = asyncio.Event()
    async with app_on(path) as app:
        job_id = await app.scheduler.run_after(0, wait_for_gate)

        async def begun() -> bool:
            return await state_of(app, job_id) == "inProgress"

        await eventually(begun)
        async with app_on(link) as other:
            await other.mutation(note, text="by the link")  # its upkeep has run: it is the first thing that does
            assert await state_of(other, job_id) == "inProgress"
        Gate.event.set()

        async def ended() -> bool:
            return await state_of(app, job_id) != "inProgress"

        await eventually(ended)
        assert await state_of(app, job_id) == "success"


@pytest.mark.parametrize("version", ["-1", "'seven'", "x'00'", "1.5"])
async def test_a_schema_version_that_makes_no_sense(tmp_path: Path, version: str) -> None:
    path = tmp_path / "shop.db"
    async with app_on(path) as app:
        await app.mutation(note, text="hello")
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE _duly SET schema_version = {version}")
    connection.close()
    assert "is damaged: its schema version is" in await refusal(path)


def test_the_folder_of_leases_may_vanish_while_a_lease_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that leaves last removes it, perhaps between the two steps of one that comes."""
    folder = tmp_path / "shop.db-workers"
    make_folder = Path.mkdir
    made: list[Path] = []

    def make_in_vain(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        make_folder(path, mode, parents, exist_ok)
        made.append(path)
        if len(made) < 3:
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", make_in_vain)
    lease = FileLease(folder / "1.lease", SystemClock(), 10)
    assert is_held(folder / "1.lease")
    lease.release()
    assert not folder.exists()


@pytest.mark.parametrize("disk", ["limit", "tmpfs"])
def test_a_full_disk_loses_nothing_and_the_worker_lives_on(tmp_path: Path, disk: str) -> None:
    full = [sys.executable, "-m", "tests.bad_files.small_disk", f"sqlite:///{tmp_path / 'shop.db'}"]
    if disk == "tmpfs":
        # Mounted where nobody else sees it, and gone with the process.
        alone = ["unshare", "--mount"]
        try_it = [*alone, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
        if shutil.which("unshare") is None or subprocess.run(try_it, capture_output=True, check=False).returncode:
            pytest.skip("needs a user who may mount")
        full = [*alone, *full, "8000000", str(tmp_path)]
    else:
        full += ["1000000"]
    done = subprocess.run(
        full,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    refused, lost, end = done.stdout.splitlines()
    assert refused.startswith("refused: the database ")
    assert ("the disk is full; free some space" if disk == "tmpfs" else "the disk reported an error") in refused
    assert lost == "nothing lost while full"
    assert end == "done"


@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_a_read_only_file_or_folder(tmp_path: Path, read_only: str) -> None:
    """As a user who is not root, for whom alone permissions count."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "shop.db"
    asyncio.run(_make(path))
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555 if read_only == "folder" else 0o777)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-c", _OPEN_AS_NOBODY, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    in_memory, refused = done.stdout.splitlines()
    assert in_memory == "opened"
    assert refused.startswith("StoreError the database ")
    assert "make the f" in refused
    assert "writable for this user" in refused


async def _make(path: Path) -> None:
    async with app_on(path) as app:
        await app.mutation(note, text="hello")


_OPEN_AS_NOBODY = """
import asyncio, os, sys
import duly, duly.errors

async def main(database):
    try:
        async with duly.App("__main__", database=database):
            print("opened")
    except duly.errors.StoreError as error:
        print(type(error).__name__, error)

asyncio.run(main("sqlite:///:memory:"))  # imports what it needs while it still may
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main(f"sqlite:///{sys.argv[1]}"))
"""


def test_an_outage_is_another_error_than_a_file_of_no_use() -> None:
    assert issubclass(StoreUnavailableError, StoreError)
