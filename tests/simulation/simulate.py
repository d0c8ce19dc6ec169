"""One simulation from one seed: faults and calls for some virtual minutes, then peace, then the checkers.

python -m tests.simulation.simulate 42          replays seed 42, and prints its history if something is wrong
python -m tests.simulation.simulate 0 1000      runs a range of seeds
"""

import asyncio
import contextlib
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from duly.errors import DulyError
from duly.testing.simulation import QUIET, Chaos, Worker, World
from tests.simulation import workload
from tests.simulation.workload import OnPurposeError, Outside, app, make_plan

__all__ = ["Broken", "Result", "simulate"]

FINISHED = ("success", "failed", "canceled")
# Times ten virtual seconds: enough for the longest delay, the longest action and the backoffs of what went wrong.
_PATIENCE = 90


class Broken(AssertionError):  # noqa: N818 (it is what the promise is then)
    """A promise was not kept."""


@dataclass
class Result:
    """What a seed came to."""

    seed: int
    jobs: int
    states: Counter[str]
    fingerprint: str
    history: list[str]


class Simulation:
    def __init__(self, seed: int, database: str | None = None) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        skew_ms = self.random.choice([0, 0, 5, 2_000])
        calm = self.random.random() < 0.15
        chaos = QUIET if calm else Chaos(skew_ms=skew_ms)
        self.world = World(app, seed, chaos, database)
        self.outside = Outside()
        self.outside.world = self.world
        # Where clocks differ, the order of due times is not that of time.
        self.clocks_agree = chaos.skew_ms == 0
        # Workers that run side by side are handed due jobs in their order, some at a time; they don't begin in it.
        self.side_by_side = database is not None
        self._finished: dict[str, dict[str, Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> Result:
        world = self.world
        workload.outside.__dict__.update(self.outside.__dict__)
        await world.open()
        try:
            for _ in range(self.random.randrange(1, 5)):
                self._spawn(self._start(self._add_worker()))
            for _ in range(self.random.randrange(3, 12)):
                await self._disturb()
                for _ in range(self.random.randrange(1, 4)):
                    self._spawn(self._call())
                await world.run(timedelta(seconds=self.random.choice([0.01, 0.5, 5, 30])))
                await self._look()
            return await self._make_peace()
        finally:
            for task in self._tasks:
                task.cancel()
            await world.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, coroutine: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(coroutine))

    def _add_worker(self) -> Worker:
        """Some have code that lacks a function, or has another version of it: of before or after a change (rule S3)."""
        worker = self.world.add_worker()
        what, path = self.random.random(), self.random.choice(["workload:do", "workload:act"])
        if what < 0.2:
            worker.forget(path)
        elif what < 0.4:
            worker.change(path)
        return worker

    async def _start(self, worker: Worker) -> None:
        # A crash while it starts is as good as any.
        with contextlib.suppress(DulyError):
            await worker.start()

    # What happens.

    async def _disturb(self) -> None:
        world, chance = self.world, self.random
        if world.chaos == QUIET:
            return
        if not world.living or (len(world.living) < 5 and chance.random() < 0.4):
            self._spawn(self._start(self._add_worker()))
        worker = chance.choice(world.living) if world.living else None
        if worker is None:
            return
        match chance.randrange(6):
            case 0:
                worker.kill()
            case 1:
                worker.stall(chance.choice([1, 8, 12, 40]))
            case 2:
                self._spawn(self._stop(worker, chance.choice([0, 1, 30])))
            case 3:
                world.lose_store(chance.choice([0.1, 2, 20]))
            case _:
                pass

    async def _stop(self, worker: Worker, drain_s: float) -> None:
        with contextlib.suppress(DulyError):
            await worker.stop(drain_s)

    async def _call(self) -> None:
        """From outside: a mutation, or a job."""
        world, chance = self.world, self.random
        if not world.living:
            return
        caller = chance.choice(world.living)
        kind = chance.choice(["mutation", "mutation", "action"])
        plan = make_plan(chance, kind)
        delay = chance.choice([0, 0, 100, 10_000])
        direct = kind == "mutation" and chance.random() < 0.5
        with contextlib.suppress(DulyError):
            if direct:
                await self._call_directly(caller, plan)
            else:
                function = workload.do if kind == "mutation" else workload.act
                id = await caller.app.scheduler.run_after(delay, function, plan)
                workload.outside.acknowledged.append(id)

    async def _call_directly(self, caller: Worker, plan: Any) -> None:
        """If it raises what the function raised, nothing of it is there; after another error, nobody knows."""
        tag = f"{self.random.getrandbits(64):x}"
        try:
            await caller.app.mutation(workload.do, plan, tag)
        except OnPurposeError:
            workload.outside.undone.append(tag)
        else:
            workload.outside.done.append(tag)

    # Peace, and the checks.

    async def _make_peace(self) -> Result:
        """No more faults; one more worker that has all functions, and time enough for everything to finish."""
        world = self.world
        world.note("peace")
        world.chaos = QUIET
        world.lose_store(0)
        before = world.living
        worker = world.add_worker()
        self._spawn(self._start(worker))
        if self.random.random() < 0.1:
            # What it leaves to those that stand still has to fail once they are gone.
            worker.change("workload:do")
            for other in before:
                other.stall(60)
            await world.run(timedelta(seconds=30))
            for other in before:
                other.kill()
        for _ in range(_PATIENCE):
            await world.run(timedelta(seconds=10))
            if await self._look():
                break
        return await self._check()

    async def _read(self, function: Any) -> Any:
        """Past all workers and their faults."""
        app._registry.load()
        app._use(self.world.store)
        return await app.query(function)

    async def _look(self) -> bool:
        """Finished rows never change. Whether all have finished."""
        jobs = await self._read(workload.all_jobs)
        for job in jobs:
            before = self._finished.setdefault(job["_id"], job) if job["state"]["kind"] in FINISHED else None
            if before is not None and before != job:
                raise Broken(f"a finished job changed: {before} is now {job}")
        return all(job["state"]["kind"] in FINISHED for job in jobs)

    async def _check(self) -> Result:
        jobs = {job["_id"]: job for job in await self._read(workload.all_jobs)}
        rows = await self._read(workload.ledger_rows)
        counters = await self._read(workload.counter_values)
        problems = [
            *_unfinished(jobs),
            *_mutations(jobs, Counter(row["ran"] for row in rows if "ran" in row)),
            *_counters(rows, counters),
            *_tags(rows, workload.outside),
            *_actions(jobs, workload.outside),
            *self.world.wrongs,
            *await self._given_up_in_vain(),
            *_children(jobs, rows, workload.outside),
            *(f"started early: {id}" for id in workload.outside.early),
            *(
                f"overtaken: {line}"
                for line in workload.outside.overtaken
                if self.clocks_agree and not self.side_by_side
            ),
        ]
        if problems:
            raise Broken("\n".join(problems[:20]))
        states = Counter(job["state"]["kind"] for job in jobs.values())
        return Result(self.seed, len(jobs), states, self.world.fingerprint(), self.world.history)

    async def _given_up_in_vain(self) -> list[str]:
        """Rule A3: an action is interrupted only if something became of its worker."""
        well = {worker.executor.worker for worker in self.world.workers if worker.executor and not worker.troubled}
        rows = await self.world.store.read(lambda tx: tx.scan_jobs("", "~", False, 1_000_000))
        interrupted = [job for job in rows if (job.error or "").startswith("interrupted")]
        return [f"{job.id} was interrupted, and its worker is well" for job in interrupted if job.worker in well]


def _unfinished(jobs: dict[str, Any]) -> Iterator[str]:
    for id, job in jobs.items():
        if job["state"]["kind"] not in FINISHED:
            yield f"{job['name']} {id} is {job['state']['kind']} for ever: {job.get('pendingReason')}"


def _mutations(jobs: dict[str, Any], ran: Counter[str]) -> Iterator[str]:
    """Rule M1: what a mutation wrote is there exactly once if it succeeded, and not at all if it did not."""
    for id, job in jobs.items():
        if job["name"].endswith(":do"):
            expected = 1 if job["state"]["kind"] == "success" else 0
            if ran[id] != expected:
                yield f"mutation {id} is {job['state']['kind']}, and its effects are there {ran[id]} times"
            error = job["state"].get("error", OnPurposeError.__name__)
            # What a worker's code lacks, or takes otherwise, can't be scheduled there; nor run, if nobody can.
            if not error.startswith((OnPurposeError.__name__, "FunctionNotFoundError", "ArgumentError")):
                yield f"mutation {id} failed by itself: {error}"


def _counters(rows: list[dict[str, Any]], counters: dict[str, int]) -> Iterator[str]:
    """Rule T1: each read-modify-write saw the one before."""
    for key in range(workload.KEYS):
        seen = sorted(row["n"] for row in rows if row.get("bumped") == key)
        if seen != list(range(1, len(seen) + 1)) or counters.get(str(key), 0) != len(seen):
            yield f"counter {key} is {counters.get(str(key))}, and was seen to be {seen}"


def _tags(rows: list[dict[str, Any]], outside: Outside) -> Iterator[str]:
    """Rules T1 and T2: what a call or a nested mutation did is there if it returned, and is not if it raised."""
    there = Counter(row["tag"] for row in rows if "tag" in row)
    undone = {row["undone"] for row in rows if "undone" in row} | set(outside.undone)
    for tag in outside.done:
        if there[tag] != 1:
            yield f"the call {tag} returned, and its effects are there {there[tag]} times"
    for tag in undone:
        if there[tag]:
            yield f"{tag} raised, and its effects are there {there[tag]} times"


def _actions(jobs: dict[str, Any], outside: Outside) -> Iterator[str]:
    """Rules A1 and A2: at most once; and what is told of it is true."""
    began, returned = Counter(outside.began), Counter(outside.returned)
    for id, job in jobs.items():
        if not job["name"].endswith(":act"):
            continue
        state = job["state"]["kind"]
        if began[id] > 1:
            yield f"action {id} began {began[id]} times"
        if state == "success" and returned[id] != 1:
            yield f"action {id} is success, and returned {returned[id]} times"
        if began[id] and job["attempts"] == 0:
            yield f"action {id} began, and is not known to have"


def _children(jobs: dict[str, Any], rows: list[dict[str, Any]], outside: Outside) -> Iterator[str]:
    """Rules S4, S5 and C2: what was scheduled with a commit, or acknowledged, is there; what a cancelled action
    scheduled never ran."""
    for row in rows:
        if "child" in row:
            child = jobs.get(row["child"])
            if child is None:
                yield f"{row['child']} was scheduled by what was committed, and is not there"
            elif row["cut_off"] and child["state"]["kind"] != "canceled":
                yield f"{row['child']} was scheduled by a cancelled action, and is {child['state']['kind']}"
    for id in outside.acknowledged:
        if id not in jobs:
            yield f"{id} was acknowledged, and is not there"


def simulate(seed: int, database: str | None = None) -> Result:
    """Runs a seed; in memory, if no empty database on a server is given.

    Raises:
        Broken: With what is wrong, the history, and the command that replays it.
    """
    simulation = Simulation(seed, database)
    logging.disable(logging.ERROR)  # what is simulated is no news
    try:
        return asyncio.run(asyncio.wait_for(simulation.run(), 60 if database is None else 120))
    except BaseException as error:
        told = "\n".join(simulation.world.history[-400:])
        raise Broken(
            f"seed {seed}: {type(error).__name__}: {error}\n\n{told}\n\n"
            f"replay it: python -m tests.simulation.simulate {seed}"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    first = int(sys.argv[1])
    last = int(sys.argv[2]) if len(sys.argv) > 2 else first + 1
    states: Counter[str] = Counter()
    for seed in range(first, last):
        try:
            result = simulate(seed)
        except Broken as broken:
            print(broken)
            return 1
        states += result.states
    print(f"seeds {first} to {last - 1}: all promises kept; jobs: {dict(states)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
