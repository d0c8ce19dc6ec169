"""`tx.sql` on PostgreSQL: what is refused there, how values get in and out, and who loses against whom."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from duly._model.limits import READS_MAX
from duly._store.port import Store, Transaction
from duly.errors import ConflictError, SQLError
from tests.store.conftest import Stores, prepared
from tests.store.engines import ENGINES, Engine
from tests.store.rows import put
from tests.support import LOADED_S


@pytest.fixture(params=[engine for engine in ENGINES if engine.name == "postgresql"], ids=lambda one: one.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    return prepared(request)


@pytest.fixture
async def store(engine: Engine, stores: Stores) -> Store:
    opened = await stores.open(engine)
    await one(opened, "CREATE TABLE box (n BIGINT UNIQUE, text TEXT)")
    return opened


async def one(store: Store, statement: str, *parameters: Any) -> list[dict[str, Any]]:
    return await store.transact(lambda tx: tx.sql(statement, parameters))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO duly.documents VALUES ('a', '{}')",
        'insert into "duly" . "documents" VALUES (1)',
        "INSERT INTO/**/DULY.documents VALUES (1)",
        "INSERT INTO postgres.duly.documents VALUES (1)",
        "WITH x AS (INSERT INTO duly.documents VALUES ('a', '{}') RETURNING id) SELECT * FROM x",
        "WITH x AS (SELECT 1) INSERT INTO duly.documents SELECT * FROM mine",
        "EXPLAIN ANALYZE DELETE FROM duly.documents",
        "UPDATE duly.documents SET body = ''",
        "UPDATE ONLY duly.documents SET body = ''",
        "DELETE FROM ONLY (duly.documents)",
        "DELETE FROM duly.documents USING box",
        "MERGE INTO duly.documents AS d USING box ON d.id = box.text WHEN MATCHED THEN DELETE",
        "TRUNCATE duly.documents",
        "TRUNCATE TABLE box, duly.documents",
        "SELECT id FROM duly.documents FOR UPDATE",
        "SELECT id FROM duly.documents FOR NO KEY UPDATE SKIP LOCKED",
        "SELECT d.id FROM box, duly.documents AS d FOR SHARE OF d",
        "SELECT * FROM (SELECT id FROM duly.documents FOR KEY SHARE) AS x",
        "SELECT 1 AS a INTO duly.mine",
        "LOCK TABLE duly.documents",
        "ALTER TABLE duly.documents ADD COLUMN mine TEXT",
        "ALTER TABLE box SET SCHEMA duly",
        "ALTER SCHEMA duly RENAME TO other",
        "DROP TABLE IF EXISTS box, duly.documents",
        "DROP SCHEMA duly CASCADE",
        'DROP SCHEMA IF EXISTS mine, "duly" CASCADE',
        "DROP OWNED BY CURRENT_USER",
        "CREATE TABLE duly.mine (n INTEGER)",
        "CREATE TABLE IF NOT EXISTS duly.mine AS SELECT 1",
        "CREATE TABLE mine (id TEXT REFERENCES duly.documents)",
        "CREATE TABLE mine (id TEXT REFERENCES duly.documents (id) ON DELETE CASCADE)",
        "CREATE TABLE mine () INHERITS (duly.documents)",
        "CREATE TABLE mine AS WITH x AS (DELETE FROM duly.documents RETURNING id) SELECT * FROM x",
        "CREATE INDEX mine ON duly.documents (body)",
        "CREATE VIEW duly.mine AS SELECT 1",
        "CREATE TRIGGER mine AFTER INSERT ON duly.documents EXECUTE FUNCTION mine()",
        "CREATE RULE mine AS ON INSERT TO duly.documents DO INSTEAD NOTHING",
        "CREATE FUNCTION mine() RETURNS void LANGUAGE sql AS $$ DELETE FROM duly.documents $$",
        "CREATE OR REPLACE FUNCTION mine() RETURNS void LANGUAGE sql AS 'DELETE FROM duly.documents'",
        "DO $$ BEGIN DELETE FROM duly.documents; END $$",
        "DO LANGUAGE plpgsql 'BEGIN EXECUTE format(''DELETE FROM %I.documents'', ''duly''); END'",
        "COMMENT ON TABLE duly.documents IS 'mine'",
        "GRANT ALL ON ALL TABLES IN SCHEMA duly TO PUBLIC",
        "VALUES (1) UNION SELECT 1 FROM duly.documents FOR UPDATE",
    ],
)
async def test_whatever_writes_dulys_schema_is_refused(store: Store, statement: str) -> None:
    async def body(tx: Transaction) -> None:
        for _ in range(2):
            with pytest.raises(SQLError, match="in the schema duly are duly's own"):
                await tx.sql(statement, [])
        await tx.sql("INSERT INTO box VALUES (1)", [])

    await store.transact(body)
    assert await one(store, "SELECT n FROM box") == [{"n": 1}]


async def test_reading_dulys_schema_is_allowed_whatever_else_is_written(store: Store) -> None:
    id = await put(store, '{"n":1}')

    async def body(tx: Transaction) -> None:
        for statement in [
            "INSERT INTO box (text) SELECT id FROM duly.documents",
            "WITH x AS (SELECT id FROM duly.documents) INSERT INTO box (text) SELECT id FROM x",
            "UPDATE box SET n = length(d.id) FROM duly.documents AS d WHERE d.id = box.text AND n = 0",
            "DELETE FROM box USING duly.documents AS d WHERE d.id = box.text AND n = 0",
            "MERGE INTO box USING duly.documents AS d ON false WHEN NOT MATCHED THEN INSERT VALUES (NULL, d.id)",
            "CREATE TABLE copies AS SELECT * FROM duly.documents",
            "CREATE TABLE IF NOT EXISTS more AS (TABLE duly.documents)",
            "CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM duly.documents",
            "CREATE TABLE unduly (duly TEXT, update TEXT DEFAULT 'INTO duly.documents')",
            "INSERT INTO unduly (duly) VALUES ('DELETE FROM duly.documents') ON CONFLICT DO NOTHING",
            "SELECT duly, update FROM unduly AS u WHERE duly <> 'duly.' FOR UPDATE",
            "TABLE duly.documents",
            "SELECT pg_advisory_xact_lock(1), 'pg_advisory_lock(1)'",
            "EXPLAIN SELECT * FROM duly.documents",
        ]:
            await tx.sql(statement, [])

    await store.transact(body)
    assert await one(store, "SELECT text FROM box") == [{"text": id}] * 3


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("COPY box TO STDOUT", "about the connection"),
        ("COPY box FROM '/etc/passwd'", "about the connection"),
        ("LISTEN mine", "about the connection"),
        ("SET search_path = duly", "about the connection"),
        ("SET CONSTRAINTS ALL DEFERRED", "about the connection"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "about the connection"),
        ("SELECT set_config('search_path', 'duly', false)", "all mutations share it"),
        ("SELECT pg_advisory_lock(1)", "pg_advisory_xact_lock instead"),
        ("SELECT pg_try_advisory_lock_shared (1, 2)", "pg_advisory_xact_lock instead"),
        ("CREATE TEMP TABLE mine (n INTEGER)", "would outlive the mutation"),
        ("create local temporary table mine (n INTEGER)", "would outlive the mutation"),
        ("CREATE OR REPLACE TEMP VIEW mine AS SELECT 1", "would outlive the mutation"),
        ("SELECT 1 AS n INTO TEMPORARY mine", "would outlive the mutation"),
        ("INSERT INTO box VALUES (1); DELETE FROM box", "several statements"),
        ("CREATE INDEX CONCURRENTLY mine ON box (n)", "cannot run inside a transaction block"),
        ("SELECT 1/0", "division by zero"),
        ("SELECT n FROM box WHERE n = ?", r"; parameters are written \$1, \$2 and so on$"),
        ("INSERT INTO box VALUES (?, ?)", r"; parameters are written \$1, \$2 and so on$"),
        ("INSERT INTO box VALUES (%s, %s)", r"; parameters are written \$1, \$2 and so on$"),
        ("SELECT n FROM box WHERE n = :n", r"; parameters are written \$1, \$2 and so on$"),
        ("SELEC n::text FROM box", r"syntax error at or near \"SELEC\"$"),
        ("SELECT n FROM box WHERE $1 IS NULL", "say what type"),
        ("SELECT 1 \0; DELETE FROM box", "NUL"),
        ("SELECT '\ud800'", "surrogate"),
        ("SELECT 'infinity'::timestamptz", "timestamp too large"),
    ],
)
async def test_what_is_refused_is_undone_and_the_transaction_goes_on(
    store: Store, statement: str, message: str
) -> None:
    parameters = [None] if "$1" in statement else []

    async def body(tx: Transaction) -> None:
        await tx.sql("INSERT INTO box VALUES (7)", [])
        for _ in range(2):
            with pytest.raises(SQLError, match=message):
                await tx.sql(statement, parameters)
        await tx.sql("INSERT INTO box VALUES (8)", [])

    await store.transact(body)
    assert await one(store, "SELECT n FROM box ORDER BY n") == [{"n": 7}, {"n": 8}]


# Values.


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("smallint", 7, 7),
        ("integer", -(2**31), -(2**31)),
        ("bigint", 2**31, 2**31),
        ("bigint", 2**63 - 1, 2**63 - 1),
        ("numeric", 2**63 - 1, Decimal(2**63 - 1)),
        ("numeric(20, 2)", "123456789012345678.25", Decimal("123456789012345678.25")),
        ("numeric", 0.1, Decimal("0.1")),
        ("double precision", 7, 7.0),
        ("double precision", 0.1, 0.1),
        ("real", 0.5, 0.5),
        ("boolean", False, False),
        ("text", "a", "a"),
        ("text", 7, "7"),
        ("varchar(10)", "a", "a"),
        ("bytea", b"\0\xff", b"\0\xff"),
        ("uuid", "00000000-0000-0000-0000-000000000007", UUID(int=7)),
        ("timestamptz", "2026-05-04T03:02:01.000000Z", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)),
        ("date", "2026-05-04", date(2026, 5, 4)),
        ("jsonb", '{"a": [1, 2]}', {"a": [1, 2]}),
        ("integer[]", "{1,2}", [1, 2]),
        *[(kind, None, None) for kind in ("integer", "numeric", "boolean", "text", "bytea", "jsonb", "uuid")],
    ],
)
async def test_a_value_in_a_column_of_any_type(store: Store, kind: str, value: Any, stored: Any) -> None:
    async def body(tx: Transaction) -> Any:
        await tx.sql(f"CREATE TABLE typed (content {kind})", [])
        await tx.sql("INSERT INTO typed VALUES ($1)", [value])
        return await tx.sql("SELECT content FROM typed WHERE content::text = $1 OR $2", [str(value), True])

    ((found,),) = [row.values() for row in await store.transact(body)]
    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.parametrize(
    ("statement", "parameters", "value"),
    [
        ("SELECT n FROM box LIMIT $1", [0], None),
        ("SELECT $1 AS v", [7], 7),
        ("SELECT $1 AS v", ["7"], "7"),
        ("SELECT $1::text AS v", [7], "7"),
        ("SELECT $1::text AS v", [None], None),
        ("SELECT $1 * $2 AS v", [30_000, 30_000], 900_000_000),
        ("SELECT $1 + $2 AS v", [2**31, 1], 2**31 + 1),
        ("SELECT $1 + 0.5 AS v", [1], Decimal("1.5")),
        ("SELECT substr($1, $2, $3) AS v", ["abc", 2, 1], "b"),
        ("SELECT date '2026-01-31' + $1 AS v", [1], date(2026, 2, 1)),
        ("SELECT ('[5, 6]'::jsonb -> $1)::text AS v", [1], "6"),
        ("SELECT 2 = ANY ($1::integer[]) AS v", ["{1,2}"], True),
        ("SELECT timestamptz '2026-01-01Z' < $1 AS v", ["2026-05-04T03:02:01.000000Z"], True),
        ("SELECT count(*) AS v FROM box WHERE text LIKE $1 AND n = $2", ["%", 2**62], 0),
    ],
)
async def test_parameters_stand_where_literals_would(
    store: Store, statement: str, parameters: list[Any], value: Any
) -> None:
    rows = await one(store, statement, *parameters)
    assert [row["v"] for row in rows] == ([] if value is None and "LIMIT" in statement else [value])


async def test_text_with_a_nul_is_refused_before_it_is_sent(store: Store) -> None:
    with pytest.raises(SQLError, match="NUL"):
        await one(store, "INSERT INTO box VALUES (1, $1)", "a\0b")


async def test_a_table_that_is_too_large_is_not_read_to_its_end(store: Store) -> None:
    async def body(tx: Transaction) -> int:
        await tx.sql("INSERT INTO box VALUES (1)", [])
        rows = await tx.sql("SELECT generate_series(1, 100000000) AS i, repeat('x', 1000) AS text", [])
        await tx.sql("INSERT INTO box VALUES (2)", [])
        return len(rows)

    assert await store.transact(body) == READS_MAX + 1
    assert await one(store, "SELECT n FROM box ORDER BY n") == [{"n": 1}, {"n": 2}]


# Constraints, conflicts and time.


async def test_constraints_hold_at_once_for_each_transaction_of_a_group(store: Store) -> None:
    """The first takes its savepoint back, and with it that they do."""
    await one(store, "ALTER TABLE box ADD CONSTRAINT late UNIQUE (text) DEFERRABLE INITIALLY DEFERRED")

    async def fail(tx: Transaction) -> None:
        await tx.sql("INSERT INTO box (text) VALUES ('a')", [])
        raise ZeroDivisionError

    async def twice(tx: Transaction) -> None:
        await tx.sql("INSERT INTO box (text) VALUES ('b')", [])
        with pytest.raises(SQLError, match="late"):
            await tx.sql("INSERT INTO box (text) VALUES ('b')", [])

    results = await asyncio.gather(store.transact(fail), store.transact(twice), return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError, type(None)]
    assert await one(store, "SELECT text FROM box") == [{"text": "b"}]


async def test_a_statement_that_loses_is_run_again_and_no_mistake(engine: Engine, store: Store, stores: Stores) -> None:
    others = [store, *[await stores.open(engine) for _ in range(2)]]
    await one(store, "INSERT INTO box SELECT i, '0' FROM generate_series(1, 4) AS i")
    caught: list[BaseException] = []

    async def add(store: Store, order: list[int]) -> None:
        async def body(tx: Transaction) -> None:
            for n in order:
                try:
                    await tx.sql("UPDATE box SET text = text::integer + 1 WHERE n = $1", [n])
                except BaseException as error:
                    caught.append(error)
                    raise
                await asyncio.sleep(0.002)

        while True:
            try:
                return await store.transact(body)
            except ConflictError:
                await asyncio.sleep(0.01)

    orders = [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]]
    await asyncio.gather(*[add(one, order) for one, order in zip(others * 4, orders * 4, strict=True)])
    assert await one(store, "SELECT DISTINCT text FROM box") == [{"text": "12"}]
    assert caught
    assert {type(error) for error in caught} == {ConflictError}


async def test_a_table_that_two_make_at_once_is_there_once(engine: Engine, store: Store, stores: Stores) -> None:
    other = await stores.open(engine)

    async def make(tx: Transaction) -> None:
        await tx.sql("CREATE TABLE IF NOT EXISTS fresh (n BIGINT PRIMARY KEY)", [])
        await asyncio.sleep(0.05)
        await tx.sql("INSERT INTO fresh SELECT count(*) FROM fresh", [])

    await asyncio.gather(store.transact(make), other.transact(make))
    assert await one(store, "SELECT n FROM fresh ORDER BY n") == [{"n": 0}, {"n": 1}]


async def test_who_does_not_want_to_wait_for_a_lock_may_go_on(
    engine: Engine, store: Store, postgresql_database: str
) -> None:
    await one(store, "INSERT INTO box VALUES (1)")

    async def body(tx: Transaction) -> str | None:
        with pytest.raises(SQLError) as caught:
            await tx.sql("SELECT n FROM box FOR UPDATE NOWAIT", [])
        await tx.sql("INSERT INTO box VALUES (2)", [])
        return caught.value.sqlstate

    with psycopg.connect(postgresql_database) as connection:
        connection.execute("SELECT * FROM box FOR UPDATE")
        assert await store.transact(body) == "55P03"
    assert len(await one(store, "SELECT n FROM box")) == 2


def sleep_on_the_server(tx: Transaction) -> Any:
    return tx.sql("SELECT pg_sleep(20)", [])


def run_a_loop(tx: Transaction) -> Any:
    return tx.sql("SELECT count(*) FROM generate_series(1, 1000000000000)", [])


def wait_for_a_lock(tx: Transaction) -> Any:
    return tx.sql("UPDATE box SET text = 'b' WHERE n = 1", [])


@pytest.mark.parametrize("long", [sleep_on_the_server, run_a_loop, wait_for_a_lock])
@pytest.mark.parametrize("after", [0, 0.2])
async def test_a_call_that_is_given_up_ends_on_the_server_and_harms_nobody(
    store: Store, postgresql_database: str, long: Callable[[Transaction], Any], after: float
) -> None:
    await one(store, "INSERT INTO box VALUES (1, 'a')")

    async def impatient(tx: Transaction) -> str:
        await tx.sql("INSERT INTO box VALUES (2)", [])
        call = asyncio.ensure_future(long(tx))
        await asyncio.sleep(after)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await tx.sql("INSERT INTO box VALUES (3)", [])
        return "done"

    async def mate(tx: Transaction) -> str:
        await tx.sql("INSERT INTO box VALUES (4)", [])
        return "too"

    with psycopg.connect(postgresql_database) as connection:
        connection.execute("SELECT * FROM box WHERE n = 1 FOR UPDATE")
        began = time.monotonic()
        assert tuple(await asyncio.gather(store.transact(impatient), store.transact(mate))) == ("done", "too")
        assert time.monotonic() - began < LOADED_S
    assert [row["n"] for row in await one(store, "SELECT n FROM box ORDER BY n")] == [1, 2, 3, 4]
