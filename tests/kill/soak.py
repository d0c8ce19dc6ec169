"""`make soak`: the kill tests for as long as you like. SOAK="--minutes 30 --seed 7"."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.kill.scenarios import actions_under_kills, mutations_under_kills, processes_on_one_file


async def soak(minutes: float, seed: int) -> None:
    chance = random.Random(seed)
    end = time.monotonic() + minutes * 60
    rounds = kills = jobs = interrupted = 0
    print(f"seed {seed}, {minutes:g} minutes; every guarantee is checked after every round")
    while time.monotonic() < end or not rounds:
        rounds += 1
        with tempfile.TemporaryDirectory(prefix="duly-soak-") as name:
            folder = Path(name)
            reports = [
                await mutations_under_kills(
                    f"sqlite:///{folder / 'a.db'}", jobs=2_000, kills=25, seed=chance.randrange(1 << 30)
                ),
                await actions_under_kills(
                    f"sqlite:///{folder / 'b.db'}", folder, jobs=300, kills=15, seed=chance.randrange(1 << 30)
                ),
                await processes_on_one_file(f"sqlite:///{folder / 'c.db'}", processes=4, seconds=min(60, minutes * 60)),
            ]
        kills += sum(report.kills for report in reports)
        jobs += sum(report.jobs for report in reports)
        interrupted += sum(report.interrupted for report in reports)
        print(f"round {rounds}: {jobs:,} jobs, {kills} kills, {interrupted} actions interrupted; all promises kept")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long; default 5")
    parser.add_argument("--seed", type=int, default=None, help="chance; default another each time")
    options = parser.parse_args()
    asyncio.run(soak(options.minutes, options.seed if options.seed is not None else time.time_ns() % 1_000_000))
