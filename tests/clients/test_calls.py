"""Calls by each published client: what goes in comes out, and what fails says no more than it should."""

import math
import re
from typing import Any

import pytest

from tests.clients.conftest import Connect
from tests.clients.driver import Client, ClientError, Driver, RefusedError
from tests.clients.server import Server

KINDS = ("query", "mutation", "action")
VALUES: list[Any] = [
    None,
    True,
    False,
    0.0,
    3.0,
    1.5,
    -(2.0**53),
    1e300,
    5e-324,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    "",
    "Grüße 😀 \0 \u2028",
    b"",
    b"\x00\xff",
    bytes(range(256)),
    [],
    [1.0, 1, [b"\x01"], None],
    {},
    {"inner": {"": [2.5]}},
    {"a $ that is not first": 1},
]
SPECIAL_FLOATS = [math.nan, math.inf, -math.inf, -0.0]
# What each client makes of special floats.
REQUEST_ID = re.compile(r"\[Request ID: [0-9a-f]{16}\] ")


async def call(client: Client, kind: str, path: str, args: dict[str, Any]) -> Any:
    return await getattr(client, kind)(path, args)


@pytest.mark.parametrize("kind", KINDS)
async def test_values_come_back_as_they_went(server: Server, connect: Connect, kind: str) -> None:
    client = await connect(server.url)
    for value in [*VALUES, *SPECIAL_FLOATS, [SPECIAL_FLOATS], {"special": SPECIAL_FLOATS}]:
        # Their texts tell 1 from 1.0 and True, and know that NaN is NaN.
        assert repr(await call(client, kind, f"chat:echo_{kind}", {"value": value})) == repr(value)


async def test_a_function_that_returns_nothing_returns_null(server: Server, connect: Connect) -> None:
    client = await connect(server.url)
    assert await client.query("chat:nothing") is None


@pytest.mark.parametrize("data", ["sold out", None, {"code": "sold_out", "left": 0.0, "items": ["tea"]}])
async def test_the_data_of_an_AppError_reaches_the_caller(server: Server, connect: Connect, data: Any) -> None:
    client = await connect(server.url)
    for kind in KINDS:
        with pytest.raises(RefusedError) as raised:
            await call(client, kind, f"chat:refuse_{kind}", {"data": data})
        assert raised.value.data == data


async def test_the_data_of_an_AppError_may_be_any_value(server: Server, npm: Driver) -> None:
    data = {"bigint": 2**63 - 1, "bytes": b"\x00\xff", "number": -0.0}
    for client in (await npm.open(server.url), await npm.open_http(server.url)):
        for kind in KINDS:
            with pytest.raises(RefusedError) as raised:
                await call(client, kind, f"chat:refuse_{kind}", {"data": data})
            assert repr(raised.value.data) == repr(data)


async def test_a_mutation_that_fails_leaves_no_trace(server: Server, connect: Connect, channel: str) -> None:
    client = await connect(server.url)
    with pytest.raises(RefusedError):
        await client.mutation("chat:refuse_mutation", {"data": None, "channel": channel})
    assert await client.query("chat:size", {"channel": channel}) == 0.0


async def test_other_failures_tell_nothing_of_the_inside(server: Server, connect: Connect) -> None:
    client = await connect(server.url)
    for kind in KINDS:
        with pytest.raises(ClientError, match="Server Error") as raised:
            await call(client, kind, f"chat:break_{kind}", {})
        assert not isinstance(raised.value, RefusedError)
        assert "swordfish" not in raised.value.message
        assert "ValueError" not in raised.value.message


async def test_internal_functions_are_as_unknown_as_those_that_are_not_there(server: Server, connect: Connect) -> None:
    client = await connect(server.url)
    for kind in KINDS:
        answers: set[str] = set()
        for name in ("chat:secret_query", "chat:secret_mutation", "chat:secret_action", "chat:none", "nowhere:none"):
            with pytest.raises(ClientError) as raised:
                await call(client, kind, name, {})
            answers.add(REQUEST_ID.sub("", raised.value.message).replace(name, "…"))
        assert len(answers) == 1, answers


async def test_a_function_is_called_as_what_it_is(server: Server, connect: Connect, channel: str) -> None:
    client = await connect(server.url)
    for kind in KINDS:
        for other in set(KINDS) - {kind}:
            with pytest.raises(ClientError):
                await call(client, kind, f"chat:echo_{other}", {"value": None})
    with pytest.raises(ClientError):
        await client.query("chat:send", {"channel": channel, "body": "sent by a query"})
    assert await client.query("chat:history", {"channel": channel}) == []


async def test_arguments_that_do_not_fit_fail_the_call_alone(server: Server, connect: Connect, channel: str) -> None:
    client = await connect(server.url)
    for args in ({}, {"channel": 1.0, "body": "x"}, {"channel": channel, "body": "x", "more": 1.0}):
        with pytest.raises(ClientError):
            await client.mutation("chat:send", args)
    await client.mutation("chat:send", {"channel": channel, "body": "fits"})
    assert await client.query("chat:size", {"channel": channel}) == 1.0


async def test_a_value_of_megabytes_passes(server: Server, connect: Connect) -> None:
    client = await connect(server.url)
    value = "é" * 1_500_000
    assert await client.query("chat:echo_query", {"value": value}) == value
    assert await client.mutation("chat:echo_mutation", {"value": value}) == value


async def test_consistent_queries_see_one_moment(server: Server, npm: Driver, channel: str) -> None:
    client = await npm.open_http(server.url)
    await client.mutation("chat:send", {"channel": channel, "body": "before"})
    assert await client.consistent_query("chat:size", {"channel": channel}) == 1.0
    await client.mutation("chat:send", {"channel": channel, "body": "after"})
    assert await client.consistent_query("chat:size", {"channel": channel}) == 1.0
    assert await client.query("chat:size", {"channel": channel}) == 2.0
