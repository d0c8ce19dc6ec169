"""Workers on PostgreSQL whose notifications get lost, as behind a pooler."""

import asyncio
from functools import partial
from typing import Any

import pytest
from psycopg import AsyncConnection

from duly._ground.clock import SystemClock
from duly._model.job import JobKind
from duly._store.open import make_store
from duly._store.port import Store, Topic
from duly._store.postgresql.address import Address
from duly._store.postgresql.wire import Wire
from tests.store.rows import add_jobs, new_job
from tests.support import eventually


async def noticed(store: Store, topic: Topic, before: int) -> bool:
    return store.version(topic) > before


async def test_S8_without_notifications_a_commit_elsewhere_is_noticed_by_the_poll(postgresql_url: str) -> None:
    worker, client = (make_store(f"{postgresql_url}?listen=no", SystemClock()) for _ in range(2))
    await worker.open([])
    await client.open([])
    lease = await worker.register_worker("one", 10, {})
    now = SystemClock().now_ms()
    commits: list[tuple[JobKind, float]] = [
        ("mutation", now + 60_000),
        ("action", now + 60_000),
        ("mutation", now + 30_000),
    ]
    for topic, due in commits:
        before = worker.version(topic)
        await add_jobs(client, new_job(kind=topic, due=due))
        await eventually(partial(noticed, worker, topic, before))
    await worker.unregister_worker("one")
    lease.release()
    await worker.close()
    await client.close()


async def test_T2_a_commit_waits_for_the_disk_though_the_database_says_otherwise(postgresql_url: str) -> None:
    separator = "&" if "?" in postgresql_url else "?"
    store = make_store(f"{postgresql_url}{separator}options=-c%20synchronous_commit%3Doff", SystemClock())
    await store.open([])
    told = await store.transact(lambda tx: tx.sql("SELECT current_setting('synchronous_commit') AS told", ()))
    assert told == [{"told": "on"}]
    await store.close()


async def test_a_connection_that_comes_as_its_caller_is_cancelled_is_closed(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[AsyncConnection[Any]] = []
    connect = AsyncConnection.connect

    async def connect_and_cancel(*arguments: Any, **options: Any) -> AsyncConnection[Any]:
        made.append(await connect(*arguments, **options))
        waiting.cancel()
        return made[0]

    monkeypatch.setattr(AsyncConnection, "connect", connect_and_cancel)
    waiting = asyncio.ensure_future(Wire.connect(Address.parse(postgresql_url)))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert made[0].closed
