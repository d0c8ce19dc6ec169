"""A connection on which nothing happens lives on. `make soak` waits longer."""

import asyncio

import pytest

from tests.clients.driver import Driver
from tests.clients.relay import Relay
from tests.clients.server import Server
from tests.clients.test_subscriptions import send

# The WebSocket's own pings come every 5 s; a message comes after 15 s in which the server had nothing to say.
SHORT_S = 16.5
# npm gives up after 60 s without a message, the Python client after 30 s without anything.
LONG_S = 120.0


@pytest.mark.parametrize("seconds", [SHORT_S, pytest.param(LONG_S, marks=pytest.mark.soak)])
async def test_an_idle_connection_is_kept_alive(
    server: Server, npm: Driver, python: Driver, channel: str, seconds: float
) -> None:
    """Both clients wait at the same time, to wait once."""
    async with Relay(server.url) as npm_relay, Relay(server.url) as python_relay:
        pairs = [(await npm.open(npm_relay.url), npm_relay), (await python.open(python_relay.url), python_relay)]
        subscriptions = [await client.subscribe("chat:size", {"channel": channel}) for client, _ in pairs]
        for size in subscriptions:
            assert await anext(size) == 0
        await asyncio.sleep(seconds)
        for _, relay in pairs:
            assert relay.connections == 1
            assert seconds // 15.5 <= len(relay.of("server", "Ping")) <= seconds // 15
            assert seconds // 5.5 <= relay.pings <= seconds // 5
        assert [len(size.seen) for size in subscriptions] == [1, 1]
        await send(pairs[0][0], channel, "awake")
        for size in subscriptions:
            await size.until(lambda value: value == 1)
