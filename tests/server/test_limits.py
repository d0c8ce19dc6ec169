"""What one client may take, and what happens to one that takes more."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import duly
from duly.server.outbox import _UNSENT_BYTES_MAX, _UNSENT_MAX, Outbox
from tests.server import app as served
from tests.server.conftest import Serve
from tests.server.wire import Wire, wired
from tests.support import eventually


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


def outbox_in(asgi: Any) -> Outbox:
    """What the server has to send on its only connection."""
    (endpoint,) = [route.endpoint for route in asgi.routes if route.path == "/api/sync"]
    (connection,) = endpoint.__self__.connections
    outbox: Outbox = connection._outbox
    return outbox


async def test_who_does_not_read_is_told_the_newest_and_little_else(open_app: duly.App) -> None:
    asgi = open_app.asgi()
    async with wired(asgi) as wire:
        wire.connect()
        wire.add(0, "app:texts")
        await wire.message()
        outbox, unsent = outbox_in(asgi), set[int]()
        wire.reads.clear()
        live = open_app._live
        assert live is not None
        for _ in range(300):
            await open_app.mutation(served.write, "a")
            await live.reach(live.stamp())
            unsent.add(len(outbox._unsent))
        # One is on its way, and no other is composed before it has arrived.
        assert max(unsent) <= 1
        assert outbox._bytes <= 2_000
        wire.reads.set()
        seen: list[int] = []
        while not seen or seen[-1] != 300:
            seen.append(len((await wire.message_of("Transition"))["modifications"][0]["value"]))
        assert len(seen) <= 3


@pytest.mark.parametrize(
    ("data", "unsent_max"), [pytest.param("a", _UNSENT_MAX, id="many"), pytest.param("a" * (1 << 20), 17, id="large")]
)
async def test_who_does_not_read_gets_nothing_more_run(open_app: duly.App, data: str, unsent_max: int) -> None:
    asgi = open_app.asgi()
    asked = 3 * unsent_max
    async with wired(asgi) as wire:
        wire.connect()
        wire.mutate(0, "app:write_all", texts=[])
        await wire.message_of("MutationResponse")
        outbox = outbox_in(asgi)
        wire.reads.clear()
        for number in range(asked):
            wire.mutate(number + 1, "app:write_and_refuse", data=data)

        async def is_full() -> bool:
            return not outbox.room.is_set()

        await eventually(is_full, deadline_s=60)
        await live_and_still(open_app)
        assert len(outbox._unsent) <= unsent_max
        assert outbox._bytes <= _UNSENT_BYTES_MAX + (2 << 20)
        wire.reads.set()
        answers = [await wire.message_of("MutationResponse") for _ in range(asked)]
        assert [answer["requestId"] for answer in answers] == list(range(1, asked + 1))


async def live_and_still(app: duly.App) -> None:
    """Gives what could go on the time to: some transactions come and go."""
    for _ in range(50):
        await app.mutation(served.write, "meanwhile")


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
