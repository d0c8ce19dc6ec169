"""Live queries, as each published client sees them."""

import asyncio
import base64
import json
from typing import Any

import pytest

from tests.clients.driver import Client, Driver, RefusedError
from tests.clients.relay import Relay
from tests.clients.server import Server


async def send(client: Client, channel: str, *bodies: str) -> None:
    for body in bodies:
        await client.mutation("chat:send", {"channel": channel, "body": body})


def bodies(messages: list[dict[str, Any]]) -> list[str]:
    return [message["body"] for message in messages]


def finished(job: dict[str, Any]) -> bool:
    return job["state"]["kind"] not in {"pending", "inProgress"}


async def test_a_subscription_follows_whoever_writes(server: Server, driver: Driver, channel: str) -> None:
    reader, writer = await driver.open(server.url), await driver.open(server.url)
    http = await driver.open_http(server.url)
    messages = await reader.subscribe("chat:history", {"channel": channel})
    assert await anext(messages) == []
    await send(reader, channel, "my own")
    await messages.until(lambda value: bodies(value) == ["my own"])
    await send(writer, channel, "another client's")
    await messages.until(lambda value: bodies(value)[1:] == ["another client's"])
    await send(http, channel, "by HTTP")
    await messages.until(lambda value: bodies(value)[2:] == ["by HTTP"])
    await writer.mutation("chat:send_later", {"channel": channel, "body": "scheduled", "delay_ms": 50.0})
    await messages.until(lambda value: bodies(value)[3:] == ["scheduled"])


async def test_a_scheduled_function_can_be_watched(server: Server, driver: Driver, channel: str) -> None:
    client = await driver.open(server.url)
    later = {"channel": channel, "body": "later", "delay_ms": 500.0}
    job_id = await client.mutation("chat:send_later", later)
    job = await client.subscribe("chat:job", {"id": job_id})
    first = await anext(job)
    assert (first["name"], first["state"]) == ("chat:send", {"kind": "pending"})
    assert first["args"] == [{"channel": channel, "body": "later"}]
    last = await job.until(finished)
    assert last["state"] == {"kind": "success"}
    assert last["completedTime"] >= last["scheduledTime"] >= last["_creationTime"] + 400
    # A mutation is never seen running.
    assert {value["state"]["kind"] for value in job.seen} == {"pending", "success"}


async def test_a_scheduled_function_that_is_canceled_says_so(server: Server, driver: Driver, channel: str) -> None:
    client = await driver.open(server.url)
    job_id = await client.mutation("chat:send_later", {"channel": channel, "body": "never", "delay_ms": 60_000.0})
    job = await client.subscribe("chat:job", {"id": job_id})
    assert (await anext(job))["state"]["kind"] == "pending"
    await client.mutation("chat:cancel", {"id": job_id})
    assert (await job.until(finished))["state"] == {"kind": "canceled"}


async def test_a_subscription_fails_and_recovers(server: Server, driver: Driver, channel: str) -> None:
    client = await driver.open(server.url)
    quiet = await client.subscribe("chat:quiet", {"channel": channel})
    assert await anext(quiet) == "quiet"
    message = await client.mutation("chat:send", {"channel": channel, "body": "noise"})
    with pytest.raises(RefusedError) as raised:
        await quiet.until(lambda value: value != "quiet")
    assert raised.value.data == {"channel": channel}
    await client.mutation("chat:remove", {"id": message})
    while isinstance(quiet.seen[-1], RefusedError):
        try:
            await anext(quiet)
        except RefusedError:
            continue
    assert quiet.seen[-1] == "quiet"


async def test_an_optimistic_update_does_not_flicker(server: Server, npm: Driver, relay: Relay, channel: str) -> None:
    client = await npm.open(relay.url)
    args = {"channel": channel}
    messages = await client.subscribe("chat:history", args)
    assert await anext(messages) == []
    count = 20
    await asyncio.gather(
        *(
            client.mutation("chat:send", {**args, "body": str(n)}, appends=("chat:history", args, {"body": str(n)}))
            for n in range(count)
        )
    )
    for value in messages.seen:
        assert bodies(value) == [str(n) for n in range(len(value))]
    lengths = [len(value) for value in messages.seen]
    assert lengths == sorted(lengths)
    assert all("_id" in message for message in messages.seen[-1])
    assert_responses_come_first(relay)


async def test_a_client_sees_how_far_its_queue_of_mutations_has_come(server: Server, npm: Driver, channel: str) -> None:
    client = await npm.open(server.url)
    messages = await client.subscribe("chat:history", {"channel": channel})
    assert await anext(messages) == []
    await asyncio.gather(*(send(client, channel, str(number)) for number in range(200)))
    lengths = [len(value) for value in messages.seen]
    assert lengths == sorted(lengths)
    assert len(lengths) > 5, lengths


def assert_responses_come_first(relay: Relay) -> None:
    """A mutation is answered before a Transition shows what it did: the rule behind it."""
    shown = 0
    answered = 0
    for message in relay.of("server", "MutationResponse", "Transition"):
        if message["type"] == "Transition":
            shown = timestamp(message["endVersion"]["ts"])
        elif message["success"]:
            answered += 1
            assert timestamp(message["ts"]) > shown
    assert answered


def timestamp(text: str) -> int:
    return int.from_bytes(base64.b64decode(text), "little")


async def test_two_queries_never_show_different_moments(
    server: Server, npm: Driver, relay: Relay, channel: str
) -> None:
    reader, writer = await npm.open(relay.url), await npm.open_http(server.url)
    size = await reader.subscribe("chat:size", {"channel": channel})
    messages = await reader.subscribe("chat:history", {"channel": channel})
    await messages.until(lambda value: value == [])
    await size.until(lambda value: value == 0)
    await send(writer, channel, *map(str, range(30)))
    await size.until(lambda value: value == 30)
    await messages.until(lambda value: len(value) == 30)
    lengths: dict[int, float] = {}
    for transition in relay.of("server", "Transition"):
        for change in transition["modifications"]:
            value = change["value"]
            lengths[change["queryId"]] = len(value) if isinstance(value, list) else value
        assert len(lengths) < 2 or len(set(lengths.values())) == 1, lengths


async def test_what_nobody_subscribes_to_any_more_is_not_sent(
    server: Server, npm: Driver, relay: Relay, channel: str
) -> None:
    client = await npm.open(relay.url)
    messages = await client.subscribe("chat:history", {"channel": channel})
    size = await client.subscribe("chat:size", {"channel": channel})
    assert await anext(messages) == []
    await messages.stop()
    await send(client, channel, "unseen")
    await size.until(lambda value: value == 1)
    assert messages.seen == [[]]
    assert "unseen" not in json.dumps(relay.of("server", "Transition"))


async def test_what_a_query_did_not_read_does_not_send_it_again(
    server: Server, npm: Driver, relay: Relay, channel: str
) -> None:
    client, other = await npm.open(relay.url), await npm.open(server.url)
    messages = await client.subscribe("chat:history", {"channel": channel})
    assert await anext(messages) == []
    sent = len(relay.of("server", "Transition"))
    elsewhere = await other.subscribe("chat:size", {"channel": f"beside {channel}"})
    await send(other, f"beside {channel}", *map(str, range(10)))
    await elsewhere.until(lambda value: value == 10)
    assert len(relay.of("server", "Transition")) == sent
    await send(other, channel, "here")
    assert bodies(await anext(messages)) == ["here"]


async def test_who_reads_slowly_is_spared_what_is_past(server: Server, npm: Driver, relay: Relay, channel: str) -> None:
    reader, writer = await npm.open(relay.url), await npm.open_http(server.url)
    messages = await reader.subscribe("chat:history", {"channel": channel})
    assert await anext(messages) == []
    relay.stall()
    count = 40
    await send(writer, channel, *("x" * 200_000 for _ in range(count)))
    relay.heal()
    await messages.until(lambda value: len(value) == count)
    # What fits into the buffers on the way, and the last.
    assert len(messages.seen) < count / 2


async def test_a_client_asks_once_for_what_it_has_many_listeners_to(server: Server, npm: Driver, channel: str) -> None:
    client = await npm.open(server.url)
    first = await client.subscribe("chat:size", {"channel": channel})
    second = await client.subscribe("chat:size", {"channel": channel})
    await send(client, channel, "both hear of it")
    await first.until(lambda value: value == 1)
    await second.until(lambda value: value == 1)
    assert await client.query("chat:size", {"channel": channel}) == 1.0
