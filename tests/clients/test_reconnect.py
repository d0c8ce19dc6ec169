"""The network fails at each moment that matters: what a client asked for is done exactly once, and it learns of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.clients.driver import ClientError, Driver, npm_driver
from tests.clients.relay import Relay, Sender
from tests.clients.server import Server
from tests.clients.test_subscriptions import assert_responses_come_first, bodies, send
from tests.support import eventually

MOMENTS: dict[str, tuple[str, Sender, bool]] = {
    "before the request reaches the server": ("Mutation", "client", False),
    "just after the request": ("Mutation", "client", True),
    "after the commit, before the response": ("MutationResponse", "server", False),
    "just after the response": ("MutationResponse", "server", True),
    "after the response, before the transition": ("Transition", "server", False),
    "just after the transition": ("Transition", "server", True),
}


@pytest.fixture(params=[(), ("--no-experimental-websocket",)], ids=["own websocket", "ws"])
async def each_node(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    """The clients of the npm package in a Node with a WebSocket, and as in one before 22: they bring theirs."""
    async with npm_driver(*request.param) as driver:
        yield driver


@pytest.mark.parametrize(("type", "sender", "passed_on"), MOMENTS.values(), ids=MOMENTS)
async def test_a_mutation_takes_effect_once(
    server: Server, each_node: Driver, relay: Relay, channel: str, type: str, sender: Sender, passed_on: bool
) -> None:
    client = await each_node.open(relay.url)
    messages = await client.subscribe("chat:history", {"channel": channel})
    assert await anext(messages) == []
    cut = relay.cut_at(type, sender, passed_on=passed_on)
    message_id = await client.mutation("chat:send", {"channel": channel, "body": "once"})
    assert cut.is_set()
    # What follows on the same connection comes after a repetition, if there is one.
    await client.mutation("chat:send", {"channel": channel, "body": "twice"})
    last = await messages.until(lambda value: len(value) > 1)
    assert bodies(last) == ["once", "twice"]
    assert last[0]["_id"] == message_id
    assert relay.connections == 2


async def test_a_repeated_mutation_is_answered_as_at_first(
    server: Server, npm: Driver, relay: Relay, channel: str
) -> None:
    client = await npm.open(relay.url)
    lost = relay.cut_at("MutationResponse", "server", passed_on=False)
    await client.mutation("chat:send", {"channel": channel, "body": "once"})
    assert lost.is_set()
    first, second = relay.of("server", "MutationResponse")
    assert first == second


async def test_a_mutation_that_failed_runs_again(server: Server, npm: Driver, relay: Relay, channel: str) -> None:
    client = await npm.open(relay.url)
    lost = relay.cut_at("MutationResponse", "server", passed_on=False)
    with pytest.raises(ClientError):
        await client.mutation("chat:refuse_mutation", {"channel": channel, "data": "no"})
    assert lost.is_set()
    assert [answer["success"] for answer in relay.of("server", "MutationResponse")] == [False, False]
    assert await client.query("chat:size", {"channel": channel}) == 0.0


async def test_a_burst_survives_cut_after_cut(server: Server, npm: Driver, relay: Relay, channel: str) -> None:
    client = await npm.open(relay.url)
    messages = await client.subscribe("chat:history", {"channel": channel})
    assert await anext(messages) == []
    count = 30
    first = relay.cut_at("MutationResponse", "server", passed_on=False, nth=7)
    second = relay.cut_at("MutationResponse", "server", passed_on=True, nth=20)
    await asyncio.gather(*(send(client, channel, str(number)) for number in range(count)))
    assert first.is_set()
    assert second.is_set()
    last = await messages.until(lambda value: len(value) >= count)
    # Each once, and in the order in which they were asked for.
    assert bodies(last) == [str(number) for number in range(count)]


async def test_a_subscription_catches_up(server: Server, driver: Driver, relay: Relay, channel: str) -> None:
    reader, writer = await driver.open(relay.url), await driver.open_http(server.url)
    messages = await reader.subscribe("chat:history", {"channel": channel})
    assert await anext(messages) == []
    relay.cut()
    await send(writer, channel, "sent meanwhile")
    await messages.until(lambda value: bodies(value) == ["sent meanwhile"])
    assert relay.connections == 2
    await send(reader, channel, "sent after")
    await messages.until(lambda value: len(value) == 2)


async def test_a_network_that_stalls_only_delays(server: Server, npm: Driver, relay: Relay, channel: str) -> None:
    client = await npm.open(relay.url)
    messages = await client.subscribe("chat:history", {"channel": channel})
    assert await anext(messages) == []
    relay.stall()
    sending = asyncio.create_task(send(client, channel, "delayed"))

    async def is_under_way() -> bool:
        return bool(relay.of("client", "Mutation"))

    await eventually(is_under_way)
    assert not sending.done()
    relay.heal()
    await sending
    await messages.until(lambda value: bodies(value) == ["delayed"])
    assert relay.connections == 1
    assert_responses_come_first(relay)


async def test_an_action_under_way_fails_and_is_not_repeated(server: Server, npm: Driver, relay: Relay) -> None:
    client = await npm.open(relay.url)
    cut = relay.cut_at("Action", "client", passed_on=True)
    with pytest.raises(ClientError, match="Connection lost while action was in flight"):
        await client.action("chat:take_time", {"seconds": 0.2})
    assert cut.is_set()
    assert await client.action("chat:take_time", {"seconds": 0.0}) == "done"
    assert len(relay.of("client", "Action")) == 2


async def test_a_client_that_is_back_names_its_session(server: Server, npm: Driver, relay: Relay, channel: str) -> None:
    client = await npm.open(relay.url)
    await send(client, channel, "before")
    relay.cut()
    await send(client, channel, "after")
    first, second = relay.of("client", "Connect")
    assert first["sessionId"] == second["sessionId"]
    assert (await client.state())["connectionCount"] == 2
