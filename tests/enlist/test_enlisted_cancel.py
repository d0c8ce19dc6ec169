"""Cancelling inside a transaction of the user's, also against a worker that is running the very job."""

import asyncio
from datetime import timedelta
from typing import Any, TypedDict

import psycopg
import pytest

import duly
from duly.errors import AlreadyFinishedError, ConflictError, InvalidIdError, ScheduledFunctionNotFoundError
from tests.enlist.clients import Client, done
from tests.enlist.conftest import Ask
from tests.rules.stage import Stage
from tests.support import eventually


class Note(TypedDict):
    text: str


notes = duly.Table("notes", Note)

stage = Stage()


@pytest.fixture(autouse=True)
def clear_stage() -> None:
    stage.clear()


@duly.mutation
async def add(ctx: duly.MutationCtx, text: str) -> None:
    await ctx.db.insert(notes, {"text": text})


@duly.mutation
async def add_slowly(ctx: duly.MutationCtx, text: str) -> None:
    await ctx.db.insert(notes, {"text": text})
    stage.gate("inside").set()
    await stage.gate("end").wait()


@duly.action
async def act_slowly(ctx: duly.ActionCtx) -> None:
    stage.gate("inside").set()
    await stage.gate("end").wait()


@duly.query
async def texts(ctx: duly.QueryCtx) -> list[str]:
    return [note["text"] async for note in ctx.db.query(notes)]


def app_on(url: str) -> duly.App:
    return duly.App(__name__, database=url, mutation_timeout=timedelta(minutes=1))


def states(ask: Ask) -> list[Any]:
    return ask("SELECT state FROM duly.scheduled_functions ORDER BY id")


async def test_a_cancel_commits_or_is_undone_with_the_users_rows(client: Client, postgresql_url: str, ask: Ask) -> None:
    app = app_on(postgresql_url)
    async with client.transaction():
        job_id = await done(duly.enlist(client.target, app).run_after(timedelta(days=1), add, text="tea"))

    async def cancel_and_fail() -> None:
        async with client.transaction():
            await done(duly.enlist(client.target, app).cancel(job_id))
            assert states(ask) == ["pending"]
            raise KeyError

    with pytest.raises(KeyError):
        await cancel_and_fail()
    assert states(ask) == ["pending"]
    async with client.transaction():
        scheduler = duly.enlist(client.target, app)
        await done(scheduler.cancel(job_id))
        await done(scheduler.cancel(job_id))  # canceled: nothing happens
    [row] = ask("SELECT to_jsonb(j) FROM duly.scheduled_functions AS j")
    assert row["state"] == "canceled"
    assert row["due"] is None
    assert row["completed_time"] >= row["scheduled_time"] - timedelta(days=1) / timedelta(milliseconds=1)


async def test_its_own_job_may_be_cancelled_before_the_commit(client: Client, postgresql_url: str, ask: Ask) -> None:
    async with client.transaction():
        scheduler = duly.enlist(client.target, app_on(postgresql_url))
        await done(scheduler.cancel(await done(scheduler.run_after(0, add, text="tea"))))
    assert states(ask) == ["canceled"]


async def test_what_has_finished_or_is_not_there_can_not_be_cancelled(
    client: Client, postgresql_url: str, ask: Ask
) -> None:
    app = app_on(postgresql_url)
    async with app.client():
        job_id = await app.scheduler.run_after(0, add, text="tea")
        gone = await app.scheduler.run_after(0, add, text="jam")
    ask(f"DELETE FROM duly.scheduled_functions WHERE id = '{gone}'")
    ask("UPDATE duly.scheduled_functions SET state = 'failed', due = NULL, completed_time = 1")
    async with client.transaction():
        scheduler = duly.enlist(client.target, app)
        with pytest.raises(AlreadyFinishedError) as failure:
            await done(scheduler.cancel(job_id))
        assert failure.value.state == "failed"
        with pytest.raises(ScheduledFunctionNotFoundError):
            await done(scheduler.cancel(gone))
        with pytest.raises(InvalidIdError):
            await done(scheduler.cancel("tea"))
        await done(scheduler.cancel(job_id, missing_ok=True))
        await done(scheduler.cancel(gone, missing_ok=True))
    assert states(ask) == ["failed"]


async def test_a_mutation_that_is_running_has_no_effect_if_the_cancel_commits_first(
    psycopg_client: Client, postgresql_url: str, ask: Ask
) -> None:
    app = app_on(postgresql_url)
    async with app:
        job_id = await app.scheduler.run_after(0, add_slowly, text="tea")
        await stage.gate("inside").wait()
        async with psycopg_client.transaction():
            await duly.enlist(psycopg_client.target, app).cancel(job_id)
        stage.gate("end").set()
        await app.scheduler.run_after(0, add, text="later")

        async def later() -> bool:
            return bool(await app.query(texts))

        await eventually(later)
        assert await app.query(texts) == ["later"]
    assert states(ask) == ["canceled", "success"]


async def test_a_mutation_waits_for_a_cancel_and_runs_if_that_is_undone(
    psycopg_client: Client, postgresql_url: str, ask: Ask
) -> None:
    app = app_on(postgresql_url)
    async with app:
        job_id = await app.scheduler.run_after(0, add_slowly, text="tea")
        await stage.gate("inside").wait()

        async def cancel_and_fail() -> None:
            async with psycopg_client.transaction():
                await duly.enlist(psycopg_client.target, app).cancel(job_id)
                stage.gate("end").set()
                await has_to_wait(ask)
                raise KeyError

        with pytest.raises(KeyError):
            await cancel_and_fail()

        async def succeeded() -> bool:
            return states(ask) == ["success"]

        await eventually(succeeded)
        assert await app.query(texts) == ["tea"]


async def has_to_wait(ask: Ask) -> None:
    """Until somebody waits for a lock."""

    async def waits() -> bool:
        return bool(ask("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

    await eventually(waits)


@pytest.mark.parametrize(
    ("after", "outcome"),
    [("success", AlreadyFinishedError), ("failed", AlreadyFinishedError), ("inProgress", None)],
)
async def test_a_cancel_waits_for_the_commit_of_a_worker_and_sees_what_it_left(
    after: str, outcome: type[Exception] | None, psycopg_client: Client, postgresql_url: str, ask: Ask
) -> None:
    """The worker's commit, in slow motion: it has written, and not committed."""
    app = app_on(postgresql_url)
    async with app.client():
        job_id = await app.scheduler.run_after(0, act_slowly)

    async def cancel() -> None:
        async with psycopg_client.transaction():
            await duly.enlist(psycopg_client.target, app).cancel(job_id)

    async with await psycopg.AsyncConnection.connect(postgresql_url) as worker:
        await worker.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        await worker.execute(
            "UPDATE duly.scheduled_functions SET state = %s, due = NULL, attempts = 1 WHERE id = %s", (after, job_id)
        )
        cancelling = asyncio.create_task(cancel())
        await has_to_wait(ask)
        await worker.commit()
    if outcome is None:
        await cancelling
        assert states(ask) == ["canceled"]
    else:
        with pytest.raises(outcome):
            await cancelling
        assert states(ask) == [after]


async def test_an_action_in_progress_is_cancelled_and_its_outcome_is_dropped(
    psycopg_client: Client, postgresql_url: str, ask: Ask
) -> None:
    app = app_on(postgresql_url)
    async with app:
        job_id = await app.scheduler.run_after(0, act_slowly)
        await stage.gate("inside").wait()
        async with psycopg_client.transaction():
            await duly.enlist(psycopg_client.target, app).cancel(job_id)
        assert states(ask) == ["canceled"]
        stage.gate("end").set()
    assert states(ask) == ["canceled"]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_either_the_cancel_wins_or_the_mutation(
    level: str, psycopg_client: Client, postgresql_url: str, ask: Ask
) -> None:
    """Many times, ever closer to the moment at which both may."""
    app = app_on(postgresql_url)
    cancelled: set[str] = set()
    names = [str(number) for number in range(60)]
    wait_s = 0.005
    async with app:
        for number, name in enumerate(names):
            async with psycopg_client.transaction():
                job_id = await duly.enlist(psycopg_client.target, app).run_after(0, add, text=name)
            await asyncio.sleep(wait_s)
            try:
                async with psycopg_client.transaction():
                    await psycopg_client.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
                    await duly.enlist(psycopg_client.target, app).cancel(job_id)
                    await asyncio.sleep(number % 5 / 1_000)
                cancelled.add(name)
                wait_s += 0.001
            except (AlreadyFinishedError, ConflictError):
                wait_s = max(0.0, wait_s - 0.001)

        async def settled() -> bool:
            return not {"pending", "inProgress"} & set(states(ask))

        await eventually(settled)
        happened = await app.query(texts)
    assert sorted(happened) == sorted(set(names) - cancelled)
    assert states(ask).count("canceled") == len(cancelled)
    assert cancelled
    assert happened
