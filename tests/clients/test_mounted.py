"""The app as a part of a project in another framework, for real clients."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.driver import Client, Driver
from tests.clients.server import Server
from tests.clients.test_subscriptions import send


@pytest.fixture(scope="module", params=["fastapi", "django"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    with Server(folder, app=f"tests.clients.mounted:{request.param}_site", mount="/duly") as server:
        yield server


async def _is_served(site: Server, client: Client, channel: str) -> None:
    """Calls, live queries and what is due; the project's own pages are where they were, and see the same."""
    sizes = await client.subscribe("chat:size", {"channel": channel})
    assert await anext(sizes) == 0
    await send(client, channel, "hello")
    await sizes.until(lambda value: value == 1)
    await client.mutation("chat:send_later", {"channel": channel, "body": "later", "delay_ms": 10.0})
    await sizes.until(lambda value: value == 2)
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(f"{site.url}/size", params={"channel": channel})).text == "2"


async def test_npm_clients_are_given_the_path(site: Server, npm: Driver, channel: str) -> None:
    await _is_served(site, await npm.open(site.url + "/duly"), channel)


async def test_clients_over_http_are_given_the_path(site: Server, driver: Driver, channel: str) -> None:
    client = await driver.open_http(site.url + "/duly")
    await send(client, channel, "hello")
    assert await client.query("chat:size", {"channel": channel}) == 1


@pytest.mark.parametrize("site", ["fastapi"], indirect=True)
async def test_clients_that_take_no_path_find_it_behind_the_routes_of_the_project(
    site: Server, python: Driver, channel: str
) -> None:
    """The Rust client, which those of Python, Swift and Kotlin are made of, drops the path of an address."""
    await _is_served(site, await python.open(site.url), channel)
