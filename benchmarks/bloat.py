"""What a great many jobs leave behind in PostgreSQL: sizes, dead rows, and what the look-up of due work costs then."""

import asyncio
import json
import re
import statistics
import time
from datetime import timedelta
from typing import Any

import psycopg

from benchmarks import counters
from benchmarks.measuring import mark, title
from benchmarks.systems import System, Worker
from duly._ground.clock import SystemClock
from duly._ground.entropy import SystemEntropy
from duly._ground.ids import IdMaker, table_tag
from duly._store.statements import statements_of

_JOBS = "duly.scheduled_functions"
_LOOKED_UP = 256
_DAY_MS = 86_400_000
_CALM_S = 120
_LOOK_UP = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
_FORGET_DUE = """
DELETE FROM duly.scheduled_functions WHERE state = 'pending' AND due <= extract(epoch FROM now()) * 1000
"""
_ROWS = """
SELECT n_live_tup, n_dead_tup, autovacuum_count FROM pg_stat_user_tables
WHERE relid = 'duly.scheduled_functions'::regclass
"""
_SIZES = """
SELECT c.relname, pg_relation_size(c.oid) FROM pg_class c
WHERE c.oid = 'duly.scheduled_functions'::regclass
  OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'duly.scheduled_functions'::regclass)
ORDER BY c.relkind DESC, c.relname
"""


def fill_for_later(url: str, count: int) -> None:
    """Jobs that are due from tomorrow on, over a month, written past duly."""
    ids, tag = IdMaker(SystemEntropy()), table_tag("_scheduled_functions")
    now = SystemClock().now_ms()
    columns = "(id, name, kind, state, due, scheduled_time, args)"
    with psycopg.connect(url, autocommit=True) as connection:
        with connection.cursor().copy(f"COPY {_JOBS} {columns} FROM STDIN") as copy:
            for number in range(count):
                due = now + _DAY_MS * (1 + 29 * number / count)
                copy.write_row((str(ids.make(tag, now)), "counters:add", "mutation", "pending", due, now, "{}"))
        connection.execute(f"VACUUM ANALYZE {_JOBS}")
        connection.execute("CHECKPOINT")


class _Watch:
    """Looks at the table from outside."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.look_ups: list[float] = []

    def report(self, when: str) -> None:
        """With as many jobs due as one look-up takes."""
        self._system.run("enqueue", _LOOKED_UP, 1_000, 0)
        with psycopg.connect(self._system.url, autocommit=True) as connection:
            plans = [self._look_up(connection) for _ in range(21)]
            sizes = connection.execute(_SIZES).fetchall()
            rows = connection.execute(_ROWS).fetchall()
            connection.execute(_FORGET_DUE)
        times = [plan["Execution Time"] for plan in plans]
        self.look_ups.append(statistics.median(times))
        pages = plans[-1]["Plan"]["Shared Hit Blocks"] + plans[-1]["Plan"]["Shared Read Blocks"]
        print(f"  {when}")
        print(
            f"    look-up of {_LOOKED_UP} due       {statistics.median(times):.2f} ms "
            f"({min(times):.2f} to {max(times):.2f}; the first {times[0]:.2f}), {pages} pages"
        )
        print(f"    rows                     {rows[0][0]:,} live, {rows[0][1]:,} dead; {rows[0][2]} autovacuums so far")
        told = [f"{_short(name)} {size / 2**20:.1f} MiB" for name, size in sizes]
        print(f"    sizes                    {', '.join(told)}", flush=True)

    def _look_up(self, connection: psycopg.Connection[Any]) -> dict[str, Any]:
        """What `jobs_reserve` does to find them, without its update."""
        statement = statements_of("postgresql")["jobs_reserve"].replace("{schema}", "duly")
        found = re.search(r"\( (SELECT c\.ctid .*? SKIP LOCKED) \)", statement)
        assert found is not None
        now = SystemClock().now_ms()
        until = repr(now + 10_000)
        values = ("'mutation'", repr(now), str(_LOOKED_UP), "'nobody'", until, until)
        text = re.sub(r"\$(\d)", lambda place: values[int(place[1]) - 1], found[1])
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL enable_seqscan = off")
            connection.execute("SET LOCAL enable_bitmapscan = off")
            rows = connection.execute((_LOOK_UP + text).encode()).fetchall()
        plan: dict[str, Any] = (rows[0][0] if isinstance(rows[0][0], list) else json.loads(rows[0][0]))[0]
        return plan


def _short(name: str) -> str:
    return name.removeprefix("scheduled_functions_") if name != "scheduled_functions" else "table"


def measure_bloat(system: System, jobs: int, workers: int) -> list[bool]:
    title(f"Bloat: {jobs:,} jobs scheduled and run, {workers} workers, autovacuum as duly's schema sets it")
    system.empty()
    watch = _Watch(system)
    watch.report("at the start, an empty table")
    chunk = min(jobs, 50_000)
    before = system.ask(system.total)
    rates: list[float] = []
    processes = [system.start_worker() for _ in range(workers)]
    try:
        for process in processes:
            process.expect_ready()
            process.release()
        rates += [_run_chunk(system, min(chunk, jobs - done), processes) for done in range(0, jobs, chunk)]
    finally:
        for process in processes:
            process.stop()
    assert system.ask(system.total) - before == jobs, "the counters"
    watch.report("all of them done, at once")
    _calm_down(system)
    watch.report("once autovacuum has been")
    tenth = max(1, len(rates) // 10)
    print(
        f"    schedule and run, jobs/s: first tenth {statistics.median(rates[:tenth]):,.0f}, "
        f"last tenth {statistics.median(rates[-tenth:]):,.0f}"
    )
    _prune(system)
    _calm_down(system)
    watch.report("after the retention, once autovacuum has been")
    growth = watch.look_ups[-2] / watch.look_ups[0]
    return [mark(growth <= 1.5, f"look-up of due work, {jobs:,} finished / an empty table: {growth:.2f} (1.5 or less)")]


def _run_chunk(system: System, jobs: int, processes: list[Worker]) -> float:
    started = time.perf_counter()
    system.run("enqueue", jobs, 1_000, 0)
    while system.ask(system.unfinished):
        for process in processes:
            process.check()
        time.sleep(0.05)
    return jobs / (time.perf_counter() - started)


def _calm_down(system: System) -> None:
    """Until autovacuum has dealt with what is left, or has had two minutes."""
    deadline = time.monotonic() + _CALM_S
    while time.monotonic() < deadline:
        time.sleep(2)
        running = system.ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'")
        with psycopg.connect(system.url) as connection:
            live, dead, _ = connection.execute(_ROWS).fetchall()[0]
        if not running and dead <= 5_000 + live * 0.01:
            return


def _prune(system: System) -> None:
    """By a worker whose retention is over at once."""
    finished = system.ask(system.finished)

    async def work() -> float:
        started = time.perf_counter()
        async with counters.app_on(system.url, retention=timedelta(milliseconds=1)):
            while system.ask(system.finished):
                await asyncio.sleep(0.2)
        return time.perf_counter() - started

    seconds = asyncio.run(work())
    print(f"    deleting {finished:,} finished  {finished / seconds:,.0f} rows/s")
