"""Commits on PostgreSQL whose answer got lost: what became of them is found out, or said to be in doubt (rule T2)."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import psycopg
import pytest

from duly._ground.clock import SystemClock
from duly._store.open import make_store
from duly._store.port import Store, Transaction
from duly._store.postgresql.wire import Answer, Statement, Wire
from duly.errors import StoreUnavailableError
from tests import postgres
from tests.proxy import Proxy

ID = "0" * 32


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """One of its own, to be killed."""
    with postgres.Server.start(durable=True) as started:
        yield started


class Writer:
    """Inserts a document, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, tx: Transaction) -> str:
        self.runs += 1
        await tx.insert_document(ID, "{}")
        return "done"


async def is_there(store: Store) -> bool:
    return await store.read(lambda tx: tx.get_document(ID)) is not None


def at_the_commit(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Calls something before, and something after the first commit is sent."""
    run = Wire.run
    commits = iter([True])

    async def run_with_trouble(wire: Wire, statements: Sequence[Statement]) -> list[Answer]:
        if statements[0].text != "COMMIT" or not next(commits, False):
            return await run(wire, statements)
        await asyncio.to_thread(before)
        answers = await run(wire, statements)
        await asyncio.to_thread(after)
        # The connection is gone by now, and with it the answer.
        await run(wire, [Statement("SELECT 1")])
        return answers

    monkeypatch.setattr(Wire, "run", run_with_trouble)


def nothing() -> None: ...


async def test_T2_a_commit_whose_answer_is_lost_is_found_out_and_not_made_again(postgresql_url: str) -> None:
    with Proxy(postgresql_url) as proxy:
        store = make_store(proxy.url(), SystemClock())
        await store.open([])
        writer = Writer()
        fault = proxy.lose_answer_to(b"COMMIT")
        assert await store.transact(writer) == "done"
        assert fault.happened.is_set()
        assert writer.runs == 1
        assert await is_there(store)
        await store.close()


async def test_T2_a_number_that_a_crash_has_given_to_another_transaction_is_not_taken_for_ours(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.create_database("crash")
    postgres.prepare(url)
    store = make_store(url, SystemClock())
    await store.open([])

    def crash() -> None:
        server.restart_immediately()
        with psycopg.connect(url, autocommit=True) as other:
            for _ in range(5):
                other.execute("SELECT pg_current_xact_id()")

    at_the_commit(monkeypatch, crash, nothing)
    with pytest.raises(StoreUnavailableError, match="can't be told whether it took effect"):
        await store.transact(Writer())
    assert not await is_there(store)
    await store.close()


async def test_T2_what_may_have_been_committed_before_a_crash_is_not_run_again(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.create_database("crash")
    postgres.prepare(url)
    store = make_store(url, SystemClock())
    await store.open([])
    at_the_commit(monkeypatch, nothing, server.restart_immediately)
    writer = Writer()
    with pytest.raises(StoreUnavailableError, match="can't be told whether it took effect"):
        await store.transact(writer)
    assert writer.runs == 1
    assert await is_there(store)
    await store.close()
