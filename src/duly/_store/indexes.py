"""Making the indexes that tables declare and the store does not have yet. The same for every engine."""

from collections.abc import Iterable
from typing import Any

from duly._ground import values
from duly._ground.ids import ID_HIGHEST
from duly._model.schema import Table, index_key
from duly._store.port import Position, StoredIndex, Transaction

__all__ = ["ensure_indexes"]

_BATCH = 500


async def ensure_indexes(tx: Transaction, tables: Iterable[Table[Any]]) -> None:
    """Declares what is missing and fills it from the documents there are, in this one transaction.

    An index is told by its table, name *and* fields: one whose fields were changed is another index. The old one is
    kept up as before, because processes with the code before the change may still read it.
    """
    for table in tables:
        await tx.remember_table(table.tag, table.name)
        stored = {stored.spec for stored in await tx.stored_indexes(table.tag)}
        for index in table.indexes.values():
            if index not in stored:
                await _fill(tx, table, await tx.create_index(table.tag, index))


async def _fill(tx: Transaction, table: Table[Any], stored: StoredIndex) -> None:
    after, before = Position(b"", table.tag), Position(b"", table.tag + ID_HIGHEST)
    while entries := await tx.scan(None, after, before, descending=False, limit=_BATCH):
        for entry in entries:
            key = index_key(stored.spec, values.decode(entry.body))
            await tx.insert_entry(stored.id, Position(key, entry.position.id))
        after = entries[-1].position
