"""What duly does on PostgreSQL, beside Procrastinate and PgQueuer doing the same work on the same server.

    make bench-postgresql                       all of it, some half an hour
    make bench-postgresql BENCH="--quick"       a small run, to see that it works

A server is started for it, durable as PostgreSQL is by default (fsync and synchronous_commit on), with a database for
each system. Nothing is left but standard output and the peers' virtual environment. It ends with status 1 if a figure
does not hold.

What is compared with what:

- The work: a job takes an account and a number, and adds the number to the account's counter. In duly it reads a
  document and patches it, in one transaction with the job's success: exactly once. In the others it is one
  `UPDATE … SET count = count + 1` in a transaction of its own, and the job is marked as done in another: whoever dies
  in between has done it twice, or leaves a job that seems to run for ever.
- The jobs lie ready before the clock starts. Workers are processes of their own, connected and waiting for a word. The
  clock stops when the last job is marked as done. Then the counters are summed up: every system must be exact.
- Rounds go turn and turn about; tables are emptied, vacuumed and analyzed, and a checkpoint is made before each.
- The peers are given what makes them fast: Procrastinate 20 jobs at once, connections that commit each statement by
  itself, no logging; PgQueuer asyncpg, a pool, and batches of 100 instead of 10, as its guide advises for short jobs.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg

from benchmarks.bloat import fill_for_later, measure_bloat
from benchmarks.measuring import describe_machine, mark, ratio, spread, title
from benchmarks.systems import System, install_peers, make_duly, make_pgqueuer, make_procrastinate
from benchmarks.waking import measure_idle, measure_latency
from tests.postgres import Server

_WORKERS = (1, 2, 4)
_TIMES_A_PEER = 3
# Procrastinate fetches jobs one by one: so many of the others' would take it minutes.
_PROCRASTINATE_SHARE = 5
_SEED = 7


def compare_throughput(systems: list[System], rounds: int, jobs: int) -> list[bool]:
    title(f"Throughput: {rounds} interleaved rounds of {jobs:,} jobs (Procrastinate: {jobs // _PROCRASTINATE_SHARE:,})")
    held = []
    for workers in _WORKERS:
        rates: dict[str, list[float]] = {system.name: [] for system in systems}
        for index in range(rounds):
            for system in systems if index % 2 == 0 else reversed(systems):
                share = _PROCRASTINATE_SHARE if system.name == "Procrastinate" else 1
                rates[system.name].append(system.measure(jobs // share, workers))
        print(f"  {workers} worker{'s' if workers > 1 else ''}")
        for name, measured in rates.items():
            print(f"    {name:<20} {spread(measured)} jobs/s")
        for name, measured in rates.items():
            if name != "duly":
                times = [ours / theirs for ours, theirs in zip(rates["duly"], measured, strict=True)]
                fast = statistics.median(times) >= _TIMES_A_PEER
                held.append(mark(fast, f"duly / {name}, by round: {ratio(times)}, to hold: {_TIMES_A_PEER} or more"))
    return held


def compare_contended(systems: list[System], rounds: int, jobs: int) -> list[bool]:
    """Workers that want the same rows: what exactly-once costs where it is needed most. For information."""
    title(f"Contention: the same with 1,000 accounts as the dice fall, {jobs:,} jobs, {rounds} rounds")
    for workers in _WORKERS:
        for system in systems:
            if system.name != "Procrastinate":
                rates = [system.measure(jobs, workers, accounts=1_000, seed=_SEED) for _ in range(rounds)]
                print(f"  {system.name:<12} {workers} workers  {spread(rates)} jobs/s")
    return []


def compare_pending(system: System, rounds: int, jobs: int, pending: int) -> list[bool]:
    title(f"One worker, {rounds} rounds of {jobs:,} jobs: nothing else pending, and {pending:,} pending for later")
    empty: list[float] = []
    full: list[float] = []
    for _ in range(rounds):
        empty.append(system.measure(jobs, 1))
        system.empty()
        fill_for_later(system.url, pending)
        system.enqueue(jobs)
        full.append(system.drain(jobs, 1))
    slower = [fast / slow for fast, slow in zip(empty, full, strict=True)]
    print(f"  nothing else pending     {spread(empty)} jobs/s")
    print(f"  {pending:>9,} pending        {spread(full)} jobs/s")
    held = statistics.median(slower) <= 1.2
    return [mark(held, f"empty / {pending:,} pending, by round: {ratio(slower)}, to hold: 1.2 or less")]


def describe_server(server: Server) -> None:
    names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size")
    with psycopg.connect(server.url()) as connection:
        values = [connection.execute("SELECT current_setting(%s)", (name,)).fetchall()[0][0] for name in names]
    print("server    " + ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures duly on PostgreSQL, beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a small run; its figures say little")
    parts = ["throughput", "contention", "pending", "latency", "idle", "bloat"]
    parser.add_argument("--only", choices=parts, action="append", help="one part of it; may be given again")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs of a round of the throughput")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the throughput")
    parser.add_argument(
        "--many", type=int, default=1_000_000, help="jobs pending for later, and jobs run for the bloat"
    )
    options = parser.parse_args()
    quick: bool = options.quick
    jobs, rounds, many = (2_000, 1, 20_000) if quick else (options.jobs, options.rounds, options.many)
    only = set(options.only or parts)
    with tempfile.TemporaryDirectory(prefix="duly-bench-") as folder, Server.start(durable=True) as server:
        describe_machine(Path(folder))
        describe_server(server)
        duly_system = make_duly()
        systems = [duly_system]
        if only & {"throughput", "contention"}:
            python = install_peers()
            systems += [make_procrastinate(python), make_pgqueuer(python)]
        for system in systems:
            system.prepare(server, system.name.lower())
        runs: dict[str, Callable[[], list[bool]]] = {
            "throughput": lambda: compare_throughput(systems, rounds, jobs),
            "contention": lambda: compare_contended(systems, rounds, jobs),
            "pending": lambda: compare_pending(duly_system, rounds, jobs, many),
            "latency": lambda: measure_latency(duly_system, 50 if quick else 500),
            "idle": lambda: measure_idle(server, duly_system, 10 if quick else 60),
            "bloat": lambda: measure_bloat(duly_system, many, 2),
        }
        held = [result for part, run in runs.items() if part in only for result in run()]
    print(f"\n{sum(held)} of {len(held)} figures hold")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
