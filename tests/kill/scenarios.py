"""What the kill tests and the soak have in common: the same scenario, shorter or longer."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.kill import victim
from tests.kill.processes import Victim, victims
from tests.support import eventually


@dataclass(frozen=True)
class Report:
    """`kills` that came while there was work; `jobs` that were run."""

    kills: int
    jobs: int
    interrupted: int = 0


async def mutations_under_kills(url: str, *, jobs: int, kills: int, seed: int) -> Report:
    """Kills a worker again and again while it runs mutations; checks that each took effect exactly once."""
    chance = random.Random(seed)
    app = victim.make_app(url)
    async with app.client():
        for first in range(0, jobs, 500):
            await app.mutation(victim.schedule_bumps, first=first, last=min(first + 500, jobs), work_s=0.002)
        struck = 0
        with victims() as started:
            while struck < kills:
                worker = Victim("worker", url)
                started.append(worker)
                if chance.random() < 0.2:
                    # While it starts, or opens the file.
                    await asyncio.sleep(chance.uniform(0.2, 0.5))
                else:
                    worker.wait_ready()
                    await asyncio.sleep(chance.uniform(0.0, 1.6 * jobs * 0.002 / kills))
                worker.kill()
                _, entries = await victim.totals(app)
                if len(entries) == jobs:
                    break
                struck += 1
            started.append(Victim("worker", url).wait_ready())

            async def finished() -> bool:
                return (await victim.totals(app))[0] >= jobs

            await eventually(finished, deadline_s=120)
            started[-1].stop()
        value, entries = await victim.totals(app)
        states = Counter(job["state"]["kind"] for job in await victim.jobs(app))
    assert value == jobs, f"the counter is {value}, not {jobs}"
    assert sorted(entries) == list(range(jobs)), "the ledger does not hold each number once"
    assert states == {"success": jobs}, states
    return Report(struck, jobs)


async def actions_under_kills(url: str, folder: Path, *, jobs: int, kills: int, seed: int) -> Report:
    """Kills a worker again and again while it runs actions; checks that none was begun twice, and all were settled."""
    chance = random.Random(seed)
    file = folder / "lines.txt"
    app = victim.make_app(url)
    async with app.client():
        await app.mutation(victim.schedule_appends, file=str(file), count=jobs, work_s=0.05)
        struck = 0
        with victims() as started:
            for _ in range(kills):
                worker = Victim("worker", url)
                started.append(worker.wait_ready())
                await asyncio.sleep(chance.uniform(0.02, 0.15))
                worker.kill()
                struck += 1
            started.append(Victim("worker", url).wait_ready())

            async def settled() -> bool:
                return all(job["state"]["kind"] in ("success", "failed") for job in await victim.jobs(app))

            await eventually(settled, deadline_s=120)
            started[-1].stop()
        found = await victim.jobs(app)
    lines = Counter(int(line) for line in file.read_text().splitlines())
    assert max(lines.values()) == 1, f"begun twice: {[number for number, count in lines.items() if count > 1]}"
    interrupted = 0
    for job in found:
        number = job["args"][0]["number"]
        if job["state"]["kind"] == "success":
            assert lines[number] == 1
        else:
            assert job["state"].get("error", "").startswith("interrupted"), job
            interrupted += 1
    return Report(struck, jobs, interrupted)


async def processes_on_one_file(url: str, folder: Path, *, processes: int, seconds: float) -> Report:
    """Several workers that also make work; checks that all that was acknowledged happened once, without complaint."""
    app = victim.make_app(url)
    file = folder / "mixed.txt"
    with victims() as started:
        # At once, on a file that is not there yet: one of them makes it.
        for number in range(processes):
            started.append(Victim("mixed", url, str(seconds), str((number + 1) * 10_000_000), str(file)))
        for process in started:
            process.wait_ready()
        async with app.client():
            acknowledged = actions = 0
            for process in started:
                out, _ = await asyncio.to_thread(process.process.communicate, timeout=seconds + 60)
                assert process.process.returncode == 0, process.complaints()
                assert not process.complaints(), process.complaints()
                acknowledged += int(out.split()[-2])
                actions += int(out.split()[-1])
            started.append(Victim("worker", url).wait_ready())

            async def finished() -> bool:
                return all(job["state"]["kind"] in ("success", "failed", "canceled") for job in await victim.jobs(app))

            await eventually(finished, deadline_s=60)
            started[-1].stop()
            value, entries = await victim.totals(app)
            found = await victim.jobs(app)
    # A worker that stops in the middle of an action interrupts it, and says so.
    interrupted = sum(
        job["name"].endswith(":append") and job["state"].get("error", "").startswith("interrupted") for job in found
    )
    states = Counter(job["state"]["kind"] for job in found)
    lines = Counter(file.read_text().splitlines())
    assert value == acknowledged == len(entries), (value, acknowledged, len(entries))
    assert len(set(entries)) == len(entries), "a job ran twice"
    assert min(entries) > 0, "a cancelled job ran"
    assert states["failed"] == interrupted, states
    assert max(lines.values()) == 1, "an action began twice"
    assert actions - interrupted <= len(lines) <= actions, (actions, interrupted, len(lines))
    return Report(0, acknowledged + actions, interrupted)
