"""`duly.testing.run`: time, what is due, failures and faults, through its public interface."""

import asyncio
import contextlib
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import duly
import duly.testing
from duly.testing import FunctionFailedError, NotIdleError, StillRunningError
from tests.rules.stage import Stage

stage = Stage()
app = duly.App(__name__, retention=timedelta(days=30))

notes = duly.Table("notes")

START = datetime(2027, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def empty_stage() -> None:
    stage.clear()


@duly.mutation
async def note(ctx: duly.MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})
    stage.seen.append((text, ctx.now))


@duly.query
async def all_notes(ctx: duly.QueryCtx) -> list[str]:
    return [found["text"] for found in await ctx.db.query("notes").collect()]


@duly.mutation
async def perform(ctx: duly.MutationCtx, what: str) -> Any:
    return await stage.bodies[what](ctx)


@duly.action
async def act(ctx: duly.ActionCtx, what: str) -> Any:
    return await stage.bodies[what](ctx)


@duly.action(timeout=HOUR)
async def wait_for_ever(ctx: duly.ActionCtx) -> None:
    await asyncio.Event().wait()


@duly.action
def act_in_thread(ctx: duly.SyncActionCtx, what: str) -> None:
    stage.bodies[what](ctx)


@duly.internal_mutation
async def hourly(ctx: duly.MutationCtx, n: int = 0) -> None:
    stage.seen.append(ctx.now)
    await ctx.scheduler.run_after(HOUR, hourly, n=n + 1)
    if n % 10 == 9:
        await ctx.scheduler.run_after(0, fail)


@duly.internal_mutation
async def fail(ctx: duly.MutationCtx) -> None:
    raise ValueError("on purpose")


@duly.internal_mutation
async def at_once_again(ctx: duly.MutationCtx) -> None:
    await ctx.scheduler.run_after(0, at_once_again)


def run(**options: Any) -> Any:
    options.setdefault("start", START)
    return duly.testing.run(app, **options)


# --- calls -----------------------------------------------------------------------------------------------------------


async def test_a_test_calls_as_somebody_and_what_that_schedules_is_nobodys() -> None:
    ann = duly.Identity(issuer="https://id.example.com", subject="ann")

    @stage.body
    async def who(ctx: Any) -> None:
        stage.seen.append(await ctx.auth.identity())

    @stage.body
    async def outer(ctx: Any) -> None:
        stage.seen.append(await ctx.auth.identity())
        await ctx.scheduler.run_after(0, perform, "who")

    async with run() as t:
        await t.with_identity(ann).mutation(perform, "outer")
        await t.with_identity(ann).action(act, "outer")
        await t.mutation(perform, "who")
        await t.run_due()
    assert stage.seen == [ann, ann, None, None, None]


# --- time -----------------------------------------------------------------------------------------------------------


async def test_nothing_runs_by_itself() -> None:
    async with run() as t:
        await t.scheduler.run_after(0, note, "tea")
        await asyncio.sleep(0.05)
        assert [job["state"]["kind"] for job in await t.jobs()] == ["pending"]
        await t.run_due()
        assert [job["state"]["kind"] for job in await t.jobs()] == ["success"]


async def test_time_stands_still_but_for_advance() -> None:
    async with run() as t:
        assert t.now == START
        await t.mutation(note, "one")
        await t.run_due()
        assert t.now == START
        await t.advance(timedelta(days=3, microseconds=7))
        await t.mutation(note, "two")
        assert stage.seen == [("one", START), ("two", START + timedelta(days=3, microseconds=7))]


async def test_without_a_start_it_is_now() -> None:
    before = datetime.now(UTC)
    async with run(start=None) as t:
        assert before - timedelta(seconds=1) <= t.now <= datetime.now(UTC)


async def test_advance_runs_what_comes_due_at_its_own_moment_in_order() -> None:
    async with run() as t:
        for days in (3, 1, 2, 9):
            await t.scheduler.run_after(days * DAY, note, str(days))
        await t.advance(5 * DAY)
        assert stage.seen == [(str(days), START + days * DAY) for days in (1, 2, 3)]
        await t.advance(4 * DAY)
        assert stage.seen[-1] == ("9", START + 9 * DAY)


async def test_what_is_due_exactly_then_runs_and_what_is_a_microsecond_later_does_not() -> None:
    async with run() as t:
        await t.scheduler.run_after(HOUR, note, "then")
        await t.scheduler.run_after(HOUR + timedelta(microseconds=1), note, "later")
        await t.advance(HOUR)
        assert [text for text, _ in stage.seen] == ["then"]


async def test_run_due_runs_what_that_makes_due_and_no_more() -> None:
    @stage.body
    async def chain(ctx: duly.MutationCtx) -> None:
        await ctx.scheduler.run_after(0, act, "schedule")
        await ctx.scheduler.run_after(1, note, "later")

    @stage.body
    async def schedule(ctx: duly.ActionCtx) -> None:
        await ctx.scheduler.run_after(0, note, "at once")

    async with run() as t:
        await t.mutation(perform, chain)
        await t.run_due()
        assert [text for text, _ in stage.seen] == ["at once"]


async def test_an_action_sees_what_it_schedules_run_while_it_runs() -> None:
    """Rule S5: due at once, while the action still runs; and real sleeping works."""

    @stage.body
    async def wait_for_it(ctx: duly.ActionCtx) -> None:
        await ctx.scheduler.run_after(HOUR, note, "much later")  # which must not wake anybody in vain
        await ctx.scheduler.run_after(0, note, "meanwhile")
        while not stage.seen:
            await asyncio.sleep(0.001)
        stage.seen.append("seen")

    async with run() as t:
        await t.scheduler.run_after(0, act, wait_for_it)
        await t.run_due()
        assert stage.seen == [("meanwhile", START), "seen"]


async def test_a_year_of_hours_with_failures() -> None:
    async with run() as t:
        t.allow_failures()
        await t.scheduler.run_after(0, hourly)
        await t.advance(timedelta(days=365))
        assert stage.seen == [START + n * HOUR for n in range(365 * 24 + 1)]
        kept = await t.jobs(function=hourly, state="success")
        # Those that finished within the 30 days of retention, and for a while those before.
        assert 30 * 24 <= len(kept) <= 32 * 24
        assert {job["state"]["kind"] for job in await t.jobs(function=fail)} == {"failed"}


async def test_run_until_idle_runs_everything_however_far() -> None:
    async with run() as t:
        await t.scheduler.run_after(400 * DAY, note, "far")
        await t.scheduler.run_after(0, act_in_thread, stage.thread_body(in_a_thread))
        await t.run_until_idle()
        assert stage.seen == ["in a thread", ("far", START + 400 * DAY)]
        assert t.now == START + 400 * DAY
        assert await t.jobs(state="pending") == []


def in_a_thread(ctx: duly.SyncActionCtx) -> None:
    stage.seen.append("in a thread")


async def test_functions_that_schedule_themselves_for_ever_are_named() -> None:
    async with run() as t:
        await t.scheduler.run_after(0, at_once_again)
        with pytest.raises(NotIdleError, match="at_once_again") as caught:
            await t.run_due(runs_max=500)
        assert caught.value.path.endswith(":at_once_again")
    async with run() as t:
        t.allow_failures()
        await t.scheduler.run_after(0, hourly)
        with pytest.raises(NotIdleError, match=r"hourly.*t\.advance\(\)"):
            await t.run_until_idle(runs_max=100)


async def test_an_action_that_does_not_end_is_named_and_times_out_on_the_virtual_clock() -> None:
    async with run(patience=timedelta(seconds=0.05)) as t:
        job_id = await t.scheduler.run_after(0, wait_for_ever)
        with pytest.raises(StillRunningError, match="wait_for_ever"):
            await t.run_due()
        assert (await t.job(job_id))["state"]["kind"] == "inProgress"
        t.allow_failures()
        await t.advance(HOUR)
        job = await t.job(job_id)
        assert job["state"]["kind"] == "failed"
        assert job["completedTime"] == job["startedTime"] + 3_600_000


async def test_the_ids_and_chance_of_a_seed_come_out_alike() -> None:
    @stage.body
    async def draw(ctx: duly.MutationCtx) -> tuple[str, float]:
        return await ctx.db.insert("notes", {"text": "x"}), ctx.random.random()

    async def once(seed: int) -> Any:
        async with run(seed=seed) as t:
            return await t.mutation(perform, draw)

    assert await once(1) == await once(1) != await once(2)


async def test_runs_at_the_same_time_never_meet() -> None:
    async def one(text: str) -> list[str]:
        async with run() as t:
            await t.scheduler.run_after(HOUR, note, text)
            await asyncio.sleep(0)
            await t.advance(DAY)
            found: list[str] = await t.query(all_notes)
            return found

    assert await asyncio.gather(*(one(str(number)) for number in range(5))) == [[str(number)] for number in range(5)]


# --- failures -------------------------------------------------------------------------------------------------------


async def test_a_failure_is_raised_with_its_traceback_by_what_ran_it() -> None:
    async with run() as t:
        await t.scheduler.run_after(5, fail)
        await t.run_due()
        with pytest.raises(
            FunctionFailedError, match=r"(?s)fail\(\) failed: ValueError: on purpose.*test_run\.py"
        ) as e:
            await t.advance(HOUR)
        assert [job["name"] for job in e.value.jobs] == ["test_run:fail"]
        await t.run_due()  # told once


async def test_a_failure_that_nobody_was_told_of_is_raised_at_the_end() -> None:
    async def unheard(error: Exception | None) -> None:
        async with run() as t:
            await t.scheduler.run_after(0, fail)
            with contextlib.suppress(NotIdleError):
                await t.run_due(runs_max=0)
            if error is not None:
                raise error

    with pytest.raises(FunctionFailedError):
        await unheard(None)
    # The test's own error comes first.
    with pytest.raises(KeyError):
        await unheard(KeyError())


async def test_failures_can_be_allowed() -> None:
    async with run() as t:
        t.allow_failures()
        job_id = await t.scheduler.run_after(0, fail)
        await t.run_due()
        assert (await t.job(job_id))["state"]["error"].startswith("ValueError: on purpose")


async def test_a_mutation_that_waits_for_the_world_is_an_error() -> None:
    """Rule T3: in a test it is told as an error."""

    @stage.body
    async def dawdle(ctx: duly.MutationCtx) -> None:
        await asyncio.sleep(0.05)

    async with run() as t:
        with pytest.raises(duly.errors.MutationWaitError):
            await t.mutation(perform, dawdle)


# --- faults ---------------------------------------------------------------------------------------------------------


async def test_a_commit_that_fails_leaves_nothing() -> None:
    async with run() as t:
        t.fail_commits(1)
        with pytest.raises(duly.errors.StoreUnavailableError):
            await t.mutation(note, "lost")
        await t.mutation(note, "kept")
        assert await t.query(all_notes) == ["kept"]


async def test_a_scheduled_mutation_outlives_commits_that_fail_and_runs_once() -> None:
    """Rule M3, on the virtual clock."""
    async with run() as t:
        job_id = await t.scheduler.run_after(0, note, "kept")
        t.fail_commits(3)
        await t.run_due()
        assert (await t.job(job_id))["state"]["kind"] == "pending"
        await t.run_until_idle()
        assert (await t.job(job_id))["state"]["kind"] == "success"
        assert await t.query(all_notes) == ["kept"]
        assert t.now > START


async def test_a_crash_between_runs_loses_nothing() -> None:
    async with run() as t:
        await t.scheduler.run_after(HOUR, note, "tea")
        t.crash()
        await t.advance(HOUR)
        assert await t.query(all_notes) == ["tea"]


async def test_a_crash_while_an_action_runs_interrupts_it_once_and_for_all() -> None:
    """Rules A1 and A3: it is not run again, and nothing that it does afterwards counts."""

    @stage.body
    async def crash_inside(ctx: duly.ActionCtx) -> None:
        stage.seen.append("begun")
        await ctx.run_mutation(note, "before")
        t.crash()
        await ctx.run_mutation(note, "after")
        stage.seen.append("not reached")

    async with run() as t:
        job_id = await t.scheduler.run_after(0, act, crash_inside)
        await t.run_due()
        job = await t.job(job_id)
        assert job["state"]["kind"] == "failed"
        assert job["state"]["error"].startswith("interrupted")
        assert await t.query(all_notes) == ["before"]
        assert stage.seen == ["begun", ("before", START)]


async def test_a_crash_from_a_thread_ends_what_the_thread_may_do() -> None:
    @stage.thread_body
    def crash_inside(ctx: duly.SyncActionCtx) -> None:
        assert threading.current_thread() is not threading.main_thread()
        ctx.run_mutation(note, "before")
        t.crash()
        try:
            ctx.run_mutation(note, "after")
        except duly.DulyError:
            stage.seen.append("refused")

    async with run() as t:
        job_id = await t.scheduler.run_after(0, act_in_thread, crash_inside)
        await t.run_due()
        assert (await t.job(job_id))["state"]["error"].startswith("interrupted")
        assert await t.query(all_notes) == ["before"]


async def test_a_crash_inside_a_mutation_undoes_it_and_it_runs_again() -> None:
    @stage.body
    async def crash_once(ctx: duly.MutationCtx) -> None:
        await ctx.db.insert("notes", {"text": "tea"})
        stage.seen.append("run")
        if len(stage.seen) == 1:
            t.crash()

    async with run() as t:
        job_id = await t.scheduler.run_after(0, perform, crash_once)
        await t.run_due()
        assert (await t.job(job_id))["state"]["kind"] == "success"
        assert await t.query(all_notes) == ["tea"]
        assert stage.seen == ["run", "run"]


# --- looking, and bad input -----------------------------------------------------------------------------------------


async def test_jobs_are_found_by_state_and_function() -> None:
    async with run() as t:
        t.allow_failures()
        await t.scheduler.run_after(0, note, "a")
        await t.scheduler.run_after(HOUR, note, "b")
        await t.scheduler.run_after(0, fail)
        await t.run_due()
        assert [job["args"][0]["text"] for job in await t.jobs(function=note)] == ["a", "b"]
        assert [job["args"][0]["text"] for job in await t.jobs(state="pending", function="test_run:note")] == ["b"]
        assert len(await t.jobs(state="failed")) == 1
        assert "failed      test_run:fail: ValueError: on purpose" in t.history
        misspelt: Any = "cancelled"
        with pytest.raises(ValueError, match=r"'cancelled' is no state; they are: .*, canceled"):
            await t.jobs(state=misspelt)


async def test_bad_input_is_refused() -> None:
    naive = datetime(2027, 1, 1)  # noqa: DTZ001
    with pytest.raises(duly.errors.InvalidTimeError, match="no time zone"):
        async with run(start=naive):
            pass
    with pytest.raises(TypeError, match=r"duly\.App"):
        async with duly.testing.run("shop"):  # type: ignore[arg-type]
            pass
    async with run() as t:
        with pytest.raises(duly.errors.InvalidTimeError, match="can't go back"):
            await t.advance(timedelta(seconds=-1))
        with pytest.raises(TypeError, match="timedelta"):
            await t.advance(5)
        with pytest.raises(ValueError, match="0 or more"):
            t.fail_commits(-1)
        with pytest.raises(TypeError, match="an int"):
            t.fail_commits(True)
        with pytest.raises(duly.errors.InvalidIdError):
            await t.job("nonsense")
        with pytest.raises(duly.errors.FunctionNotFoundError):
            await t.jobs(function="test_run:nowhere")


async def test_the_database_of_the_app_is_not_touched(tmp_path: Any) -> None:
    path = tmp_path / "mine.db"
    mine = duly.App(__name__, database=f"sqlite:///{path}")
    async with duly.testing.run(mine) as t:
        await t.mutation(note, "tea")
    assert not path.exists()
