"""Workers on PostgreSQL: how soon one hears of what another process schedules, and what it asks meanwhile."""

import asyncio
import re
import time
from collections import Counter
from typing import Any

from benchmarks import counters
from benchmarks.measuring import mark, percentile, title
from benchmarks.systems import System, Worker
from tests.postgres import Server

_P50_MS = 5
_WARM_UP = 20


def measure_latency(duly_system: System, samples: int) -> list[bool]:
    title(f"Delay 0 from one process to an idle worker in another, {samples} samples each")
    held = []
    kinds: list[tuple[str, Any]] = [
        ("mutation", counters.first_line_of_mutation),
        ("action", counters.first_line_of_action),
    ]
    for kind, function in kinds:
        worker = duly_system.start_worker()
        try:
            worker.expect_ready()
            worker.release()
            from_call, from_return = asyncio.run(_sample(duly_system.url, function, worker, samples))
        finally:
            worker.stop()
        # As the design defines it: schedule returned, and so durable, to first line.
        p50 = percentile(from_return, 50)
        print(f"  {kind:<10} from the call of `run_after`       {_spread(from_call)}")
        print(f"  {'':<10} from its return, which is durable  {_spread(from_return)}")
        held.append(mark(p50 < _P50_MS, f"{kind}: p50 from its return < {_P50_MS} ms"))
    return held


async def _sample(url: str, function: Any, worker: Worker, samples: int) -> tuple[list[float], list[float]]:
    """Both processes read the same clock. The worker has nothing to do when a sample begins."""
    from_call: list[float] = []
    from_return: list[float] = []
    async with counters.app_on(url).client() as app:
        await asyncio.sleep(1)  # the worker registers
        for number in range(samples + _WARM_UP):
            called_ns = time.time_ns()
            job_id = await app.scheduler.run_after(0, function)
            returned_ns = time.time_ns()
            began_ns = int(await asyncio.to_thread(worker.read_line))
            while await app.query(counters.state_of, job_id) != "success":
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.01)  # idle again
            if number >= _WARM_UP:
                from_call.append((began_ns - called_ns) / 1e6)
                from_return.append((began_ns - returned_ns) / 1e6)
    return from_call, from_return


def _spread(waits: list[float]) -> str:
    return (
        f"p50 {percentile(waits, 50):.2f} ms, p90 {percentile(waits, 90):.2f} ms, p99 {percentile(waits, 99):.2f} ms, "
        f"max {max(waits):.2f} ms"
    )


_STATEMENT = re.compile(r"\] (\w+) LOG:  (?:execute [^:]+|statement): (.*)")


def measure_idle(server: Server, duly_system: System, seconds: int) -> list[bool]:
    title(f"Idle workers, watched for {seconds} s: what the server's log says they ask, per worker and minute")
    duly_system.empty()
    for count in (1, 2):
        workers = [duly_system.start_worker() for _ in range(count)]
        try:
            for worker in workers:
                worker.expect_ready()
                worker.release()
            time.sleep(5)  # they register, and look around
            duly_system.execute("ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()")
            time.sleep(0.5)
            begin = server.log.stat().st_size
            time.sleep(seconds)
            seen = server.log.read_bytes()[begin:].decode(errors="replace")
            duly_system.execute("ALTER SYSTEM RESET log_statement", "SELECT pg_reload_conf()")
        finally:
            for worker in workers:
                worker.stop()
        database = duly_system.url.rpartition("/")[2]
        asked = Counter(text[:70] for name, text in _STATEMENT.findall(seen) if name == database)
        scale = 60 / seconds / count
        transactions = sum(times for text, times in asked.items() if text.startswith("BEGIN"))
        print(
            f"  {count} idle: {sum(asked.values()) * scale:.0f} statements in {transactions * scale:.0f} transactions "
            "(round trips)"
        )
        for text, times in asked.most_common():
            print(f"    {times * scale:>6.1f} × {text}")
    return []
