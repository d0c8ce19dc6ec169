"""Functions, observers and callers that misbehave: the worker lives on, and nobody else is hurt."""

import asyncio
import dataclasses
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any

import pytest
from pydantic import Field, SecretStr

import duly
from duly._app import Parts
from duly._model.event import Event
from tests.support import eventually


class Odd(Enum):
    RAW = b"raw"


@dataclasses.dataclass
class Halved:
    whole: dataclasses.InitVar[int]
    half: int = dataclasses.field(init=False)

    def __post_init__(self, whole: int) -> None:
        self.half = whole // 2


@duly.mutation
async def insert(ctx: duly.MutationCtx, value: int) -> None:
    await ctx.db.insert("rows", {"value": value})


@duly.query
async def count(ctx: duly.QueryCtx) -> int:
    return await ctx.db.query("rows").count()


@duly.query
async def wait_for_ever(ctx: duly.QueryCtx) -> None:
    await ctx.db.query("rows").count()
    await asyncio.Event().wait()


@duly.query
async def job(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


@duly.mutation
async def be_your_own_cause(ctx: duly.MutationCtx) -> None:
    error = ValueError("round and round")
    raise error from error


@duly.action
async def act_as_your_own_cause(ctx: duly.ActionCtx) -> None:
    first, second = ValueError("first"), ValueError("second")
    second.__cause__ = first
    raise first from second


@duly.mutation
async def cancel_your_own_task(ctx: duly.MutationCtx) -> None:
    await ctx.db.insert("rows", {"value": 0})
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@duly.mutation
async def cancel_your_own_task_and_return(ctx: duly.MutationCtx) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _inner() -> None:
    raise AssertionError("nobody awaits it")


@duly.action
def forget_to_await(ctx: duly.SyncActionCtx):  # type: ignore[no-untyped-def]
    return _inner()


received: list[object] = []


@duly.action
async def receive_many(ctx: duly.ActionCtx, numbers: Iterable[int]) -> None:
    received.extend(numbers)


@duly.action
async def receive_either(ctx: duly.ActionCtx, values: list[bytes | str]) -> None:
    received.extend(values)


@duly.action
async def receive_secret(ctx: duly.ActionCtx, secret: SecretStr) -> None: ...


@duly.action
async def receive_halved(ctx: duly.ActionCtx, halved: Halved) -> None: ...


@duly.action
async def receive_odd(ctx: duly.ActionCtx, odd: Odd) -> None: ...


@duly.action
async def receive_aliased(ctx: duly.ActionCtx, number: Annotated[int, Field(alias="no")]) -> None:
    received.append(number)


@duly.mutation
async def insert_secret(ctx: duly.MutationCtx) -> None:
    await ctx.db.insert("rows", {"secret": SecretStr("hunter2")})


@pytest.fixture(autouse=True)
def _forget() -> None:
    received.clear()


async def _finished(app: duly.App, id: str) -> Any:
    async def look() -> Any:
        document = await app.query(job, id=id)
        return document if document["state"]["kind"] in ("success", "failed") else None

    return await eventually(look)


@pytest.mark.parametrize("name", ["be_your_own_cause", "act_as_your_own_cause"])
async def test_M2_A2_an_error_that_is_its_own_cause_is_recorded_and_holds_nobody_up(database: str, name: str) -> None:
    async with duly.App(__name__, database=database) as app:
        failing = await app.scheduler.run_after(0, f"test_misbehaviour:{name}")
        following = await app.scheduler.run_after(0, insert, value=1)
        document = await _finished(app, failing)
        assert document["state"]["error"].startswith("ValueError: ")
        assert (await _finished(app, following))["state"] == {"kind": "success"}


async def test_an_observer_that_raises_hurts_neither_callers_nor_the_worker(database: str) -> None:
    def observe(event: Event) -> None:
        raise RuntimeError(event.kind)

    app = duly.App(__name__, database=database)
    app._parts = Parts(observer=observe)
    async with app:
        await app.mutation(insert, value=1)
        for value in (2, 3):
            id = await app.scheduler.run_after(0, insert, value=value)
            assert (await _finished(app, id))["state"] == {"kind": "success"}
        assert await app.query(count) == 3


async def test_a_mutation_that_cancels_its_own_task_fails_and_the_writer_goes_on(database: str) -> None:
    async with duly.App(__name__, database=database) as app:
        with pytest.raises(asyncio.CancelledError):
            await app.mutation(cancel_your_own_task)
        id = await app.scheduler.run_after(0, cancel_your_own_task)
        assert (await _finished(app, id))["state"]["kind"] == "failed"
        id = await app.scheduler.run_after(0, insert, value=1)
        assert (await _finished(app, id))["state"] == {"kind": "success"}
        assert await app.query(count) == 1


async def test_a_writer_that_was_cancelled_is_there_again_for_the_next_who_asks(file_database: str) -> None:
    async with duly.App(__name__, database=file_database).client() as app:
        await app.mutation(cancel_your_own_task_and_return)
        for _ in range(5):
            await asyncio.sleep(0)
        await app.mutation(insert, value=1)
        assert await app.query(count) == 1


async def test_a_query_in_memory_ends_with_its_caller_and_holds_no_writer_up() -> None:
    async with duly.App(__name__, database="sqlite:///:memory:") as app:
        waiting = asyncio.create_task(app.query(wait_for_ever))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(10):
            await app.mutation(insert, value=1)
            assert await app.query(count) == 1


async def test_A2_an_action_that_returns_a_coroutine_has_done_nothing_and_is_no_success(database: str) -> None:
    async with duly.App(__name__, database=database) as app:
        document = await _finished(app, await app.scheduler.run_after(0, "test_misbehaviour:forget_to_await"))
        assert document["state"]["kind"] == "failed"
        assert "coroutine" in document["state"]["error"]


async def test_an_iterable_argument_arrives_with_its_items(database: str) -> None:
    async with duly.App(__name__, database=database) as app:
        id = await app.scheduler.run_after(0, receive_many, numbers=iter([1, 2, 3]))
        assert (await _finished(app, id))["state"] == {"kind": "success"}
        assert received == [1, 2, 3]


async def test_a_str_that_could_be_bytes_arrives_as_the_str_it_was(database: str) -> None:
    async with duly.App(__name__, database=database) as app:
        cases: list[list[bytes | str]] = [["tea"], [b"tea"], ["tea", b"\xff"]]
        for values in cases:
            received.clear()
            id = await app.scheduler.run_after(0, receive_either, values=values)
            assert (await _finished(app, id))["state"] == {"kind": "success"}
            assert received == values


async def test_a_parameter_with_an_alias_is_passed_by_its_name(database: str) -> None:
    async with duly.App(__name__, database=database) as app:
        await app.action(receive_aliased, number=1)
        id = await app.scheduler.run_after(0, receive_aliased, number=2)
        assert (await _finished(app, id))["state"] == {"kind": "success"}
        assert received == [1, 2]


async def test_S3_arguments_that_could_not_be_read_back_are_refused_when_scheduling(database: str) -> None:
    async with duly.App(__name__, database=database).client() as app:
        with pytest.raises(duly.errors.ArgumentError, match="halved"):
            await app.scheduler.run_after(0, receive_halved, halved=Halved(4))
        with pytest.raises(duly.errors.ArgumentError, match="odd"):
            await app.scheduler.run_after(0, receive_odd, odd=Odd.RAW)


async def test_a_secret_is_refused_rather_than_stored_as_asterisks(database: str) -> None:
    async with duly.App(__name__, database=database).client() as app:
        with pytest.raises(duly.errors.ArgumentError, match="secret"):
            await app.scheduler.run_after(0, receive_secret, secret=SecretStr("hunter2"))
        with pytest.raises(duly.errors.InvalidValueError, match="secret"):
            await app.mutation(insert_secret)
