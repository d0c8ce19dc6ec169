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

from tests import postgres
from tests.kill.scenarios import actions_under_kills, mutations_under_kills, processes_on_one_file
from tests.kill.trouble import Strike, freeze_one, kill_one, network_trouble, restart, workers_in_trouble
from tests.proxy import Proxy


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


async def soak_postgresql(strikes: int, seed: int) -> None:
    """Four workers on a server, struck so many times in each of the ways there are."""
    chance = random.Random(seed)
    print(f"seed {seed}, {strikes} strikes of each kind; every guarantee is checked after each kind", flush=True)
    with postgres.Server.start(durable=True) as server:
        kinds: dict[str, Strike] = {
            "SIGKILL of a worker": kill_one,
            "SIGSTOP beyond the lease": freeze_one,
            "immediate restart of the server": restart(server),
        }
        for number, (kind, strike) in enumerate(kinds.items()):
            await strike_many(server.create_database(f"soak_{number}"), kind, strike, strikes, chance)
        url = server.create_database("soak_network")
        with Proxy(url) as proxy:
            await strike_many(url, "trouble in the network", network_trouble(proxy), strikes, chance, proxy.url())


async def strike_many(
    url: str, kind: str, strike: Strike, strikes: int, chance: random.Random, through: str | None = None
) -> None:
    postgres.prepare(url)
    with tempfile.TemporaryDirectory(prefix="duly-soak-") as name:
        seed = chance.randrange(1 << 30)
        report = await workers_in_trouble(through or url, Path(name), strike, strikes=strikes, seed=seed)
    slowest = sorted(report.recoveries)[-1]
    print(
        f"{kind}: {report.strikes} times, {report.entries:,} mutations, {report.actions:,} actions, "
        f"{report.interrupted:,} of them interrupted; work went on after {slowest:.2f} s at most: all promises kept",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=0, help="how long, with --minutes and --seconds added")
    parser.add_argument("--minutes", type=float, default=0, help="default 5, if nothing else is given")
    parser.add_argument("--seconds", type=float, default=0, help="a round that has begun is finished, and one is run")
    parser.add_argument("--kills", type=int, default=25, help="how many in each half of a round; default 25")
    parser.add_argument("--seed", type=int, default=None, help="chance; default another each time")
    parser.add_argument("--postgresql", action="store_true", help="four workers on a server, in trouble of every kind")
    parser.add_argument("--strikes", type=int, default=50, help="how much trouble of each kind; default 50")
    options = parser.parse_args()
    duration = timedelta(hours=options.hours, minutes=options.minutes, seconds=options.seconds) or timedelta(minutes=5)
    chosen = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    if options.postgresql:
        asyncio.run(soak_postgresql(options.strikes, chosen))
        sys.exit()
    asyncio.run(soak(duration.total_seconds(), options.kills, chosen))
