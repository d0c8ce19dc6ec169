"""What is not public can't be reached by any route, and nobody learns whether it is there."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import duly
from tests.server import app as served
from tests.server.conftest import Serve
from tests.server.wire import wired

Ask = Callable[[str], Awaitable[str]]

# In the module that the app has: one internal function of each kind, and one that is nowhere.
HIDDEN = ["hidden", "hidden_write", "hidden_work"]
UNKNOWN = "nowhere"
_REQUEST_ID = re.compile(r"\[Request ID: [0-9a-f]{16}\]")


@pytest.fixture(params=[False, True], ids=["redacted", "dev"])
async def client(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(dev=request.param) as client:
        yield client


def asks_over_http(client: httpx.AsyncClient) -> dict[str, Ask]:
    """Each way to ask over HTTP for a function; the answer is all that can be told from it."""

    async def post(route: str, body: Any) -> str:
        response = await client.post(route, json=body)
        return f"{response.status_code} {sorted(response.headers)} {response.text}"

    def of_path(route: str) -> Ask:
        return lambda path: post(route, {"path": path, "args": {}})

    async def get(path: str) -> str:
        response = await client.get("/api/query", params={"path": path, "args": "{}"})
        return f"{response.status_code} {response.text}"

    async def at_ts(path: str) -> str:
        ts = (await client.post("/api/query_ts")).json()["ts"]
        return await post("/api/query_at_ts", {"path": path, "args": {}, "ts": ts})

    asks = {kind: of_path(f"/api/{kind}") for kind in ("query", "mutation", "action", "function")}
    return asks | {
        "get": get,
        "query_at_ts": at_ts,
        "run": lambda path: post(f"/api/run/{quote(path.replace(':', '/'))}", {"args": {}}),
        "batch": lambda path: post("/api/query_batch", {"queries": [{"path": path, "args": {}}]}),
    }


def plain(answer: str, name: str) -> str:
    """Without what differs between two calls of anything."""
    return _REQUEST_ID.sub("", answer).replace(name, "NAME")


async def test_internal_and_unknown_functions_answer_alike_over_http(client: httpx.AsyncClient) -> None:
    for way, ask in asks_over_http(client).items():
        unknown = plain(await ask(f"app:{UNKNOWN}"), UNKNOWN)
        assert '"status":"success"' not in unknown
        for name in HIDDEN:
            assert plain(await ask(f"app:{name}"), name) == unknown, (way, name)
            assert plain(await ask(f"app.js:{name}"), name) == unknown, (way, name)


@pytest.mark.parametrize("path", ["_system:query", "_system/cli:queryTable", "_system/x.js:y", "_app:open", "app:_x"])
async def test_no_route_leads_to_the_inside(client: httpx.AsyncClient, path: str) -> None:
    for way, ask in asks_over_http(client).items():
        answer = await ask(path)
        assert '"status":"success"' not in answer, way
        assert not answer.startswith("5"), way


async def test_no_function_is_reached_as_another_kind(client: httpx.AsyncClient) -> None:
    asks = asks_over_http(client)
    kinds = {"query": "texts", "mutation": "write", "action": "plain"}
    reads = ["query", "get", "query_at_ts", "batch"]
    for way in [*reads, "mutation", "action"]:
        for kind, name in kinds.items():
            if kind != ("query" if way in reads else way):
                assert '"status":"error"' in await asks[way](f"app:{name}"), (way, name)
    assert '"value":[]' in await asks["query"]("app:texts")


@pytest.mark.parametrize("dev", [False, True])
@pytest.mark.parametrize("kind", ["Add", "Mutation", "Action"])
async def test_internal_and_unknown_functions_answer_alike_over_websockets(
    app: duly.App, kind: str, *, dev: bool
) -> None:
    async def ask(path: str) -> str:
        async with wired(app.asgi(dev=dev)) as wire:
            wire.connect()
            if kind == "Add":
                wire.add(0, path)
            else:
                wire.send(kind, requestId=0, udfPath=path, args=[{}])
            message = await wire.message()
            message.pop("endVersion", None)
            return json.dumps(message)

    async with app.client():
        unknown = plain(await ask(f"app:{UNKNOWN}"), UNKNOWN)
        for name in HIDDEN:
            assert plain(await ask(f"app:{name}"), name) == unknown
        wrong = {"Add": "write", "Mutation": "plain", "Action": "texts"}[kind]
        assert "Server Error" in await ask(f"app:{wrong}")
        assert "Server Error" in await ask("_system:query")
        assert await app.query(served.texts) == []
