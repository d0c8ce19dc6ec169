"""`tx.sql`: statements of the user's in a transaction of the store."""

import asyncio
from typing import Any

import pytest

from duly._store.port import Store, Transaction
from duly.errors import SQLError, StoreError
from tests.store.conftest import Stores
from tests.store.engines import Engine
from tests.store.rows import new_id, put

BOX = "CREATE TABLE IF NOT EXISTS box (n BIGINT PRIMARY KEY)"


class GivenUpError(Exception):
    """What a body raises that is to leave nothing."""


async def add(tx: Transaction, *numbers: int) -> None:
    await tx.sql(BOX, [])
    for number in numbers:
        await tx.sql("INSERT INTO box VALUES ($1)", [number])


async def content(store: Store) -> list[int]:
    rows = await store.transact(lambda tx: tx.sql("SELECT n FROM box ORDER BY n", []))
    return [row["n"] for row in rows]


async def test_what_sql_changes_is_undone_by_savepoints_and_kept_by_their_release(store: Store) -> None:
    async def body(tx: Transaction) -> None:
        await add(tx, 1)
        outer = tx.savepoint()
        await add(tx, 2)
        inner = tx.savepoint()
        await add(tx, 3)
        await tx.rollback(inner)
        kept = tx.savepoint()
        await add(tx, 4)
        await tx.release(kept)
        await tx.release(outer)
        undone = tx.savepoint()
        await add(tx, 5)
        tx.savepoint()
        await add(tx, 6)
        await tx.rollback(undone)

    await store.transact(body)
    assert await content(store) == [1, 2, 4]


async def test_a_refused_statement_undoes_itself_and_no_buffered_write(store: Store) -> None:
    before, after, id = new_id(), new_id(), await put(store, '{"n":1}')

    async def body(tx: Transaction) -> None:
        await add(tx, 1)
        await tx.insert_document(before, "{}")
        savepoint = tx.savepoint()
        await tx.replace_document(id, '{"n":2}')
        with pytest.raises(SQLError):
            await tx.sql("INSERT INTO box VALUES (2), ($1)", [1])
        assert tx.fault is None
        await tx.insert_document(after, "{}")
        assert await tx.get_document(id) == '{"n":2}'
        await tx.release(savepoint)

    await store.transact(body)
    assert await content(store) == [1]
    for found, text in [(before, "{}"), (after, "{}"), (id, '{"n":2}')]:
        assert await store.read(lambda tx, found=found: tx.get_document(found)) == text  # type: ignore[misc]


async def test_others_in_the_group_do_not_notice(store: Store) -> None:
    await store.transact(add)

    async def one(number: int) -> None:
        async def body(tx: Transaction) -> None:
            await add(tx, number)
            if number % 3 == 1:
                raise GivenUpError
            if number % 3 == 2:
                await add(tx, number)

        await store.transact(body)

    outcomes = await asyncio.gather(*map(one, range(9)), return_exceptions=True)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [type(None), GivenUpError, SQLError] * 3
    assert await content(store) == [0, 3, 6]


async def test_sql_counts_as_written_and_is_refused_where_writing_is(store: Store) -> None:
    async def write(tx: Transaction) -> bool:
        assert not tx.wrote
        await add(tx, 1)
        return tx.wrote

    assert await store.transact(write)
    with pytest.raises(AssertionError, match="only reads"):
        await store.read(lambda tx: tx.sql("SELECT 1", []))


async def test_after_a_fault_nothing_runs(store: Store) -> None:
    id = await put(store)

    async def body(tx: Transaction) -> None:
        await add(tx, 1)
        savepoint = tx.savepoint()
        await tx.insert_document(new := new_id(), "{}")
        with pytest.raises(StoreError, match="already"):
            await tx.insert_document(new, "{}")
        with pytest.raises(StoreError, match="already"):
            await add(tx, 2)
        await tx.rollback(savepoint)
        await add(tx, 3)
        await tx.delete_document(id)

    await store.transact(body)
    assert await content(store) == [1, 3]


async def test_tables_last(durable_engine: Engine, stores: Stores) -> None:
    store = await stores.open(durable_engine)
    await store.transact(lambda tx: add(tx, 1, 2))
    await stores.close(store)
    assert await content(await stores.open(durable_engine)) == [1, 2]


SELECT = "SELECT n FROM box -- %d"


async def test_many_different_statements_are_not_remembered_for_ever(store: Store) -> None:
    async def body(tx: Transaction) -> Any:
        await add(tx, 1)
        for number in range(1_500):
            await tx.sql(SELECT % number, [])

    await store.transact(body)
    assert len(getattr(getattr(store, "_shared", None), "checked_sql", ())) <= 1_000
