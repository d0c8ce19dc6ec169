"""Watching SQLite and the event loop from outside, and words for what was seen."""

import asyncio
import os
import platform
import selectors
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw


@dataclass
class Counts:
    """What happened on the connections of this process, and on its event loop."""

    commits: int = 0
    statements: int = 0
    wakeups: int = 0
    seen: dict[int, int] = field(default_factory=dict)


@contextmanager
def watched(*, statements: bool = False) -> Iterator[Counts]:
    """Counts the commits that wrote something on each connection opened from here on; its statements too if asked."""
    counts = Counts()

    def watch(connection: apsw.Connection) -> None:
        def committing() -> bool:
            changes = connection.total_changes()
            counts.commits += changes != counts.seen.get(id(connection), 0)
            counts.seen[id(connection)] = changes
            return False  # go on

        def stated(event: Any) -> None:
            counts.statements += 1

        connection.set_commit_hook(committing)
        if statements:
            connection.trace_v2(apsw.SQLITE_TRACE_STMT, stated)

    apsw.connection_hooks.append(watch)
    try:
        yield counts
    finally:
        apsw.connection_hooks.remove(watch)


class CountingSelector(selectors.DefaultSelector):
    """Counts how often the event loop woke up."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(timeout)
        self._counts.wakeups += 1
        return ready


def counting_loop(counts: Counts) -> Callable[[], asyncio.AbstractEventLoop]:
    return lambda: asyncio.SelectorEventLoop(CountingSelector(counts))


def title(text: str) -> None:
    print(f"\n{text}", flush=True)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):>9,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def ratio(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def mark(held: bool, text: str) -> bool:
    print(f"  {'HOLDS' if held else 'DOES NOT HOLD':<13} {text}", flush=True)
    return held


def describe_machine(folder: Path) -> None:
    print(f"cores     {os.cpu_count()} ({_processor()}), load {', '.join(f'{load:.2f}' for load in os.getloadavg())}")
    print(f"system    {platform.platform()}")
    print(f"python    {platform.python_implementation()} {platform.python_version()}")
    print(f"sqlite    {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})")
    waits = _fsync_ms(folder / "fsync")
    print(f"fsync     p50 {percentile(waits, 50):.3f} ms, p99 {percentile(waits, 99):.3f} ms (4 KiB overwritten)")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _fsync_ms(path: Path) -> list[float]:
    flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        waits = []
        for number in range(500):
            started = time.perf_counter_ns()
            os.pwrite(file, number.to_bytes(4) * 1024, 0)
            flush(file)
            waits.append((time.perf_counter_ns() - started) / 1e6)
    finally:
        os.close(file)
    return waits
