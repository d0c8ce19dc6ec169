"""Whatever verbs are tried on jobs, in whatever order, their rows follow the state machine of `_model/job.py`."""

import asyncio
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from duly._ground.clock import SystemClock
from duly._model.job import FINISHED, MOVES, Job, JobKind, JobState
from duly._store.open import make_store
from duly._store.port import Transaction
from tests.store.rows import NOW, new_job

ATTEMPTS = st.integers(0, 2)
FINGERPRINTS = st.sampled_from(["a", "b", "c"])


NAME = new_job().name


def _start_order(job: Job) -> tuple[float | None, str]:
    return job.due, job.id


class JobMachine(RuleBasedStateMachine):
    """The verbs of the port against a model: a job, and whether each verb had to do something."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._store = make_store("sqlite:///:memory:", SystemClock())
        self._runner.run(self._store.open([]))
        self._model: dict[str, Job] = {}
        self._history: dict[str, list[JobState]] = {}

    def teardown(self) -> None:
        self._runner.run(self._store.close())
        self._runner.close()

    def _transact(self, body: Any) -> Any:
        async def run() -> Any:
            return await self._store.transact(body)

        return self._runner.run(run())

    @rule(target=jobs, kind=st.sampled_from(["mutation", "action"]), delay=st.integers(-5, 5))
    def schedule(self, kind: JobKind, delay: int) -> str:
        job = new_job(kind=kind, due=NOW + delay)
        self._transact(lambda tx: tx.insert_job(job))
        self._model[job.id], self._history[job.id] = job, ["pending"]
        return str(job.id)

    @rule(id=jobs, attempts=ATTEMPTS)
    def start(self, id: str, attempts: int) -> None:
        model = self._model[id]
        if model.kind == "mutation" and (model.state, model.attempts) == ("pending", attempts):
            with pytest.raises(AssertionError):
                self._transact(lambda tx: tx.start_job(id, attempts, NOW, "w"))
            return
        done = self._transact(lambda tx: tx.start_job(id, attempts, NOW, "w"))
        self._expect(id, done, "pending", attempts, "inProgress")

    @rule(id=jobs, attempts=ATTEMPTS, after=st.sampled_from(["success", "failed", "canceled"]), ran=st.booleans())
    def settle(self, id: str, attempts: int, after: JobState, ran: bool) -> None:
        before: JobState = "inProgress" if self._model[id].state == "inProgress" else "pending"
        if self._model[id].kind == "action" and before == "pending" and after == "success":
            return  # an action can't succeed without having begun; nobody tries
        started = NOW if ran and before == "pending" else None
        done = self._transact(lambda tx: tx.settle_job(id, before, attempts, after, NOW, started=started))
        self._expect(id, done, before, attempts, after)

    @rule(id=jobs, attempts=ATTEMPTS)
    def postpone(self, id: str, attempts: int) -> None:
        done = self._transact(lambda tx: tx.postpone_job(id, attempts, NOW + 1, "why"))
        self._expect(id, done, "pending", attempts, "pending")

    @rule(id=jobs, attempts=ATTEMPTS)
    def park(self, id: str, attempts: int) -> None:
        done = self._transact(lambda tx: tx.park_job(id, attempts, "why"))
        self._expect(id, done, "pending", attempts, "pending")

    @rule(id=jobs, attempts=ATTEMPTS, fingerprint=FINGERPRINTS)
    def refuse(self, id: str, attempts: int, fingerprint: str) -> None:
        before = set(self._model[id].refused.split())
        done = self._transact(lambda tx: tx.refuse_job(id, attempts, fingerprint, "why"))
        self._expect(id, done, "pending", attempts, "pending")
        if done:
            assert set(self._row(id).refused.split()) == before | {fingerprint}

    @rule(id=jobs, attempts=ATTEMPTS, kind=st.sampled_from(["mutation", "action"]))
    def set_kind(self, id: str, attempts: int, kind: JobKind) -> None:
        done = self._transact(lambda tx: tx.set_job_kind(id, attempts, kind))
        self._expect(id, done, "pending", attempts, "pending")
        if done:
            self._model[id] = self._row(id)
            assert (self._model[id].kind, self._model[id].parked) == (kind, False)

    @rule(id=jobs)
    def try_in_vain(self, id: str) -> None:
        """A transaction that fails leaves the row as it was, whatever it did to it."""

        async def body(tx: Transaction) -> None:
            job = await tx.get_job(id)
            assert job is not None
            if job.state == "pending":
                assert await tx.settle_job(id, "pending", job.attempts, "canceled", NOW)
            raise KeyError

        try:
            self._transact(body)
        except KeyError:
            return
        raise AssertionError("it raises")

    def _expect(self, id: str, done: bool, before: JobState, attempts: int, after: JobState) -> None:
        model = self._model[id]
        assert done == (model.state == before and model.attempts == attempts)
        if done and after != model.state:
            assert (model.state, after) in MOVES[model.kind], f"{model.kind}: {model.state} to {after}"
            self._history[id].append(after)

    def _row(self, id: str) -> Job:
        job: Job | None = self._transact(lambda tx: tx.get_job(id))
        assert job is not None
        return job

    @invariant()
    def whoever_may_take_a_parked_job_finds_it(self) -> None:
        async def look(tx: Transaction) -> None:
            parked = [job for job in await tx.scan_jobs("", "~", False, 1_000) if job.parked]
            groups = {job.refused for job in parked}
            assert sorted(await tx.parked_names()) == sorted(
                (job.name, job.refused, job.due)
                for job in (min((job for job in parked if job.refused == it), key=_start_order) for it in groups)
            )
            for fingerprint in ("a", "b", "c", "d"):
                refused = [job for job in parked if fingerprint in job.refused.split()]
                others = [job for job in parked if job not in refused]
                for found, expected in (
                    (await tx.parked_jobs(NAME, fingerprint, NOW + 10, 1_000), others),
                    (await tx.refused_jobs(NAME, fingerprint, 1_000), refused),
                ):
                    assert found == sorted(expected, key=_start_order)

        self._transact(look)

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        async def read(tx: Transaction) -> list[Job]:
            return await tx.scan_jobs("", "~", False, 1_000)

        rows = {row.id: row for row in self._transact(read)}
        assert rows.keys() == self._model.keys()
        for id, row in rows.items():
            before = self._model[id]
            assert row.state == self._history[id][-1]
            if before.state in FINISHED:
                assert row == before, "a finished row never changes"
            assert row.attempts >= before.attempts
            assert (row.due is None) == (row.state != "pending")
            assert (row.completed_time is not None) == (row.state in FINISHED)
            assert row.parked or not row.refused, "what has been refused is set aside"
            assert row.state == "pending" or not row.parked, "who runs it takes it back"
            assert row.pending_reason is not None or not row.parked, "visibly"
            self._model[id] = row


TestJobMachine = JobMachine.TestCase
