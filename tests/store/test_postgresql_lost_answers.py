"""Commits on PostgreSQL whose answer got lost: what became of them is found out, or said to be in doubt (rule T2)."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import duly
from duly._ground.clock import SystemClock
from duly._store.open import make_store
from duly._store.port import Store, Transaction
from duly._store.postgresql import store as postgresql_store
from duly._store.postgresql.wire import Answer, Statement, Wire
from duly._work import executor
from duly.errors import StoreUnavailableError
from tests import postgres
from tests.proxy import Proxy
from tests.support import DEADLINE_S, eventually

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


def at_the_commit(
    monkeypatch: pytest.MonkeyPatch, *, before: Callable[[], None], after: Callable[[], None], since: str
) -> None:
    """Calls something before and after the first commit that follows a statement; its answer never arrives."""
    run = Wire.run_here
    follows: set[Wire] = set()
    happened = asyncio.Event()

    async def run_with_trouble(
        wire: Wire, statements: Sequence[Statement], afterwards: Statement | None = None
    ) -> list[Answer]:
        if since in [statement.name for statement in statements]:
            follows.add(wire)
        if statements[-1].text != "COMMIT" or wire not in follows or happened.is_set():
            return await run(wire, statements, afterwards)
        happened.set()
        # What is sent together reaches the server one after the other all the same.
        await run(wire, statements[:-1])
        await asyncio.to_thread(before)
        await run(wire, statements[-1:])
        await asyncio.to_thread(after)
        wire.break_off()
        await run(wire, [Statement("SELECT 1")])
        raise AssertionError("it has an answer")

    monkeypatch.setattr(Wire, "run_here", run_with_trouble)


def nothing() -> None: ...


async def opened(url: str) -> Store:
    store = make_store(url, SystemClock())
    await store.open([])
    return store


async def test_T2_a_commit_whose_answer_is_lost_is_found_out_and_not_made_again(postgresql_url: str) -> None:
    with Proxy(postgresql_url) as proxy:
        store = await opened(proxy.url())
        writer = Writer()
        fault = proxy.lose_answer_to(b"COMMIT")
        assert await store.transact(writer) == "done"
        assert fault.happened.is_set()
        assert writer.runs == 1
        assert await is_there(store)
        await store.close()


async def test_T2_a_server_that_dies_before_a_commit_does_not_take_anothers_for_it(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.create_database("crash")
    postgres.prepare(url)
    store = await opened(url)

    def crash() -> None:
        server.restart_immediately()
        with psycopg.connect(url, autocommit=True) as other:
            for _ in range(5):  # one of these has the number that ours had
                other.execute("SELECT pg_current_xact_id()")

    at_the_commit(monkeypatch, before=crash, after=nothing, since="commit_sign")
    writer = Writer()
    assert await store.transact(writer) == "done"
    assert writer.runs == 2
    assert await is_there(store)
    await store.close()


async def test_T2_what_was_committed_before_a_crash_is_not_run_again(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.create_database("crash")
    postgres.prepare(url)
    store = await opened(url)
    at_the_commit(monkeypatch, before=nothing, after=server.restart_immediately, since="commit_sign")
    writer = Writer()
    assert await store.transact(writer) == "done"
    assert writer.runs == 1
    assert await is_there(store)
    await store.close()


async def test_T2_where_nobody_can_tell_it_is_said_and_not_run_again(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_store, "_RESOLVE_S", 0.2)
    with Proxy(postgresql_url) as proxy:
        store = await opened(proxy.url())
        at_the_commit(monkeypatch, before=nothing, after=proxy.cut, since="commit_sign")
        writer = Writer()
        with pytest.raises(StoreUnavailableError, match="can't be told whether it took effect"):
            await store.transact(writer)
        proxy.heal()
        assert writer.runs == 1
        assert await is_there(store)
        await store.close()


async def test_T2_who_asks_so_late_that_nobody_knows_any_more_does_not_run_it_again(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the middle of a commit, for longer than others keep what it left."""
    store = make_store(postgresql_url, SystemClock())
    await store.open([])
    now = store.clock.now_ms

    def ten_minutes_pass() -> None:
        monkeypatch.setattr(store.clock, "now_ms", lambda: now() + 11 * 60_000)
        with psycopg.connect(postgresql_url, autocommit=True) as other:
            other.execute("DELETE FROM duly.commits")  # as each worker does

    at_the_commit(monkeypatch, before=nothing, after=ten_minutes_pass, since="commit_sign")
    writer = Writer()
    with pytest.raises(StoreUnavailableError, match="can't be told whether it took effect"):
        await store.transact(writer)
    assert writer.runs == 1
    assert await is_there(store)
    await store.close()


async def test_A1_what_became_of_a_claim_is_waited_for(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may become this worker's own at any time, and nobody else's."""
    monkeypatch.setattr(postgresql_store, "_RESOLVE_S", 0.1)
    with Proxy(postgresql_url) as proxy:
        store = await opened(proxy.url())
        at_the_commit(monkeypatch, before=nothing, after=proxy.cut, since="commit_sign")
        writer = Writer()
        claim = asyncio.ensure_future(store.transact(writer, claims=True))
        await asyncio.wait({claim}, timeout=1)
        assert not claim.done()
        proxy.heal()
        assert await claim == "done"
        assert writer.runs == 1
        await store.close()


async def test_A4_a_store_that_closes_waits_for_no_claim(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(postgresql_url) as proxy:
        store = await opened(proxy.url())
        at_the_commit(monkeypatch, before=nothing, after=proxy.cut, since="commit_sign")
        claim = asyncio.ensure_future(store.transact(Writer(), claims=True))
        await asyncio.wait({claim}, timeout=0.5)
        await asyncio.wait_for(store.close(), DEADLINE_S)
        with pytest.raises(StoreUnavailableError, match="can't be told whether it took effect"):
            await claim


calls: list[str] = []


@duly.internal_action
async def note(ctx: duly.ActionCtx) -> None:
    calls.append("note")


@duly.query
async def state_of(ctx: duly.QueryCtx, job_id: str) -> str:
    job: Any = await ctx.db.system.get(job_id)
    kind: str = job["state"]["kind"]
    return kind


async def test_A1_an_action_whose_claim_lost_its_answer_runs_once(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.clear()
    at_the_commit(monkeypatch, before=nothing, after=nothing, since="job_update")
    app = duly.App(__name__, database=postgresql_url)
    async with app:
        job_id = await app.scheduler.run_after(0, note)

        async def succeeded() -> bool:
            return await app.query(state_of, job_id) == "success"

        await eventually(succeeded)
    assert calls == ["note"]


async def test_A4_a_stop_says_that_it_waits_for_what_became_of_a_claim(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executor, "_SILENCE_S", 0.1)
    loop, is_cut = asyncio.get_running_loop(), asyncio.Event()

    async def said() -> bool:
        return "the stop waits for the last look" in caplog.text

    with Proxy(postgresql_url) as proxy:

        def cut() -> None:
            proxy.cut()
            loop.call_soon_threadsafe(is_cut.set)

        at_the_commit(monkeypatch, before=nothing, after=cut, since="job_update")
        async with duly.App(__name__, database=proxy.url()) as app:
            job_id = await app.scheduler.run_after(0, note)
            await asyncio.wait_for(is_cut.wait(), DEADLINE_S)
            stopping = asyncio.ensure_future(app._stop(timedelta(0)))
            assert await eventually(said)
            assert not stopping.done()
            proxy.heal()
            await stopping
            # It was claimed, and nobody was to begin it any more.
            assert await app.query(state_of, job_id) in ("failed", "success")


async def test_A4_a_stop_does_not_wait_for_ever_for_what_became_of_a_claim(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not where nobody sends a second signal: an app in another program, whose database went away."""
    monkeypatch.setattr(executor, "_LOOKS_S", 0.5)
    calls.clear()
    loop, is_cut = asyncio.get_running_loop(), asyncio.Event()
    with Proxy(postgresql_url) as proxy:

        def cut() -> None:
            proxy.cut()
            loop.call_soon_threadsafe(is_cut.set)

        at_the_commit(monkeypatch, before=nothing, after=cut, since="job_update")
        async with duly.App(__name__, database=proxy.url(), lease=timedelta(seconds=2)) as app:
            job_id = await app.scheduler.run_after(0, note)
            await asyncio.wait_for(is_cut.wait(), DEADLINE_S)
        assert "the last look for due work is given up" in caplog.text
        assert "the worker could not sign off" in caplog.text
    async with duly.App(__name__, database=postgresql_url) as other:

        async def settled() -> bool:
            return await other.query(state_of, job_id) == "failed"

        await eventually(settled)
    assert not calls


async def test_A4_a_worker_that_can_not_give_back_what_it_reserved_stops_all_the_same(
    postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = duly.App(__name__, database=f"{postgresql_url}?options=-c%20lock_timeout%3D200")
    async with await psycopg.AsyncConnection.connect(postgresql_url) as other, app:
        await app.scheduler.run_after(60_000, note)
        reserve = "UPDATE duly.scheduled_functions SET due = 0, reserved_by = $1, reserved_until = 1e15"
        assert app._executor is not None
        await psycopg.AsyncRawCursor(other).execute(reserve, (app._executor.worker,))
        await other.commit()
        await other.execute("SELECT 1 FROM duly.scheduled_functions FOR UPDATE")
    assert "the worker could not sign off" in caplog.text


async def test_T2_a_commit_that_takes_longer_than_a_lock_timeout_is_waited_for(postgresql_url: str) -> None:
    """Whoever asks what became of it waits for it, and may have been told not to wait for long."""
    with psycopg.connect(postgresql_url, autocommit=True) as gate, Proxy(postgresql_url) as proxy:
        gate.execute("SELECT pg_advisory_lock(1)")
        gate.execute(COMMITS_LATE)
        try:
            store = await opened(f"{proxy.url()}&options=-clock_timeout%3D50ms")
            writer = Writer()
            fault = proxy.cut_after(b"COMMIT")
            outcome = asyncio.ensure_future(store.transact(writer))
            assert await asyncio.to_thread(fault.happened.wait, DEADLINE_S)
            done, _ = await asyncio.wait({outcome}, timeout=0.5)
            assert not done
            gate.execute("SELECT pg_advisory_unlock(1)")
            assert await outcome == "done"
            assert writer.runs == 1
            assert await is_there(store)
            await store.close()
        finally:
            gate.execute("DROP FUNCTION public.waits CASCADE")


COMMITS_LATE = """
CREATE FUNCTION public.waits() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON duly.documents DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION public.waits();
"""
