"""The feed of what commits wrote: complete, for those who follow, whoever committed and in whatever order."""

import asyncio
from typing import Any

import psycopg
import pytest

from duly._ground.clock import SystemClock
from duly._model.changes import CREATED, JOBS, Changes, Reads, jobs_of_state
from duly._model.schema import Index
from duly._store.open import make_store
from duly._store.port import Position, Store, Transaction
from duly._store.postgresql import exchange, following
from tests.store.conftest import Stores
from tests.store.engines import Engine
from tests.store.rows import NOTES, NOW, add_jobs, new_id, new_job, put
from tests.support import DEADLINE_S, ManualClock, eventually


async def place_of(store: Store) -> str:
    place, everything = await store.read(lambda tx: tx.changes_since(None), follows=True)
    assert everything.everything
    return place


async def changes(store: Store, place: str) -> Changes:
    return (await store.read(lambda tx: tx.changes_since(place), follows=True))[1]


async def test_without_followers_nothing_is_noted(store: Store) -> None:
    place = await place_of(store)
    await put(store, "{}")
    assert not await changes(store, place)


async def test_every_kind_of_write_is_noted(store: Store) -> None:
    await store.follow("f", 60)
    index = await store.transact(lambda tx: tx.create_index(NOTES, Index("by_n", ("n",))))
    kept, lost = new_id(), new_id()

    async def insert(tx: Transaction) -> None:
        await tx.insert_document(kept, "{}")
        await tx.insert_document(lost, "{}")
        await tx.insert_entry(index.id, Position(b"\x01", kept))

    async def replace(tx: Transaction) -> None:
        assert await tx.get_document(kept) == "{}"
        await tx.replace_document(kept, '{"n":1}')
        await tx.delete_entry(index.id, Position(b"\x01", kept))
        await tx.insert_entry(index.id, Position(b"\x02", kept))

    async def delete(tx: Transaction) -> None:
        assert await tx.get_document(lost) == "{}"
        await tx.delete_document(lost)

    place = await place_of(store)
    await store.transact(insert)
    found = await changes(store, place)
    assert found.ids == {kept, lost}
    assert found.entries == {CREATED: {(b"", kept), (b"", lost)}, index.id: {(b"\x01", kept)}}

    place = await place_of(store)
    await store.transact(replace)
    found = await changes(store, place)
    assert (found.ids, found.entries) == ({kept}, {index.id: {(b"\x01", kept), (b"\x02", kept)}})

    place = await place_of(store)
    await store.transact(delete)
    found = await changes(store, place)
    assert (found.ids, found.entries) == ({lost}, {CREATED: {(b"", lost)}})


async def test_jobs_are_noted_with_their_state(store: Store) -> None:
    await store.follow("f", 60)
    place = await place_of(store)
    job = new_job()
    await add_jobs(store, job)
    found = await changes(store, place)
    assert found.ids == {job.id}
    assert found.entries == {JOBS: {(b"", job.id)}, jobs_of_state("pending"): {(b"", job.id)}}
    place = await place_of(store)
    assert await store.transact(lambda tx: tx.settle_job(job.id, "pending", 0, "success", NOW, started=NOW))
    found = await changes(store, place)
    assert (found.ids, found.entries) == ({job.id}, {jobs_of_state("success"): {(b"", job.id)}})
    place = await place_of(store)
    assert await store.transact(lambda tx: tx.prune_jobs(NOW + 1, 10)) == 1
    assert (await changes(store, place)).ids == {job.id}


async def test_what_is_rolled_back_is_noted_at_most(store: Store) -> None:
    await store.follow("f", 60)
    place = await place_of(store)
    kept = new_id()

    async def body(tx: Transaction) -> None:
        savepoint = tx.savepoint()
        await tx.insert_document(new_id(), "{}")
        await tx.rollback(savepoint)
        await tx.insert_document(kept, "{}")

    await store.transact(body)
    assert (await changes(store, place)).ids == {kept}


async def test_very_many_writes_are_everything(store: Store) -> None:
    await store.follow("f", 60)
    place = await place_of(store)

    async def body(tx: Transaction) -> None:
        for _ in range(3_000):
            await tx.insert_document(new_id(), "{}")

    await store.transact(body)
    assert (await changes(store, place)).everything


async def test_others_commits_are_seen_and_wake(durable_engine: Engine, stores: Stores) -> None:
    ours, theirs = await stores.open(durable_engine), await stores.open(durable_engine)
    await ours.follow("f", 60)
    place, version = await place_of(ours), ours.version("change")
    id = await put(theirs, "{}")
    await ours.wait("change", version, None)
    assert (await changes(ours, place)).ids == {id}
    await ours.unfollow("f")

    async def nothing_is_noted() -> bool:
        place = await place_of(ours)
        await put(theirs, "{}")
        return not await changes(ours, place)

    await eventually(nothing_is_noted)


async def test_a_snapshot_and_its_changes_belong_together(durable_engine: Engine, stores: Stores) -> None:
    ours, theirs = await stores.open(durable_engine), await stores.open(durable_engine)
    await ours.follow("f", 60)
    place = await place_of(ours)

    async def body(tx: Transaction) -> tuple[str, set[str], list[Any]]:
        reached, before = await tx.changes_since(place)
        await put(theirs, "{}")  # is not in this snapshot
        seen = await tx.scan(None, Position(b"", NOTES), Position(b"", NOTES + "~"), False, 10)
        return reached, before.ids, seen

    reached, before, seen = await ours.read(body)
    assert (before, seen) == (set(), [])
    assert len((await changes(ours, reached)).ids) == 1


async def test_a_transaction_that_commits_after_later_ones_is_not_missed(
    postgresql_url: str,
) -> None:
    """Its number is lower than theirs, and so would be any number that it took while it was open."""

    store = make_store(postgresql_url, SystemClock())
    await store.open([])
    await store.follow("f", 60)
    place = await place_of(store)
    with psycopg.connect(postgresql_url) as slow:
        slow.execute("""INSERT INTO duly.changes (time, written) VALUES (1, '{"ids":["slow"],"entries":[]}')""")
        fast = await put(store, "{}")
        place, found = await store.read(lambda tx: tx.changes_since(place))
        assert found.ids == {fast}
        slow.commit()
    place, found = await store.read(lambda tx: tx.changes_since(place))
    assert found.ids == {"slow"}
    assert not (await changes(store, place)).ids
    await store.close()


async def test_who_has_not_followed_for_a_while_waits_for_those_who_do_not_know(postgresql_url: str) -> None:
    store = make_store(postgresql_url, SystemClock())
    await store.open([])
    await store.follow("f", 0)
    with psycopg.connect(postgresql_url) as slow:
        slow.execute("SELECT pg_current_xact_id()")
        following = asyncio.ensure_future(store.follow("f", 60))
        done, _ = await asyncio.wait({following}, timeout=0.3)
        assert not done
        slow.commit()
        await following
    await store.close()


async def test_a_writer_that_has_only_read_so_far_is_waited_for_as_well(postgresql_url: str) -> None:
    """It sees what was there when it began, and finds nobody who follows; it has no number yet."""
    ours, theirs = make_store(postgresql_url, SystemClock()), make_store(postgresql_url, SystemClock())
    await ours.open([])
    await theirs.open([])
    id, has_read, may_write = new_id(), asyncio.Event(), asyncio.Event()

    async def reads_and_writes(tx: Transaction) -> None:
        await tx.scan(None, Position(b"", NOTES), Position(b"", NOTES + "~"), False, 10)
        has_read.set()
        await may_write.wait()
        await tx.insert_document(id, "{}")

    async def first_step(tx: Transaction) -> tuple[str, str | None]:
        return (await tx.changes_since(None))[0], await tx.get_document(id)

    async def follows() -> tuple[str, str | None]:
        await ours.follow("f", 60)
        return await ours.read(first_step, follows=True)

    writing = asyncio.ensure_future(theirs.transact(reads_and_writes))
    await has_read.wait()
    following = asyncio.ensure_future(follows())
    # Longer than who tells nothing of himself is waited for.
    await asyncio.wait({following}, timeout=1.5)
    may_write.set()
    await writing
    place, seen = await following
    assert seen == "{}" or id in (await changes(ours, place)).ids
    await theirs.close()
    await ours.close()


async def test_a_writer_that_is_not_waited_for_any_longer_leaves_word_all_the_same(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_SETTLED_S", 0)
    monkeypatch.setattr(exchange, "_LONG_S", 0)
    ours, theirs = make_store(postgresql_url, SystemClock()), make_store(postgresql_url, SystemClock())
    await ours.open([])
    await theirs.open([])
    id, has_read, may_write = new_id(), asyncio.Event(), asyncio.Event()

    async def reads_and_writes(tx: Transaction) -> None:
        await tx.get_document(id)
        has_read.set()
        await may_write.wait()
        await tx.insert_document(id, "{}")

    writing = asyncio.ensure_future(theirs.transact(reads_and_writes))
    await has_read.wait()
    await ours.follow("f", 60)
    place = await place_of(ours)
    may_write.set()
    await writing
    assert id in (await changes(ours, place)).ids
    await theirs.close()
    await ours.close()


async def test_a_transaction_that_is_not_ours_is_not_waited_for_for_long(postgresql_url: str) -> None:
    """Such as a backup, which takes hours."""
    store = make_store(postgresql_url, SystemClock())
    await store.open([])
    with psycopg.connect(postgresql_url) as slow:
        slow.execute("SELECT pg_current_xact_id(), pg_sleep(0)")
        await asyncio.wait_for(store.follow("f", 60), 12)
    await store.close()


async def test_somebody_who_writes_for_long_elsewhere_on_the_server_does_not_stop_live_queries(
    postgresql_url: str,
) -> None:
    """A snapshot that nothing can spoil is waited for, but not for ever: there are other databases."""
    elsewhere = postgresql_url.rpartition("/")[0] + "/postgres"
    store = make_store(postgresql_url, SystemClock())
    await store.open([])
    with psycopg.connect(elsewhere) as slow:
        slow.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        slow.execute("SELECT count(*) FROM pg_class")
        place = await asyncio.wait_for(place_of(store), DEADLINE_S)
        await store.follow("f", 60)
        id = await put(store, "{}")
        assert id in (await asyncio.wait_for(changes(store, place), DEADLINE_S)).ids
        snapshot = await asyncio.wait_for(store.snapshot(), DEADLINE_S)
        assert await snapshot.read(lambda tx: tx.get_document(id)) == "{}"
        await snapshot.close()
    await store.close()


def test_ranges_are_touched_by_what_lies_between() -> None:
    reads = Reads()
    reads.ids.add("a")
    reads.ranges.append((7, (b"b", ""), (b"d", "")))
    for index, key, touched in [(7, b"c", True), (7, b"b", True), (7, b"d", False), (7, b"a", False), (8, b"c", False)]:
        found = Changes()
        found.add_entry(index, key, "x")
        assert reads.touched_by(found) is touched, (index, key)
    for id, touched in [("a", True), ("b", False)]:
        found = Changes()
        found.add_ids([id])
        assert reads.touched_by(Changes.load(found.dump())) is touched
    assert reads.touched_by(Changes(everything=True))
    assert not reads.touched_by(Changes())


async def test_what_was_written_long_before_its_commit_is_kept_until_all_have_seen_it(
    postgresql_url: str,
) -> None:
    clock = ManualClock()
    store = make_store(postgresql_url, clock)
    await store.open([])
    await store.follow("f", 600)

    async def prune() -> int:
        before = clock.now_ms() - 120_000
        return await store.transact(lambda tx: tx.prune_changes(before, 10))

    with psycopg.connect(postgresql_url) as connection:
        await prune()
        await put(store, "{}")
        written = Changes()
        written.add_ids(["late"])
        insert = "INSERT INTO duly.changes (time, written) VALUES (%s, %s)"
        connection.execute(insert, [clock.now_ms(), written.dump()])
        await clock.advance(130)
        place = await place_of(store)
        # Of what was committed before the first look nothing is older than it; of this, it is not known yet.
        assert await prune() == 0
        connection.commit()
    assert await prune() == 0
    assert (await changes(store, place)).ids == {"late"}
    await clock.advance(130)
    assert await prune() == 2
    await store.close()


async def test_answers_to_clients_are_kept_with_what_they_answer_and_pruned_when_old(store: Store) -> None:
    async def fails(tx: Transaction) -> None:
        await tx.insert_client_request("s", 1, NOW, "lost")
        assert await tx.get_client_request("s", 1) == "lost"
        raise ValueError("as the test asked for")

    with pytest.raises(ValueError, match="as the test"):
        await store.transact(fails)

    async def insert(tx: Transaction) -> None:
        assert await tx.get_client_request("s", 1) is None
        for request in (1, 2):
            await tx.insert_client_request("s", request, NOW + request, f"answer {request}")

    await store.transact(insert)
    assert await store.transact(lambda tx: tx.prune_client_requests(NOW + 2, 10)) == 1
    assert await store.read(lambda tx: tx.get_client_request("s", 1)) is None
    assert await store.read(lambda tx: tx.get_client_request("s", 2)) == "answer 2"
