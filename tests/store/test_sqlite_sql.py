"""What only SQLite has to refuse, because its transaction is everybody's in the group, or only its authorizer sees."""

from pathlib import Path

import pytest

from duly._ground.clock import SystemClock
from duly._store.port import Store, Transaction
from duly._store.sqlite.store import SQLiteStore
from duly.errors import SQLError
from tests.store.conftest import Stores
from tests.store.engines import ENGINES


@pytest.fixture(params=[engine for engine in ENGINES if engine.name.startswith("sqlite")], ids=lambda one: one.name)
async def store(request: pytest.FixtureRequest, stores: Stores) -> Store:
    return await stores.open(request.param)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("INSERT OR ROLLBACK INTO box VALUES (1)", "undoes other mutations, too"),
        ("CREATE TABLE other (n INTEGER UNIQUE ON CONFLICT ROLLBACK)", "undoes other mutations, too"),
        ("CREATE TEMP TABLE other (n INTEGER)", "would outlive the mutation"),
        ("CREATE TEMPORARY VIEW other AS SELECT 1", "would outlive the mutation"),
        ("EXPLAIN COMMIT", "the transaction and the connection are duly's"),
        ("UPDATE OR IGNORE _documents SET body = ''", "are duly's own"),
        ("CREATE INDEX mine ON _documents (body)", "are duly's own"),
        ("CREATE TRIGGER mine AFTER INSERT ON _documents BEGIN DELETE FROM box; END", "are duly's own"),
        ("CREATE VIRTUAL TABLE _mine USING fts5(a)", "are duly's own"),
        ("DELETE FROM [_documents]", "are duly's own"),
        ("SELECT ?", r"parameters are written \$1, \$2 and so on"),
        ("SELECT :name", r"parameters are written \$1, \$2 and so on"),
    ],
)
async def test_a_statement_that_would_reach_further_is_refused(store: Store, statement: str, message: str) -> None:
    async def body(tx: Transaction) -> None:
        await tx.sql("CREATE TABLE box (n INTEGER UNIQUE)", [])
        for _ in range(2):
            with pytest.raises(SQLError, match=message):
                await tx.sql(statement, [])
        await tx.sql("INSERT INTO box VALUES ($1)", [1])

    await store.transact(body)
    assert await store.transact(lambda tx: tx.sql("SELECT n FROM box", [])) == [{"n": 1}]


async def test_a_trigger_does_not_reach_dulys_tables_for_a_statement_that_ran_before_it(store: Store) -> None:
    insert = "INSERT INTO box VALUES ($1)"

    async def body(tx: Transaction) -> None:
        await tx.sql("CREATE TABLE box (n INTEGER)", [])
        await tx.sql("CREATE TABLE log (n INTEGER)", [])
        await tx.sql(insert, [1])
        await tx.sql("CREATE TRIGGER good AFTER INSERT ON box BEGIN INSERT INTO log VALUES (new.n); END", [])
        await tx.sql(insert, [2])
        for number in (3, 4):
            await tx.sql("CREATE TRIGGER bad AFTER INSERT ON box BEGIN DELETE FROM [_documents]; END", [])
            with pytest.raises(SQLError, match="are duly's own"):
                await tx.sql(insert, [0])
            await tx.sql("DROP TRIGGER bad", [])
            await tx.sql(insert, [number])

    await store.transact(body)
    assert await store.transact(lambda tx: tx.sql("SELECT n FROM log", [])) == [{"n": 2}, {"n": 3}, {"n": 4}]


async def test_nan_is_refused_because_it_would_become_null(store: Store) -> None:
    with pytest.raises(SQLError, match="NaN"):
        await store.transact(lambda tx: tx.sql("SELECT $1 AS n", [float("nan")]))


async def test_sqlites_own_placeholders_are_no_way_around_the_count(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "test.db", SystemClock())
    await store.open([])
    with pytest.raises(TypeError, match=r"takes no parameters, .* written \$1, \$2"):
        await store.transact(lambda tx: tx.sql("SELECT ?", ["a"]))
    await store.close()
