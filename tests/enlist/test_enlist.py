"""`duly.enlist`: a job commits with the user's rows or not at all, whichever driver they are written with."""

import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from django.db.backends.sqlite3.base import DatabaseWrapper
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import duly
from duly._app import Parts
from duly._ground.clock import SystemClock, milliseconds_of
from duly._store.postgresql import waking
from duly.errors import (
    ArgumentError,
    ConflictError,
    FunctionNotFoundError,
    InvalidTimeError,
    LimitError,
    NotSchedulableError,
    StoreError,
    StoreUnavailableError,
)
from tests import postgres
from tests.enlist.clients import CLIENTS, Client, done
from tests.enlist.conftest import Ask
from tests.support import eventually

JOBS = "SELECT name FROM duly.scheduled_functions ORDER BY id"
INVOICES = "SELECT item FROM invoices"
INSERT = "INSERT INTO invoices (item) VALUES ('tea')"
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
LISTENING = """
SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND state = 'idle' AND datname = current_database()
"""

ran: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()


async def has_run() -> bool:
    return bool(ran)


@duly.internal_mutation
async def bill(ctx: duly.MutationCtx, item: str) -> None:
    ran.append(item)


@duly.action
async def post(ctx: duly.ActionCtx, item: str) -> None:
    ran.append(item)


@duly.query
async def count(ctx: duly.QueryCtx) -> int:
    return 0


class NoError(Exception):
    pass


def app_on(url: str) -> duly.App:
    return duly.App(__name__, database=url)


@asynccontextmanager
async def deaf_but_for_notifications(app: duly.App, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A worker that has looked at everything, and looks again only if it is told to."""
    monkeypatch.setattr(waking, "_POLL_S", 3_600)
    async with app:

        async def listening() -> bool:
            return bool(ask(LISTENING))

        async def asleep() -> bool:
            executor = app._executor
            return executor is not None and all(loop._asleep is not None for loop in executor.loops)

        await eventually(listening)
        await eventually(asleep)
        yield


# --- all or nothing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [bill, post])
async def test_a_commit_makes_the_job_and_wakes_a_worker(
    client: Client, function: Any, postgresql_url: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_on(postgresql_url)
    async with deaf_but_for_notifications(app, ask, monkeypatch):
        async with client.transaction():
            await client.execute(INSERT)
            await done(duly.enlist(client.target, app).run_after(0, function, item="tea"))
            assert not ran
            assert ask(JOBS) == ask(INVOICES) == []
        await eventually(has_run)
    assert ran == ask(INVOICES) == ["tea"]


async def test_an_exception_in_between_leaves_neither(client: Client, postgresql_url: str, ask: Ask) -> None:
    async def sell() -> None:
        async with client.transaction():
            await client.execute(INSERT)
            await done(duly.enlist(client.target, app_on(postgresql_url)).run_after(0, bill, item="tea"))
            raise NoError

    with pytest.raises(NoError):
        await sell()
    assert ask(JOBS) == ask(INVOICES) == []


async def test_a_savepoint_that_is_rolled_back_takes_its_jobs_along(
    client: Client, postgresql_url: str, ask: Ask
) -> None:
    async def fail() -> None:
        async with client.savepoint():
            await client.execute(INSERT)
            await done(scheduler.run_after(0, bill, item="tea"))
            raise NoError

    async with client.transaction():
        scheduler = duly.enlist(client.target, app_on(postgresql_url))
        with pytest.raises(NoError):
            await fail()
        await done(scheduler.run_after(0, post, item="jam"))
    assert ask(JOBS) == ["test_enlist:post"]
    assert ask(INVOICES) == []


@pytest.mark.parametrize("name", CLIENTS)
async def test_outside_of_a_transaction_nothing_is_scheduled(
    name: str, postgresql_url: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    app = app_on(postgresql_url)
    async with app.client():
        job_id = await app.scheduler.run_after(timedelta(days=1), bill, item="tea")
    async with CLIENTS[name](postgresql_url, True) as client:
        scheduler = duly.enlist(client.target, app)
        with pytest.raises(StoreError, match=r"no transaction is open on this connection.*; open one first: .*"):
            await done(scheduler.run_after(0, post, item="tea"))
        with pytest.raises(StoreError, match="no transaction is open"):
            await done(scheduler.cancel(job_id))
    assert ask("SELECT state FROM duly.scheduled_functions") == ["pending"]


async def test_a_pipeline_is_no_transaction_and_may_be_in_one(postgresql_url: str, ask: Ask) -> None:
    app = app_on(postgresql_url)
    async with await psycopg.AsyncConnection.connect(postgresql_url, autocommit=True) as connection:
        scheduler = duly.enlist(connection, app)
        async with connection.pipeline(), connection.transaction():
            await connection.execute("SELECT 1")
            await scheduler.run_after(0, bill, item="tea")
        async with connection.pipeline():
            await connection.execute("SELECT 1")
            with pytest.raises(StoreError, match="no transaction is open"):
                await scheduler.run_after(0, bill, item="tea")
    with psycopg.connect(postgresql_url, autocommit=True) as blocking:
        blocking_scheduler = duly.enlist(blocking, app)
        with blocking.transaction(), blocking.pipeline():
            blocking.execute("SELECT 1")
            blocking_scheduler.run_after(0, bill, item="tea")
        with blocking.pipeline():
            blocking.execute("SELECT 1")
            with pytest.raises(StoreError, match="no transaction is open"):
                blocking_scheduler.run_after(0, bill, item="tea")
    assert len(ask(JOBS)) == 2


# --- what can't be scheduled ----------------------------------------------------------------------------------------


async def test_what_can_not_run_is_refused_and_the_transaction_goes_on(
    client: Client, postgresql_url: str, ask: Ask
) -> None:
    async with client.transaction():
        scheduler = duly.enlist(client.target, app_on(postgresql_url))
        for error, delay, function, arguments in (
            (FunctionNotFoundError, 0, "test_enlist:no_such_function", {}),
            (NotSchedulableError, 0, count, {}),
            (ArgumentError, 0, bill, {}),
            (ArgumentError, 0, bill, {"item": 7}),
            (InvalidTimeError, -1, bill, {"item": "tea"}),
            (InvalidTimeError, float("nan"), bill, {"item": "tea"}),
            (InvalidTimeError, timedelta(days=2_000), bill, {"item": "tea"}),
            (TypeError, "1", bill, {"item": "tea"}),
        ):
            with pytest.raises(error):
                await done(scheduler.run_after(delay, function, **arguments))
        with pytest.raises(InvalidTimeError):
            await done(scheduler.run_at(datetime(2030, 1, 1), bill, item="tea"))  # noqa: DTZ001
        await client.execute(INSERT)
    assert ask(JOBS) == []
    assert ask(INVOICES) == ["tea"]


async def test_a_thousand_jobs_and_not_one_more(psycopg_client: Client, postgresql_url: str, ask: Ask) -> None:
    app = app_on(postgresql_url)
    async with psycopg_client.transaction():
        scheduler = duly.enlist(psycopg_client.target, app)
        for _ in range(1_000):
            await scheduler.run_after(0, bill, item="tea")
        with pytest.raises(LimitError, match="functions scheduled in one mutation"):
            await scheduler.run_after(0, bill, item="jam")
    assert len(ask(JOBS)) == 1_000
    async with psycopg_client.transaction():
        await duly.enlist(psycopg_client.target, app).run_after(0, bill, item="jam")
    assert len(ask(JOBS)) == 1_001


async def test_arguments_of_four_mebibytes_and_not_one_byte_more(
    psycopg_client: Client, postgresql_url: str, ask: Ask
) -> None:
    room = 4 * 1024 * 1024 - len(json.dumps({"item": ""}, separators=(",", ":")))
    async with psycopg_client.transaction():
        scheduler = duly.enlist(psycopg_client.target, app_on(postgresql_url))
        with pytest.raises(LimitError):
            await scheduler.run_after(0, bill, item="x" * (room + 1))
        for _ in range(4):
            await scheduler.run_after(0, bill, item="x" * room)
        with pytest.raises(LimitError):
            await scheduler.run_after(0, bill, item="")
    assert len(ask(JOBS)) == 4


# --- what is written ------------------------------------------------------------------------------------------------


async def test_a_delay_counts_from_the_clock_of_the_database(client: Client, postgresql_url: str, ask: Ask) -> None:
    class Fast(SystemClock):
        def now_ms(self) -> float:
            return super().now_ms() + 3_600_000

    app = app_on(postgresql_url)
    app._parts = Parts(clock=Fast())
    async with client.transaction():
        await done(duly.enlist(client.target, app).run_after(60_000, bill, item="tea"))
    [seconds] = ask("SELECT scheduled_time / 1000 - extract(epoch FROM now()) FROM duly.scheduled_functions")
    assert 50 < seconds < 70


async def test_the_job_is_as_if_a_mutation_had_scheduled_it(client: Client, postgresql_url: str, ask: Ask) -> None:
    app = app_on(postgresql_url)
    at = datetime.now(UTC) + timedelta(days=1)
    async with client.transaction():
        await done(duly.enlist(client.target, app).run_at(at, bill, "50 % of 'tea' ☕"))
    async with app.client():
        await app.scheduler.run_at(at, bill, "50 % of 'tea' ☕")
    [mine, theirs] = ask("SELECT to_jsonb(j) - 'id' FROM duly.scheduled_functions AS j ORDER BY id")
    assert mine == theirs


async def test_a_time_in_the_past_is_due_now_and_keeps_what_was_asked_for(
    psycopg_client: Client, postgresql_url: str, ask: Ask
) -> None:
    async with psycopg_client.transaction():
        await duly.enlist(psycopg_client.target, app_on(postgresql_url)).run_at(YESTERDAY, bill, item="tea")
    assert ask("SELECT scheduled_time FROM duly.scheduled_functions") == [milliseconds_of(YESTERDAY)]
    [late] = ask("SELECT extract(epoch FROM now()) - due / 1000 FROM duly.scheduled_functions")
    assert -0.1 < late < 10


async def test_jobs_stay_in_the_order_of_scheduling(psycopg_client: Client, postgresql_url: str) -> None:
    """Also if each is scheduled by a scheduler of its own."""
    app = app_on(postgresql_url)
    async with psycopg_client.transaction():
        for number in range(30):
            await duly.enlist(psycopg_client.target, app).run_after(0, bill, item=str(number))

    async def all_ran() -> bool:
        return len(ran) == 30

    async with app:
        await eventually(all_ran)
    assert ran == [str(number) for number in range(30)]


async def test_equal_words_to_the_workers_are_one(psycopg_client: Client, postgresql_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgresql_url, autocommit=True) as listener:
        await listener.execute("LISTEN duly_duly")
        async with psycopg_client.transaction():
            scheduler = duly.enlist(psycopg_client.target, app_on(postgresql_url))
            for _ in range(20):
                await scheduler.run_after(0, bill, item="tea")
            await scheduler.run_after(0, post, item="tea")
        told = [notification.payload async for notification in listener.notifies(timeout=1, stop_after=3)]
    assert told == ["c m", "c a"]


def test_threads_share_an_app(postgresql_url: str, ask: Ask) -> None:
    app = app_on(postgresql_url)
    start = threading.Barrier(4)
    failed: list[Exception] = []

    def sell() -> None:
        try:
            with psycopg.connect(postgresql_url) as connection:
                start.wait()
                for _ in range(50):
                    duly.enlist(connection, app).run_after(0, bill, item="tea")
        except Exception as error:  # noqa: BLE001 (whatever it is)
            failed.append(error)

    threads = [threading.Thread(target=sell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(ask(JOBS)) == 200


# --- what is wrong with the place -----------------------------------------------------------------------------------


async def test_a_database_without_the_tables_says_what_to_do(client: Client, postgresql_url: str, ask: Ask) -> None:
    app = app_on(f"{postgresql_url}?schema=nowhere")

    async def sell() -> None:
        async with client.transaction():
            await client.execute(INSERT)
            await done(duly.enlist(client.target, app).run_after(0, bill, item="tea"))

    with pytest.raises(StoreError, match="the database of this connection lacks a table of duly's; run: duly migrate"):
        await sell()
    assert ask(INVOICES) == []


async def test_a_conflict_of_the_users_transaction_is_one_of_dulys(
    client: Client, postgresql_url: str, ask: Ask
) -> None:
    app = app_on(postgresql_url)
    async with app.client():
        job_id = await app.scheduler.run_after(timedelta(days=1), bill, item="tea")

    async def cancel_too_late() -> None:
        async with client.transaction():
            await client.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await client.execute("SELECT 1 FROM invoices")
            ask("UPDATE duly.scheduled_functions SET pending_reason = 'it waits'")
            await done(duly.enlist(client.target, app).cancel(job_id))

    with pytest.raises(ConflictError):
        await cancel_too_late()
    assert ask("SELECT state FROM duly.scheduled_functions") == ["pending"]


async def test_a_connection_that_is_gone_is_unavailable(client: Client, postgresql_url: str, ask: Ask) -> None:
    async def sell() -> None:
        async with client.transaction():
            await client.execute(INSERT)
            ask(postgres.END_OTHERS)
            await done(duly.enlist(client.target, app_on(postgresql_url)).run_after(0, bill, item="tea"))

    # What ends the transaction may find out before, or complain in its turn.
    with pytest.raises(Exception, match=r".") as failure:
        await sell()
    errors: list[BaseException | None] = [failure.value]
    while (last := errors[-1]) is not None:
        errors.append(last.__context__)
    assert any(isinstance(error, StoreUnavailableError) for error in errors), failure.value
    assert ask(INVOICES) == []


def test_an_app_on_sqlite_is_refused(file_database: str) -> None:
    connection: Any = psycopg.Connection.__new__(psycopg.Connection)
    with pytest.raises(StoreError, match=r"is not on PostgreSQL.*DULY_DATABASE_URL"):
        duly.enlist(connection, app_on(file_database))


def test_what_is_no_connection_to_postgresql_is_refused(postgresql_url: str) -> None:
    app = app_on(postgresql_url)
    engine = create_engine("sqlite://")
    with sqlite3.connect(":memory:") as connection, pytest.raises(TypeError, match=r"SQLite; there, .*ctx\.sql"):
        duly.enlist(connection, app)
    connection.close()
    for wrong in (None, "postgresql://", engine, app):
        target: Any = wrong
        with pytest.raises(TypeError, match=r"takes a connection to PostgreSQL: one of psycopg .* not "):
            duly.enlist(target, app)
    with Session(engine) as session, pytest.raises(TypeError, match="is connected to sqlite, not to PostgreSQL"):
        duly.enlist(session, app).run_after(0, bill, item="tea")
    engine.dispose()
    django: Any = DatabaseWrapper({"NAME": ":memory:"})
    with pytest.raises(TypeError, match="is connected to sqlite, not to PostgreSQL"):
        duly.enlist(django, app)
    no_app: Any = "shop:app"
    with pytest.raises(TypeError, match=r"is a duly\.App, not 'shop:app'"):
        duly.enlist(django, no_app)


async def test_a_pool_that_has_the_connection_back_is_an_error_of_dulys(postgresql_url: str) -> None:
    pool: Any
    async with asyncpg.create_pool(postgresql_url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            scheduler = duly.enlist(connection, app_on(postgresql_url))
        with pytest.raises(StoreError, match="released back to the pool"):
            await scheduler.run_after(0, bill, item="tea")
