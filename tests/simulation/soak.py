"""As many seeds as wanted, on all cores, and a report: `make soak SEEDS=20000`."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.simulate import Broken, simulate

_CHUNK = 50


def run_chunk(first: int, last: int) -> tuple[Counter[str], list[str]]:
    """The states of the jobs of some seeds, and what was wrong with some."""
    states: Counter[str] = Counter()
    broken: list[str] = []
    for seed in range(first, last):
        try:
            states += simulate(seed).states
        except Broken as error:
            broken.append(str(error))
    return states, broken


def chunks(first: int, count: int) -> Iterator[tuple[int, int]]:
    for start in range(first, first + count, _CHUNK):
        yield start, min(start + _CHUNK, first + count)


def main() -> int:
    count = int(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    started = time.monotonic()
    states: Counter[str] = Counter()
    broken: list[str] = []
    with ProcessPoolExecutor() as pool:
        running = [pool.submit(run_chunk, *chunk) for chunk in chunks(first, count)]
        for number, chunk in enumerate(running, 1):
            found, wrong = chunk.result()
            states += found
            broken += wrong
            for report in wrong:
                print(report, flush=True)
            if number % 20 == 0:
                print(f"{min(number * _CHUNK, count):,} seeds, {len(broken)} broken", flush=True)
    seconds = time.monotonic() - started
    print(
        f"{count:,} seeds from {first}: {len(broken)} broken; {states.total():,} jobs "
        f"({', '.join(f'{n:,} {state}' for state, n in states.most_common())}); "
        f"{seconds:,.0f} s on {os.cpu_count()} cores"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
