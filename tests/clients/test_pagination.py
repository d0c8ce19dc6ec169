"""Paginated queries: pages stay pinned while rows come and go, also across a reconnection."""

from typing import Any

import pytest

from tests.clients.driver import Client, ClientError, Driver, Subscription
from tests.clients.relay import Relay
from tests.clients.server import Server

PAGE = 4


async def fill(client: Client, channel: str, *numbers: int) -> None:
    await client.mutation("chat:send_all", {"channel": channel, "bodies": [str(number) for number in numbers]})


async def remove(client: Client, page: dict[str, Any], *numbers: int) -> None:
    for message in page["results"]:
        if int(message["body"]) in numbers:
            await client.mutation("chat:remove", {"id": message["_id"]})


async def shows(pages: Subscription, numbers: list[int], status: str) -> dict[str, Any]:
    """The pages' state once it is this, newest first; nothing on the way there may have a gap or anything twice."""

    def arrived(value: dict[str, Any]) -> bool:
        found = numbers_of(value)
        assert found == sorted(set(found), reverse=True)
        return (found, value["status"]) == (numbers, status)

    page: dict[str, Any] = await pages.until(arrived)
    return page


def numbers_of(page: dict[str, Any]) -> list[int]:
    return [int(message["body"]) for message in page["results"]]


def downward(first: int, last: int) -> list[int]:
    return list(range(first, last - 1, -1))


async def test_pages_come_one_after_the_other_until_the_end(server: Server, npm: Driver, channel: str) -> None:
    client = await npm.open(server.url)
    await fill(client, channel, *range(10))
    pages = await client.paginate("chat:pages", {"channel": channel}, PAGE)
    await shows(pages, downward(9, 6), "CanLoadMore")
    await pages.load_more(4)
    await shows(pages, downward(9, 2), "CanLoadMore")
    await pages.load_more(4)
    await shows(pages, downward(9, 0), "Exhausted")


async def test_an_empty_list_is_exhausted(server: Server, npm: Driver, channel: str) -> None:
    client = await npm.open(server.url)
    pages = await client.paginate("chat:pages", {"channel": channel}, PAGE)
    await shows(pages, [], "Exhausted")
    await fill(client, channel, 0)
    await shows(pages, [0], "Exhausted")


async def test_pages_stay_pinned_while_rows_come_and_go(
    server: Server, npm: Driver, relay: Relay, channel: str
) -> None:
    client, writer = await npm.open(relay.url), await npm.open_http(server.url)
    await fill(writer, channel, *range(10))
    pages = await client.paginate("chat:pages", {"channel": channel}, PAGE)
    await shows(pages, downward(9, 6), "CanLoadMore")
    await pages.load_more(4)
    both = await shows(pages, downward(9, 2), "CanLoadMore")
    await fill(writer, channel, 10, 11)
    await shows(pages, downward(11, 2), "CanLoadMore")
    # The first page has grown; the second has not been touched.
    assert [len(transition["modifications"]) for transition in relay.of("server", "Transition")][-1] == 1
    await remove(writer, both, 7, 6, 3)
    await shows(pages, [11, 10, 9, 8, 5, 4, 2], "CanLoadMore")
    await pages.load_more(4)
    await shows(pages, [11, 10, 9, 8, 5, 4, 2, 1, 0], "Exhausted")


async def test_pages_stay_pinned_across_a_reconnection(server: Server, npm: Driver, relay: Relay, channel: str) -> None:
    client, writer = await npm.open(relay.url), await npm.open_http(server.url)
    await fill(writer, channel, *range(10))
    pages = await client.paginate("chat:pages", {"channel": channel}, PAGE)
    await shows(pages, downward(9, 6), "CanLoadMore")
    await pages.load_more(4)
    both = await shows(pages, downward(9, 2), "CanLoadMore")
    relay.cut()
    await fill(writer, channel, 10, 11)
    await remove(writer, both, 6, 2)
    await shows(pages, [11, 10, 9, 8, 7, 5, 4, 3], "CanLoadMore")
    assert relay.connections == 2
    journals = [
        query.get("journal") for query in relay.of("client", "ModifyQuerySet", connection=1)[0]["modifications"]
    ]
    assert len(journals) == 2
    assert all(journals)


async def test_a_page_that_has_grown_is_split(server: Server, npm: Driver, channel: str) -> None:
    client, writer = await npm.open(server.url), await npm.open_http(server.url)
    await fill(writer, channel, *range(6))
    pages = await client.paginate("chat:pages", {"channel": channel}, PAGE)
    await shows(pages, downward(5, 2), "CanLoadMore")
    for start in range(6, 30, 6):
        await fill(writer, channel, *range(start, start + 6))
    await shows(pages, downward(29, 2), "CanLoadMore")
    await fill(writer, channel, 30)
    page = await shows(pages, downward(30, 2), "CanLoadMore")
    await remove(writer, page, 15)
    await shows(pages, [number for number in downward(30, 2) if number != 15], "CanLoadMore")


async def test_a_cursor_that_does_not_fit_is_told_from_other_failures(
    server: Server, npm: Driver, channel: str
) -> None:
    client = await npm.open_http(server.url)
    options = {"numItems": 4.0, "cursor": "no cursor of ours"}
    # What the hooks look for, to begin anew.
    with pytest.raises(ClientError) as raised:
        await client.query("chat:pages", {"channel": channel, "paginationOpts": options})
    assert "InvalidCursor" in f"{raised.value} {getattr(raised.value, 'data', None)}"
