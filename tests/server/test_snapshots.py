"""Moments that clients were given, and what becomes of those that the store gives up."""

import contextlib

import psycopg
import pytest

from duly._ground.clock import SystemClock
from duly._store.open import make_store
from duly._store.port import Entry, Position, Transaction
from duly.errors import ConflictError
from duly.server.snapshots import SnapshotGoneError, Snapshots
from tests.store.rows import NOTES, new_id


async def test_a_moment_that_others_spoil_is_gone_and_the_next_is_not(postgresql_url: str) -> None:
    """One who takes long rests on what was changed before the moment, and commits after it: no order has all three."""

    async def reads(tx: Transaction) -> list[Entry]:
        lowest, highest = Position(b"", NOTES), Position(b"", NOTES + "~")
        return await tx.scan(None, lowest, highest, descending=False, limit=9)

    async def hides_what_went_wrong(tx: Transaction) -> list[Entry]:
        with contextlib.suppress(ConflictError):
            return await reads(tx)
        return []

    store = make_store(postgresql_url, SystemClock())
    await store.open([])
    await store.transact(lambda tx: tx.insert_document(new_id(), "{}"))
    snapshots = Snapshots(lambda: store, SystemClock())
    moments = iter((1, 2))
    async with await psycopg.AsyncConnection.connect(postgresql_url) as connection:
        [[place]] = await (await connection.execute("SELECT ctid::text FROM duly.documents")).fetchall()
    async with await psycopg.AsyncConnection.connect(postgresql_url) as slow:
        await slow.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        # By its place: through an index it would be read together with its neighbours.
        await slow.execute("SELECT body FROM duly.documents WHERE ctid = %s", [place])
        async with await psycopg.AsyncConnection.connect(postgresql_url) as fast:
            await fast.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
            await fast.execute("UPDATE duly.documents SET body = '[]' WHERE ctid = %s", [place])
        moment = await snapshots.hold(lambda: next(moments))
        await slow.execute("INSERT INTO duly.documents (id, body) VALUES (%s, '{}')", (new_id(),))
    for body in (hides_what_went_wrong, reads):
        with pytest.raises(SnapshotGoneError):
            await snapshots.read(moment, body)
    assert len(await snapshots.read(await snapshots.hold(lambda: next(moments)), reads)) == 2
    await store.close()
