"""The server is killed in the middle of its clients' mutations."""

import asyncio
from functools import partial
from pathlib import Path

from tests.clients.driver import Driver
from tests.clients.server import Server
from tests.clients.test_subscriptions import bodies
from tests.support import eventually

MUTATIONS = 500
KILLS_AFTER = (100, 300)


async def test_nothing_acknowledged_is_lost_and_nothing_is_done_twice(
    lasting_database: str, tmp_path: Path, npm: Driver
) -> None:
    acknowledged: list[int] = []
    with Server(tmp_path, lasting_database) as server:
        client = await npm.open(server.url)
        size = await client.subscribe("chat:size", {"channel": "all"})
        assert await anext(size) == 0

        async def send(number: int) -> None:
            await client.mutation("chat:send", {"channel": "all", "body": str(number)})
            acknowledged.append(number)

        sending = [asyncio.create_task(send(number)) for number in range(MUTATIONS)]
        for count in KILLS_AFTER:
            await eventually(partial(have_come, npm, server, count))
            server.kill()
            before = sorted(acknowledged)
            assert 0 < len(before) < MUTATIONS
            server.start()
            found = await found_by_another(npm, server)
            assert found == list(range(len(found)))
            assert before == found[: len(before)]
        await asyncio.gather(*sending)
        assert await found_by_another(npm, server) == list(range(MUTATIONS))
        await size.until(lambda value: value == MUTATIONS)
        assert size.seen == sorted(size.seen)


async def have_come(npm: Driver, server: Server, count: int) -> bool:
    other = await npm.open_http(server.url)
    return bool(await other.query("chat:size", {"channel": "all"}) >= count)


async def found_by_another(npm: Driver, server: Server) -> list[int]:
    other = await npm.open_http(server.url)
    return [int(body) for body in bodies(await other.query("chat:history", {"channel": "all"}))]
