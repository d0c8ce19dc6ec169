"""Rules A1 to A4: a scheduled action starts at most once."""

import asyncio
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw
import pytest

import duly
from duly._app import Parts
from duly._ground.entropy import SystemEntropy
from duly._model.event import Event
from duly._store.port import Transaction
from duly.errors import ConflictError, DulyError, LimitError, StoreUnavailableError
from tests.rules.deploy import deploy, running
from tests.rules.stage import Json, Stage, has_finished
from tests.support import LOADED_S, FaultyStore, ManualClock, eventually

T = TypeVar("T")

stage = Stage()


@pytest.fixture(autouse=True)
def empty_stage() -> None:
    stage.clear()


@duly.action
async def perform(ctx: duly.ActionCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.action(timeout=timedelta(milliseconds=40))
async def perform_shortly(ctx: duly.ActionCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.action
def perform_in_thread(ctx: duly.SyncActionCtx, name: str) -> Any:
    return stage.bodies[name](ctx)


@duly.action(timeout=timedelta(milliseconds=40))
def perform_in_thread_shortly(ctx: duly.SyncActionCtx, name: str) -> Any:
    return stage.bodies[name](ctx)


@duly.action
async def note(ctx: duly.ActionCtx, what: str) -> None:
    stage.seen.append(what)


@duly.action
async def returns_text(ctx: duly.ActionCtx) -> int:
    return cast("int", "no number")


@duly.mutation
async def enter(ctx: duly.MutationCtx, what: str) -> str:
    return await ctx.db.insert("ledger", {"what": what})


@duly.mutation
async def enter_many_at(ctx: duly.MutationCtx, due: datetime, number: int) -> None:
    for _ in range(number):
        await ctx.scheduler.run_at(due, enter, "one of many")


@duly.mutation
async def fail_mutation(ctx: duly.MutationCtx) -> None:
    raise RuntimeError("the mutation failed")


@duly.query
async def job_of(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


@duly.query
async def ledger(ctx: duly.QueryCtx) -> list[Any]:
    return [entry["what"] for entry in await ctx.db.query("ledger").collect()]


class HalfLuck(SystemEntropy):
    """Every backoff is half of what it may be."""

    def uniform(self) -> float:
        return 0.5


class JobFaults(FaultyStore):
    """Fails transactions that use one verb on a job: `start_job` or `settle_job`, before or after their commit."""

    verb: str
    before: list[Exception]
    after: list[Exception]

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        used: list[str] = []

        async def watched(tx: Transaction) -> T:
            used.clear()
            result = await body(cast("Transaction", _Watched(tx, used)))
            if self.verb in used and self.before:
                raise self.before.pop(0)
            return result

        result = await super().transact(watched, claims=claims)
        if self.verb in used and self.after:
            raise self.after.pop(0)
        return result


class _Watched:
    def __init__(self, tx: Transaction, used: list[str]) -> None:
        self._tx = tx
        self._used = used

    def __getattr__(self, name: str) -> Any:
        self._used.append(name)
        return getattr(self._tx, name)


def job_faults(
    verb: str, *, before: list[Exception] | None = None, after: list[Exception] | None = None
) -> Callable[[str, Any], JobFaults]:
    def make(url: str, clock: Any) -> JobFaults:
        store = JobFaults(url, clock)
        store.verb, store.before, store.after = verb, before or [], after or []
        return store

    return make


async def finished(app: duly.App, job_id: str, kind: str | None = None) -> Json:
    return await has_finished(lambda: app.query(job_of, job_id), kind)


def state_of(job: Json) -> str:
    return cast("str", job["state"]["kind"])


def state_on_disk(database: str, job_id: str) -> str:
    """The state on a connection of its own.

    By the same driver: a second copy of SQLite in one process breaks the locks of the first.
    """
    connection = apsw.Connection(database.removeprefix("sqlite:///"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        ((state,),) = connection.execute("SELECT state FROM _scheduled_functions WHERE id = ?", (job_id,)).fetchall()
        return cast("str", state)
    finally:
        connection.close()


# A1: in progress before the first line; never a second time.


async def test_A1_from_inside_it_is_in_progress(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def look_at_myself(ctx: duly.ActionCtx) -> None:
            assert ctx.scheduled_function_id is not None
            stage.seen.append(await ctx.run_query(job_of, ctx.scheduled_function_id))

        job = await finished(app, await app.scheduler.run_after(0, perform, look_at_myself), "success")
    (inside,) = stage.seen
    assert inside["state"] == {"kind": "inProgress"}
    assert inside["attempts"] == job["attempts"] == 1
    assert inside["startedTime"] == job["startedTime"]
    assert "completedTime" not in inside
    assert "nextAttemptTime" not in inside
    assert job["startedTime"] <= job["completedTime"]


async def test_A1_in_progress_is_durable_before_the_first_line(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app:

        @stage.body
        async def look_from_outside(ctx: duly.ActionCtx) -> None:
            assert ctx.scheduled_function_id is not None
            stage.seen.append(state_on_disk(file_database, ctx.scheduled_function_id))

        await finished(app, await app.scheduler.run_after(0, perform, look_from_outside), "success")
    assert stage.seen == ["inProgress"]


async def test_A1_the_events_tell_each_step(database: str) -> None:
    events: list[Event] = []
    app = duly.App(__name__, database=database)
    app._parts = Parts(observer=events.append)
    async with app:
        job_id = await app.scheduler.run_after(0, note, "ran")
        await finished(app, job_id, "success")
    assert [event.kind for event in events if event.job_id == job_id] == ["scheduled", "started", "success"]


@pytest.mark.parametrize("error", [ConflictError("lost"), StoreUnavailableError("away")], ids=["conflict", "fault"])
async def test_A1_a_start_that_could_not_be_committed_runs_no_line(error: Exception, database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock, entropy=HalfLuck(), store=job_faults("start_job", before=[error, error]))
    async with app:
        job_id = await app.scheduler.run_after(0, note, "ran")
        while (await app.query(job_of, job_id))["state"]["kind"] == "pending":
            assert stage.seen == []
            await clock.advance(0.01)
        job = await finished(app, job_id, "success")
    assert stage.seen == ["ran"]
    assert job["attempts"] == 1


async def test_A1_a_start_that_is_reported_as_failed_runs_once_and_is_not_stuck(database: str) -> None:
    faults: list[Exception] = [StoreUnavailableError("away")]
    app = duly.App(__name__, database=database)
    app._parts = Parts(entropy=HalfLuck(), store=job_faults("start_job", after=faults))
    async with app:
        ids = [await app.scheduler.run_after(0, note, str(number)) for number in range(3)]
        for job_id in ids:
            assert (await finished(app, job_id, "success"))["attempts"] == 1
    assert sorted(stage.seen) == ["0", "1", "2"]
    assert faults == []


async def test_A1_two_workers_on_one_file_start_each_action_once(file_database: str) -> None:
    one = duly.App(__name__, database=file_database)
    other = duly.App(__name__, database=file_database)
    async with one, other:
        ids = [await one.scheduler.run_after(0, note, str(number)) for number in range(60)]
        for job_id in ids:
            assert (await finished(other, job_id, "success"))["attempts"] == 1
    assert sorted(stage.seen, key=int) == [str(number) for number in range(60)]


async def test_A1_a_failed_action_never_runs_again(file_database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=file_database)
    app._parts = Parts(clock=clock)
    async with app:

        @stage.body
        async def fail(ctx: duly.ActionCtx) -> None:
            stage.seen.append("ran")
            raise ValueError

        job_id = await app.scheduler.run_after(0, perform, fail)
        job = await finished(app, job_id, "failed")
        await clock.advance(24 * 60 * 60)
    again = duly.App(__name__, database=file_database)
    async with again:
        await finished(again, await again.scheduler.run_after(0, note, "next"), "success")
        assert await again.query(job_of, job_id) == job
    assert stage.seen == ["ran", "next"]


# A2: how it ends.


async def test_A2_a_return_is_success(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:
        job = await finished(app, await app.scheduler.run_after(0, note, "ran"), "success")
    assert job["state"] == {"kind": "success"}


class OddError(BaseException):
    """Not even an Exception."""


ERRORS: list[tuple[BaseException, str]] = [
    (ValueError("no such order"), "ValueError: no such order\n"),
    (SystemExit(3), "SystemExit: 3\n"),
    (asyncio.CancelledError("mine"), "CancelledError: mine"),
    (GeneratorExit(), "GeneratorExit"),
    (TimeoutError("slow server"), "TimeoutError: slow server\n"),
    (OddError("odd"), "OddError: odd\n"),
    (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), "ExceptionGroup: two (2 sub-exceptions)\n"),
    (StoreUnavailableError("mine"), "StoreUnavailableError: mine\n"),
    (ConflictError("mine"), "ConflictError: mine\n"),
    (duly.AppError({"code": "sold_out"}), "AppError: {'code': 'sold_out'}\n"),
]


@pytest.mark.parametrize(
    ("error", "headline"), [*ERRORS, (StopIteration(1), "RuntimeError: ")], ids=lambda value: type(value).__name__
)
async def test_A2_whatever_is_raised_fails_the_job_and_not_the_worker(
    error: BaseException, headline: str, database: str
) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def fail(ctx: duly.ActionCtx) -> None:
            raise error

        job = await finished(app, await app.scheduler.run_after(0, perform, fail), "failed")
        assert job["state"]["error"].startswith(headline)
        assert str(Path(duly.__file__).parent) not in job["state"]["error"]
        assert "completedTime" in job
        await finished(app, await app.scheduler.run_after(0, note, "next"), "success")


async def test_A2_a_bad_return_value_is_failed(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:
        job = await finished(app, await app.scheduler.run_after(0, returns_text), "failed")
    assert job["state"]["error"].startswith("ReturnValueError: the return value of 'test_actions:returns_text'")


async def test_A2_what_it_wrote_and_scheduled_stays_when_it_fails(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def work_and_fail(ctx: duly.ActionCtx) -> None:
            await ctx.run_mutation(enter, "written")
            stage.seen.append(await ctx.scheduler.run_after(0, enter, "scheduled"))
            raise ValueError

        await finished(app, await app.scheduler.run_after(0, perform, work_and_fail), "failed")
        await finished(app, stage.seen[0], "success")
        assert sorted(await app.query(ledger)) == ["scheduled", "written"]


async def test_A2_its_own_timeout_fails_it(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def never_end(ctx: duly.ActionCtx) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stage.seen.append("cancelled")

        job = await finished(app, await app.scheduler.run_after(0, perform_shortly, never_end), "failed")
    first = job["state"]["error"].partition("\n")[0]
    assert first.startswith(
        "LimitError: the action 'test_actions:perform_shortly' may run for 0.04 seconds and was stopped"
    )
    assert "@duly.action(timeout=" in first
    assert stage.seen == ["cancelled"]


async def test_A2_the_apps_timeout_holds_where_it_says_none(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database, action_timeout=timedelta(minutes=3))
    app._parts = Parts(clock=clock)
    async with app:

        @stage.body
        async def never_end(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await asyncio.Event().wait()

        job_id = await app.scheduler.run_after(0, perform, never_end)
        await stage.has_seen(1)
        await clock.advance(179.9)
        assert (await app.query(job_of, job_id))["state"] == {"kind": "inProgress"}
        await clock.advance(0.2)
        job = await finished(app, job_id, "failed")
    assert "may run for 180 seconds and was stopped after 180." in job["state"]["error"]


async def test_A2_the_default_timeout_is_ten_minutes(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock)
    async with app:

        @stage.body
        async def never_end(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await asyncio.Event().wait()

        job_id = await app.scheduler.run_after(0, perform, never_end)
        await stage.has_seen(1)
        await clock.advance(599.9)
        assert (await app.query(job_of, job_id))["state"] == {"kind": "inProgress"}
        await clock.advance(0.2)
        assert "LimitError" in (await finished(app, job_id, "failed"))["state"]["error"]


async def test_A2_one_that_ignores_its_timeout_has_failed_all_the_same(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def ignore(ctx: duly.ActionCtx) -> str:
            while not stage.gate("open").is_set():
                try:
                    await stage.gate("open").wait()
                except asyncio.CancelledError:
                    stage.seen.append("ignored")
            stage.seen.append("ended")
            return "done"

        job_id = await app.scheduler.run_after(0, perform_shortly, ignore)
        job = await finished(app, job_id, "failed")
        assert job["state"]["error"].startswith("LimitError: ")
        stage.gate("open").set()
        await stage.has_seen(2)
        await finished(app, await app.scheduler.run_after(0, note, "next"), "success")
        assert await app.query(job_of, job_id) == job
    assert stage.seen == ["ignored", "ended", "next"]
    assert "goes on although it was cancelled" in caplog.text


@pytest.mark.parametrize("error", [ConflictError("lost"), StoreUnavailableError("away")], ids=["conflict", "fault"])
@pytest.mark.parametrize("kind", ["success", "failed"])
async def test_A2_recording_is_retried_until_it_holds(error: Exception, kind: str, database: str) -> None:
    faults = [error] * 12
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock, entropy=HalfLuck(), store=job_faults("settle_job", before=faults))
    async with app:

        @stage.body
        async def end(ctx: duly.ActionCtx) -> None:
            stage.seen.append("ran")
            if kind == "failed":
                raise ValueError("no such order")

        job_id = await app.scheduler.run_after(0, perform, end)
        await stage.has_seen(1)

        async def recorded() -> bool:
            assert faults == [] or state_of(await app.query(job_of, job_id)) == "inProgress"
            await clock.advance(100)
            return state_of(await app.query(job_of, job_id)) != "inProgress"

        await eventually(recorded)
        job = await finished(app, job_id, kind)
        assert faults == []
    assert job["attempts"] == 1
    assert stage.seen == ["ran"]


async def test_A2_an_outcome_that_was_reported_as_lost_is_recorded_once(database: str) -> None:
    faults: list[Exception] = [StoreUnavailableError("away")]
    app = duly.App(__name__, database=database)
    app._parts = Parts(store=job_faults("settle_job", after=faults))
    async with app:
        job_id = await app.scheduler.run_after(0, note, "ran")
        job = await finished(app, job_id, "success")

        async def retried() -> bool:
            return not faults

        await eventually(retried)
        await finished(app, await app.scheduler.run_after(0, note, "next"), "success")
        assert await app.query(job_of, job_id) == job
    assert stage.seen == ["ran", "next"]


# Plain functions, in threads.


async def test_A2_a_plain_function_runs_in_a_thread_and_its_ctx_blocks(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.thread_body
        def use_everything(ctx: duly.SyncActionCtx) -> None:
            assert threading.current_thread() is not threading.main_thread()
            assert abs(ctx.now - datetime.now(UTC)) < timedelta(minutes=1)
            assert ctx.auth.identity() is None
            assert 0 <= ctx.random.random() < 1
            assert ctx.scheduled_function_id is not None
            stage.seen.append(ctx.run_query(job_of, ctx.scheduled_function_id)["state"]["kind"])
            ctx.run_mutation(enter, "by mutation")
            ctx.run_action(note, "by action")
            scheduled = ctx.scheduler.run_after(0, enter, "scheduled")
            at = ctx.scheduler.run_at(ctx.now + timedelta(days=1), enter, "tomorrow")
            ctx.scheduler.cancel(at)
            stage.seen.append(scheduled)
            stage.seen.append(at)

        await finished(app, await app.scheduler.run_after(0, perform_in_thread, use_everything), "success")
        kind, action, scheduled, at = stage.seen
        assert (kind, action) == ("inProgress", "by action")
        await finished(app, scheduled, "success")
        await finished(app, at, "canceled")
        assert sorted(await app.query(ledger)) == ["by mutation", "scheduled"]


@pytest.mark.parametrize(
    ("error", "headline"), [*ERRORS, (StopIteration(1), "RuntimeError: ")], ids=lambda value: type(value).__name__
)
async def test_A2_whatever_a_thread_raises_fails_the_job_and_not_the_worker(
    error: BaseException, headline: str, database: str
) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.thread_body
        def fail(ctx: duly.SyncActionCtx) -> None:
            raise error

        job = await finished(app, await app.scheduler.run_after(0, perform_in_thread, fail), "failed")
        assert job["state"]["error"].startswith(headline)
        await finished(app, await app.scheduler.run_after(0, note, "next"), "success")


async def test_A2_what_a_called_function_raises_reaches_the_thread(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def leave(ctx: duly.ActionCtx) -> None:
            sys.exit("leaving")

        @stage.thread_body
        def catch(ctx: duly.SyncActionCtx) -> None:
            with pytest.raises(RuntimeError, match="the mutation failed"):
                ctx.run_mutation(fail_mutation)
            with pytest.raises(SystemExit, match="leaving"):
                ctx.run_action(perform, leave)
            with pytest.raises(duly.errors.FunctionNotFoundError):
                ctx.run_action("test_actions:nothing")

        await finished(app, await app.scheduler.run_after(0, perform_in_thread, catch), "success")


async def test_A2_a_thread_that_runs_out_of_time_has_failed(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.thread_body
        def hang(ctx: duly.SyncActionCtx) -> None:
            stage.thread_gate("open").wait(20)
            try:
                ctx.run_mutation(enter, "late")
            finally:
                stage.seen.append("ended")

        job_id = await app.scheduler.run_after(0, perform_in_thread_shortly, hang)
        job = await finished(app, job_id, "failed")
        assert job["state"]["error"].startswith("LimitError: the action")
        stage.thread_gate("open").set()
        await stage.has_seen(1)
        await finished(app, await app.scheduler.run_after(0, note, "next"), "success")
        assert await app.query(job_of, job_id) == job


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


async def test_A2_a_direct_plain_action_sees_the_callers_context_variables(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        variable.set("mine")
        assert await app.action(perform_in_thread, stage.thread_body(read_variable)) == "mine"


def read_variable(ctx: duly.SyncActionCtx) -> str:
    return variable.get()


async def test_A2_blocking_threads_hold_up_nobody(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.thread_body
        def block(ctx: duly.SyncActionCtx) -> None:
            stage.seen.append("blocked")
            stage.thread_gate("open").wait(20)

        # More than the event loop's own pool of threads would hold.
        number = (os.cpu_count() or 1) + 10
        ids = [await app.scheduler.run_after(0, perform_in_thread, block) for _ in range(number)]
        await stage.has_seen(number)
        await finished(app, await app.scheduler.run_after(0, note, "meanwhile"), "success")
        await finished(app, await app.scheduler.run_after(0, enter, "meanwhile"), "success")
        stage.thread_gate("open").set()
        for job_id in ids:
            await finished(app, job_id, "success")


# A2, calls from Python: the same limits, and nothing recorded.


async def test_A2_a_direct_action_that_runs_out_of_time_says_so(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        @stage.body
        async def never_end(ctx: duly.ActionCtx) -> None:
            await asyncio.Event().wait()

        with pytest.raises(LimitError) as caught:
            await app.action(perform_shortly, never_end)
    assert caught.value.maximum == 0.04
    assert caught.value.actual > 0.04


async def test_A2_cancelling_a_direct_call_cancels_the_action(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        @stage.body
        async def never_end(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stage.seen.append("cancelled")
                raise

        call = asyncio.create_task(app.action(perform, never_end))
        await stage.has_seen(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert stage.seen == ["inside", "cancelled"]


# A3: a worker that dies.


def worker(database: str, *, body: str) -> str:
    return f"""
        import asyncio, os, signal, time
        from datetime import timedelta
        import duly

        @duly.action
        async def work(ctx: duly.ActionCtx) -> None:
            await ctx.run_mutation("jobs:enter", what="from the action")
            await ctx.scheduler.run_after(timedelta(days=1), "jobs:enter", what="later")
            print("inside", flush=True)
            {body}

        @duly.mutation
        async def enter(ctx: duly.MutationCtx, what: str) -> None:
            await ctx.db.insert("ledger", {{"what": what}})

        app = duly.App(__name__, database={database!r}, lease=timedelta(seconds=2))

        async def main():
            async with app:
                print(await app.scheduler.run_after(100, "jobs:work"), flush=True)
                try:
                    await asyncio.Event().wait()
                finally:
                    print("stopping", flush=True)

        asyncio.run(main())
    """


SUCCESSOR = """
    import duly

    @duly.action
    async def work(ctx: duly.ActionCtx) -> None:
        seen.append("ran again")

    @duly.mutation
    async def enter(ctx: duly.MutationCtx, what: str) -> None:
        await ctx.db.insert("ledger", {"what": what})

    @duly.query
    async def job_of(ctx: duly.QueryCtx, id: str) -> object:
        return await ctx.db.system.get(id)

    @duly.query
    async def jobs(ctx: duly.QueryCtx) -> object:
        return await ctx.db.system.query("_scheduled_functions").collect()

    @duly.query
    async def ledger(ctx: duly.QueryCtx) -> object:
        return [entry["what"] for entry in await ctx.db.query("ledger").collect()]
"""


async def test_A3_after_a_kill_its_action_is_failed_within_a_second_of_the_restart(
    file_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, worker(file_database, body="await asyncio.Event().wait()")) as process:
        job_id = await process.says()
        assert await process.says() == "inside"
        process.kill()
    assert state_on_disk(file_database, job_id) == "inProgress"
    app = duly.App(deploy(monkeypatch, "after_kill.jobs", SUCCESSOR, seen=stage.seen), database=file_database)
    began = time.monotonic()
    async with app:
        job = await has_finished(lambda: app.query("jobs:job_of", job_id), "failed")
        assert time.monotonic() - began < 1 + LOADED_S
        assert job["state"]["error"].startswith("interrupted: the worker stopped")
        assert job["attempts"] == 1
        assert job["completedTime"] >= job["startedTime"]
        # What it had written and scheduled stays.
        assert await app.query("jobs:ledger") == ["from the action"]
        (child,) = [other for other in await app.query("jobs:jobs") if other["_id"] != job_id]
        assert child["state"] == {"kind": "pending"}
    assert stage.seen == []


async def test_A3_a_worker_that_is_there_takes_over_from_one_that_was_killed(
    file_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, worker(file_database, body="await asyncio.Event().wait()")) as process:
        job_id = await process.says()
        assert await process.says() == "inside"
        name = deploy(monkeypatch, "beside.jobs", SUCCESSOR, seen=stage.seen)
        app = duly.App(name, database=file_database, lease=timedelta(seconds=2))
        async with app:
            process.kill()
            began = time.monotonic()
            job = await has_finished(lambda: app.query("jobs:job_of", job_id), "failed")
            assert time.monotonic() - began < 3 + LOADED_S
            assert job["state"]["error"].startswith("interrupted: the worker stopped")
    assert stage.seen == []


async def test_A3_blocking_code_does_not_make_a_live_worker_look_dead(
    file_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, worker(file_database, body="time.sleep(4)")) as process:
        job_id = await process.says()
        assert await process.says() == "inside"
        name = deploy(monkeypatch, "beside_blocked.jobs", SUCCESSOR, seen=stage.seen)
        app = duly.App(name, database=file_database, lease=timedelta(seconds=2))
        async with app:
            await has_finished(lambda: app.query("jobs:job_of", job_id), "success")
    assert stage.seen == []


async def test_A3_a_worker_that_was_cut_off_records_nothing_any_more(file_database: str) -> None:
    lease = timedelta(milliseconds=300)
    cut_off = duly.App(__name__, database=file_database, lease=lease)
    other = duly.App(__name__, database=file_database, lease=lease)
    async with cut_off:

        @stage.body
        async def wait_at_the_gate(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()
            stage.seen.append("ended")

        job_id = await cut_off.scheduler.run_after(0, perform, wait_at_the_gate)
        await stage.has_seen(1)
        # As if the process had been stopped: nothing renews its lease.
        cast("Any", cut_off._executor)._keeper._lease.renew = lambda: None
        async with other:
            job = await finished(other, job_id, "failed")
            assert job["state"]["error"].startswith("interrupted: the worker stopped")
            stage.gate("open").set()
            await stage.has_seen(2)
            await finished(cut_off, await cut_off.scheduler.run_after(0, enter, "next"), "success")
    async with other.client():
        assert await other.query(job_of, job_id) == job
    assert stage.seen == ["inside", "ended"]


async def test_A3_a_live_worker_is_left_alone(file_database: str) -> None:
    lease = timedelta(milliseconds=300)
    one = duly.App(__name__, database=file_database, lease=lease)
    other = duly.App(__name__, database=file_database, lease=lease)
    async with one, other:

        @stage.body
        async def take_long(ctx: duly.ActionCtx) -> None:
            await asyncio.sleep(1)

        ids = [await one.scheduler.run_after(0, perform, take_long) for _ in range(4)]
        for job_id in ids:
            await finished(other, job_id, "success")


# A4: a graceful stop.


async def test_A4_a_stop_waits_for_running_actions(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app:

        @stage.body
        async def wait_at_the_gate(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()
            await ctx.run_mutation(enter, "at the end")

        job_id = await app.scheduler.run_after(0, perform, wait_at_the_gate)
        await stage.has_seen(1)
        asyncio.get_running_loop().call_later(0.1, stage.gate("open").set)
    assert state_on_disk(file_database, job_id) == "success"
    async with app.client():
        assert await app.query(ledger) == ["at the end"]


async def test_A4_a_stop_takes_nothing_new(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app:

        @stage.body
        async def schedule_in_the_drain(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()
            stage.seen.append(await ctx.scheduler.run_after(0, note, "new"))
            stage.seen.append(await ctx.scheduler.run_after(0, enter, "new"))
            await asyncio.sleep(0.05)

        job_id = await app.scheduler.run_after(0, perform, schedule_in_the_drain)
        await stage.has_seen(1)
        asyncio.get_running_loop().call_later(0.1, stage.gate("open").set)
    assert state_on_disk(file_database, job_id) == "success"
    assert len(stage.seen) == 3
    assert [state_on_disk(file_database, new) for new in stage.seen[1:]] == ["pending", "pending"]


@pytest.mark.parametrize("drain", [timedelta(0), timedelta(milliseconds=60)], ids=["at once", "after a while"])
async def test_A4_after_the_drain_actions_are_cancelled_and_failed(drain: timedelta, file_database: str) -> None:
    app = duly.App(__name__, database=file_database, drain=drain)

    @stage.body
    async def never_end(ctx: duly.ActionCtx) -> None:
        stage.seen.append("inside")
        try:
            await asyncio.Event().wait()
        finally:
            stage.seen.append("cancelled")

    @stage.body
    async def swallow(ctx: duly.ActionCtx) -> str:
        stage.seen.append("inside")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stage.seen.append("cancelled")
        return "all is well"

    @stage.thread_body
    def hang(ctx: duly.SyncActionCtx) -> None:
        stage.seen.append("inside")
        stage.thread_gate("open").wait(20)

    began = time.monotonic()
    async with app:
        ids = [
            await app.scheduler.run_after(0, perform, never_end),
            await app.scheduler.run_after(0, perform, swallow),
            await app.scheduler.run_after(0, perform_in_thread, hang),
        ]
        await stage.has_seen(3)
    assert time.monotonic() - began < LOADED_S
    stage.thread_gate("open").set()
    assert stage.seen.count("cancelled") == 2
    async with app.client():
        for job_id in ids:
            job = await app.query(job_of, job_id)
            assert job["state"]["kind"] == "failed"
            assert job["state"]["error"].startswith("interrupted: the worker stopped")


async def test_A4_the_default_drain_is_thirty_seconds(file_database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=file_database)
    app._parts = Parts(clock=clock)

    @stage.body
    async def never_end(ctx: duly.ActionCtx) -> None:
        stage.seen.append("inside")
        await asyncio.Event().wait()

    await app.__aenter__()
    job_id = await app.scheduler.run_after(0, perform, never_end)
    await stage.has_seen(1)
    stop = asyncio.create_task(app.__aexit__(None, None, None))
    await clock.advance(29.9)
    assert not stop.done()
    assert state_on_disk(file_database, job_id) == "inProgress"
    await clock.advance(0.2)
    await stop
    assert state_on_disk(file_database, job_id) == "failed"


async def test_A4_others_leave_a_worker_alone_while_it_drains(file_database: str) -> None:
    lease = timedelta(milliseconds=300)
    draining = duly.App(__name__, database=file_database, lease=lease)
    other = duly.App(__name__, database=file_database, lease=lease)
    async with other:
        async with draining:

            @stage.body
            async def take_long(ctx: duly.ActionCtx) -> None:
                stage.seen.append("inside")
                await asyncio.sleep(1)

            # Only one of the two has the worker's slot free for it, whichever; both drain the same way.
            ids = [await draining.scheduler.run_after(0, perform, take_long) for _ in range(4)]
            await stage.has_seen(4)
        for job_id in ids:
            await finished(other, job_id, "success")


async def test_A4_an_action_may_not_use_its_ctx_once_the_app_is_closed(file_database: str) -> None:
    app = duly.App(__name__, database=file_database, drain=timedelta(0))

    @stage.thread_body
    def hang(ctx: duly.SyncActionCtx) -> None:
        stage.seen.append("inside")
        stage.thread_gate("open").wait(20)
        try:
            ctx.run_mutation(enter, "late")
        except DulyError as error:
            stage.seen.append(str(error))

    async with app:
        await app.scheduler.run_after(0, perform_in_thread, hang)
        await stage.has_seen(1)
    stage.thread_gate("open").set()
    await stage.has_seen(2)
    assert "the app is not open" in stage.seen[1]


async def test_A4_cancelled_while_it_drains_it_stops_at_once(
    file_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = duly.App(__name__, database=file_database)

    @stage.body
    async def never_end(ctx: duly.ActionCtx) -> None:
        stage.seen.append("inside")
        try:
            await asyncio.Event().wait()
        finally:
            stage.seen.append("cancelled")

    await app.__aenter__()
    job_id = await app.scheduler.run_after(0, perform, never_end)
    await stage.has_seen(1)
    stop = asyncio.create_task(app.__aexit__(None, None, None))
    await asyncio.sleep(0.05)
    assert not stop.done()
    stop.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await stop
    assert time.monotonic() - began < LOADED_S
    # Whatever could still be recorded: nothing is in progress once a worker has started again.
    again = duly.App(__name__, database=file_database)
    async with again:
        job = await finished(again, job_id, "failed")
    assert job["state"]["error"].startswith("interrupted: the worker stopped")
    assert stage.seen == ["inside", "cancelled"]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_A4_a_second_interrupt_ends_a_draining_process(file_database: str, tmp_path: Path) -> None:
    source = worker(file_database, body="await asyncio.Event().wait()")
    with running(tmp_path, source) as process:
        job_id = await process.says()
        assert await process.says() == "inside"
        process.interrupt()
        assert await process.says() == "stopping"
        assert state_on_disk(file_database, job_id) == "inProgress"
        ended = asyncio.ensure_future(process.ended())
        # A KeyboardInterrupt is raised wherever the process happens to be, and may be lost there: press again.
        for _ in range(10):
            process.interrupt()
            await asyncio.wait({ended}, timeout=1)
            if ended.done():
                break
        assert await asyncio.wait_for(ended, 1) != 0


# Room: at most so many at once, and neither kind holds up the other.


async def test_A1_at_most_concurrent_actions_are_in_progress(database: str) -> None:
    app = duly.App(__name__, database=database, concurrent_actions=3)
    running_now = 0
    most = 0
    async with app:

        @stage.body
        async def count(ctx: duly.ActionCtx) -> None:
            nonlocal running_now, most
            running_now += 1
            most = max(most, running_now)
            await asyncio.sleep(0.1)
            running_now -= 1

        ids = [await app.scheduler.run_after(0, perform, count) for _ in range(20)]
        for job_id in ids:
            await finished(app, job_id, "success")
    assert most == 3


async def test_A1_what_waits_for_room_is_pending_and_not_in_progress(database: str) -> None:
    app = duly.App(__name__, database=database, concurrent_actions=2)
    async with app:

        @stage.body
        async def wait_at_the_gate(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()

        ids = [await app.scheduler.run_after(0, perform, wait_at_the_gate) for _ in range(5)]
        await stage.has_seen(2)
        kinds = [(await app.query(job_of, job_id))["state"]["kind"] for job_id in ids]
        assert kinds == ["inProgress", "inProgress", "pending", "pending", "pending"]
        # Saturated, mutations go on; and a waiting action can still be cancelled.
        await finished(app, await app.scheduler.run_after(0, enter, "meanwhile"), "success")
        await app.scheduler.cancel(ids[4])
        stage.gate("open").set()
        for job_id in ids[:4]:
            await finished(app, job_id, "success")
        assert (await finished(app, ids[4], "canceled"))["attempts"] == 0
    assert stage.seen == ["inside"] * 4


async def test_A1_sixty_four_run_at_once_by_default(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def wait_at_the_gate(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()

        ids = [await app.scheduler.run_after(0, perform, wait_at_the_gate) for _ in range(66)]
        await stage.has_seen(64)
        await finished(app, await app.scheduler.run_after(0, enter, "meanwhile"), "success")
        assert len(stage.seen) == 64
        assert (await app.query(job_of, ids[64]))["state"]["kind"] == "pending"
        stage.gate("open").set()
        for job_id in ids:
            await finished(app, job_id, "success")


async def test_A1_many_mutations_do_not_hold_up_actions(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def count_entries(ctx: duly.ActionCtx) -> None:
            stage.seen.append(len(await ctx.run_query(ledger)))

        due = datetime.now(UTC) + timedelta(milliseconds=600)
        for _ in range(3):
            await app.mutation(enter_many_at, due, 500)
        job_id = await app.scheduler.run_at(due, perform, count_entries)
        await finished(app, job_id, "success")

        async def all_entered() -> bool:
            return len(await app.query(ledger)) == 1_500

        await eventually(all_entered)
    # It did not wait until the last of them had run.
    assert stage.seen[0] < 1_500
