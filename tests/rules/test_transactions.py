"""Rules T1 to T4: transactions are serializable, durable, short and bounded."""

import asyncio
import contextlib
import logging
import math
import struct
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict, cast

import apsw
import pytest

import duly
from duly._app import Parts
from duly._ground.entropy import SystemEntropy
from duly.errors import (
    ConflictError,
    DulyError,
    InvalidValueError,
    LimitError,
    MutationWaitError,
    SchemaError,
    StoreUnavailableError,
)
from tests.rules.deploy import running
from tests.rules.stage import Json, Stage, has_finished
from tests.support import LOADED_S, FaultyStore

stage = Stage()


@pytest.fixture(autouse=True)
def empty_stage() -> None:
    stage.clear()


class Counter(TypedDict):
    name: str
    value: int


counters = duly.Table("counters", Counter, indexes={"by_name": ["name"]})


@duly.mutation
async def perform(ctx: duly.MutationCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.mutation
async def perform_other(ctx: duly.MutationCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.query
async def look(ctx: duly.QueryCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.query
async def look_again(ctx: duly.QueryCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.action
async def act(ctx: duly.ActionCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.mutation
async def increment(ctx: duly.MutationCtx, name: str) -> int:
    counter = await ctx.db.query(counters).with_index("by_name", name=name).unique()
    if counter is None:
        await ctx.db.insert(counters, {"name": name, "value": 1})
        return 1
    await ctx.db.patch(duly.id_of(counter), {"value": counter["value"] + 1})
    return counter["value"] + 1


@duly.query
async def value_of(ctx: duly.QueryCtx, name: str) -> int:
    counter = await ctx.db.query(counters).with_index("by_name", name=name).unique()
    return 0 if counter is None else counter["value"]


@duly.query
async def job_of(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


@duly.query
async def ledger(ctx: duly.QueryCtx) -> list[Any]:
    return [entry["what"] for entry in await ctx.db.query("ledger").collect()]


async def finished(app: duly.App, job_id: str, kind: str | None = None) -> Json:
    return await has_finished(lambda: app.query(job_of, job_id), kind)


async def performed(app: duly.App, body: Callable[[duly.MutationCtx], Awaitable[Any]]) -> Any:
    """What a mutation with this body returns."""
    return await app.mutation(perform, stage.body(body))


async def seen_by(app: duly.App, body: Callable[[duly.QueryCtx], Awaitable[Any]]) -> Any:
    """What a query with this body returns."""
    return await app.query(look, stage.body(body))


# T1: serializable.


async def test_T1_no_update_is_lost(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        results = await asyncio.gather(*(app.mutation(increment, "hits") for _ in range(50)))
        assert sorted(results) == list(range(1, 51))
        assert await app.query(value_of, "hits") == 50


async def test_T1_no_update_is_lost_between_calls_and_scheduled_functions(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def increment_twice(ctx: duly.ActionCtx) -> None:
            await asyncio.gather(ctx.run_mutation(increment, "hits"), ctx.run_mutation(increment, "hits"))

        ids = [await app.scheduler.run_after(0, act, increment_twice) for _ in range(10)]
        ids += [await app.scheduler.run_after(0, increment, "hits") for _ in range(20)]
        await asyncio.gather(*(app.mutation(increment, "hits") for _ in range(20)))
        for job_id in ids:
            await finished(app, job_id, "success")
        assert await app.query(value_of, "hits") == 60


async def test_T1_no_update_is_lost_between_two_stores_on_one_file(file_database: str) -> None:
    one = duly.App(__name__, database=file_database)
    other = duly.App(__name__, database=file_database)
    async with one.client(), other.client():
        results = await asyncio.gather(*(app.mutation(increment, "hits") for _ in range(25) for app in (one, other)))
        assert sorted(results) == list(range(1, 51))
        assert await one.query(value_of, "hits") == await other.query(value_of, "hits") == 50


async def test_T1_a_mutation_that_suspends_lets_no_other_in_between(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        @stage.body
        async def increment_slowly(ctx: duly.MutationCtx) -> None:
            counter = await ctx.db.query(counters).with_index("by_name", name="hits").unique()
            await asyncio.sleep(0.01)
            if counter is None:
                await ctx.db.insert(counters, {"name": "hits", "value": 1})
            else:
                await ctx.db.patch(duly.id_of(counter), {"value": counter["value"] + 1})

        calls = [app.mutation(perform, increment_slowly) for _ in range(5)]
        await asyncio.gather(*calls, *(app.mutation(increment, "hits") for _ in range(5)))
        assert await app.query(value_of, "hits") == 10


async def test_T1_a_mutation_reads_what_it_wrote(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        async def write_and_read(ctx: duly.MutationCtx) -> list[Any]:
            counter_id = await ctx.db.insert(counters, {"name": "hits", "value": 1})
            found = [await ctx.db.get(counter_id), await ctx.run_query(value_of, "hits")]
            await ctx.db.patch(counter_id, {"value": 2})
            found.append(await ctx.run_query(value_of, "hits"))
            await ctx.db.delete(counter_id)
            return [*found, await ctx.db.get(counter_id), await ctx.run_query(value_of, "hits")]

        first, *rest = await performed(app, write_and_read)
        assert first["value"] == 1
        assert rest == [1, 2, None, 0]


async def test_T1_a_query_sees_one_snapshot(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        await app.mutation(increment, "hits")

        @stage.body
        async def look_twice(ctx: duly.QueryCtx) -> list[int]:
            first = await ctx.run_query(value_of, "hits")
            stage.seen.append("first")
            for _ in range(20):
                await asyncio.sleep(0.002)
            return [first, await ctx.run_query(value_of, "hits")]

        looking = asyncio.create_task(app.query(look, look_twice))
        await stage.has_seen(1)
        writing = asyncio.create_task(app.mutation(increment, "hits"))
        assert await looking == [1, 1]
        await writing
        assert await app.query(value_of, "hits") == 2


async def test_T1_on_a_file_a_query_does_not_wait_for_a_mutation_nor_the_other_way_round(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app.client():
        await app.mutation(increment, "hits")

        @stage.body
        async def look_and_wait(ctx: duly.QueryCtx) -> list[int]:
            first = await ctx.run_query(value_of, "hits")
            stage.seen.append("first")
            await stage.gate("written").wait()
            return [first, await ctx.run_query(value_of, "hits")]

        looking = asyncio.create_task(app.query(look, look_and_wait))
        await stage.has_seen(1)
        await app.mutation(increment, "hits")
        assert await app.query(value_of, "hits") == 2
        stage.gate("written").set()
        assert await looking == [1, 1]


async def test_T1_a_query_sees_all_of_a_mutation_or_nothing(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        @stage.body
        async def increment_both(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(increment, "left")
            await ctx.run_mutation(increment, "right")

        @stage.body
        async def look_at_both(ctx: duly.QueryCtx) -> list[int]:
            left = await ctx.run_query(value_of, "left")
            await asyncio.sleep(0)
            return [left, await ctx.run_query(value_of, "right")]

        writes = asyncio.gather(*(app.mutation(perform, increment_both) for _ in range(30)))
        for _ in range(30):
            left, right = await app.query(look, look_at_both)
            assert left == right
        await writes
        assert await app.query(look, look_at_both) == [30, 30]


async def test_T1_a_query_can_not_write(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        async def try_to_write(ctx: duly.QueryCtx) -> None:
            for forbidden in ("insert", "patch", "replace", "delete"):
                assert not hasattr(ctx.db, forbidden)
            assert not hasattr(ctx, "scheduler")
            assert not hasattr(ctx, "run_mutation")

        await seen_by(app, try_to_write)


@pytest.mark.parametrize("conflicts", [1, 4])
async def test_T1_a_direct_mutation_is_retried_on_conflict(conflicts: int, database: str) -> None:
    stores: list[FaultyStore] = []

    def make(url: str, clock: Any) -> FaultyStore:
        stores.append(FaultyStore(url, clock))
        return stores[0]

    app = duly.App(__name__, database=database)
    app._parts = Parts(store=make)
    async with app.client():
        stores[0].fail = [ConflictError("lost") for _ in range(conflicts)]
        assert await app.mutation(increment, "hits") == 1
        assert stores[0].fail == []
        assert stores[0].transactions == conflicts + 1


class NoJitter(SystemEntropy):
    """Pauses that are drawn take no time."""

    def uniform(self) -> float:
        return 0.0


async def test_T1_a_direct_mutation_that_always_loses_says_so(database: str) -> None:
    stores: list[FaultyStore] = []

    def make(url: str, clock: Any) -> FaultyStore:
        stores.append(FaultyStore(url, clock))
        return stores[0]

    app = duly.App(__name__, database=database)
    app._parts = Parts(store=make, entropy=NoJitter())
    async with app.client():
        stores[0].fail = [ConflictError("lost") for _ in range(100)]
        with pytest.raises(ConflictError):
            await app.mutation(increment, "hits")
        assert stores[0].transactions == 13
        with pytest.raises(ConflictError):
            await app.scheduler.run_after(0, increment, "hits")
        assert stores[0].transactions == 26
        stores[0].fail = [StoreUnavailableError("away")]
        with pytest.raises(StoreUnavailableError):
            await app.mutation(increment, "hits")
        assert stores[0].transactions == 27
        assert await app.mutation(increment, "hits") == 1


async def test_T1_one_that_fails_takes_no_other_along(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        @stage.body
        async def increment_and_fail(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(increment, "hits")
            raise ValueError("no")

        calls = [
            app.mutation(increment, "hits") if n % 2 else app.mutation(perform, increment_and_fail) for n in range(20)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError, int] * 10
        assert await app.query(value_of, "hits") == 10


async def test_T1_a_caller_that_is_cancelled_leaves_all_or_nothing(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        for turns in range(6):
            call = asyncio.create_task(app.mutation(increment, f"hits {turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            await app.mutation(increment, "barrier")
            assert await app.query(value_of, f"hits {turns}") in (0, 1)


# T2: durable when the call returns.


def entries_on_disk(database: str) -> list[str]:
    """The bodies of all documents on a connection of its own.

    By the same driver: a second copy of SQLite in one process breaks the locks of the first.
    """
    connection = apsw.Connection(database.removeprefix("sqlite:///"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [row[0] for row in connection.execute("SELECT body FROM _documents ORDER BY id")]
    finally:
        connection.close()


async def test_T2_another_connection_sees_what_a_returned_call_wrote(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app.client():
        for number in range(1, 6):
            await app.mutation(increment, "hits")
            assert entries_on_disk(file_database) == [f'{{"name":"hits","value":{number}}}']


async def test_T2_sqlite_is_told_to_sync_each_commit(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app.client():
        writer = cast("Any", app._store)._writer
        assert writer.execute("PRAGMA synchronous").fetchall() == [(2,)]
        assert writer.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


async def test_T2_a_call_returns_after_its_commit_and_not_before(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app.client():

        @stage.body
        async def wait_at_the_gate(ctx: duly.MutationCtx) -> None:
            await stage.gate("open").wait()

        # In one group with one that holds the commit up.
        early = asyncio.create_task(app.mutation(increment, "hits"))
        late = asyncio.create_task(app.mutation(perform, wait_at_the_gate))
        for _ in range(30):
            await asyncio.sleep(0.001)
            assert early.done() == (entries_on_disk(file_database) != [])
        stage.gate("open").set()
        await asyncio.gather(early, late)
        assert len(entries_on_disk(file_database)) == 1


@pytest.mark.parametrize("call", ["mutation", "schedule", "action"])
async def test_T2_what_was_acknowledged_survives_sigkill(call: str, file_database: str, tmp_path: Path) -> None:
    calls = {
        "mutation": 'await app.mutation("jobs:enter", what=what)',
        "schedule": 'await app.scheduler.run_after(timedelta(days=1), "jobs:enter", what=what)',
        "action": 'await app.action("jobs:enter_by_action", what=what)',
    }
    source = f"""
        import asyncio
        from datetime import timedelta
        import duly

        @duly.mutation
        async def enter(ctx: duly.MutationCtx, what: str) -> str:
            return await ctx.db.insert("ledger", {{"what": what}})

        @duly.action
        async def enter_by_action(ctx: duly.ActionCtx, what: str) -> str:
            return await ctx.run_mutation(enter, what)

        app = duly.App(__name__, database={file_database!r})

        async def caller(number):
            turn = 0
            while True:
                what = f"{{number}}.{{turn}}"
                result = {calls[call]}
                print(result, flush=True)
                turn += 1

        async def main():
            async with app.client():
                await asyncio.gather(*map(caller, range(3)))

        asyncio.run(main())
    """
    acknowledged: list[str] = []
    with running(tmp_path, source) as process:
        while len(acknowledged) < 40:
            acknowledged.append(await process.says())
        process.kill()
    app = duly.App(__name__, database=file_database)
    async with app.client():

        async def all_ids(ctx: duly.QueryCtx) -> list[str]:
            documents = [entry["_id"] for entry in await ctx.db.query("ledger").collect()]
            jobs = await ctx.db.system.query("_scheduled_functions").collect()
            return documents + [duly.id_of(job) for job in jobs]

        assert set(acknowledged) <= set(await seen_by(app, all_ids))


# T3: no I/O, and short.


async def test_T3_gathered_database_calls_are_fine(database: str, caplog: pytest.LogCaptureFixture) -> None:
    app = duly.App(__name__, database=database)
    app._parts = Parts(strict=True)
    async with app.client():

        async def gather(ctx: duly.MutationCtx) -> list[Any]:
            ids = await asyncio.gather(*(ctx.db.insert("ledger", {"what": n}) for n in range(200)))
            await asyncio.gather(*(ctx.db.patch(id, {"what": "patched"}) for id in ids))
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(ctx.run_mutation(increment, "hits"))
            jobs = await asyncio.gather(*(ctx.scheduler.run_after(1000, increment, "hits") for _ in range(20)))
            return [len(set(ids)), len(set(jobs)), await ctx.run_query(value_of, "hits")]

        assert await performed(app, gather) == [200, 20, 20]
        assert await app.query(ledger) == ["patched"] * 200
    assert caplog.records == []


async def test_T3_a_few_turns_of_the_loop_are_fine(database: str, caplog: pytest.LogCaptureFixture) -> None:
    app = duly.App(__name__, database=database)
    app._parts = Parts(strict=True)
    async with app.client():

        async def yield_now_and_then(ctx: duly.MutationCtx) -> None:
            for number in range(50):
                await asyncio.sleep(0)
                await ctx.db.insert("ledger", {"what": number})

        await performed(app, yield_now_and_then)
        assert len(await app.query(ledger)) == 50
    assert caplog.records == []


async def test_T3_waiting_for_the_world_is_warned_of_once_for_each_function(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        @stage.body
        async def wait(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "waited"})
            await asyncio.sleep(0.03)

        await app.mutation(perform, wait)
        await app.mutation(perform, wait)
        await app.mutation(perform_other, wait)
        assert await app.query(ledger) == ["waited"] * 3
    assert [(record.name, record.levelno) for record in caplog.records] == [("duly", logging.WARNING)] * 2
    for record, path, function in zip(
        caplog.records,
        ("test_transactions:perform", "test_transactions:perform_other"),
        (perform, perform_other),
        strict=True,
    ):
        message = record.getMessage()
        line = function.handler.function.__code__.co_firstlineno + 2
        assert message.startswith(f"'{path}' waits at {__file__}:{line} ")
        assert "action" in message
        assert "T3" in message


async def test_T3_in_strict_mode_waiting_for_the_world_is_an_error(database: str) -> None:
    app = duly.App(__name__, database=database)
    app._parts = Parts(strict=True)
    async with app:

        @stage.body
        async def wait(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "lost"})
            await asyncio.sleep(60)

        with pytest.raises(MutationWaitError) as caught:
            await app.mutation(perform, wait)
        assert caught.value.path == "test_transactions:perform"
        assert caught.value.where == f"{__file__}:{perform.handler.function.__code__.co_firstlineno + 2}"
        job = await finished(app, await app.scheduler.run_after(0, perform, wait), "failed")
        assert job["state"]["error"].startswith("MutationWaitError: 'test_transactions:perform' waits at ")
        assert await app.query(ledger) == []


async def test_T3_a_query_may_wait(file_database: str, caplog: pytest.LogCaptureFixture) -> None:
    app = duly.App(__name__, database=file_database, mutation_timeout=timedelta(milliseconds=10))
    app._parts = Parts(strict=True)
    async with app.client():

        async def wait(ctx: duly.QueryCtx) -> str:
            await asyncio.sleep(0.05)
            return "waited"

        assert await seen_by(app, wait) == "waited"
    assert caplog.records == []


@pytest.mark.parametrize("how", ["waiting", "gathering", "nested", "computing", "computing between calls", "blocking"])
async def test_T3_a_mutation_that_runs_out_of_time_is_rolled_back(how: str, database: str) -> None:
    app = duly.App(__name__, database=database, mutation_timeout=timedelta(milliseconds=40))
    async with app.client():

        async def run_on(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "lost"})
            end = time.monotonic() + 0.1
            if how == "waiting":
                await asyncio.Event().wait()
            elif how == "gathering":
                await asyncio.gather(asyncio.Event().wait(), ctx.db.insert("ledger", {"what": "lost"}))
            elif how == "nested":
                await ctx.run_mutation(perform_other, stage.body(wait_for_ever))
            elif how == "computing":
                while time.monotonic() < end:
                    pass
            elif how == "computing between calls":
                while True:
                    await ctx.db.insert("ledger", {"what": "lost"})
            elif how == "blocking":
                time.sleep(0.1)  # noqa: ASYNC251 (that is what is tried)

        with pytest.raises(LimitError) as caught:
            await performed(app, run_on)
        assert caught.value.limit == "seconds that the mutation 'test_transactions:perform' may run" or how == "nested"
        assert caught.value.maximum == 0.04
        assert caught.value.actual > 0.04
        assert " may run for 0.04 seconds and was stopped after 0." in str(caught.value)
        assert "it was rolled back: do slow work in an action" in str(caught.value)
        assert await app.query(ledger) == []
        await app.mutation(increment, "next")


async def wait_for_ever(ctx: duly.MutationCtx) -> None:
    await ctx.db.insert("ledger", {"what": "lost"})
    await asyncio.Event().wait()


async def test_T3_the_default_is_five_seconds(database: str) -> None:
    app = duly.App(__name__, database=database)
    assert app._mutation_timeout == timedelta(seconds=5)


@pytest.mark.parametrize("how", ["Exception", "BaseException", "BaseException again and again", "finally"])
async def test_T3_swallowing_the_interruption_does_not_help(how: str, database: str) -> None:
    app = duly.App(__name__, database=database, mutation_timeout=timedelta(milliseconds=40))
    async with app.client():

        async def cling(ctx: duly.MutationCtx) -> str:
            await ctx.db.insert("ledger", {"what": "lost"})
            if how == "BaseException again and again":
                for _ in range(3):
                    with contextlib.suppress(BaseException):
                        await asyncio.Event().wait()
            elif how == "finally":
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0.01)
            else:
                with contextlib.suppress(Exception if how == "Exception" else BaseException):
                    await asyncio.Event().wait()
                with contextlib.suppress(LimitError):
                    await ctx.db.insert("ledger", {"what": "lost too"})
            return "all is well"

        began = time.monotonic()
        with pytest.raises(LimitError):
            await performed(app, cling)
        assert time.monotonic() - began < LOADED_S
        assert await app.query(ledger) == []
        await app.mutation(increment, "next")


@pytest.mark.parametrize("swallowed", [Exception, BaseException])
async def test_T3_in_strict_mode_swallowing_the_error_does_not_help(
    swallowed: type[BaseException], database: str
) -> None:
    app = duly.App(__name__, database=database)
    app._parts = Parts(strict=True)
    async with app.client():

        async def cling(ctx: duly.MutationCtx) -> str:
            with contextlib.suppress(swallowed):
                await asyncio.sleep(60)
            await ctx.db.insert("ledger", {"what": "lost"})
            return "all is well"

        with pytest.raises(MutationWaitError):
            await performed(app, cling)
        assert await app.query(ledger) == []


@pytest.mark.parametrize("what", ["query", "mutation", "action", "schedule", "cancel"])
@pytest.mark.parametrize("where", ["mutation", "task", "query"])
async def test_T3_calling_the_app_from_inside_is_refused(what: str, where: str, database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        job_id = await app.scheduler.run_after(1000, increment, "hits")

        async def call() -> None:
            if what == "query":
                await app.query(value_of, "hits")
            elif what == "mutation":
                await app.mutation(increment, "hits")
            elif what == "action":
                await app.action(act, "nothing")
            elif what == "schedule":
                await app.scheduler.run_after(0, increment, "hits")
            else:
                await app.scheduler.cancel(job_id)

        async def call_the_app(ctx: duly.QueryCtx) -> None:
            await (asyncio.create_task(call()) if where == "task" else call())

        with pytest.raises(MutationWaitError) as caught:
            await (seen_by if where == "query" else performed)(app, call_the_app)
        assert "was called from inside" in str(caught.value)
        assert "use ctx." in str(caught.value)
        assert await app.query(value_of, "hits") == 0
        assert (await app.query(job_of, job_id))["state"] == {"kind": "pending"}


async def test_T3_an_action_may_call_the_app(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def call_the_app(ctx: duly.ActionCtx) -> int:
            await app.mutation(increment, "hits")
            return await app.query(value_of, "hits")

        assert await app.action(act, call_the_app) == 1
        await finished(app, await app.scheduler.run_after(0, act, call_the_app), "success")


USES: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "db.insert": lambda ctx: ctx.db.insert("ledger", {"what": "late"}),
    "db.query": lambda ctx: ctx.db.query("ledger").collect(),
    "db.system": lambda ctx: ctx.db.system.query("_scheduled_functions").collect(),
    "scheduler": lambda ctx: ctx.scheduler.run_after(0, increment, "late"),
    "run_query": lambda ctx: ctx.run_query(value_of, "hits"),
    "run_mutation": lambda ctx: ctx.run_mutation(increment, "late"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("ended", ["returned", "raised"])
async def test_T3_a_ctx_is_of_no_use_after_its_function_has_ended(use: str, ended: str, database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        kept: list[duly.MutationCtx] = []

        async def keep(ctx: duly.MutationCtx) -> None:
            kept.append(ctx)
            if ended == "raised":
                raise ValueError("no")

        with contextlib.suppress(ValueError):
            await performed(app, keep)
        with pytest.raises(DulyError, match="was used after the function had returned"):
            await USES[use](kept[0])

        # Also from inside another mutation, whose transaction is open.
        async def use_the_other(ctx: duly.MutationCtx) -> None:
            with pytest.raises(DulyError, match="was used after the function had returned"):
                await USES[use](kept[0])

        await performed(app, use_the_other)
        assert await app.query(ledger) == []
        assert await app.query(value_of, "late") == 0


async def test_T3_a_query_ctx_is_of_no_use_after_its_function_has_returned(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        kept: list[duly.QueryCtx] = []

        async def keep(ctx: duly.QueryCtx) -> None:
            kept.append(ctx)

        await seen_by(app, keep)
        with pytest.raises(DulyError, match="was used after the function had returned"):
            await kept[0].db.query("ledger").collect()
        with pytest.raises(DulyError, match="was used after the function had returned"):
            await kept[0].run_query(ledger)


async def test_T3_a_nested_mutation_left_behind_rolls_everything_back(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:
        left: list[asyncio.Task[Any]] = []

        @stage.body
        async def write_late(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "early"})
            await stage.gate("open").wait()
            await ctx.db.insert("ledger", {"what": "late"})

        @stage.body
        async def leave_behind(ctx: duly.MutationCtx) -> None:
            left.append(asyncio.create_task(ctx.run_mutation(perform_other, write_late)))
            await asyncio.sleep(0)

        with pytest.raises(DulyError, match=r"await every ctx\.run_mutation"):
            await app.mutation(perform, leave_behind)
        job = await finished(app, await app.scheduler.run_after(0, perform, leave_behind), "failed")
        assert "await every ctx.run_mutation" in job["state"]["error"]

        # What was left behind wakes up, in the middle of another transaction or of none.
        @stage.body
        async def open_the_gate(ctx: duly.MutationCtx) -> None:
            stage.gate("open").set()
            await asyncio.gather(*left, return_exceptions=True)
            await ctx.db.insert("ledger", {"what": "other"})

        await app.mutation(perform, open_the_gate)
        for task in left:
            assert "was used after the function had returned" in str(task.exception())
        assert await app.query(ledger) == ["other"]
        await finished(app, await app.scheduler.run_after(0, increment, "next"), "success")


async def test_T3_a_gather_that_fails_takes_the_others_along(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def fail_later(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "lost"})
            await asyncio.sleep(0)
            raise ValueError("no")

        @stage.body
        async def write_slowly(ctx: duly.MutationCtx) -> None:
            for _ in range(3):
                await ctx.db.insert("ledger", {"what": "left behind"})
                await asyncio.sleep(0)

        @stage.body
        async def gather(ctx: duly.MutationCtx) -> None:
            await asyncio.gather(
                ctx.run_mutation(perform_other, fail_later),
                ctx.run_mutation(perform_other, write_slowly),
                ctx.db.insert("ledger", {"what": "left behind"}),
                ctx.run_mutation(perform_other, write_slowly),
            )

        with pytest.raises(ValueError, match="no"):
            await app.mutation(perform, gather)
        await finished(app, await app.scheduler.run_after(0, perform, gather), "failed")
        for _ in range(10):
            await app.mutation(increment, "next")
            await asyncio.sleep(0)
        assert await app.query(ledger) == []
        await finished(app, await app.scheduler.run_after(0, increment, "next"), "success")


# T4: limits.


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def test_T4_a_document_of_one_mebibyte_fits_and_no_more(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        room = 1024 * 1024 - len('{"text":""}')

        async def insert(ctx: duly.MutationCtx) -> str:
            kept = await ctx.db.insert("texts", {"text": "x" * room})
            with pytest.raises(LimitError) as caught:
                await ctx.db.insert("texts", {"text": "x" * (room + 1)})
            assert caught.value.limit == "bytes of one document"
            assert (caught.value.actual, caught.value.maximum) == (1024 * 1024 + 1, 1024 * 1024)
            with pytest.raises(LimitError):
                await ctx.db.patch(kept, {"one": "more"})
            with pytest.raises(LimitError):
                await ctx.db.replace(kept, {"text": "é" * (room // 2 + 1)})
            return kept

        kept = await performed(app, insert)

        async def read(ctx: duly.QueryCtx) -> int:
            document = await ctx.db.get(kept)
            assert document is not None
            assert await ctx.db.query("texts").count() == 1
            return len(document["text"])

        assert await seen_by(app, read) == room


async def test_T4_sixteen_levels_fit_and_no_more(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        async def insert(ctx: duly.MutationCtx) -> Any:
            # The document itself is the first level.
            kept = await ctx.db.insert("trees", {"tree": nested(15)})
            for tree in (nested(16), nested(100_000), {"a": nested(15)}):
                with pytest.raises(LimitError) as caught:
                    await ctx.db.insert("trees", {"tree": tree})
                assert caught.value.limit == "levels of nesting"
                assert (caught.value.actual, caught.value.maximum) == (17, 16)
            circle: list[Any] = []
            circle.append(circle)
            with pytest.raises(LimitError):
                await ctx.db.insert("trees", {"tree": circle})
            document = await ctx.db.get(kept)
            assert document is not None
            return document["tree"]

        assert await performed(app, insert) == nested(15)


async def test_T4_sixteen_thousand_writes_fit_and_no_more(database: str) -> None:
    app = duly.App(__name__, database=database, mutation_timeout=timedelta(minutes=2))
    async with app.client():

        @stage.body
        async def write_two(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "nested"})
            await ctx.db.insert("ledger", {"what": "nested"})

        @stage.body
        async def write_three_and_fail(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(perform_other, write_two)
            await ctx.db.insert("ledger", {"what": "lost"})
            raise ValueError("no")

        async def write(ctx: duly.MutationCtx) -> None:
            # What a nested mutation that failed wrote is given back; what one that succeeded wrote counts.
            with pytest.raises(ValueError, match="no"):
                await ctx.run_mutation(perform_other, write_three_and_fail)
            await ctx.run_mutation(perform_other, write_two)
            entry = await ctx.db.insert("ledger", {"what": "counted"})
            for number in range(15_996):
                await ctx.db.patch(entry, {"what": number})
            await ctx.db.delete(entry)
            with pytest.raises(LimitError) as caught:
                await ctx.db.insert("ledger", {"what": "too many"})
            assert caught.value.limit == "writes in one transaction"
            assert (caught.value.actual, caught.value.maximum) == (16_001, 16_000)
            with pytest.raises(LimitError):
                await ctx.run_mutation(perform_other, write_two)

        await performed(app, write)
        assert await app.query(ledger) == ["nested", "nested"]
        # The next transaction starts from zero.
        await app.mutation(increment, "next")


async def test_T4_thirty_two_thousand_reads_fit_and_no_more(database: str) -> None:
    app = duly.App(__name__, database=database, mutation_timeout=timedelta(minutes=2))
    async with app.client():

        async def fill(ctx: duly.MutationCtx) -> str:
            for number in range(999):
                await ctx.db.insert("ledger", {"what": number})
            return await ctx.db.insert("ledger", {"what": "last"})

        entry = await performed(app, fill)

        async def read(ctx: duly.QueryCtx) -> None:
            for _ in range(30):
                assert len(await ctx.db.query("ledger").collect()) == 1_000
            for _ in range(2_000):
                await ctx.db.get(entry)
            for use in (
                lambda: ctx.db.get(entry),
                lambda: ctx.db.query("ledger").first(),
                lambda: ctx.run_query(ledger),
            ):
                with pytest.raises(LimitError) as caught:
                    await use()
                assert caught.value.limit == "documents read in one transaction"
                assert caught.value.actual > caught.value.maximum == 32_000

        await seen_by(app, read)
        await performed(app, read)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        2**53 + 1,
        0.0,
        1.0,
        0.1,
        5e-324,
        1.7976931348623157e308,
        math.inf,
        -math.inf,
        -0.0,
        "",
        "text",
        'quotes " and \\ and {"$bytes": "aGk="}',
        "\0\x01\x7f\u2028\ufeff\U0001f600",
        "e\u0301",
        b"",
        bytes(range(256)),
        [],
        {},
        [None, [1, 1.0, True, b"x"], {"a": {"b": [math.inf, -0.0]}}],
        {"": "empty key", "a.b": 1, "ключ": 2, "a$": 3, "a_": 4, "with space": 5},
    ],
    ids=repr,
)
async def test_T4_every_value_is_read_back_exactly(value: Any, database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        async def insert(ctx: duly.MutationCtx) -> Any:
            return await ctx.db.insert("values", {"value": value})

        value_id = await performed(app, insert)

        async def read(ctx: duly.QueryCtx) -> None:
            document = await ctx.db.get(value_id)
            assert document is not None
            # Type for type: 1 is not 1.0 and not True, -0.0 is not 0.0.
            assert repr(document["value"]) == repr(value)

        await seen_by(app, read)


async def test_T4_nan_and_the_sign_of_zero_are_kept(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        async def insert(ctx: duly.MutationCtx) -> Any:
            return await ctx.db.insert("values", {"nan": math.nan, "zero": -0.0, "list": [math.nan]})

        value_id = await performed(app, insert)

        async def read(ctx: duly.QueryCtx) -> None:
            document = await ctx.db.get(value_id)
            assert document is not None
            assert math.isnan(document["nan"])
            assert math.isnan(document["list"][0])
            assert struct.pack("<d", document["zero"]) == struct.pack("<d", -0.0)

        await seen_by(app, read)


class _Thing:
    """No value."""


REFUSED: dict[str, Any] = {
    "a lone surrogate": "lone \ud800 surrogate",
    "a key with a lone surrogate": {"lone \udfff surrogate": 1},
    "one more than 64 bits": 2**63,
    "one less than 64 bits": -(2**63) - 1,
    "a huge int": 1 << 20_000,
    "a key that begins with _": {"_private": 1},
    "a key that begins with $": {"$bytes": "aGk="},
    "a reserved key deep inside": {"a": [{"b": {"_id": 1}}]},
    "an int key": {1: "int key"},
    "None as a key": {None: "no key"},
    "a tuple as a key": {("a",): "tuple key"},
    "bytes as a key": {b"a": "bytes key"},
    "an object": _Thing(),
    "a class": object,
    "a function": print,
    "a range": range(3),
    "UNSET": duly.UNSET,
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
async def test_T4_what_is_no_value_is_refused_and_named(value: Any, database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        async def try_to_write(ctx: duly.MutationCtx) -> Any:
            kept = await ctx.db.insert("values", {"fine": 1})
            with pytest.raises(InvalidValueError) as caught:
                await ctx.db.insert("values", {"deep": [0, {"value": value}]})
            assert caught.value.where.startswith("deep[1].value")
            with pytest.raises(InvalidValueError):
                await ctx.db.replace(kept, {"value": value})
            if value is not duly.UNSET:
                with pytest.raises(InvalidValueError):
                    await ctx.db.patch(kept, {"value": value})
            return await ctx.db.get(kept)

        kept = await performed(app, try_to_write)
        assert kept["fine"] == 1
        assert "value" not in kept

        async def count(ctx: duly.QueryCtx) -> int:
            return await ctx.db.query("values").count()

        assert await seen_by(app, count) == 1


@pytest.mark.parametrize("document", [{"_id": "x"}, {"_creationTime": 1}, {"$x": 1}, {"_x": 1}, {1: 1}], ids=repr)
async def test_T4_a_field_may_not_begin_like_the_systems(document: Any, database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        async def try_to_insert(ctx: duly.MutationCtx) -> None:
            with pytest.raises(InvalidValueError):
                await ctx.db.insert("values", document)

        await performed(app, try_to_insert)


@pytest.mark.parametrize("document", [None, 1, "text", [], [("a", 1)], b"x"], ids=repr)
async def test_T4_a_document_is_a_dict(document: Any, database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        async def try_to_insert(ctx: duly.MutationCtx) -> None:
            with pytest.raises((SchemaError, InvalidValueError)):
                await ctx.db.insert("values", document)

        await performed(app, try_to_insert)


@pytest.mark.parametrize(
    "value", ["lone \ud800 surrogate", 2**63, {"_private": 1}], ids=lambda value: ascii(value)[:40]
)
async def test_T4_arguments_and_schedules_keep_to_the_same_values(value: Any, database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        for call in (
            lambda: app.scheduler.run_after(0, take, value),
            lambda: app.mutation(schedule_take, stage_value(value)),
        ):
            with pytest.raises(DulyError):
                await call()

        async def no_jobs(ctx: duly.QueryCtx) -> int:
            return await ctx.db.system.query("_scheduled_functions").count()

        assert await seen_by(app, no_jobs) == 0


def stage_value(value: Any) -> str:
    stage.seen.append(value)
    return "staged"


@duly.mutation
async def take(ctx: duly.MutationCtx, value: Any) -> None: ...


@duly.mutation
async def schedule_take(ctx: duly.MutationCtx, name: str) -> None:
    await ctx.scheduler.run_after(0, take, stage.seen[-1])


async def test_T4_subclasses_are_stored_as_what_they_are_at_heart(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():

        class Text(str):
            __slots__ = ()

        class Number(int):
            pass

        class Fields(dict[str, Any]):
            pass

        async def insert(ctx: duly.MutationCtx) -> Any:
            value = Fields(text=Text("t"), number=Number(3), tuple=(1, 2), view=memoryview(b"v"), array=bytearray(b"a"))
            document = await ctx.db.get(await ctx.db.insert("values", {"value": value, "int64": duly.Int64(7)}))
            assert document is not None
            assert type(document["int64"]) is duly.Int64
            assert type(document["value"]["text"]) is str
            assert type(document["value"]["number"]) is int
            return document["value"]

        assert await performed(app, insert) == {
            "text": "t",
            "number": 3,
            "tuple": [1, 2],
            "view": b"v",
            "array": b"a",
        }
