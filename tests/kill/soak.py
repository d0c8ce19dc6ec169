"""`make soak`: the kill tests for as long as you like. SOAK="--hours 2", SOAK="--minutes 30 --kills 40 --seed 7"."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.kill.scenarios import actions_under_kills, mutations_under_kills, processes_on_one_file


async def soak(seconds: float, kills_each: int, seed: int) -> None:
    chance = random.Random(seed)
    began = time.monotonic()
    end = began + seconds
    rounds = kills = jobs = interrupted = 0
    print(f"seed {seed}, {timedelta(seconds=seconds)}; every guarantee is checked after every round", flush=True)
    while time.monotonic() < end or not rounds:
        rounds += 1
        with tempfile.TemporaryDirectory(prefix="duly-soak-") as name:
            folder = Path(name)
            reports = [
                await mutations_under_kills(
                    f"sqlite:///{folder / 'a.db'}", jobs=2_000, kills=kills_each, seed=chance.randrange(1 << 30)
                ),
                await actions_under_kills(
                    f"sqlite:///{folder / 'b.db'}", folder, jobs=300, kills=kills_each, seed=chance.randrange(1 << 30)
                ),
                await processes_on_one_file(
                    f"sqlite:///{folder / 'c.db'}", folder, processes=4, seconds=min(60, seconds)
                ),
            ]
        kills += sum(report.kills for report in reports)
        jobs += sum(report.jobs for report in reports)
        interrupted += sum(report.interrupted for report in reports)
        passed = timedelta(seconds=round(time.monotonic() - began))
        print(
            f"{passed}  {rounds} rounds, {jobs:,} jobs, {kills:,} kills, {interrupted:,} actions interrupted:"
            " all promises kept",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=0, help="how long, with --minutes and --seconds added")
    parser.add_argument("--minutes", type=float, default=0, help="default 5, if nothing else is given")
    parser.add_argument("--seconds", type=float, default=0, help="a round that has begun is finished, and one is run")
    parser.add_argument("--kills", type=int, default=25, help="how many in each half of a round; default 25")
    parser.add_argument("--seed", type=int, default=None, help="chance; default another each time")
    options = parser.parse_args()
    duration = timedelta(hours=options.hours, minutes=options.minutes, seconds=options.seconds) or timedelta(minutes=5)
    chosen = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    asyncio.run(soak(duration.total_seconds(), options.kills, chosen))
