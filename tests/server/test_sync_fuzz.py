"""Clients that go astray: the server answers as the protocol says or goes on, and nothing is left of them."""

import asyncio
import json
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

import duly
from duly.server.sync import Sync
from tests.server import app as served
from tests.server.wire import ClosedError, Watching, Wire
from tests.support import eventually

_HUGE = 2**32
_YET_TO_COME = "InternalServerError: the client has seen a moment that is yet to come"
_LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, _HUGE - 1, _HUGE, 2**63, 2**64, 10**400, -(10**30), 0.5, 1e300, -0.0]),
    st.sampled_from(["", "\0", "AAAAAAAAAAA=", "//////////8=", "app:texts", "app:texts:x", "_system:x", "😀", "$"]),
    st.text(max_size=5),
)
_JUNK = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["type", "$integer", "$float", "a"]), inner)
    ),
    max_leaves=6,
)
_PATHS = [
    "app:texts",
    "app:how_many",
    "app:echo",
    "app:write",
    "app:write_twice",
    "app:secretive",
    "app:hidden",
    "app:pages",
    "app.js:whoami",
    "app:refusing",
    "app:exits_in_transaction",
    "no:such",
    "not/../a path",
]
_ARGS: list[Any] = [
    {},
    {"text": "a"},
    {"value": 1},
    {"data": {"a": 1}},
    {"value": {"$bytes": "?"}},
    {"paginationOpts": {"numItems": 2, "cursor": None}},
    {"paginationOpts": {"numItems": 1e18, "cursor": "x"}},
]

_FIELDS = [
    "type",
    "sessionId",
    "baseVersion",
    "newVersion",
    "modifications",
    "requestId",
    "udfPath",
    "args",
    "value",
    "tokenType",
    "componentPath",
    "maxObservedTimestamp",
    "impersonating",
    "queryId",
    "journal",
]
_STEPS = st.tuples(
    st.sampled_from(["Add", "Add", "Add", "Remove", "Mutation", "Mutation", "Action", "Authenticate", "Event"]),
    st.sampled_from(_PATHS),
    st.sampled_from(_ARGS),
    st.integers(0, 3),
)
# What is done to a message: nothing, mostly.
_HARM = st.one_of(
    *[st.none()] * 6,
    st.tuples(st.just("field"), st.sampled_from(_FIELDS), _JUNK),
    st.tuples(st.just("missing"), st.sampled_from(_FIELDS), st.none()),
    st.tuples(st.just("text"), st.just(""), st.one_of(st.text(max_size=20), st.just("[" * 100_000), st.just("{"))),
    st.tuples(st.just("bytes"), st.just(""), st.binary(max_size=10)),
    st.tuples(st.just("deep"), st.just("args"), st.integers(60, 1_100)),
    st.tuples(st.just("again"), st.just(""), st.integers(1, 50)),
)
_SESSIONS = st.lists(st.lists(st.tuples(_STEPS, _HARM), max_size=12), min_size=1, max_size=2)


class _Astray:
    """A client that counts right, so that what is wrong is what was done to its messages."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.query_set = 0
        self.identity = 0
        self.requests = 0

    def message(self, step: tuple[str, str, Any, int]) -> dict[str, Any]:
        kind, path, args, number = step
        match kind:
            case "Add" | "Remove":
                self.query_set += 1
                change = {"type": kind, "queryId": number, "udfPath": path, "args": [args]}
                versions = {"baseVersion": self.query_set - 1, "newVersion": self.query_set}
                return {"type": "ModifyQuerySet", **versions, "modifications": [change]}
            case "Mutation" | "Action":
                self.requests += 1
                return {"type": kind, "requestId": self.requests, "udfPath": path, "args": [args]}
            case "Authenticate":
                self.identity += 1
                return {"type": kind, "baseVersion": self.identity - 1, "tokenType": "None"}
            case _:
                return {"type": kind, "eventType": "x", "event": args}

    def send(self, message: dict[str, Any], harm: tuple[str, str, Any] | None) -> None:
        times = 1
        match harm:
            case ("field" | "missing") as what, name, junk:
                inner = message.get("modifications", [message])[0]
                target = inner if name in inner else message
                target.pop(name, None)
                if what == "field":
                    target[name] = junk
            case "text", _, text:
                self.wire.send_text(text)
                return
            case "bytes", _, content:
                self.wire.send_bytes(content)
                return
            case "deep", _, depth:
                target = message.get("modifications", [message])[0]
                target["args"] = None
                self.wire.send_text(json.dumps(message).replace("null", "[" * depth + "]" * depth, 1))
                return
            case "again", _, times:
                pass
            case _:
                pass
        for _ in range(times):
            self.wire.send_text(json.dumps(message))


async def _go_astray(wire: Wire, session: list[tuple[Any, Any]], *, connects: bool) -> None:
    client, seen, last = _Astray(wire), Watching(), _HUGE - 1
    if connects:
        wire.connect()
    for step, harm in session:
        client.send(client.message(step), harm)
    wire.mutate(last, "app:write", text="the end")
    kinds: list[str] = []
    answered = False
    with suppress(ClosedError):
        while not (answered and kinds[-1] == "Transition"):
            message = await wire.message()
            seen.take(message)
            kinds.append(message["type"])
            answered = answered or message.get("requestId") == last
    closed = wire.closed
    if closed is not None and closed.code == 1000:
        assert kinds[-1] in {"FatalError", "AuthError"}
    elif closed is not None:
        assert (closed.code, closed.reason) == (1011, _YET_TO_COME)


async def _check(sessions: list[list[tuple[Any, Any]]], caplog: pytest.LogCaptureFixture) -> None:
    app = duly.App(served.__name__, database="sqlite:///:memory:")
    async with app.client():
        asgi = cast("Starlette", app.asgi())
        sync = next(cast("Any", route).endpoint.__self__ for route in asgi.routes if isinstance(route, WebSocketRoute))
        assert isinstance(sync, Sync)
        wires = [Wire(asgi) for _ in sessions]
        for wire in wires:
            wire.session = wires[0].session
        await asyncio.gather(
            *(
                _go_astray(wire, session, connects=len(session) != 1)
                for wire, session in zip(wires, sessions, strict=True)
            )
        )
        for wire in wires:
            await wire.leave()

        live = app._live
        assert live is not None

        async def nothing_is_left() -> bool:
            return not (sync.connections or sync.actions or sync.sessions or live.watched)

        await eventually(nothing_is_left)
        assert not live._by_id
        assert not live._by_index
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("duly")]
    assert not live._followed_until
    assert "a connection failed" not in caplog.text
    assert "exception was never retrieved" not in caplog.text


_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=100, deadline=None, suppress_health_check=_FIXTURES)
@given(sessions=_SESSIONS)
async def test_clients_that_go_astray(sessions: list[list[tuple[Any, Any]]], caplog: pytest.LogCaptureFixture) -> None:
    await _check(sessions, caplog)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@settings(max_examples=10_000, deadline=None, suppress_health_check=_FIXTURES)
@given(sessions=_SESSIONS)
async def test_many_clients_that_go_astray(
    sessions: list[list[tuple[Any, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    await _check(sessions, caplog)
