"""The HTTP API, as section 3 of the protocol has it."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import duly
from duly.errors import ConflictError, StoreUnavailableError
from tests.server.conftest import Serve
from tests.server.wire import Wire

HEADLINE = re.compile(r"\[Request ID: [0-9a-f]{16}\] Server Error")
DUMMY = {"path": "app:echo", "args": {}}


async def call(client: httpx.AsyncClient, kind: str, path: str, args: Any, **more: Any) -> Any:
    """The answer to a call, as the client libraries make it."""
    body = {"path": path, "args": args, "format": "convex_encoded_json", **more}
    response = await client.post(f"/api/{kind}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def refused(client: httpx.AsyncClient, url: str, body: Any, **more: Any) -> tuple[int, str]:
    """Status and code of an answer that is no function's."""
    response = await client.post(url, json=body, **more)
    answer = response.json()
    assert answer.keys() == {"code", "message"}
    return response.status_code, answer["code"]


# --- calls ----------------------------------------------------------------------------------------------------------


async def test_functions_of_each_kind_are_called(client: httpx.AsyncClient) -> None:
    written = await call(client, "mutation", "app:write", {"text": "tea"})
    assert written["status"] == "success"
    assert await call(client, "query", "app:texts", {}) == {"status": "success", "value": ["tea"]}
    assert await call(client, "action", "app:write_twice", {"text": "salt"}) == {"status": "success", "value": "salt"}
    assert await call(client, "action", "app:plain", {}) == {"status": "success", "value": ["tea", "salt", "salt"]}


@pytest.mark.parametrize("args", [{"a": 1}, [{"a": 1}], {"a": 1.0}, {"a": 1, "b": {"$integer": "AQAAAAAAAAA="}}])
async def test_arguments_are_an_object_or_a_list_of_one(client: httpx.AsyncClient, args: Any) -> None:
    assert await call(client, "query", "app:add", args) == {"status": "success", "value": 2.0}


@pytest.mark.parametrize("args", [[], {}, [{}]])
async def test_no_arguments_are_an_empty_list_or_object(client: httpx.AsyncClient, args: Any) -> None:
    assert (await call(client, "query", "app:texts", args))["value"] == []


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/api/run/app/add", {"a": 1}),
        ("/api/run/app/texts", {}),
        ("/api/query", {"path": "app:texts"}),
        ("/api/mutation", {"path": "app:write", "text": "a"}),
        ("/api/query_batch", {"queries": [{"path": "app:texts"}]}),
    ],
)
async def test_who_does_not_put_arguments_under_args_is_told_to(
    client: httpx.AsyncClient, url: str, body: dict[str, Any]
) -> None:
    response = await client.post(url, json=body)
    assert (response.status_code, response.json()["code"]) == (400, "BadJsonBody")
    assert 'the arguments go under "args"' in response.json()["message"]


async def test_whole_floats_are_written_with_a_point(client: httpx.AsyncClient) -> None:
    body = {"path": "app:add", "args": {"a": 1}, "format": "convex_encoded_json"}
    assert (await client.post("/api/query", json=body)).text == '{"status":"success","value":2.0}'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("convex_encoded_json", {"$integer": "AQAAAAAAAAA="}),
        ("convex_json", {"$integer": "AQAAAAAAAAA="}),
        ("json", "1"),
        ("convex_clean_json", "1"),
        (None, "1"),
    ],
)
async def test_the_format_is_what_was_asked_for(client: httpx.AsyncClient, name: str | None, value: Any) -> None:
    args = {"value": {"$integer": "AQAAAAAAAAA="}}
    assert (await call(client, "query", "app:echo", args, format=name))["value"] == value


@pytest.mark.parametrize("path", ["app:default", "app", "app.js", "app.js:default"])
async def test_a_path_is_written_in_several_ways(client: httpx.AsyncClient, path: str) -> None:
    assert (await call(client, "query", path, {}))["value"] == "by default"


async def test_a_doubled_slash_is_forgiven(client: httpx.AsyncClient) -> None:
    assert (await client.post("http://server//api/query", json=DUMMY)).status_code == 200
    assert (await client.post("http://server//api//run//app/echo", json={"args": {}})).status_code == 200


async def test_a_function_of_any_kind_is_run_by_its_url(client: httpx.AsyncClient) -> None:
    written = await client.post("/api/run/app/write", json={"args": {"text": "tea"}})
    assert written.json()["status"] == "success"
    read = await client.post("/api/run/app/add", json={"args": {"a": 1}})
    assert read.text == '{"status":"success","value":2}'
    assert await refused(client, "/api/run/app", {"args": {}}) == (400, "MissingIdentifier")


async def test_a_query_is_asked_by_get(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/query", params={"path": "app:add", "args": '{"a": 1}'})
    assert response.text == '{"status":"success","value":2}'
    assert (await client.get("/api/query", params={"path": "app:texts"})).json()["value"] == []
    response = await client.get("/api/query", params={"path": "app:add", "args": "{"})
    assert (response.status_code, response.json()["code"]) == (400, "BadJsonArgs")
    response = await client.get("/api/query", params={"path": "app:write", "args": '{"text": "tea"}'})
    assert response.json()["status"] == "error"


async def test_a_batch_of_queries_is_answered_one_by_one(client: httpx.AsyncClient) -> None:
    queries = [
        {"path": "app:add", "args": {"a": 1}},
        {"path": "app:missing", "args": {}},
        {"path": "app:refusing", "args": {"data": 1}, "format": "convex_encoded_json"},
        {"path": "app:add", "args": [{"a": 2}], "format": "convex_encoded_json"},
    ]
    response = await client.post("/api/query_batch", json={"queries": queries})
    results = response.json()["results"]
    assert [result["status"] for result in results] == ["success", "error", "error", "success"]
    assert [result.get("value") for result in results] == [2, None, None, 3.0]
    assert results[2]["errorData"] == 1.0
    assert await refused(client, "/api/query_batch", {"queries": {}}) == (400, "BadJsonBody")
    assert await refused(client, "/api/query_batch", {"queries": [DUMMY] * 1_001}) == (400, "TooManyQueries")


async def test_a_batch_of_queries_lets_others_have_their_turn(client: httpx.AsyncClient) -> None:
    """On SQLite queries wait for nothing: a thousand of them would keep the event loop for as long as they take."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    taking = asyncio.ensure_future(take_turns())
    query = {"path": "app:echo", "args": {"value": [0] * 8_000}}
    try:
        response = await client.post("/api/query_batch", json={"queries": [query] * 200})
    finally:
        taking.cancel()
    assert len(response.json()["results"]) == 200
    assert turns > 10


async def test_a_moment_is_read_again_and_again(client: httpx.AsyncClient) -> None:
    await call(client, "mutation", "app:write", {"text": "before"})
    ts = (await client.post("/api/query_ts")).json()["ts"]
    await call(client, "mutation", "app:write", {"text": "after"})
    for _ in range(2):
        assert (await call(client, "query_at_ts", "app:texts", {}, ts=ts))["value"] == ["before"]
    assert (await call(client, "query", "app:texts", {}))["value"] == ["before", "after"]


async def test_moments_that_are_not_held_are_refused(client: httpx.AsyncClient) -> None:
    body = {"path": "app:texts", "args": {}}
    assert await refused(client, "/api/query_at_ts", body) == (400, "BadJsonBody")
    for ts in ("x", "ä", "AAAAAAAAAP8=", 1):
        assert await refused(client, "/api/query_at_ts", {**body, "ts": ts}) == (400, "BadTimestamp")
    assert await refused(client, "/api/query_at_ts", {**body, "ts": "AQAAAAAAAAA="}) == (400, "SnapshotTooOld")


async def test_what_a_client_schedules_is_scheduled(app: duly.App, client: httpx.AsyncClient) -> None:
    assert await call(client, "mutation", "app:schedule", {"text": "tea"}) == {"status": "success", "value": None}


# --- failures of functions --------------------------------------------------------------------------------------------


async def failure(client: httpx.AsyncClient, kind: str, path: str, args: Any) -> str:
    """What a client is told of a failure without data, after the headline."""
    answer = await call(client, kind, path, args)
    assert answer.keys() == {"status", "errorMessage"}
    assert answer["status"] == "error"
    headline, _, rest = answer["errorMessage"].partition("\n")
    assert HEADLINE.fullmatch(headline)
    return str(rest)


@pytest.mark.parametrize(
    ("kind", "path", "args", "message"),
    [
        ("query", "app:missing", {}, "Could not find public function for 'app:missing'."),
        ("query", "app:hidden", {"odd": 1}, "Could not find public function for 'app:hidden'."),
        ("mutation", "app:hidden", {}, "Could not find public function for 'app:hidden'."),
        ("query", "_system/app:hidden", {}, "Could not find public function for '_system/app:hidden'."),
        (
            "query",
            "app.js:write",
            {"odd": 1},
            "Trying to execute app:write as Query, but it is defined as Mutation.",
        ),
        ("query", "app:add", {"a": 1.5}, "ArgumentValidationError: the arguments don't fit 'app:add': a: "),
        ("query", "app:add", {}, "ArgumentValidationError: the arguments don't fit 'app:add': a: is missing"),
        ("query", "app:add", [{}, {}], "ArgumentValidationError: the arguments of 'app:add' are one object"),
        ("query", "app:add", "tea", "ArgumentValidationError: the arguments of 'app:add' are one object"),
        ("query", "app:add", [{"$bytes": ""}], "ArgumentValidationError: the arguments of 'app:add' are one object"),
        ("query", "app:echo", {"value": {"$x": 1}}, "ArgumentValidationError: value: the key '$x' begins with '$'"),
        (
            "mutation",
            "app:write_and_return",
            {"text": "tea"},
            "ReturnsValidationError: the return value of 'app:write_and_return': it can't be sent to a client: ",
        ),
        ("query", "app:refusing_oddly", {}, "ReturnsValidationError: "),
        ("query", "app:secretive", {}, "Uncaught ValueError: the password is swordfish\n"),
        ("action", "app:exits", {"how": "exit"}, "Uncaught SystemExit: no\n"),
        ("action", "app:exits", {"how": "cancel"}, "Uncaught CancelledError\n"),
        ("action", "app:exits", {"how": "conflict"}, "Uncaught ConflictError: of its own making\n"),
        ("mutation", "app:exits_in_transaction", {}, "Uncaught SystemExit: no\n"),
    ],
)
async def test_a_failure_says_what_it_is_in_development_only(
    serve: Serve, kind: str, path: str, args: Any, message: str
) -> None:
    async with serve(dev=True) as client:
        assert (await failure(client, kind, path, args)).startswith(message)
    async with serve() as client:
        assert await failure(client, kind, path, args) == ""


@pytest.mark.parametrize(
    ("given", "shown"), [(5, "5"), (5.5, "5.5"), ([1, {"a": -2.0}], "[1, {'a': -2}]"), (1e300, "1e+300")]
)
async def test_a_number_that_does_not_fit_is_shown_as_the_client_wrote_it(serve: Serve, given: Any, shown: str) -> None:
    async with serve(dev=True) as client:
        said = await failure(client, "mutation", "app:write", {"text": given})
    assert said.endswith(f"the arguments don't fit 'app:write': text: input should be a valid string, not {shown}")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("sold out", "Uncaught ConvexError: sold out"),
        ({"code": "sold_out"}, 'Uncaught ConvexError: {"code":"sold_out"}'),
        (None, "Uncaught ConvexError: null"),
        (1, "Uncaught ConvexError: 1.0"),
    ],
)
async def test_the_data_of_an_app_error_reaches_the_client(serve: Serve, data: Any, line: str) -> None:
    async with serve(dev=True) as client:
        answer = await call(client, "query", "app:refusing", {"data": data})
        assert answer["errorMessage"].partition("\n")[2] == line
    async with serve() as client:
        answer = await call(client, "query", "app:refusing", {"data": data})
        assert answer.keys() == {"status", "errorMessage", "errorData"}
        assert answer["errorData"] == data
        assert HEADLINE.fullmatch(answer["errorMessage"])


async def test_M2_a_mutation_that_fails_leaves_no_trace(client: httpx.AsyncClient) -> None:
    for path, args in (
        ("app:write_and_refuse", {"data": 1}),
        ("app:write_and_return", {"text": "tea"}),
        ("app:exits_in_transaction", {}),
    ):
        assert (await call(client, "mutation", path, args))["status"] == "error"
    assert (await call(client, "query", "app:texts", {}))["value"] == []


async def test_an_error_is_in_the_log_under_the_id_that_the_client_got(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await call(client, "query", "app:secretive", {})
    request_id = answer["errorMessage"][13:29]
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert request_id in record.getMessage()
    assert "swordfish" in record.getMessage()


# --- failures outside of functions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["", ":", "app:", ":echo", "a b:echo", "../app:echo", "/app:echo", "app/:echo", "app.py:echo", "app:1", "app:_"],
)
async def test_a_path_that_can_be_none_is_refused(client: httpx.AsyncClient, path: str) -> None:
    assert await refused(client, "/api/query", {"path": path, "args": {}}) == (400, "BadConvexFunctionIdentifier")


@pytest.mark.parametrize(
    "body", ["{", "", "[]", "3", '{"args": {}}', '{"path": 3, "args": {}}', "[" * 2_000, '"\\ud800"']
)
async def test_what_is_no_call_is_refused(client: httpx.AsyncClient, body: str) -> None:
    response = await client.post("/api/query", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "BadJsonBody")


@pytest.mark.parametrize("media_type", ["text/plain", "", "application/x-www-form-urlencoded"])
async def test_another_media_type_is_refused(client: httpx.AsyncClient, media_type: str) -> None:
    response = await client.post("/api/mutation", content=json.dumps(DUMMY), headers={"content-type": media_type})
    assert (response.status_code, response.json()["code"]) == (400, "BadJsonBody")
    response = await client.post(
        "/api/query", content=json.dumps(DUMMY), headers={"content-type": "Application/JSON; charset=utf-8"}
    )
    assert response.status_code == 200


@pytest.mark.parametrize("format", ["xml", "", 3, ["json"], {}])
async def test_another_format_is_refused(client: httpx.AsyncClient, format: Any) -> None:
    assert await refused(client, "/api/query", {**DUMMY, "format": format}) == (400, "BadFormat")


async def test_a_request_is_limited_also_when_it_does_not_say_how_long_it_is(serve: Serve) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    async with serve(max_body=1_000) as client:
        assert await refused(client, "/api/query", {**DUMMY, "padding": "x" * 1_000}) == (413, "PayloadTooLarge")
        headers = {"content-type": "application/json"}
        response = await client.post("/api/query", content=chunks(), headers=headers)
        assert (response.status_code, response.json()["code"]) == (413, "PayloadTooLarge")


async def test_a_token_that_nobody_can_verify_is_refused(client: httpx.AsyncClient) -> None:
    refusals = {"Bearer x.y.z": "InvalidAuthHeader", "Convex key": "BadAdminKey", "": "InvalidAuthHeader"}
    for token, code in refusals.items():
        headers = {"authorization": token}
        assert await refused(client, "/api/query", DUMMY, headers=headers) == (401, code)


async def test_only_an_admin_runs_any_function(client: httpx.AsyncClient) -> None:
    assert await refused(client, "/api/function", DUMMY) == (403, "Forbidden")


async def test_unknown_routes_and_methods_are_refused_as_json(client: httpx.AsyncClient) -> None:
    for url in ("/api/json", "/api/query/", "/api", "/nothing"):
        assert await refused(client, url, DUMMY) == (404, "NotFound")
    response = await client.get("/api/mutation")
    assert (response.status_code, response.json()["code"]) == (405, "MethodNotAllowed")
    assert response.headers["allow"] == "POST"


async def test_trouble_of_the_store_is_not_the_functions(
    app: duly.App, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app._store is not None
    for error, expected in (
        (ConflictError("lost"), (503, "OptimisticConcurrencyControlFailure")),
        (StoreUnavailableError("/secret/path is full"), (503, "StoreUnavailable")),
    ):

        async def read(_body: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(app._store, "read", read)
        response = await client.post("/api/query", json=DUMMY)
        assert (response.status_code, response.json()["code"]) == expected
        assert "secret" not in response.text
        assert (await client.get("/ready")).status_code == 503


async def test_an_app_that_is_not_open_says_so(app: duly.App) -> None:
    transport = httpx.ASGITransport(app.asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        assert await refused(client, "/api/query", DUMMY) == (503, "AppNotOpen")
        response = await client.get("/ready")
        assert (response.status_code, response.json()["store"]) == (503, "unreachable")


# --- across origins ---------------------------------------------------------------------------------------------------


async def preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,convex-client",
    }
    return await client.options("/api/mutation", headers=headers)


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://127.0.0.1:3000", "https://shop.example"])
async def test_a_page_of_this_machine_or_of_a_named_origin_may_call(serve: Serve, origin: str) -> None:
    async with serve(cors_origins=["https://shop.example/"]) as client:
        allowed = await preflight(client, origin)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == origin
        assert allowed.headers["access-control-allow-credentials"] == "true"
        assert allowed.headers["access-control-allow-headers"] == "content-type,convex-client"
        assert allowed.headers["access-control-max-age"] == "86400"
        answer = await client.post("/api/query", json=DUMMY, headers={"origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        failed = await client.post("/api/query", json={}, headers={"origin": origin})
        assert failed.headers["access-control-allow-origin"] == origin


async def test_another_page_may_not_call_unless_any_may(serve: Serve) -> None:
    origin = "https://localhost.elsewhere.example"
    async with serve() as client:
        refused = await preflight(client, origin)
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
    async with serve(cors_origins=["*"]) as client:
        assert (await preflight(client, origin)).headers["access-control-allow-origin"] == origin


PAGES = {
    "http://localhost:5173": True,
    "http://[::1]:80": True,
    "https://shop.example": True,
    "https://api.shop.example:8443": True,
    "https://api.shop.example": False,
    "https://localhost.elsewhere.example": False,
    "http://elsewhere.example#http://localhost": False,
    "https://[": False,
    "null": False,
    "": False,
}


@pytest.mark.parametrize("origin", PAGES)
async def test_a_websocket_is_for_the_pages_that_may_call(
    app: duly.App, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A browser lets every page open one; other clients have no origin."""
    headers = [(b"host", b"api.shop.example:8443"), (b"origin", origin.encode())]
    async with app.client():
        asgi = app.asgi(cors_origins=["https://shop.example/"])
        for _ in range(2):
            wire = Wire(asgi, headers=headers)
            wire.connect()
            wire.add(0, "app:texts")
            if PAGES[origin]:
                assert (await wire.message())["type"] == "Transition"
            else:
                assert (await wire.until_closed()).reason == "OriginNotAllowed"
            await wire.leave()
    assert caplog.text.count("was kept out; cors_origins and --cors-origin say whose may call") == (not PAGES[origin])


async def test_a_websocket_of_any_page_if_any_may_call(app: duly.App) -> None:
    async with app.client():
        wire = Wire(app.asgi(cors_origins=["*"]), headers=[(b"host", b"a"), (b"origin", b"https://elsewhere.example")])
        wire.connect()
        wire.add(0, "app:texts")
        assert (await wire.message())["type"] == "Transition"
        await wire.leave()


def test_origins_are_a_list(app: duly.App) -> None:
    with pytest.raises(TypeError, match=r"\['https://shop.example'\]"):
        app.asgi(cors_origins="https://shop.example")


# --- beside calls -----------------------------------------------------------------------------------------------------


async def test_what_health_checks_ask_for_is_answered(app: duly.App, client: httpx.AsyncClient) -> None:
    for url in ("/", "/version", "/instance_version", "/instance_name", "/health", "/ready"):
        assert (await client.get(url)).status_code == 200
    assert (await client.post("/api/debug_event", json={"event": {}})).status_code == 200


async def test_ready_tells_of_the_store_and_of_the_executor(app: duly.App) -> None:
    asgi = app.asgi()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://server") as client:
        async with app.client():
            ready = await client.get("/ready")
            assert ready.json() == {"status": "ready", "store": "reachable", "worker": "none"}
        async with app:
            ready = await client.get("/ready")
            assert ready.json() == {"status": "ready", "store": "reachable", "worker": "running"}
            assert app._executor is not None
            for loop in app._executor.loops:
                loop.stop()
            for task in app._executor._tasks:
                await task
            stopped = await client.get("/ready")
            assert (stopped.status_code, stopped.json()["worker"]) == (503, "stopped")
