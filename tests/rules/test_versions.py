"""Several versions of the code at work at once, as in a rolling deploy (rule S3): who runs a job, and who may fail it.

Most tests take the turns of the workers by hand, so that they say which of them looks first.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import duly
from duly._app import Parts
from duly._model.event import Event
from duly._model.job import Job
from duly._work.executor import Executor
from tests.rules.deploy import deploy, running
from tests.rules.stage import Json, has_finished
from tests.support import FaultyStore, eventually

KINDS = ["mutation", "action"]
OTHER = {"mutation": "action", "action": "mutation"}


def source(parameters: str, kind: str = "mutation", more: str = "") -> str:
    """A version of the code: a function `run` that takes these, and notes the names of what it got."""
    context = {"mutation": "MutationCtx", "action": "ActionCtx", "query": "QueryCtx"}[kind]
    return f"""
import duly
from typing import Annotated
from pydantic import AfterValidator
{more}

@duly.{kind}
async def run(ctx: duly.{context}, {parameters}) -> None:
    ran.append("{kind} {parameters}")
"""


OLD = "what: str"
NEW = "what: str, cups: int"
NEWEST = "what: str, plates: int"


class Worker:
    """A worker of one version, which looks for work when it is told to."""

    def __init__(self, app: duly.App) -> None:
        self.app = app
        self.events: list[Event] = []
        self._executor: Executor | None = None

    async def start(self) -> "Worker":
        self.app._parts = Parts(observer=self.events.append)
        await self.app._open()
        self._executor = self.app._make_executor()
        await self._executor.prepare()
        return self

    async def look(self) -> None:
        """A turn of each loop, and the actions that it began."""
        assert self._executor is not None
        for loop in self._executor.loops:
            await loop.turn()
        assert self._executor.actions is not None
        if tasks := self._executor.actions.tasks:
            await asyncio.wait(tasks)

    async def stop(self) -> None:
        if self._executor is not None:
            await self._executor.stop(0)
            await self.app._close()
            self._executor = None

    async def kill(self) -> None:
        assert self._executor is not None
        self._executor.abandon()
        self._executor = None
        await self.app._close()

    @property
    def told(self) -> list[str]:
        return [event.kind for event in self.events if event.kind != "scheduled"]


class Stage:
    """Workers of several versions of one module, on one database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
        self._monkeypatch = monkeypatch
        self._database = database
        self._versions = 0
        self.workers: list[Worker] = []
        self.ran: list[str] = []

    def app(self, source: str, **options: Any) -> duly.App:
        self._versions += 1
        name = deploy(self._monkeypatch, f"version{self._versions}.jobs", source, ran=self.ran)
        return duly.App(name, database=self._database, **options)

    async def worker(self, source: str, **options: Any) -> Worker:
        self.workers.append(Worker(self.app(source, **options)))
        return await self.workers[-1].start()

    async def schedule(self, source: str, **arguments: Any) -> str:
        async with self.app(source).client() as app:
            return await app.scheduler.run_after(0, "jobs:run", **arguments)

    async def job(self, id: str) -> Job:
        async with self.app(source("")).client() as app:
            assert app._store is not None
            job = await app._store.read(lambda tx: tx.get_job(id))
            assert job is not None
            return job


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch, lasting_database: str) -> AsyncIterator[Stage]:
    made = Stage(monkeypatch, lasting_database)
    yield made
    for worker in made.workers:
        await worker.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_S3_arguments_that_one_version_does_not_take_are_left_to_a_worker_that_does(
    stage: Stage, kind: str
) -> None:
    id = await stage.schedule(source(OLD, kind), what="tea")
    old, new = await stage.worker(source(OLD, kind)), await stage.worker(source(NEW, kind))
    before = await stage.job(id)
    await new.look()
    left = await stage.job(id)
    assert left.state == "pending"
    assert left.pending_reason is not None
    assert left.pending_reason.startswith(
        "left to a worker with another version of 'jobs:run'; this one's can't run it"
    )
    assert "ArgumentError" in left.pending_reason
    assert "cups" in left.pending_reason
    assert (left.scheduled_time, left.due, left.attempts) == (before.scheduled_time, before.due, 0)
    assert new.told == ["parked"]
    await old.look()
    done = await stage.job(id)
    assert (done.state, done.attempts, done.refused, done.pending_reason) == ("success", 1, "", None)
    assert stage.ran == [f"{kind} {OLD}"]


@pytest.mark.parametrize("kind", KINDS)
async def test_S3_what_a_version_has_refused_it_does_not_look_at_again(stage: Stage, kind: str) -> None:
    id = await stage.schedule(source(OLD, kind), what="tea")
    await stage.worker(source(OLD, kind))
    new, same = await stage.worker(source(NEW, kind)), await stage.worker(source(NEW, kind))
    await new.look()
    before = await stage.job(id)
    for _ in range(3):
        await new.look()
        await same.look()
    assert await stage.job(id) == before
    assert [*new.told, *same.told] == ["parked"]


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("kind", KINDS)
async def test_S3_it_fails_once_no_live_worker_has_a_signature_that_may_fit(stage: Stage, kind: str, end: str) -> None:
    id = await stage.schedule(source(OLD, kind), what="tea")
    old, new = await stage.worker(source(OLD, kind)), await stage.worker(source(NEW, kind))
    await new.look()
    await (old.stop() if end == "stop" else old.kill())
    await new.look()
    failed = await stage.job(id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.startswith("ArgumentError: the arguments don't fit 'jobs:run': ")
    assert "cups" in failed.error
    assert (failed.attempts, failed.started_time) == (0, None)
    assert new.told == ["parked", "failed"]
    assert stage.ran == []


@pytest.mark.parametrize("kind", KINDS)
async def test_S3_a_version_that_is_alone_fails_at_once_what_it_can_not_run(stage: Stage, kind: str) -> None:
    id = await stage.schedule(source(OLD, kind), what="tea")
    new = await stage.worker(source(NEW, kind))
    await stage.worker(source(NEW, kind))
    await stage.worker(source("", "query"))
    await stage.worker("import duly")
    await new.look()
    assert (await stage.job(id)).state == "failed"
    assert new.told == ["failed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turned", [False, True])
async def test_S3_two_versions_that_both_refuse_a_job_do_not_pass_it_to_and_fro(
    stage: Stage, kind: str, turned: bool
) -> None:
    id = await stage.schedule(source(OLD, kind), what="tea")
    new = await stage.worker(source(NEW, kind))
    newest = await stage.worker(source(NEWEST, OTHER[kind] if turned else kind))
    for _ in range(3):
        await new.look()
    assert (await stage.job(id)).state == "pending"
    for _ in range(2):
        await newest.look()
    failed = await stage.job(id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "plates" in failed.error
    assert (new.told, newest.told) == (["parked"], ["failed"])


async def test_S3_each_of_three_versions_looks_once(stage: Stage) -> None:
    id = await stage.schedule(source(OLD), what="tea")
    workers = [await stage.worker(source(f"what: str, n{number}: int")) for number in range(3)]
    for worker in workers * 2:
        await worker.look()
    assert [worker.told for worker in workers] == [["parked"], ["parked"], ["failed"]]
    assert (await stage.job(id)).state == "failed"


@pytest.mark.parametrize("kind", KINDS)
async def test_S3_a_function_that_has_become_a_query_is_left_to_a_worker_where_it_is_none(
    stage: Stage, kind: str
) -> None:
    ids = [await stage.schedule(source(OLD, kind), what="tea") for _ in range(2)]
    old, query = await stage.worker(source(OLD, kind)), await stage.worker(source(OLD, "query"))
    await query.look()
    left = await stage.job(ids[0])
    assert left.state == "pending"
    assert "is a query and can't be scheduled" in str(left.pending_reason)
    await old.app.scheduler.cancel(duly.Id(ids[1]))
    await old.look()
    assert (await stage.job(ids[0])).state == "success"
    assert (await stage.job(ids[1])).state == "canceled"
    later = await stage.schedule(source(OLD, kind), what="tea")
    await query.look()
    await old.stop()
    await query.look()
    assert str((await stage.job(later)).error).startswith("NotSchedulableError: 'jobs:run' is a query")


@pytest.mark.parametrize("kind", KINDS)
async def test_S3_a_function_that_has_become_the_other_kind_and_refuses_is_left_to_the_first(
    stage: Stage, kind: str
) -> None:
    id = await stage.schedule(source(OLD, kind), what="tea")
    old, new = await stage.worker(source(OLD, kind)), await stage.worker(source(NEW, OTHER[kind]))
    for _ in range(3):
        await new.look()
    assert (await stage.job(id)).state == "pending"
    await old.look()
    done = await stage.job(id)
    assert (done.state, done.kind) == ("success", kind)
    assert stage.ran == [f"{kind} {OLD}"]
    assert new.told == ["parked"]


async def test_S3_both_kinds_run_what_both_take(stage: Stage) -> None:
    ids = [await stage.schedule(source(OLD), what="tea") for _ in range(20)]
    mutation, action = await stage.worker(source(OLD)), await stage.worker(source(OLD, "action"))
    for _ in range(3):
        await action.look()
        await mutation.look()
    assert {(await stage.job(id)).state for id in ids} == {"success"}
    assert len(stage.ran) == 20


async def test_S3_a_worker_that_comes_with_a_signature_that_fits_runs_it(stage: Stage) -> None:
    id = await stage.schedule(source(OLD), what="tea")
    other, new = await stage.worker(source(NEWEST)), await stage.worker(source(NEW))
    await new.look()
    old = await stage.worker(source(OLD))
    await old.look()
    assert (await stage.job(id)).state == "success"
    assert other.told == []


async def test_S3_a_job_whose_function_was_gone_is_left_to_others_as_well(stage: Stage) -> None:
    id = await stage.schedule(source(OLD), what="tea")
    without = await stage.worker("import duly")
    await without.look()
    assert "no worker that looked at it has the function" in str((await stage.job(id)).pending_reason)
    old, new = await stage.worker(source(OLD)), await stage.worker(source(NEW))
    await new.look()
    assert "left to a worker with another version" in str((await stage.job(id)).pending_reason)
    await old.stop()
    await without.look()
    assert (await stage.job(id)).state == "pending"
    await new.look()
    assert (await stage.job(id)).state == "failed"


async def test_S3_what_all_have_left_fails_when_a_version_that_refused_it_starts_again(stage: Stage) -> None:
    id = await stage.schedule(source(OLD), what="tea")
    old, new = await stage.worker(source(OLD)), await stage.worker(source(NEW))
    await new.look()
    await new.kill()
    await old.kill()
    await stage.worker("import duly")
    assert (await stage.job(id)).state == "pending"
    again = await stage.worker(source(NEW))
    assert (await stage.job(id)).state == "failed"
    assert again.told == ["failed"]


@pytest.mark.parametrize("kind", KINDS)
async def test_S3_what_fits_after_all_runs(stage: Stage, kind: str) -> None:
    """A validator that knows better than before does not show in a fingerprint."""
    parameters = "what: Annotated[str, AfterValidator(check)]"
    strict = source(parameters, kind, "def check(value: str) -> str:\n    raise ValueError")
    lenient = source(parameters, kind, "def check(value: str) -> str:\n    return value")
    id = await stage.schedule(source(OLD, kind), what="tea")
    old, new = await stage.worker(source(OLD, kind)), await stage.worker(strict)
    await new.look()
    assert (await stage.job(id)).state == "pending"
    await old.stop()
    await new.stop()
    again = await stage.worker(lenient)
    await again.look()
    assert (await stage.job(id)).state == "success"
    assert stage.ran == [f"{kind} {parameters}"]


async def test_S3_of_many_that_are_left_none_is_forgotten(stage: Stage) -> None:
    async with stage.app(source(OLD)).client() as app:
        ids = [await app.scheduler.run_after(0, "jobs:run", what="tea") for _ in range(250)]
    old, new = await stage.worker(source(OLD)), await stage.worker(source(NEW))
    while len(new.told) < 250:
        await new.look()
    await old.stop()
    while len(new.told) < 500:
        await new.look()
    assert new.told == ["parked"] * 250 + ["failed"] * 250
    assert {(await stage.job(id)).state for id in ids[::50]} == {"failed"}


# Workers that look by themselves.


@asynccontextmanager
async def registered(stage: Stage, source: str) -> AsyncIterator[Worker]:
    """A worker that lives, and looks for nothing."""
    worker = await stage.worker(source)
    yield worker
    await worker.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_S3_a_worker_that_has_refused_jobs_sleeps(stage: Stage, kind: str) -> None:
    stores: list[FaultyStore] = []

    def make(url: str, clock: Any) -> FaultyStore:
        stores.append(FaultyStore(url, clock))
        return stores[0]

    id = await stage.schedule(source(OLD, kind), what="tea")
    app = stage.app(source(NEW, kind), lease=timedelta(hours=1))
    app._parts = Parts(store=make)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(registered(stage, source(OLD, kind)))
        await stack.enter_async_context(app)

        async def left() -> bool:
            return (await stage.job(id)).parked

        await eventually(left)
        await asyncio.sleep(0.05)
        before = stores[0].transactions
        await asyncio.sleep(0.05)
        assert stores[0].transactions - before <= 2


async def test_S3_a_worker_that_leaves_is_noticed_at_once(stage: Stage) -> None:
    """Not only by the next round of upkeep: with this lease it would come in twenty minutes."""
    id = await stage.schedule(source(OLD), what="tea")
    async with stage.app(source(NEW), lease=timedelta(hours=1)) as app:
        async with registered(stage, source(OLD)):
            later = await app.scheduler.run_after(60_000, "jobs:run", what="tea", cups=1)

            async def left() -> bool:
                return (await stage.job(id)).parked or (await stage.job(id)).state == "failed"

            await eventually(left)

        async def failed() -> bool:
            return (await stage.job(id)).state == "failed"

        await eventually(failed)
        assert (await stage.job(later)).state == "pending"


ROLLING = """
import asyncio, sys
import duly

app = duly.App(__name__, database={database!r})

@duly.query
async def job_of(ctx: duly.QueryCtx, id: str) -> object:
    return await ctx.db.system.get(id)

@duly.{kind}
async def run(ctx: duly.{context}, {parameters}) -> None:
    pass

async def main() -> None:
    async with app:
        print("ready", flush=True)
        while True:
            await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("kind", KINDS)
async def test_S3_a_rolling_deploy_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The new version adds an argument. Old jobs run in the old worker while it lives; later ones fail in the new."""
    database = f"sqlite:///{tmp_path / 'test.db'}"
    context = {"mutation": "MutationCtx", "action": "ActionCtx"}[kind]
    versions: dict[str, str] = {}
    for name, parameters in (("old", "what: str"), ("new", "what: str, cups: int")):
        (tmp_path / name).mkdir()
        versions[name] = ROLLING.format(database=database, kind=kind, context=context, parameters=parameters)
    client_old, client_new = (
        duly.App(deploy(monkeypatch, f"{name}.jobs", versions[name]), database=database) for name in ("old", "new")
    )

    async with client_old.client(), client_new.client():

        async def ended(id: str, kind: str) -> Json:
            return await has_finished(lambda: client_old.query("jobs:job_of", id), kind)

        with running(tmp_path / "new", versions["new"]) as new, running(tmp_path / "old", versions["old"]) as old:
            assert await old.says() == "ready"
            assert await new.says() == "ready"
            for number in range(20):
                await ended(await client_old.scheduler.run_after(0, "jobs:run", what=str(number)), "success")
                await ended(await client_new.scheduler.run_after(0, "jobs:run", what="tea", cups=number), "success")
            old.kill()
            lost = await ended(await client_old.scheduler.run_after(0, "jobs:run", what="tea"), "failed")
            assert lost["state"]["error"].startswith("ArgumentError")
            await ended(await client_new.scheduler.run_after(0, "jobs:run", what="tea", cups=1), "success")
