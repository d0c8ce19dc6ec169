"""Four workers on one PostgreSQL server, and what may befall them: the same scenario for every kind of trouble."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import duly
from duly.errors import ConflictError, StoreError
from tests.kill import victim
from tests.kill.processes import Victim, victims
from tests.postgres import Server
from tests.proxy import Proxy
from tests.support import eventually

__all__ = [
    "LEASE_S",
    "WORKERS",
    "Strike",
    "TroubleReport",
    "freeze_one",
    "kill_one",
    "network_trouble",
    "restart",
    "workers_in_trouble",
]

WORKERS = 4
LEASE_S = 1.0
_CHAINS, _LINKS, _ACTIONS = 4, 4, 2
_PAUSE_S = 0.1

Strike = Callable[["Workers", random.Random], Awaitable[None]]
"""One piece of trouble. Returns once it is over for whoever made it."""


@dataclass
class Workers:
    """The processes, to be struck."""

    url: str
    living: list[Victim]
    started: list[Victim]

    def start(self) -> None:
        worker = Victim("worker", self.url, str(LEASE_S))
        self.started.append(worker)
        self.living.append(worker)

    def take(self, chance: random.Random) -> Victim:
        """One of them, which is no worker any more."""
        return self.living.pop(chance.randrange(len(self.living)))


@dataclass
class TroubleReport:
    strikes: int = 0
    entries: int = 0
    actions: int = 0
    interrupted: int = 0
    # From the end of each strike until a job that was scheduled then had run (s).
    recoveries: list[float] = field(default_factory=list)


class Client:
    """Makes work all the time, and knows what was acknowledged."""

    def __init__(self, url: str, file: Path) -> None:
        self.app = victim.make_app(url)
        self._file = file
        self._next = 1_000_000
        self.acknowledged: set[int] = set()
        # The call raised: it may have taken effect, or not.
        self.unsure: set[int] = set()
        self.actions = 0

    async def work(self) -> None:
        while True:
            first, self._next = self._next, self._next + _CHAINS * _LINKS
            numbers = set(range(first, self._next))
            try:
                await self.app.mutation(victim.schedule_chains, first=first, chains=_CHAINS, links=_LINKS)
                self.acknowledged |= numbers
            except (StoreError, ConflictError, asyncio.CancelledError) as error:
                self.unsure |= numbers
                if isinstance(error, asyncio.CancelledError):
                    raise
            try:
                await self.app.mutation(
                    victim.schedule_appends, file=str(self._file), count=_ACTIONS, work_s=0.02, first=first
                )
                self.actions += _ACTIONS
            except (StoreError, ConflictError):
                pass
            await asyncio.sleep(_PAUSE_S)

    async def probe(self, number: int) -> float:
        """How long it takes until something that is scheduled now has run."""
        began = time.monotonic()

        async def scheduled() -> "duly.Id[duly.ScheduledFunction] | None":
            try:
                return await self.app.scheduler.run_after(0, victim.enter, number=number, links=0)
            except (StoreError, ConflictError):
                return None

        found = await eventually(scheduled)
        assert found is not None
        job_id = found

        async def ran() -> bool:
            try:
                job = await self.app.query(victim.job, id=job_id)
            except (StoreError, ConflictError):
                return False
            return job is not None and job["state"]["kind"] == "success"

        await eventually(ran)
        return time.monotonic() - began


async def workers_in_trouble(url: str, folder: Path, strike: Strike, *, strikes: int, seed: int) -> TroubleReport:
    """Strikes again and again while four workers run chains of mutations, and actions; then checks every promise."""
    chance = random.Random(seed)
    file = folder / "lines.txt"
    client = Client(url, file)
    report = TroubleReport()
    async with client.app.client():
        with victims() as started:
            workers = Workers(url, [], started)
            for _ in range(WORKERS):
                workers.start()
            for worker in started:
                worker.wait_ready()
            working = asyncio.ensure_future(client.work())
            for number in range(strikes):
                await asyncio.sleep(chance.uniform(0.0, 0.3))
                await strike(workers, chance)
                report.strikes += 1
                report.recoveries.append(await client.probe(-1 - number))
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await eventually(lambda: _settled(client.app), deadline_s=60)
            for worker in workers.living:
                # One that took the place of another may just have begun, and not yet know what SIGTERM is to mean.
                worker.wait_ready().stop()
        _, entries = await victim.totals(client.app)
        jobs = await victim.jobs(client.app)
    _check_mutations(client, entries, jobs)
    report.entries = len(entries)
    report.actions, report.interrupted = _check_actions(jobs, file)
    return report


async def _settled(app: duly.App) -> bool:
    return all(job["state"]["kind"] in ("success", "failed") for job in await victim.jobs(app))


def _check_mutations(client: Client, entries: list[int], jobs: list[duly.ScheduledFunction]) -> None:
    counts = Counter(entries)
    assert max(counts.values()) == 1, f"twice: {[number for number, count in counts.items() if count > 1][:9]}"
    lost = client.acknowledged - counts.keys()
    assert not lost, f"lost: {sorted(lost)[:9]}"
    assert counts.keys() <= client.acknowledged | client.unsure | {number for number in counts if number < 0}
    for job in jobs:
        if job["name"].endswith(":enter"):
            assert job["state"]["kind"] == "success", job
            assert counts[job["args"][0]["number"]] == 1, f"success, and no effect: {job}"
    # What a call that raised did, it did whole: all of its numbers, or none.
    whole = _CHAINS * _LINKS
    for first in {number - (number - 1_000_000) % whole for number in client.unsure}:
        found = sum(number in counts for number in range(first, first + whole))
        assert found in (0, whole), f"half of a mutation: {found} of {whole} from {first}"


def _check_actions(jobs: list[duly.ScheduledFunction], file: Path) -> tuple[int, int]:
    lines = Counter(int(line) for line in file.read_text().splitlines())
    assert max(lines.values()) == 1, f"begun twice: {[number for number, count in lines.items() if count > 1][:9]}"
    actions = [job for job in jobs if job["name"].endswith(":append")]
    interrupted = 0
    for job in actions:
        if job["state"]["kind"] == "success":
            assert lines[job["args"][0]["number"]] == 1
        else:
            assert job["state"].get("error", "").startswith("interrupted"), job
            interrupted += 1
    return len(actions), interrupted


# --- what befalls them ----------------------------------------------------------------------------------------------


async def kill_one(workers: Workers, chance: random.Random) -> None:
    workers.take(chance).kill()
    workers.start()


async def freeze_one(workers: Workers, chance: random.Random) -> None:
    """Beyond its lease, and awake again: what it holds by then is others'."""
    frozen = workers.take(chance)
    frozen.signal(signal.SIGSTOP)
    await asyncio.sleep(LEASE_S + chance.uniform(0.1, 1.0))
    frozen.signal(signal.SIGCONT)
    workers.living.append(frozen)


def restart(server: Server) -> Strike:
    async def strike(_: Workers, __: random.Random) -> None:
        await asyncio.to_thread(server.restart_immediately)

    return strike


def network_trouble(proxy: Proxy) -> Strike:
    """The network between all of them and the server fails for a while, in one of several ways."""

    async def strike(_: Workers, chance: random.Random) -> None:
        kind = chance.choice(["cut", "reset", "stall", "delay", "lose"])
        if kind == "cut":
            proxy.cut()
            await asyncio.sleep(chance.uniform(0.1, LEASE_S + 0.5))
        elif kind == "reset":
            proxy.reset()
        elif kind == "stall":
            proxy.stall()
            await asyncio.sleep(chance.uniform(0.1, LEASE_S + 0.5))
        elif kind == "delay":
            proxy.delay(0.05)
            await asyncio.sleep(0.5)
        else:
            fault = proxy.lose_answer_to(b"COMMIT", times=3)
            await asyncio.to_thread(fault.happened.wait, 5)
        proxy.heal()

    return strike
