"""Bugs planted in a copy of duly, each of which the simulation must find: `make mutants`.

A simulation that finds nothing proves something only if it would have found something. Each mutant is one or more
replacements in the source; it is caught when a seed below the limit breaks a promise, or the worker itself.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SEEDS_MAX = 500

Edit = tuple[str, str, str]
"""A file below src/duly, what stands there, and what stands there in the mutant."""


@dataclass(frozen=True)
class Mutant:
    name: str
    edits: tuple[Edit, ...]


MUTANTS = [
    Mutant(
        "the completion of a mutation is a commit of its own (M1)",
        (
            (
                "_work/mutations.py",
                'recorded = await tx.settle_job(job.id, "pending", job.attempts, "success", now, started=started)',
                'recorded = True; self.__dict__.setdefault("later", []).append((job, now, started))',
            ),
            (
                "_work/mutations.py",
                "        self._group_max = _GROUP_MAX\n        return looked",
                """        for job, now, started in self.__dict__.pop("later", []):
            await self._environment.store.transact(
                lambda tx: tx.settle_job(job.id, "pending", job.attempts, "success", now, started=started)
            )
        self._group_max = _GROUP_MAX
        return looked""",
            ),
        ),
    ),
    Mutant(
        "an action begins before its start is durable (A1)",
        (
            (
                "_work/actions.py",
                "                started.append((job._replace(attempts=job.attempts + 1), function, arguments))\n",
                "                self._begin(job._replace(attempts=job.attempts + 1), function, arguments)\n",
            ),
            (
                "_work/actions.py",
                "    def make_room(self)",
                """    def _begin(self, job, function, arguments):
        self._running_ids.add(job.id)
        task = asyncio.get_running_loop().create_task(self._run(job, function, arguments))
        self._running.add(task)
        task.add_done_callback(partial(self._ended, job.id))

    def make_room(self)""",
            ),
        ),
    ),
    Mutant(
        "an outcome is written without a look at state and attempt (A3)",
        (
            (
                "_store/buffered.py",
                "if job is None or job.state != before or job.attempts != attempts:",
                "if job is None:",
            ),
        ),
    ),
    Mutant(
        "the wake-up signal is read after looking for work (S8)",
        (
            (
                "_work/loop.py",
                "return Rest(seen, -math.inf if looked.more else looked.next_due)",
                "return Rest(environment.store.version(self.topic), -math.inf if looked.more else looked.next_due)",
            ),
            # A look that takes as long as the commit of others.
            (
                "_work/loop.py",
                "            looked = await self._look()\n",
                "            looked = await self._look()\n            await environment.clock.sleep(0.02)\n",
            ),
        ),
    ),
    Mutant(
        "what a cancelled action schedules is not created canceled (C2)",
        (
            (
                "_call/scheduler.py",
                "canceled = self._chain.is_action and await self._is_cut_off(scope)",
                "canceled = False",
            ),
        ),
    ),
    Mutant(
        "the lease is not renewed any more while a worker drains (A4)",
        (
            (
                "_work/executor.py",
                "            for loop in self.loops:\n                loop.stop()\n",
                "            assert self._keeper is not None\n            self._keeper.rest()\n"
                "            for loop in self.loops:\n                loop.stop()\n",
            ),
        ),
    ),
    Mutant(
        "workers are given up while their lease is good (A3)",
        (("_store/sqlite/transaction.py", "            if left > 0:\n", "            if left > 1e9:\n"),),
    ),
    Mutant(
        "the effects of a mutation that failed stay (M2)",
        (
            (
                "_work/mutations.py",
                "            await tx.rollback(savepoint)\n",
                "            await tx.release(savepoint)\n",
            ),
        ),
    ),
    Mutant(
        "a nested mutation that failed is not undone",
        (("_call/scope.py", "await self.tx.rollback(savepoint)", "await self.tx.release(savepoint)"),),
    ),
    Mutant(
        "a direct call that failed is not undone (T1)",
        (
            (
                "_store/sqlite/store.py",
                "            await tx.rollback(savepoint)\n",
                "            await tx.release(savepoint)\n",
            ),
        ),
    ),
    Mutant(
        "due mutations start in the order of scheduling only (S7)",
        (("_store/sql/sqlite/jobs_due.sql", "ORDER BY j.due, j.id", "ORDER BY j.id"),),
    ),
    Mutant(
        "a job starts up to a second early (S8)",
        (("_store/sql/sqlite/jobs_due.sql", "j.due <= ?2", "j.due <= ?2 + 1000"),),
    ),
    Mutant(
        "a claim that was committed but reported as failed is forgotten (A1)",
        (("_work/actions.py", "        if self._unsure:\n", "        if False:\n"),),
    ),
    Mutant(
        "the lease rests while a claim is under way (A3)",
        (
            (
                "_work/actions.py",
                "if not self._running and not self._unsure and not self._claiming:",
                "if not self._running and not self._unsure:",
            ),
        ),
    ),
    Mutant(
        "the outcome of an action is tried to be recorded once only (A2)",
        (
            (
                "_work/actions.py",
                "            except (ConflictError, StoreError) as fault:\n",
                "            except (ConflictError, StoreError) as fault:\n                return\n",
            ),
        ),
    ),
    Mutant(
        "a commit that makes work wakes nobody (S8)",
        (("_store/sqlite/peers.py", "            self._signal.notify(topic, due)\n", "            pass\n"),),
    ),
    Mutant(
        "a fault of the store is taken for the failure of the function (M3)",
        (
            (
                "_work/mutations.py",
                "return Looked(True, None, await self._environment.store.transact(body))",
                "return Looked(True, None, await self._environment.store.transact("
                "lambda tx: self._fail(tx, job, 0.0, error)))",
            ),
        ),
    ),
    Mutant(
        "a cancel of a running action is overwritten by its outcome (C2)",
        (
            (
                "_work/actions.py",
                'return await tx.settle_job(job.id, "inProgress", job.attempts, state, now, error=error)',
                'found = await tx.get_job(job.id)\n                return await tx.settle_job(job.id, "inProgress" if '
                'found.state == "inProgress" else "pending", found.attempts, state, now, error=error) if '
                'found.state != "canceled" else (tx._put(tx._jobs, job.id, found._replace(state=state)))',
            ),
        ),
    ),
    Mutant(
        "what one version can't run fails although a worker with another could (S3)",
        (("_work/fit.py", 'if job.state == "pending" and await', 'if job.state == "" and await'),),
    ),
    Mutant(
        "what was left to others is left to them when they are gone (S3)",
        (("_work/upkeep.py", "                if job.refused == refused:\n", "                if False:\n"),),
    ),
    Mutant(
        "a version does not look for what others could not run (S3)",
        (
            (
                "_work/due.py",
                "and function.fingerprint not in refused.split():",
                "and not refused:",
            ),
        ),
    ),
    Mutant(
        "reads inside a transaction do not see what it has written",
        (
            (
                "_store/sqlite/transaction.py",
                "        if id in self._documents:\n            return self._documents[id]\n",
                "",
            ),
        ),
    ),
]


def caught_at(mutant: Mutant, folder: Path) -> str | None:
    """What the first seed that catches it printed; None if none did."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source)
    for file, old, new in mutant.edits:
        path = source / "duly" / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) >= 1, f"{mutant.name!r}: {file} has changed; bring the mutant up to date"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.simulation.simulate", "0", str(SEEDS_MAX)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stdout + done.stderr)


def main() -> int:
    survivors = 0
    wanted = sys.argv[1:]
    for mutant in MUTANTS:
        if wanted and not any(word in mutant.name for word in wanted):
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="duly-mutant-") as name:
            output = caught_at(mutant, Path(name))
        seconds = time.monotonic() - started
        if output is None:
            survivors += 1
            print(f"SURVIVED  {mutant.name} ({seconds:.0f} s)", flush=True)
        else:
            print(f"caught    {mutant.name}: {output.splitlines()[0][:150]} ({seconds:.0f} s)", flush=True)
    print(f"{survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
