"""The figures that the design promises (DESIGN.md section 6), each a ratio or a count from one run.

    make bench                              five interleaved rounds, some two minutes
    python -m benchmarks.core --quick       a small run, to see that it works

Nothing is written but standard output and a temporary folder. It ends with status 1 if a figure does not hold.

What is compared with what:

- duly is driven through its public interface only, by 256 closed-loop clients on one event loop. A cycle is two
  transactions: a direct mutation that inserts a document and schedules a mutation, and that scheduled mutation, which
  patches the document. Both are durable (`synchronous=FULL`); the clock stops when the last one is.
- The bare loop makes the same rows (two ids and some JSON a cycle) and writes them into the same tables, through the
  very statements that duly runs, under the same group commit: each transaction in a savepoint of its own, so that it
  could fail alone, and as many in a commit as duly had on average. It looks nothing up, reads nothing, checks nothing
  and calls no function. This is the ratio that is held to.
- The statements alone are the same four a cycle without savepoints, for rows that lie ready before the clock starts:
  what SQLite and the disk take of it. For information.
- The loop by hand is what a careful program without duly would do: it also looks up what is due, parses its arguments,
  and reads the document it patches. For information: it tells what duly adds to work that somebody has to do.
- Both begin on an empty file and keep it from round to round. Every body differs, because SQLite writes no page for an
  update that changes nothing.
"""

import argparse
import asyncio
import itertools
import math
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypedDict

import duly
from benchmarks.bare import BareCommits, BareFile, Run, job_row
from benchmarks.measuring import (
    Counts,
    counting_loop,
    describe_machine,
    mark,
    percentile,
    ratio,
    spread,
    title,
    watched,
)
from duly._ground.clock import SystemClock
from duly._ground.entropy import SystemEntropy
from duly._ground.ids import IdMaker, table_tag
from duly._store.sqlite.connection import connect
from duly._store.statements import statements_of

ROOT = Path(__file__).parent.parent
_CLIENTS = 256
_SQL = statements_of("sqlite")


# --- the functions that are measured --------------------------------------------------------------------------------


class Order(TypedDict):
    items: list[str]
    number: int
    status: Literal["open", "archived"]


orders = duly.Table("orders", Order)


class Progress:
    """What the functions below tell the measurements: how many have run, and when the last one began."""

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, goal: int) -> None:
        self.archived = 0
        self.goal = goal
        self.reached = asyncio.Event()
        self.began_ns = 0
        self.began = asyncio.Event()

    def archive(self) -> None:
        self.archived += 1
        if self.archived == self.goal:
            self.reached.set()

    def begin(self, now_ns: int) -> None:
        self.began_ns = now_ns
        self.began.set()


progress = Progress()


@duly.mutation
async def create_order(ctx: duly.MutationCtx, number: int) -> None:
    order_id = await ctx.db.insert(orders, {"items": ["tea"], "number": number, "status": "open"})
    await ctx.scheduler.run_after(0, archive_order, order_id=order_id)


@duly.internal_mutation
async def archive_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
    await ctx.db.patch(order_id, {"status": "archived"})
    progress.archive()


@duly.internal_mutation
async def first_line_of_mutation(ctx: duly.MutationCtx) -> None:
    progress.begin(time.perf_counter_ns())


@duly.internal_action
async def first_line_of_action(ctx: duly.ActionCtx) -> None:
    progress.begin(time.perf_counter_ns())


@duly.internal_mutation
async def nothing(ctx: duly.MutationCtx) -> None: ...


@duly.query
async def all_archived(ctx: duly.QueryCtx) -> bool:
    """Of the last some thousand, at least: more can't be read in one transaction."""
    last = await ctx.db.query(orders).order("desc").take(5_000)
    return bool(last) and all(order["status"] == "archived" for order in last)


@duly.query
async def state_of(ctx: duly.QueryCtx, job_id: duly.Id[duly.ScheduledFunction]) -> str:
    job = await ctx.db.system.get(job_id)
    assert job is not None
    return job["state"]["kind"]


def app_on(path: Path) -> duly.App:
    return duly.App(__name__, database=f"sqlite:///{path}")


# --- throughput -----------------------------------------------------------------------------------------------------


def run_duly(path: Path, cycles: int, numbers: Iterator[int]) -> Run:
    with watched() as counts:
        return asyncio.run(_drive(path, cycles, numbers, counts))


async def _drive(path: Path, cycles: int, numbers: Iterator[int], counts: Counts) -> Run:
    progress.reset(cycles)
    todo = iter(range(cycles))
    async with app_on(path) as app:

        async def client() -> None:
            for _ in todo:
                await app.mutation(create_order, next(numbers))

        await app.mutation(nothing)
        commits = counts.commits
        started = time.perf_counter()
        await asyncio.gather(*[client() for _ in range(_CLIENTS)])
        await progress.reached.wait()
        await app.mutation(nothing)  # committed with the last, or after it
        seconds = time.perf_counter() - started
        commits = counts.commits - commits
        assert progress.archived == cycles, f"{progress.archived} of {cycles} ran"
    return Run(cycles / seconds, cycles / commits)


async def _make_tables(path: Path) -> None:
    async with app_on(path).client():
        pass


def fill(path: Path, pending: int) -> None:
    """Jobs for later, written past duly: a million of them in some seconds, spread over a month from tomorrow on."""
    asyncio.run(_make_tables(path))
    connection = connect(path)
    ids, tag = IdMaker(SystemEntropy()), table_tag("_scheduled_functions")
    now = SystemClock().now_ms()
    order_id = ids.make(table_tag("orders"), now)
    day_ms = 86_400_000
    dice = random.Random(1)
    for start in range(0, pending, 50_000):
        with connection:
            connection.executemany(
                _SQL["job_insert"],
                (
                    job_row(str(ids.make(tag, now)), due, args)
                    for due in (now + day_ms * dice.uniform(1, 30) for _ in range(min(50_000, pending - start)))
                    for args in (f'{{"order_id":"{order_id}"}}',)
                ),
            )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def compare_throughput(folder: Path, rounds: int, cycles: int, pending: int) -> list[bool]:
    title(f"Throughput: {rounds} interleaved rounds of {cycles:,} cycles, {_CLIENTS} closed-loop clients")
    empty, full = folder / "empty.db", folder / "full.db"
    fill(empty, 0)
    fill(full, pending)
    asyncio.run(_make_tables(folder / "bare.db"))
    bare_file = BareFile(folder / "bare.db")
    numbers = itertools.count()
    per_commit = round(run_duly(empty, max(cycles // 4, 1_000), numbers).per_commit)  # a warm-up
    run_duly(full, max(cycles // 4, 1_000), numbers)
    bare_file.run(max(cycles // 4, 1_000), per_commit, numbers)
    bare_file.run_by_hand(max(cycles // 4, 1_000), per_commit, numbers)
    runs: dict[str, list[Run]] = {"duly": [], "bare": [], "statements": [], "hand": [], "full": []}
    for index in range(rounds):
        # Turn and turn about, so that none always comes after the same other.
        for name in list(runs) if index % 2 == 0 else reversed(runs):
            if name == "bare":
                runs[name].append(bare_file.run(cycles, per_commit, numbers))
            elif name == "statements":
                runs[name].append(bare_file.run_statements(cycles, per_commit, numbers))
            elif name == "hand":
                runs[name].append(bare_file.run_by_hand(cycles, per_commit, numbers))
            else:
                runs[name].append(run_duly(full if name == "full" else empty, cycles, numbers))
                if name == "duly":
                    per_commit = max(1, round(runs[name][-1].per_commit))
    bare_file.close()
    asyncio.run(_verify(empty))
    asyncio.run(_verify(full))
    print(f"  bare apsw loop               {spread([run.rate for run in runs['bare']])} cycles/s")
    print(f"  the statements alone         {spread([run.rate for run in runs['statements']])} cycles/s")
    print(f"  the loop by hand             {spread([run.rate for run in runs['hand']])} cycles/s")
    print(f"  duly, nothing else pending   {spread([run.rate for run in runs['duly']])} cycles/s")
    print(f"  duly, {pending:>9,} pending     {spread([run.rate for run in runs['full']])} cycles/s")
    print(
        f"  cycles in one commit         {spread([run.per_commit for run in runs['duly']])} (the bare loop's: the same)"
    )
    shares = [ours.rate / bare.rate for ours, bare in zip(runs["duly"], runs["bare"], strict=True)]
    alone = [ours.rate / bare.rate for ours, bare in zip(runs["duly"], runs["statements"], strict=True)]
    by_hand = [ours.rate / hand.rate for ours, hand in zip(runs["duly"], runs["hand"], strict=True)]
    print(f"  duly / the statements alone  {ratio(alone)}")
    print(f"  duly / the loop by hand      {ratio(by_hand)}")
    slowdowns = [ours.rate / full.rate for ours, full in zip(runs["duly"], runs["full"], strict=True)]
    fast, flat = statistics.median(shares) >= 1 / 3, statistics.median(slowdowns) <= 1.2
    return [
        mark(fast, f"duly / bare apsw loop, by round: {ratio(shares)}, to hold: 0.333 or more"),
        mark(flat, f"empty / {pending:,} pending, by round: {ratio(slowdowns)}, to hold: 1.2 or less"),
    ]


async def _verify(path: Path) -> None:
    async with app_on(path).client() as app:
        assert await app.query(all_archived)


# --- latency --------------------------------------------------------------------------------------------------------


def measure_latency(folder: Path, samples: int) -> list[bool]:
    title(f"Delay 0 on an idle worker: from `run_after` returned to the function's first line, {samples} samples each")
    commits = BareCommits(folder / "commits.db")
    held = []
    kinds: list[tuple[str, duly.FunctionReference[[], None]]] = [
        ("mutation", first_line_of_mutation),
        ("action", first_line_of_action),
    ]
    for kind, function in kinds:
        waits, commit = asyncio.run(_sample(folder / "latency.db", function, samples, commits))
        p50, p99 = percentile(waits, 50), percentile(waits, 99)
        commit_p50 = percentile(commit, 50)
        print(f"  one bare durable commit      p50 {commit_p50:.3f} ms, p99 {percentile(commit, 99):.3f} ms")
        print(
            f"  {kind:<28} p50 {p50:.3f} ms, p90 {percentile(waits, 90):.3f} ms, p99 {p99:.3f} ms, "
            f"max {max(waits):.3f} ms; p50 is {p50 / commit_p50:.1f} × a commit, p99 {p99 / commit_p50:.1f} ×"
        )
        held.append(mark(p50 < 1 and p99 < 5, f"{kind}: p50 < 1 ms, p99 < 5 ms"))
    commits.close()
    return held


async def _sample(
    path: Path, function: duly.FunctionReference[[], None], samples: int, commits: "BareCommits"
) -> tuple[list[float], list[float]]:
    progress.reset(0)
    waits: list[float] = []
    durable: list[float] = []
    async with app_on(path) as app:
        for index in range(samples + 20):
            progress.began.clear()
            job_id = await app.scheduler.run_after(0, function)
            returned_ns = time.perf_counter_ns()
            await progress.began.wait()
            while await app.query(state_of, job_id) != "success":
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.002)  # idle again
            commit_ms = commits.once()
            if index >= 20:
                waits.append((progress.began_ns - returned_ns) / 1e6)
                durable.append(commit_ms)
    return waits, durable


# --- an idle worker -------------------------------------------------------------------------------------------------


def measure_idle(folder: Path, seconds: float) -> list[bool]:
    title(f"An idle worker, watched for {seconds:g} s, after some work")
    held = []
    for pending in (False, True):
        path = folder / f"idle-{pending}.db"
        with watched(statements=True) as counts, asyncio.Runner(loop_factory=counting_loop(counts)) as runner:
            statements, wakeups, switches = runner.run(_idle(path, seconds, counts, pending=pending))
        print(f"  {'a job for tomorrow pending' if pending else 'nothing pending'}")
        print(f"    SQL statements             {statements}")
        print(f"    event loop wake-ups        {wakeups}")
        print(f"    wake-ups of any thread     {switches if switches is not None else 'not known on this system'}")
        if pending:
            # The wall clock may be set, and machines sleep: it is looked at twice a minute, and nothing else.
            may = math.ceil(seconds / SystemClock.nap_s)
            held.append(mark(statements == 0 and wakeups <= may, "a job for later pending: no query, the clock alone"))
        else:
            held.append(
                mark(statements == 0 and wakeups == 0 and not switches, "nothing pending: no query, no wake-up")
            )
    return held


async def _idle(path: Path, seconds: float, counts: Counts, *, pending: bool) -> tuple[int, int, int | None]:
    progress.reset(100)
    async with app_on(path) as app:
        # Idle is not the same as never used.
        await asyncio.gather(*[app.mutation(create_order, number) for number in range(100)])
        await progress.reached.wait()
        await app.scheduler.run_after(0, first_line_of_action)
        await progress.began.wait()
        if pending:
            await app.scheduler.run_after(timedelta(days=1), nothing)
        await asyncio.sleep(4)  # once the actions have ended, the lease is looked at once more, and then left alone
        # Watched from a thread of its own: nothing in this one is asked to do anything meanwhile.
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        result: list[tuple[int, int, int | None]] = []

        def watch() -> None:
            time.sleep(0.2)
            statements, wakeups, switches = counts.statements, counts.wakeups, _switches()
            time.sleep(seconds)
            after = _switches()
            spent = after - switches if after is not None and switches is not None else None
            result.append((counts.statements - statements, counts.wakeups - wakeups, spent))
            loop.call_soon_threadsafe(done.set_result, None)

        watcher = threading.Thread(target=watch)
        watcher.start()
        await done
        watcher.join()
    return result[0]


def _switches() -> int | None:
    """How often the other threads of this process have run, as the kernel counts (Linux)."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return None
    total = 0
    for task in tasks.iterdir():
        if int(task.name) != threading.get_native_id():
            lines = (task / "status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return total


# --- memory ---------------------------------------------------------------------------------------------------------


def measure_memory(folder: Path, counts: list[int], cycles: int) -> list[bool]:
    title(f"Memory of a worker process after {cycles:,} cycles, by the number of jobs pending for later")
    sizes = []
    for pending in counts:
        path = folder / f"memory-{pending}.db"
        fill(path, pending)
        command = [sys.executable, "-m", "benchmarks.core", "--worker-memory", str(path), "--cycles", str(cycles)]
        resident, peak = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        sizes.append(float(resident))
        print(f"  {pending:>9,} pending            {float(resident):.1f} MiB resident, {float(peak):.1f} MiB at most")
        for leftover in folder.glob(f"memory-{pending}.db*"):
            if leftover.is_file():
                leftover.unlink()
    growth = sizes[-1] / sizes[0]
    return [mark(growth <= 1.1, f"flat: {counts[-1]:,} pending take {growth:.3f} × the memory of none (≤ 1.1)")]


def worker_memory(path: Path, cycles: int) -> None:
    run_duly(path, cycles, itertools.count())
    # What is left after the work, measured while the worker still runs.
    asyncio.run(_print_memory(path))


async def _print_memory(path: Path) -> None:
    async with app_on(path) as app:
        await app.mutation(nothing)
        await asyncio.sleep(0.2)
        resident, peak = _memory_mib()
        print(resident, peak)


def _memory_mib() -> tuple[float, float]:
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
        return peak, peak
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the figures that DESIGN.md section 6 promises.")
    parser.add_argument("--quick", action="store_true", help="a small run; its figures say little")
    parser.add_argument("--only", choices=["throughput", "latency", "idle", "memory"], help="one part of it")
    parser.add_argument("--folder", type=Path, help="where to make the databases; default: the folder for such")
    parser.add_argument("--worker-memory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cycles", type=int, default=20_000, help="cycles of a round of the throughput")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the throughput")
    options = parser.parse_args()
    if options.worker_memory is not None:
        worker_memory(options.worker_memory, options.cycles)
        return 0
    quick: bool = options.quick
    cycles, rounds = (2_000, 3) if quick else (options.cycles, options.rounds)
    many = 20_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix="duly-bench-", dir=options.folder) as name:
        folder = Path(name)
        describe_machine(folder)
        parts: dict[str, Callable[[], list[bool]]] = {
            "throughput": lambda: compare_throughput(folder, rounds, cycles, many),
            "latency": lambda: measure_latency(folder, 50 if quick else 500),
            "idle": lambda: measure_idle(folder, 2 if quick else 35),
            "memory": lambda: measure_memory(folder, [0, 10_000, many], 500 if quick else 2_000),
        }
        held = [result for part, run in parts.items() if options.only in (None, part) for result in run()]
    print(f"\n{sum(held)} of {len(held)} figures hold")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
