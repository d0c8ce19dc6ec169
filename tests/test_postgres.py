"""The server that tests use: what it promises them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import postgres
from tests.postgres import Server

ROOT = Path(__file__).parent.parent

STARTER = """
import sys
from tests.postgres import Server
server = Server.start()
print(server.pid, server.port, server.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server.start(durable=True) as server:
        yield server


def eventually_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pids_of(url: str) -> list[int]:
    """Its processes for connections and in the background; the first one is not among them."""
    with psycopg.connect(url) as connection:
        return [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity")]


def test_a_crash_keeps_what_was_committed_and_the_port(server: Server) -> None:
    url = server.create_database("crash")
    with psycopg.connect(url) as committed:
        committed.execute("CREATE TABLE numbers (number integer)")
        committed.execute("INSERT INTO numbers VALUES (1)")
    with psycopg.connect(url) as lost:
        lost.execute("INSERT INTO numbers VALUES (2)")
        server.restart_immediately()
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
    with psycopg.connect(url) as after:
        assert after.execute("SELECT number FROM numbers").fetchall() == [(1,)]


def test_a_durable_server_syncs(server: Server) -> None:
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_it_leaves_nothing_behind() -> None:
    with Server.start() as server:
        pids = [server.pid, *pids_of(server.url())]
        connection = psycopg.connect(server.url())
    assert not server.folder.exists()
    eventually_gone(pids)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_ends_with_a_process_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as starter:
        assert starter.stdout is not None
        pid, port, folder = starter.stdout.readline().split()
        pids = [int(pid), *pids_of(f"postgresql://postgres@127.0.0.1:{port}/postgres")]
        starter.send_signal(signal.SIGKILL)
    eventually_gone(pids)
    assert Path(folder).exists()
    with Server.start():
        assert not Path(folder).exists(), "the next one removes what was left"


def test_a_test_finds_nothing_of_the_test_before(server: Server) -> None:
    url = server.create_database("emptied")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA duly")
        connection.execute("CREATE TABLE duly.schema_version AS SELECT 7 AS version")
        connection.execute("CREATE TABLE duly.texts (id bigserial PRIMARY KEY, text text)")
        connection.execute("CREATE TABLE duly.refers (id bigint REFERENCES duly.texts)")
    for rows, text in ((1, "short"), (3_000, "long" * 100), (2, "again")):
        killed = psycopg.connect(url)
        killed.execute("CREATE TABLE public.made_by_a_test (id bigint)")
        killed.execute("INSERT INTO duly.texts (text) SELECT %s FROM generate_series(1, %s)", (text, rows))
        killed.execute("INSERT INTO duly.refers SELECT id FROM duly.texts")
        killed.commit()
        killed.execute("LOCK TABLE duly.texts")
        postgres.empty(url)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM duly.texts").fetchone() == (0,)
            assert connection.execute("SELECT count(*) FROM duly.refers").fetchone() == (0,)
            assert connection.execute("SELECT version FROM duly.schema_version").fetchone() == (7,)
            assert connection.execute("SELECT to_regclass('public.made_by_a_test')").fetchone() == (None,)
            assert connection.execute("SELECT nextval('duly.texts_id_seq')").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            killed.execute("SELECT 1")
        killed.close()


@pytest.mark.parametrize("time", [1, 2])
def test_the_fixture_hands_out_an_empty_database(postgresql_url: str, time: int) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE made_by_a_test (id bigint)")
        others = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        assert others.fetchone() == (1,)
