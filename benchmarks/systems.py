"""The systems that are compared on PostgreSQL: each has a database of its own, and workers that are real processes."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.postgres import Server

ROOT = Path(__file__).parent.parent
ACCOUNTS = 10_000
_POLL_S = 0.01


@dataclass
class System:
    """One of them.

    Args:
        name: What it is called.
        command: What runs its module: `prepare`, `enqueue` and `work`.
        options: The arguments of `work`: how it is configured.
        environment: Of its processes.
        unfinished: Asks whether anything that is due is left to do.
        finished: Asks how many jobs are marked as done.
        total: Asks for the sum of the counters.
        tables: What is emptied between rounds.
        url: Its database.
    """

    name: str
    command: list[str]
    options: list[int]
    environment: dict[str, str]
    unfinished: str
    finished: str
    total: str
    tables: str
    url: str = ""

    def prepare(self, server: Server, database: str) -> None:
        self.url = server.create_database(database)
        self.run("prepare", ACCOUNTS)

    def run(self, verb: str, *numbers: int) -> None:
        command = [*self.command, verb, self.url, *map(str, numbers)]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True)

    def start_worker(self) -> "Worker":
        return Worker([*self.command, "work", self.url, *map(str, self.options)], self.environment)

    def ask(self, question: str) -> int:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(question.encode()).fetchone()
            assert row is not None
            return int(row[0] or 0)

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def empty(self) -> None:
        """As after a quiet night: no job, and nothing that a server does in the background still to be done."""
        self.execute(f"TRUNCATE {self.tables} CASCADE", "VACUUM ANALYZE", "CHECKPOINT")

    def enqueue(self, jobs: int, *, accounts: int = ACCOUNTS, seed: int = 0) -> None:
        self.run("enqueue", jobs, accounts, seed)
        self.execute("VACUUM ANALYZE", "CHECKPOINT")

    def drain(self, jobs: int, workers: int) -> float:
        """Jobs a second: from the release of workers that are connected until the last job is marked as done."""
        before = self.ask(self.total)
        processes = [self.start_worker() for _ in range(workers)]
        try:
            for process in processes:
                process.expect_ready()
            with psycopg.connect(self.url, autocommit=True, prepare_threshold=1) as connection:
                started = time.perf_counter()
                for process in processes:
                    process.release()
                while connection.execute(self.unfinished.encode()).fetchall()[0][0]:
                    for process in processes:
                        process.check()
                    time.sleep(_POLL_S)
                seconds = time.perf_counter() - started
        finally:
            for process in processes:
                process.stop()
        added, done = self.ask(self.total) - before, self.ask(self.finished)
        assert added == jobs, f"{self.name}: {added:,} were added by {jobs:,} jobs"
        assert done == jobs, f"{self.name}: {done:,} of {jobs:,} jobs are marked as done"
        return jobs / seconds

    def measure(self, jobs: int, workers: int, *, accounts: int = ACCOUNTS, seed: int = 0) -> float:
        self.empty()
        self.enqueue(jobs, accounts=accounts, seed=seed)
        return self.drain(jobs, workers)


class Worker:
    """A process that says when it is ready, begins when told, and ends when its input does."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def expect_ready(self) -> None:
        assert self.read_line() == "ready"

    def read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the worker has ended"
        return line.rstrip("\n")

    def release(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def check(self) -> None:
        assert self._process.poll() is None, "the worker has ended"

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def make_duly() -> System:
    jobs = "duly.scheduled_functions"
    return System(
        "duly",
        [sys.executable, "-m", "benchmarks.counters"],
        [],
        dict(os.environ),
        # By the index that the look-up of due work uses, up to now.
        f"SELECT EXISTS (SELECT FROM {jobs} WHERE kind = 'mutation' AND state = 'pending' AND NOT parked "
        "AND due <= extract(epoch FROM now()) * 1000)",
        f"SELECT count(*) FROM {jobs} WHERE state = 'success'",
        "SELECT sum((body::json ->> 'count')::bigint) FROM duly.documents",
        jobs,
    )


def make_procrastinate(python: Path, concurrency: int = 20) -> System:
    return System(
        "Procrastinate",
        [str(python), str(ROOT / "benchmarks/peers/procrastinate_worker.py")],
        [concurrency],
        _peer_environment(),
        "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
        "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
        "SELECT sum(count) FROM accounts",
        "procrastinate_jobs, procrastinate_events",
    )


def make_pgqueuer(python: Path, batch_size: int = 100, connections: int = 20) -> System:
    return System(
        "PgQueuer",
        [str(python), str(ROOT / "benchmarks/peers/pgqueuer_worker.py")],
        [batch_size, connections],
        _peer_environment(),
        "SELECT EXISTS (SELECT FROM pgqueuer)",
        "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'",
        "SELECT sum(count) FROM accounts",
        "pgqueuer, pgqueuer_log",
    )


def _peer_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def install_peers() -> Path:
    """The Python of a virtual environment that has them: made once, and anew when their pins change."""
    folder, pins = ROOT / ".venv/peers", ROOT / "requirements/peers.txt"
    python, installed = folder / "bin/python", folder / "peers.txt"
    if not installed.exists() or installed.read_text() != pins.read_text():
        print(f"Installing the peers in {folder} (once) …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [python, "-m", "pip", "-qq", "--disable-pip-version-check", "install", "-r", pins]
        subprocess.run(pip, check=True)
        installed.write_text(pins.read_text())
    return python
