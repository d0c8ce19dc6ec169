"""React in a real browser."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clients.driver import Driver, browser_driver
from tests.clients.server import Server


@pytest.fixture
async def browser() -> AsyncIterator[Driver]:
    async with browser_driver() as browser:
        yield browser


async def shows(browser: Driver, list_id: str, bodies: list[str]) -> None:
    texts = f"JSON.stringify([...document.querySelectorAll('#{list_id} li')].map((item) => item.textContent))"
    await browser.ask("until", expression=f"{texts} === {json.dumps(json.dumps(bodies, separators=(',', ':')))}")


async def test_a_page_shows_what_happens(server: Server, browser: Driver, npm: Driver, channel: str) -> None:
    other = await npm.open(server.url)
    await browser.ask("visit", server=server.url, channel=channel)
    await shows(browser, "history", [])
    await browser.ask("fill", selector="#body", text="from the page")
    await browser.ask("click", selector="#send")
    await shows(browser, "history", ["from the page"])
    await other.mutation("chat:send", {"channel": channel, "body": "from elsewhere"})
    await shows(browser, "history", ["from the page", "from elsewhere"])
    # The optimistic copy has made room for the server's in one step.
    shown: list[Any] = await browser.ask("evaluate", expression="window.shown")
    assert [len(bodies) for bodies in shown] == [0, 1, 1, 2]


async def test_a_page_loads_more_and_stays_pinned(server: Server, browser: Driver, npm: Driver, channel: str) -> None:
    other = await npm.open(server.url)
    await other.mutation("chat:send_all", {"channel": channel, "bodies": [str(number) for number in range(10)]})
    await browser.ask("visit", server=server.url, channel=channel)
    await shows(browser, "pages", ["9", "8", "7", "6"])
    await browser.ask("click", selector="#more")
    await shows(browser, "pages", ["9", "8", "7", "6", "5", "4", "3", "2"])
    await other.mutation("chat:send", {"channel": channel, "body": "10"})
    await shows(browser, "pages", ["10", "9", "8", "7", "6", "5", "4", "3", "2"])
    await browser.ask("click", selector="#more")
    await shows(browser, "pages", ["10", "9", "8", "7", "6", "5", "4", "3", "2", "1", "0"])
    await browser.ask("until", expression="document.querySelector('#more').textContent === 'Exhausted'")


async def test_a_page_of_another_origin_may_call_by_http(server: Server, browser: Driver, channel: str) -> None:
    await browser.ask("visit", server=server.url, channel=channel)
    send = "window.http.mutation(api.chat.send, { channel, body: 'by HTTP' })"
    assert isinstance(await browser.ask("evaluate", expression=send), str)
    assert await browser.ask("evaluate", expression="window.http.query(api.chat.size, { channel })") == 1.0
