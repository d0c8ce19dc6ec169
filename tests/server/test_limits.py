"""What one client may take, and what happens to one that takes more."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

import duly
from tests.server import app as served
from tests.server.conftest import Serve
from tests.server.wire import Wire, wired


@pytest.fixture
async def open_app(app: duly.App) -> AsyncIterator[duly.App]:
    async with app.client():
        yield app


async def test_one_connection_too_many_is_asked_to_come_again(open_app: duly.App) -> None:
    asgi = open_app.asgi(max_connections=1)
    async with wired(asgi) as first:
        first.connect()
        first.add(0, "app:texts")
        await first.message()
        async with wired(asgi) as second:
            closed = await second.until_closed()
        assert (closed.code, closed.reason[:25]) == (1013, "TooManyConcurrentRequests")
    async with wired(asgi) as third:
        third.connect()
        third.add(0, "app:texts")
        await third.message()


async def test_one_query_too_many_ends_the_connection(open_app: duly.App) -> None:
    async with wired(open_app.asgi(max_queries=2)) as wire:
        wire.connect()
        for number in range(3):
            wire.add(number, "app:echo", number + 1, value=number)
        assert "more than 2 queries" in (await wire.message_of("FatalError"))["error"]
        assert (await wire.until_closed()).code == 1000


async def test_adding_and_removing_without_reading_is_bounded_too(open_app: duly.App) -> None:
    async with wired(open_app.asgi(max_queries=10)) as wire:
        wire.connect()
        wire.reads.clear()
        for number in range(100):
            add = {"type": "Add", "queryId": number, "udfPath": "app:texts", "args": [{}]}
            changes = [add, {"type": "Remove", "queryId": number}]
            wire.send("ModifyQuerySet", baseVersion=number, newVersion=number + 1, modifications=changes)
        await asyncio.wait_for(wire.served, 60)  # it is not waited for until it reads what ended it


async def test_mutations_that_wait_are_bounded(open_app: duly.App) -> None:
    async with wired(open_app.asgi()) as wire:
        wire.connect()
        wire.reads.clear()
        for number in range(2_000):
            wire.mutate(number, "app:echo")
        closed = await asyncio.wait_for(_closed(wire), 60)
        assert (closed, wire.closed and wire.closed.reason) == (1013, "TooManyConcurrentRequests")


async def _closed(wire: Wire) -> int:
    await asyncio.wait({wire.served})
    assert wire.closed is not None
    return wire.closed.code


async def test_who_does_not_read_is_told_the_newest_and_little_else(open_app: duly.App) -> None:
    async with wired(open_app.asgi()) as wire:
        wire.connect()
        wire.add(0, "app:how_many")
        await wire.message()
        wire.reads.clear()
        for _ in range(300):
            await open_app.mutation(served.write, "a")
        assert open_app._live is not None
        await open_app._live.reach(open_app._live.stamp())
        wire.reads.set()
        seen = 0
        while (await wire.message_of("Transition"))["modifications"][0]["value"] != 300:
            seen += 1
        assert seen <= 2


@pytest.mark.parametrize("depth", [100, 10_000])
async def test_deep_arguments_fail_the_call_or_the_message(open_app: duly.App, depth: int) -> None:
    async with wired(open_app.asgi()) as wire:
        wire.connect()
        deep = "[" * depth + "]" * depth
        call = {"type": "Action", "requestId": 0, "udfPath": "app:write_twice", "args": [{"text": 0}]}
        wire.send_text(json.dumps(call).replace(": 0}", f": {deep}}}"))
        told = await wire.message()
        if depth == 100:
            assert (told["type"], told["success"]) == ("ActionResponse", False)
        else:
            assert told["type"] == "FatalError"


async def test_one_call_too_many_over_http_is_refused(serve: Serve, app: duly.App) -> None:
    async with serve(max_requests=2) as client:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            begun.set()
            await goes_on.wait()
            yield b'{"path": "app:texts", "args": {}}'

        def ask(content: AsyncIterator[bytes]) -> asyncio.Future[httpx.Response]:
            headers = {"content-type": "application/json"}
            return asyncio.ensure_future(client.post("/api/query", content=content, headers=headers))

        asked = []
        for _ in range(2):
            begun.clear()
            asked.append(ask(slow()))
            await begun.wait()
        refused = await client.post("/api/query", json={"path": "app:texts", "args": {}})
        assert (refused.status_code, refused.json()["code"]) == (503, "TooManyConcurrentRequests")
        assert (await client.get("/health")).status_code == 200
        goes_on.set()
        assert [(await one).status_code for one in asked] == [200, 200]
        assert (await client.post("/api/query", json={"path": "app:texts", "args": {}})).status_code == 200
