"""`duly export` and `duly import`."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.cli.commands import DEADLINE_S, Duly

OTHER = "sqlite:///other.db"


@pytest.fixture
def with_order(shop: Duly) -> Duly:
    """A shop with an order, a confirmation that is due and an archival that is not."""
    assert shop("run", "shop", "orders:create_order", '{"items": ["tea"]}').code == 0
    return shop


def jobs(duly: Duly, database: str = "sqlite:///shop.db") -> list[object]:
    return list(duly("jobs", "shop", "--json", "--database", database).json_lines)


def test_a_database_moves_through_a_file(with_order: Duly) -> None:
    exported = with_order("export", "shop", "shop.jsonl")
    counted = "1 tables, 0 indexes, 1 documents and 2 scheduled functions\n"
    assert (exported.code, exported.out, exported.err) == (0, "", f"exported {counted}")
    imported = with_order("import", "shop", "shop.jsonl", "--database", OTHER)
    assert (imported.code, imported.out, imported.err) == (0, "", f"imported {counted}")
    assert jobs(with_order, OTHER) == jobs(with_order)
    worker = with_order.start("worker", "shop", "--database", OTHER)
    worker.until("runs shop:app")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    states = [job["state"]["kind"] for job in with_order("jobs", "shop", "--json", "--database", OTHER).json_lines]
    assert states == ["pending", "success"]


def test_a_database_moves_to_postgresql_and_back_with_what_is_to_be_done(with_order: Duly, postgresql_url: str) -> None:
    before = jobs(with_order)
    assert with_order("export", "shop", "there").code == 0
    imported = with_order("import", "shop", "there", "--database", postgresql_url)
    assert (imported.code, imported.out) == (0, ""), imported.err
    assert jobs(with_order, postgresql_url) == before

    # Back before anything has run there, and once more after that.
    assert with_order("export", "shop", "back", "--database", postgresql_url).code == 0
    assert (with_order.folder / "back").read_bytes() == (with_order.folder / "there").read_bytes()
    assert with_order("import", "shop", "back", "--database", OTHER).code == 0
    assert jobs(with_order, OTHER) == before
    for database in (postgresql_url, OTHER):
        assert run_what_is_due(with_order, database) == ["pending", "success"]
    assert with_order("export", "shop", "done", "--database", postgresql_url).code == 0
    assert with_order("import", "shop", "done", "--database", "sqlite:///third.db").code == 0
    assert jobs(with_order, "sqlite:///third.db") == jobs(with_order, postgresql_url)


def run_what_is_due(duly: Duly, database: str) -> list[str]:
    """Starts a worker for a moment; returns the states of all jobs then."""
    worker = duly.start("worker", "shop", "--database", database)
    worker.until("runs shop:app")
    end = time.monotonic() + DEADLINE_S
    while True:
        states = [job["state"]["kind"] for job in duly("jobs", "shop", "--json", "--database", database).json_lines]
        if "success" in states:
            break
        assert time.monotonic() < end, states
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    return states


def test_a_database_on_postgresql_that_is_not_empty_is_left_as_it_is(with_order: Duly, postgresql_url: str) -> None:
    assert with_order("export", "shop", "backup").code == 0
    assert with_order("import", "shop", "backup", "--database", postgresql_url).code == 0
    full = with_order("import", "shop", "backup", "--database", postgresql_url)
    assert (full.code, full.out) == (1, "")
    assert "error: the database is not empty, it holds documents; import into a new one" in full.err
    assert len(jobs(with_order, postgresql_url)) == 2


def test_an_import_into_postgresql_wants_dulys_schema_first(with_order: Duly, postgresql_url: str) -> None:
    assert with_order("export", "shop", "backup").code == 0
    bare = f"{postgresql_url}?schema=not_there"
    for command in (["import", "shop", "backup"], ["export", "shop", "more"]):
        refused = with_order(*command, "--database", bare)
        assert (refused.code, refused.out) == (1, "")
        assert "has no schema of duly's yet; run: duly migrate shop --database URL\n" in refused.err
    assert not (with_order.folder / "more").exists()


def test_a_database_moves_through_a_pipe(with_order: Duly) -> None:
    exported = with_order("export", "shop", "-")
    assert exported.code == 0
    assert json.loads(exported.out.splitlines()[0]) == {"header": {"duly": "export", "format": 1}}
    imported = with_order("import", "shop", "-", "--database", OTHER, stdin=exported.out)
    assert imported.code == 0, imported
    assert jobs(with_order, OTHER) == jobs(with_order)


def test_a_file_that_exists_is_not_written_over(with_order: Duly) -> None:
    with_order.write("backup", "dear")
    refused = with_order("export", "shop", "backup")
    assert (refused.code, refused.out) == (1, "")
    assert "backup exists already" in refused.err
    assert (with_order.folder / "backup").read_text() == "dear"
    missing = with_order("export", "shop", "no/such/folder")
    assert missing.code == 1
    assert "no/such/folder can't be written: No such file" in missing.err


def test_there_is_nothing_to_export_where_there_is_no_database(shop: Duly) -> None:
    missing = shop("export", "shop", "backup")
    assert missing.code == 1
    assert "there is no database" in missing.err
    assert not list(shop.folder.glob("*.db*"))
    assert not (shop.folder / "backup").exists()


def test_an_import_that_is_refused_says_why(with_order: Duly) -> None:
    missing = with_order("import", "shop", "backup", "--database", OTHER)
    assert (missing.code, "backup can't be read: No such file" in missing.err) == (1, True)
    text = with_order("export", "shop", "-").out
    with_order.write("backup", text)
    full = with_order("import", "shop", "backup")
    assert (full.code, full.out) == (1, "")
    assert "error: the database is not empty, it holds documents; import into a new one" in full.err
    with_order.write("half", text[: text.rindex("{", 0, -200)])
    half = with_order("import", "shop", "half", "--database", OTHER)
    assert half.code == 1
    assert "error: the file is" in half.err
    assert with_order("import", "shop", "backup", "--database", OTHER).code == 0


LONG = """
import asyncio, sys
from duly._ground import values
from duly._store.transfer import export_to
from duly._ground.clock import SystemClock
from duly._store.open import make_store
from tests.store.rows import new_job

async def main():
    store = make_store("sqlite:///shop.db", SystemClock())
    await store.open([])
    jobs = [new_job(due=4e12, args=values.encode({"text": "x" * 2_000})) for _ in range(40_000)]

    async def body(tx):
        for job in jobs:
            await tx.insert_job(job)

    await store.transact(body)
    await store.close()

asyncio.run(main())
"""


def make_long(shop: Duly) -> None:
    """A database with forty thousand jobs."""
    root = Path(__file__).parent.parent.parent
    subprocess.run(
        [sys.executable, "-c", LONG],
        cwd=shop.folder,
        check=True,
        env=shop._environment(None) | {"PYTHONPATH": f"{root}:{root / 'src'}"},
    )


def test_ctrl_c_ends_an_export_and_an_import_and_leaves_nothing(shop: Duly) -> None:
    make_long(shop)
    export = shop.start("export", "shop", "half")
    wait_for((shop.folder / "half").exists, export.process)
    export.press_ctrl_c()
    assert export.ended() == 130, export.lines
    assert not (shop.folder / "half").exists()

    assert shop("export", "shop", "whole").code == 0
    running = shop.start("import", "shop", "whole", "--database", OTHER)
    # It has begun to write when the log of the new database has outgrown its tables.
    log = shop.folder / "other.db-wal"
    wait_for(lambda: log.exists() and log.stat().st_size > 1_000_000, running.process)
    running.press_ctrl_c()
    # On a machine that holds up this test it may have been too late.
    assert running.ended() in (130, 0), running.lines
    if running.process.returncode == 130:
        assert shop("jobs", "shop", "--json", "--database", OTHER).out == ""
        assert shop("import", "shop", "whole", "--database", OTHER).code == 0
    assert len(shop("jobs", "shop", "--json", "--limit", "50000", "--database", OTHER).json_lines) == 40_000


def test_ctrl_c_ends_an_export_and_an_import_of_postgresql_and_leaves_nothing(shop: Duly, postgresql_url: str) -> None:
    make_long(shop)
    assert shop("export", "shop", "whole").code == 0
    with psycopg.connect(postgresql_url, autocommit=True) as connection:

        def inserts() -> bool:
            return connection.execute(INSERTING).fetchone() is not None

        running = shop.start("import", "shop", "whole", "--database", postgresql_url)
        wait_for(inserts, running.process)
        running.press_ctrl_c()
        assert running.ended() == 130, running.lines
        assert not any("Traceback" in line for line in running.lines), running.lines
        wait_for(lambda: not inserts())
        assert connection.execute("SELECT count(*) FROM duly.scheduled_functions").fetchone() == (0,)
    assert shop("import", "shop", "whole", "--database", postgresql_url).code == 0
    export = shop.start("export", "shop", "half", "--database", postgresql_url)
    wait_for((shop.folder / "half").exists, export.process)
    export.press_ctrl_c()
    assert export.ended() == 130, export.lines
    assert not any("Traceback" in line for line in export.lines), export.lines
    assert not (shop.folder / "half").exists()


INSERTING = """
SELECT 1 FROM pg_stat_activity
WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()
"""


def wait_for(look: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    end = time.monotonic() + DEADLINE_S
    while not look():
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.002)
