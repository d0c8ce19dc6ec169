"""Signing in, staying so, and being turned away, as each published client does it."""

import time

import pytest

from tests.clients.conftest import Connect
from tests.clients.driver import ClientError, Driver
from tests.clients.relay import Relay
from tests.clients.server import Server
from tests.clients.test_subscriptions import bodies
from tests.server.issuer import OTHER_KEY, RSA_KEY, PrivateKey, token
from tests.support import eventually

ANN = {"issuer": "https://id.example.com", "subject": "ann"}


def token_of(subject: str, *, begins_in_s: float = 0, ends_in_s: float = 3_600, key: PrivateKey = RSA_KEY) -> str:
    """A token, unlike any other by the time it was asked for."""
    now = time.time()
    claims = {"aud": "chat", "sub": subject, "iat": now + begins_in_s, "exp": now + ends_in_s}
    return token("https://id.example.com", claims, key=key)


async def test_a_token_says_who_calls(server: Server, connect: Connect) -> None:
    client = await connect(server.url)
    # By an action: npm answers a query by what it was told the last time, if that is not long ago.
    assert await client.action("chat:whoami_action") is None
    await client.sign_in(token_of("ann"))
    assert await client.action("chat:whoami_action") == "ann"
    assert await client.query("chat:whoami") == "ann"
    await client.sign_out()
    assert await client.action("chat:whoami_action") is None


async def test_queries_run_again_for_who_signs_in(server: Server, npm: Driver) -> None:
    client = await npm.open(server.url)
    whoami = await client.subscribe("chat:whoami")
    assert await anext(whoami) is None
    story = await client.set_auth(token_of("ann"), token_of("ann"))
    await story.until(lambda event: event == "authenticated")
    assert await anext(whoami) == "ann"
    await client.sign_out()
    assert await anext(whoami) is None
    await client.set_auth(token_of("bob"), token_of("bob"))
    assert await anext(whoami) == "bob"


async def test_S11_a_scheduled_function_has_no_identity(server: Server, npm: Driver, channel: str) -> None:
    client = await npm.open(server.url)
    await client.sign_in(token_of("ann"))
    await client.mutation("chat:send", {"channel": channel, "body": "myself"})
    await client.mutation("chat:send_later", {"channel": channel, "body": "scheduled", "delay_ms": 0.0})
    messages = await client.subscribe("chat:history", {"channel": channel})
    both = await messages.until(lambda value: len(value) == 2)
    assert [message["author"] for message in both] == ["ann", None]


async def test_a_token_is_refreshed_before_it_ends(server: Server, npm: Driver, relay: Relay) -> None:
    client = await npm.open(relay.url)
    # The client asks ten seconds before the end, by what the token says of its life.
    story = await client.set_auth(token_of("ann"), token_of("ann", ends_in_s=11.5), token_of("ann"))
    await story.until(lambda _: story.seen.count("asked for a fresh token") == 2)
    assert await client.query("chat:whoami") == "ann"
    assert len(relay.of("client", "Authenticate")) == 3
    assert relay.of("server", "AuthError") == []
    assert relay.connections == 1


async def test_a_token_that_has_ended_is_replaced_and_nothing_is_lost(
    server: Server, npm: Driver, relay: Relay, channel: str
) -> None:
    client = await npm.open(relay.url)
    # It has lived long already: the client thinks that there is time, and the server knows that there is none.
    ending = token_of("ann", begins_in_s=-600, ends_in_s=1.5)
    story = await client.set_auth(token_of("ann"), ending, token_of("ann"))
    await story.until(lambda event: event == "asked for a fresh token")
    messages = await client.subscribe("chat:history", {"channel": channel})
    sent = 0

    async def is_told() -> bool:
        nonlocal sent
        await client.mutation("chat:send", {"channel": channel, "body": str(sent)})
        sent += 1
        return bool(relay.of("server", "AuthError"))

    await eventually(is_told)
    await client.mutation("chat:send", {"channel": channel, "body": str(sent)})
    last = await messages.until(lambda value: len(value) > sent)
    assert bodies(last) == [str(number) for number in range(sent + 1)]
    assert {message["author"] for message in last} == {"ann"}
    [error] = relay.of("server", "AuthError")
    assert error["authUpdateAttempted"] is False
    assert relay.connections == 2


async def test_a_token_that_is_refused_makes_room_for_a_better_one(server: Server, npm: Driver, relay: Relay) -> None:
    client = await npm.open(relay.url)
    story = await client.set_auth(token_of("ann", key=OTHER_KEY), token_of("ann"))
    await story.until(lambda event: event == "authenticated")
    assert await client.query("chat:whoami") == "ann"
    assert [error["authUpdateAttempted"] for error in relay.of("server", "AuthError")] == [True]


@pytest.mark.parametrize("flaw", ["somebody else's signature", "ended", "not a token"])
async def test_who_has_no_good_token_goes_on_as_nobody(server: Server, npm: Driver, flaw: str) -> None:
    client = await npm.open(server.url)
    bad = {
        "somebody else's signature": token_of("ann", key=OTHER_KEY),
        "ended": token_of("ann", begins_in_s=-600, ends_in_s=-300),
        "not a token": "not.a.token",
    }[flaw]
    story = await client.set_auth(bad)
    await story.until(lambda event: event == "not authenticated")
    assert await client.query("chat:whoami") is None


async def test_over_http_a_bad_token_fails_the_call(server: Server, driver: Driver) -> None:
    client = await driver.open_http(server.url)
    await client.sign_in(token_of("ann", key=OTHER_KEY))
    with pytest.raises(ClientError, match=r"Unauthenticated|401"):
        await client.query("chat:whoami")


async def test_an_admin_reaches_internal_functions(server: Server, connect: Connect, admin_key: str) -> None:
    client = await connect(server.url)
    await client.set_admin_key(admin_key)
    assert await client.query("chat:secret_query") == "swordfish"
    assert await client.mutation("chat:secret_mutation") == "swordfish"
    assert await client.action("chat:secret_action") == "swordfish"


async def test_an_admin_acts_as_a_user(server: Server, npm: Driver, admin_key: str) -> None:
    for client in (await npm.open(server.url), await npm.open_http(server.url)):
        await client.set_admin_key(admin_key, ANN)
        assert await client.query("chat:whoami") == "ann"


async def test_a_wrong_admin_key_opens_nothing(server: Server, driver: Driver) -> None:
    client = await driver.open_http(server.url)
    await client.set_admin_key("duly|0123456789abcdef")
    with pytest.raises(ClientError):
        await client.query("chat:secret_query")
