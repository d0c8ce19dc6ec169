"""What duly is compared with: apsw alone, doing the same row writes in transactions as large."""

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from duly._ground.entropy import SystemEntropy
from duly._ground.ids import IdMaker, table_tag
from duly._store.sqlite.connection import connect
from duly._store.statements import statements_of

_SQL = statements_of("sqlite")


@dataclass
class Run:
    """Cycles a second, and how many cycles each commit held."""

    rate: float
    per_commit: float


class BareFile:
    """A file that has duly's tables, and loops that write into it what duly would."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._ids = IdMaker(SystemEntropy())
        self._order_tag, self._job_tag = table_tag("orders"), table_tag("_scheduled_functions")

    def close(self) -> None:
        self._connection.close()

    def run(self, cycles: int, per_commit: int, numbers: Iterator[int]) -> Run:
        """Makes the rows and writes them, each transaction in a savepoint of its own, many in a commit."""
        execute = self._connection.cursor().execute
        document_insert, document_replace = _SQL["document_insert"], _SQL["document_replace"]
        job_insert, job_update = _SQL["job_insert"], _SQL["job_update"]
        started = time.perf_counter()
        created: list[tuple[tuple[Any, ...], ...]] = []
        for group in range(0, cycles + per_commit, per_commit):
            # As with duly, what one commit schedules is run by the next.
            finished, created = created, [self._rows(next(numbers)) for _ in range(min(per_commit, cycles - group))]
            execute("BEGIN IMMEDIATE")
            for insert, schedule, _, _ in created:
                execute("SAVEPOINT one")
                execute(document_insert, insert)
                execute(job_insert, schedule)
                execute("RELEASE one")
            for _, _, replace, settle in finished:
                execute("SAVEPOINT one")
                execute(document_replace, replace)
                execute(job_update, settle)
                execute("RELEASE one")
            execute("COMMIT")
        return Run(cycles / (time.perf_counter() - started), per_commit)

    def run_statements(self, cycles: int, per_commit: int, numbers: Iterator[int]) -> Run:
        """The four statements of a cycle and the commits alone, for rows that lie ready before the clock starts."""
        rows = [self._rows(next(numbers)) for _ in range(cycles)]
        groups = [rows[start : start + per_commit] for start in range(0, cycles, per_commit)]
        execute = self._connection.cursor().execute
        document_insert, document_replace = _SQL["document_insert"], _SQL["document_replace"]
        job_insert, job_update = _SQL["job_insert"], _SQL["job_update"]
        started = time.perf_counter()
        for created, finished in zip([*groups, []], [[], *groups], strict=True):
            execute("BEGIN IMMEDIATE")
            for insert, schedule, _, _ in created:
                execute(document_insert, insert)
                execute(job_insert, schedule)
            for _, _, replace, settle in finished:
                execute(document_replace, replace)
                execute(job_update, settle)
            execute("COMMIT")
        return Run(cycles / (time.perf_counter() - started), per_commit)

    def run_by_hand(self, cycles: int, per_commit: int, numbers: Iterator[int]) -> Run:
        execute = self._connection.cursor().execute
        last_us = 0
        started = time.perf_counter()
        for group in range(0, cycles + per_commit, per_commit):
            execute("BEGIN IMMEDIATE")
            now = time.time_ns() // 1_000 / 1_000
            due: list[Any] = execute(_SQL["jobs_due"], ("mutation", now, per_commit)).fetchall()
            for _ in range(min(per_commit, cycles - group)):
                execute("SAVEPOINT one")
                last_us = max(time.time_ns() // 1_000, last_us + 1)
                order_id = f"{self._order_tag}{last_us:013x}{os.urandom(7).hex()}"
                job_id = f"{self._job_tag}{last_us:013x}{os.urandom(7).hex()}"
                order = {"items": ["tea"], "number": next(numbers), "status": "open"}
                execute(_SQL["document_insert"], (order_id, orjson.dumps(order).decode()))
                arguments = orjson.dumps({"order_id": order_id}).decode()
                now = last_us / 1_000
                job = job_row(job_id, now, arguments)
                execute(_SQL["job_insert"], job)
                execute("RELEASE one")
            for row in due:
                execute("SAVEPOINT one")
                order_id = orjson.loads(row[12])["order_id"]
                found: list[Any] = execute(_SQL["document_get"], (order_id,)).fetchall()
                order = orjson.loads(found[0][0]) | {"status": "archived"}
                execute(_SQL["document_replace"], (order_id, orjson.dumps(order).decode()))
                now = time.time_ns() // 1_000 / 1_000
                execute(_SQL["job_update"], _success(row[0], now))
                execute("RELEASE one")
            execute("COMMIT")
        return Run(cycles / (time.perf_counter() - started), per_commit)

    def _rows(self, number: int) -> tuple[tuple[Any, ...], ...]:
        """The bindings of one cycle's four statements."""
        now = time.time_ns() // 1_000 / 1_000
        order_id, job_id = str(self._ids.make(self._order_tag, now)), str(self._ids.make(self._job_tag, now))
        body = '{"items":["tea"],"number":%d,"status":"%s"}'
        return (
            (order_id, body % (number, "open")),
            job_row(job_id, now, f'{{"order_id":"{order_id}"}}'),
            (order_id, body % (number, "archived")),
            _success(job_id, now),
        )


def job_row(id: str, now: float, arguments: str) -> tuple[Any, ...]:
    """A row that `job_insert` puts in."""
    return (
        id,
        "core:archive_order",
        "mutation",
        "pending",
        now,
        now,
        None,
        None,
        0,
        None,
        None,
        None,
        arguments,
        False,
        "",
        None,
    )


def _success(id: str, now: float) -> tuple[Any, ...]:
    """What `job_update` makes of it."""
    return (id, "pending", 0, "mutation", "success", None, now, now + 1, 1, None, None, None, False, "")


class BareCommits:
    """One row, changed and committed again and again: what a durable commit costs on this disk."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("CREATE TABLE one (value INTEGER)")
        self._connection.execute("INSERT INTO one VALUES (0)")
        self._numbers = itertools.count(1)

    def once(self) -> float:
        started = time.perf_counter_ns()
        self._connection.execute("UPDATE one SET value = ?", (next(self._numbers),))
        return (time.perf_counter_ns() - started) / 1e6

    def close(self) -> None:
        self._connection.close()
