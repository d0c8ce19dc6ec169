"""Documents, the indexes that find them, and the names of their tables."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duly._ground import values
from duly._ground.clock import SystemClock
from duly._ground.ids import ID_HIGHEST, table_tag
from duly._model.schema import Index, Table, index_key
from duly._store.port import Entry, Position, Store, StoredIndex, Transaction
from duly.errors import StoreError
from tests.ground.strategies import keys
from tests.ground.strategies import values as any_values
from tests.store.conftest import Stores, empty_database
from tests.store.engines import ENGINES, Engine
from tests.store.rows import NOTES, new_id, put

FIRST, LAST = Position(b"", NOTES), Position(b"", NOTES + ID_HIGHEST)
LOWEST, HIGHEST = Position(b"", ""), Position(b"\xff\xff", "")


# --- documents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", ["{}", '{"n":1}', '{"s":"Zoë 🍵 \\u0000"}', '{"s":"' + "x" * 1_000_000 + '"}'], ids=len
)
async def test_a_document_comes_out_as_it_went_in(store: Store, body: str) -> None:
    id = await put(store, body)
    assert await store.read(lambda tx: tx.get_document(id)) == body


async def test_a_document_is_replaced_and_deleted(store: Store) -> None:
    id, other = await put(store, '{"n":1}'), await put(store, '{"n":9}')
    await store.transact(lambda tx: tx.replace_document(id, '{"n":2}'))
    assert await store.read(lambda tx: tx.get_document(id)) == '{"n":2}'
    await store.transact(lambda tx: tx.delete_document(id))
    assert await store.read(lambda tx: tx.get_document(id)) is None
    assert await store.read(lambda tx: tx.get_document(other)) == '{"n":9}'


async def test_an_id_is_there_once(store: Store) -> None:
    id = await put(store, '{"n":1}')
    with pytest.raises(StoreError):
        await store.transact(lambda tx: tx.insert_document(id, '{"n":2}'))
    assert await store.read(lambda tx: tx.get_document(id)) == '{"n":1}'


async def test_documents_are_scanned_by_creation_in_either_order(store: Store) -> None:
    ids = [await put(store, f'{{"n":{number}}}') for number in range(5)]
    await put(store, table="others")
    await put(store, table="more")

    async def scan(after: Position, before: Position, descending: bool, limit: int = 10) -> list[int]:
        entries = await store.read(lambda tx: tx.scan(None, after, before, descending, limit))
        assert all(entry == Entry(Position(b"", entry.position.id), entry.body) for entry in entries)
        assert all(entry.body == f'{{"n":{ids.index(entry.position.id)}}}' for entry in entries)
        return [ids.index(entry.position.id) for entry in entries]

    assert await scan(FIRST, LAST, False) == [0, 1, 2, 3, 4]
    assert await scan(FIRST, LAST, True) == [4, 3, 2, 1, 0]
    assert await scan(FIRST, LAST, False, 2) == [0, 1]
    assert await scan(FIRST, LAST, True, 2) == [4, 3]
    assert await scan(Position(b"", ids[1]), Position(b"", ids[4]), False) == [2, 3]
    assert await scan(Position(b"", ids[1]), Position(b"", ids[4]), True) == [3, 2]
    assert await store.read(lambda tx: tx.count(None, FIRST, LAST)) == 5
    assert await store.read(lambda tx: tx.count(None, Position(b"", ids[1]), Position(b"", ids[4]))) == 2


# --- entries --------------------------------------------------------------------------------------------------------


async def test_an_index_is_scanned_by_key_then_id_in_either_order(store: Store) -> None:
    keys = [b"b", b"a", b"b", b"\xff", b"", b"a\x00"]
    ids = [await put(store, f'{{"n":{number}}}') for number in range(len(keys))]

    async def fill(tx: Transaction) -> int:
        index, other = (
            await tx.create_index(NOTES, Index("one", ("n",))),
            await tx.create_index(NOTES, Index("two", ("n",))),
        )
        assert index.id != other.id
        for key, id in zip(keys, ids, strict=True):
            await tx.insert_entry(index.id, Position(key, id))
        await tx.insert_entry(other.id, Position(b"b", ids[0]))
        return index.id

    index = await store.transact(fill)

    async def scan(after: Position, before: Position, descending: bool, limit: int = 10) -> list[int]:
        entries = await store.read(lambda tx: tx.scan(index, after, before, descending, limit))
        for entry in entries:
            number = ids.index(entry.position.id)
            assert entry == Entry(Position(keys[number], ids[number]), f'{{"n":{number}}}')
        return [ids.index(entry.position.id) for entry in entries]

    assert await scan(LOWEST, HIGHEST, False) == [4, 1, 5, 0, 2, 3]
    assert await scan(LOWEST, HIGHEST, True) == [3, 2, 0, 5, 1, 4]
    assert await scan(LOWEST, HIGHEST, False, 2) == [4, 1]
    assert await scan(LOWEST, HIGHEST, True, 2) == [3, 2]
    # Both ends are exclusive, by key and id together.
    assert await scan(Position(b"a", ids[1]), Position(b"b", ids[2]), False) == [5, 0]
    assert await scan(Position(b"a", ids[1]), Position(b"b", ids[2]), True) == [0, 5]
    assert await scan(Position(b"a", ""), Position(b"b", ""), False) == [1, 5]
    assert await store.read(lambda tx: tx.count(index, LOWEST, HIGHEST)) == 6
    assert await store.read(lambda tx: tx.count(index, Position(b"a", ids[1]), Position(b"b", ids[2]))) == 2


async def test_a_deleted_entry_is_not_found_any_more(store: Store) -> None:
    first, second = await put(store), await put(store)

    async def fill(tx: Transaction) -> int:
        index = await tx.create_index(NOTES, Index("by_n", ("n",)))
        await tx.insert_entry(index.id, Position(b"k", first))
        await tx.insert_entry(index.id, Position(b"k", second))
        return index.id

    index = await store.transact(fill)
    await store.transact(lambda tx: tx.delete_entry(index, Position(b"k", first)))
    entries = await store.read(lambda tx: tx.scan(index, LOWEST, HIGHEST, descending=False, limit=9))
    assert [entry.position.id for entry in entries] == [second]


# --- tables ---------------------------------------------------------------------------------------------------------


async def test_a_table_is_remembered_by_its_tag(store: Store) -> None:
    async def remember(tx: Transaction) -> None:
        await tx.remember_table(NOTES, "notes")
        await tx.remember_table(NOTES, "notes")

    assert await store.read(lambda tx: tx.table_name(NOTES)) is None
    await store.transact(remember)
    await store.transact(remember)
    assert await store.read(lambda tx: tx.table_name(NOTES)) == "notes"
    await store.transact(remember)
    assert await store.read(lambda tx: tx.table_name(table_tag("others"))) is None


async def test_a_tag_stands_for_one_name(store: Store) -> None:
    await store.transact(lambda tx: tx.remember_table(NOTES, "notes"))
    with pytest.raises(StoreError, match=r"'notes' and 'nodes'.*rename"):
        await store.transact(lambda tx: tx.remember_table(NOTES, "nodes"))
    assert await store.read(lambda tx: tx.table_name(NOTES)) == "notes"


# --- indexes that tables declare ------------------------------------------------------------------------------------


async def stored(store: Store, tag: str = NOTES) -> list[StoredIndex]:
    async def body(tx: Transaction) -> list[StoredIndex]:
        return list(await tx.stored_indexes(tag))

    found = await store.read(body)
    assert await store.transact(body) == found
    return found


async def test_an_index_is_told_by_name_and_fields(store: Store) -> None:
    async def create(tx: Transaction) -> StoredIndex:
        return await tx.create_index(NOTES, Index("by_n", ("n", "m.x")))

    first = await store.transact(create)
    assert first.spec == Index("by_n", ("n", "m.x"))
    assert await stored(store) == [first]
    changed = await store.transact(lambda tx: tx.create_index(NOTES, Index("by_n", ("m.x", "n"))))
    assert await stored(store) == [first, changed]
    assert await stored(store, table_tag("others")) == []


async def test_opening_makes_what_tables_declare_and_names_them(engine: Engine, stores: Stores) -> None:
    tables = [Table("notes", indexes={"by_n": ["n"], "by_m": ["m", "n"]}), Table("others")]
    store = await stores.open(engine, tables)
    assert [index.spec for index in await stored(store)] == [Index("by_n", ("n",)), Index("by_m", ("m", "n"))]
    assert await store.read(lambda tx: tx.table_name(NOTES)) == "notes"
    assert await store.read(lambda tx: tx.table_name(table_tag("others"))) == "others"


@pytest.mark.parametrize("count", [0, 1, 1_203])
async def test_an_index_declared_later_finds_what_was_there_before(
    durable_engine: Engine, stores: Stores, count: int
) -> None:
    store = await stores.open(durable_engine)
    ids = [new_id() for _ in range(count)]

    async def fill(tx: Transaction) -> None:
        for number, id in enumerate(ids):
            await tx.insert_document(id, values.encode({"n": -number} if number % 5 else {}))
            await tx.insert_document(new_id("others"), values.encode({"n": 1}))

    await store.transact(fill)
    await stores.close(store)

    table = Table("notes", indexes={"by_n": ["n"]})
    again = await stores.open(durable_engine, [table])
    (index,) = await stored(again)
    entries = await again.read(lambda tx: tx.scan(index.id, LOWEST, HIGHEST, descending=False, limit=5_000))
    absent = [number for number in range(count) if number % 5 == 0]
    numbered = [number for number in reversed(range(count)) if number % 5]
    assert [entry.position.id for entry in entries] == [ids[number] for number in absent + numbered]
    for entry in entries:
        assert entry.position.key == index_key(index.spec, values.decode(entry.body))


async def test_opening_again_makes_nothing_twice(durable_engine: Engine, stores: Stores) -> None:
    table = Table("notes", indexes={"by_n": ["n"]})
    first = await stores.open(durable_engine, [table])
    before = await stored(first)
    await stores.close(first)
    assert await stored(await stores.open(durable_engine, [table])) == before
    assert await stored(await stores.open(durable_engine, [table])) == before  # beside the one that is open
    assert len(before) == 1


async def test_an_index_of_other_code_stays_kept_up(durable_engine: Engine, stores: Stores) -> None:
    old = await stores.open(durable_engine, [Table("notes", indexes={"by_n": ["n"]})])
    await put(old)
    new = await stores.open(durable_engine, [Table("notes", indexes={"by_n": ["n", "m"]})])
    expected = [Index("by_n", ("n",)), Index("by_n", ("n", "m"))]
    # Whoever writes is told of both, also the process that was there before the second was made.
    for store in (new, old):

        async def body(tx: Transaction) -> list[Index]:
            return [index.spec for index in await tx.stored_indexes(NOTES)]

        assert await store.transact(body) == expected


async def test_a_read_of_long_ago_does_not_make_writers_forget_an_index(durable_engine: Engine, stores: Stores) -> None:
    table = Table("notes", indexes={"by_n": ["n"]})
    old = await stores.open(durable_engine, [table])

    async def indexes(tx: Transaction) -> list[Index]:
        return [index.spec for index in await tx.stored_indexes(NOTES)]

    async def look(tx: Transaction) -> list[Index]:
        assert await tx.get_document(new_id()) is None  # the snapshot begins
        await stores.open(durable_engine, [Table("notes", indexes={"by_m": ["m"]})])
        await put(old)  # the writer learns that somebody else has committed
        return await indexes(tx)

    assert await old.read(look) == [Index("by_n", ("n",))]
    assert await old.transact(indexes) == [Index("by_n", ("n",)), Index("by_m", ("m",))]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(documents=st.lists(st.dictionaries(keys, any_values, max_size=4), min_size=1, max_size=5))
def test_every_value_comes_through_the_engine_exactly(
    request: pytest.FixtureRequest, engine: Engine, documents: list[dict[str, Any]]
) -> None:
    async def through(store: Store) -> list[Any]:
        await store.open([])
        try:
            ids = [await put(store, values.encode(document)) for document in documents]

            async def read(tx: Transaction) -> list[Any]:
                return [values.decode(await tx.get_document(id) or "") for id in ids]

            return await store.read(read)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        empty_database(engine, Path(folder), request)
        found = asyncio.run(through(engine.make(Path(folder), SystemClock())))
    # By their text, which tells 1 from 1.0, 0.0 from -0.0, and one NaN from no other.
    assert [values.encode(document) for document in found] == [values.encode(document) for document in documents]
