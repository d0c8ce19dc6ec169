"""The sync protocol where it is delicate: who waits for whom, what belongs together, what is left behind."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest

import duly
from duly._app import Parts
from duly._ground.clock import Clock
from duly._model.admin_key import hash_admin_key, make_admin_key
from duly._store.open import make_store
from duly._store.port import Transaction
from duly.errors import StoreUnavailableError
from duly.testing.entropy import SeededEntropy
from duly.testing.faults import StoreView
from tests.server import app as served
from tests.server.issuer import AUDIENCE, NOW_MS, RSA_KEY, pem, token
from tests.server.wire import ClosedError, Watching, Wire, wired
from tests.support import ManualClock

T = TypeVar("T")

ISSUER = "https://id.example.com"
# The same in every process that collects these tests.
KEY, OTHER_KEY = (make_admin_key(SeededEntropy(number)) for number in (1, 2))


class GatedStore(StoreView):
    """Live queries are not computed while the gate is closed; with `down`, nothing is read or written."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(make_store(url, clock))
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /, *, follows: bool = False) -> T:
        if follows:
            await self.gate.wait()
        if self.down:
            raise StoreUnavailableError("it is down")
        return await self._store.read(body, follows=follows)

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        if self.down:
            raise StoreUnavailableError("it is down")
        return await self._store.transact(body, claims=claims)


@pytest.fixture
async def app(lasting_database: str) -> AsyncIterator[duly.App]:
    """On each engine, open."""
    app = duly.App(served.__name__, database=lasting_database)
    app._parts = Parts(store=GatedStore)
    async with app.client():
        yield app


async def insert_key(tx: Transaction, key: str) -> None:
    await tx.insert_admin_key(hash_admin_key(key), "", 0)


def store_of(app: duly.App) -> GatedStore:
    assert isinstance(app._store, GatedStore)
    return app._store


def values_in(message: dict[str, Any]) -> dict[int, Any]:
    return {change["queryId"]: change.get("value") for change in message["modifications"]}


async def test_who_comes_to_a_query_that_is_watched_is_told_what_is_committed_by_then(app: duly.App) -> None:
    asgi = app.asgi()
    async with wired(asgi) as first, wired(asgi) as second:
        first.connect()
        first.add(0, "app:texts")
        assert values_in(await first.message()) == {0: []}
        store_of(app).gate.clear()
        await app.mutation(served.write, "a")
        second.connect()
        second.add(0, "app:texts")
        await asyncio.sleep(0.05)
        store_of(app).gate.set()
        assert values_in(await second.message()) == {0: ["a"]}


async def test_clients_can_not_push_the_time_ahead(app: duly.App) -> None:
    asgi, live = app.asgi(), app._live
    assert live is not None
    for _ in range(20):
        seen = live.stamp() + 50_000_000_000
        async with wired(asgi) as wire:
            wire.connect(maxObservedTimestamp=base64.b64encode(seen.to_bytes(8, "little")).decode())
            wire.add(0, "app:texts")
            with suppress(ClosedError):
                await wire.message()
            assert wire.closed is None or wire.closed.reason.startswith("InternalServerError")
    assert live.stamp() < (time.time() + 120) * 1e9


async def test_a_query_that_is_removed_and_added_again_is_there(app: duly.App) -> None:
    async with wired(app.asgi()) as wire:
        wire.connect()
        wire.add(0, "app:echo", value="a")
        await wire.message()
        add = {"type": "Add", "queryId": 0, "udfPath": "app:echo", "args": [{"value": "b"}]}
        changes = [{"type": "Remove", "queryId": 0}, add]
        wire.send("ModifyQuerySet", baseVersion=1, newVersion=2, modifications=changes)
        told = (await wire.message())["modifications"]
        assert [change["type"] for change in told] == ["QueryRemoved", "QueryUpdated"]


async def test_each_client_sees_its_own_writes_after_they_are_answered_and_whole_moments_only(app: duly.App) -> None:
    asgi = app.asgi()
    writes = 25

    async def client(name: str) -> None:
        seen, answered = Watching(), 0
        async with wired(asgi) as wire:
            wire.connect()
            wire.add(0, "app:texts")
            wire.add(1, "app:how_many", version=2)
            for number in range(writes):
                wire.mutate(number, "app:write", text=f"{name} {number}")
            while answered < writes or seen.awaited:
                message = await wire.message()
                seen.take(message)
                if message["type"] == "MutationResponse":
                    assert message["requestId"] == answered
                    answered += 1
                elif len(seen.values) == 2:
                    texts, number = seen.values[0], seen.values[1]
                    assert len(texts) == number
                    own = [text for text in texts if text.startswith(name)]
                    assert own == [f"{name} {number}" for number in range(len(own))]
                    assert len(own) <= answered
            assert sum(text.startswith(name) for text in seen.values[0]) == writes

    await asyncio.gather(*(client(name) for name in "abc"))


async def test_nobody_is_shown_what_was_computed_for_somebody_else(app: duly.App) -> None:
    assert app._store is not None
    await app._store.transact(lambda tx: tx.insert_admin_key(hash_admin_key(KEY), "test", 0))
    asgi = app.asgi()

    async def client(turn: int) -> None:
        seen = Watching()
        users = [None, "ann", "bob", "ann", None, "bob"][turn:]
        async with wired(asgi) as wire:
            wire.connect()
            wire.add(0, "app:whoami")
            wire.add(1, "app:texts", version=2)
            for base, user in enumerate(users[1:]):
                wire.authenticate(base, user, KEY)
                wire.mutate(base, "app:write", text="more")
            while seen.version["identity"] < len(users) - 1:
                seen.take(await wire.message())
                if 0 in seen.values:
                    shown = seen.values[0]
                    expected = users[seen.version["identity"]]
                    if turn == 0 or seen.version["identity"]:
                        assert shown == expected

    await asyncio.gather(*(client(turn) for turn in (0, 1, 2, 0)))


async def test_an_outage_ends_only_who_needs_the_store_and_nothing_is_missed(app: duly.App) -> None:
    asgi = app.asgi()
    other = duly.App(served.__name__, database=app.database)
    async with other.client(), wired(asgi) as watching, wired(asgi) as writing:
        for wire in (watching, writing):
            wire.connect()
            wire.add(0, "app:texts")
            assert values_in(await wire.message()) == {0: []}
        store_of(app).down = True
        writing.mutate(0, "app:write", text="lost")
        closed = await writing.until_closed()
        assert (closed.code, closed.reason[:19]) == (1011, "InternalServerError")
        await other.mutation(served.write, "kept")
        store_of(app).down = False
        assert values_in(await watching.message()) == {0: ["kept"]}
        async with wired(asgi) as back:
            back.session = writing.session
            back.connect()
            back.add(0, "app:texts")
            back.mutate(0, "app:write", text="lost")
            assert (await back.message_of("MutationResponse"))["success"]
            assert values_in(await watching.message()) == {0: ["kept", "lost"]}


async def test_an_admin_who_comes_during_an_outage_is_to_come_again(
    app: duly.App, caplog: pytest.LogCaptureFixture
) -> None:
    store_of(app).down = True
    async with wired(app.asgi()) as wire:
        wire.connect()
        wire.authenticate(0, "ann", KEY)
        closed = await wire.until_closed()
    assert (closed.code, closed.reason[:19]) == (1011, "InternalServerError")
    assert "a connection failed" not in caplog.text


async def test_pages_of_who_comes_later_are_not_those_of_who_came_first(app: duly.App) -> None:
    asgi = app.asgi()
    options = {"numItems": 2, "cursor": None}

    async def texts(message: dict[str, Any]) -> list[str]:
        page: list[dict[str, str]] = values_in(message)[0]["page"]
        return [note["text"] for note in page]

    async with wired(asgi) as first, wired(asgi) as second, wired(asgi) as third:
        for text in "abc":
            await app.mutation(served.write, text)
        for wire in (first, second):
            # The second comes when the page of the first has its end, and gets one with the same end.
            wire.connect()
            wire.add(0, "app:pages", paginationOpts=options)
            assert await texts(await wire.message()) == ["c", "b"]
        await app.mutation(served.write, "d")
        for wire in (first, second):
            assert await texts(await wire.message()) == ["d", "c", "b"]
        third.connect()
        third.add(0, "app:pages", paginationOpts=options)
        assert await texts(await third.message()) == ["d", "c"]


@pytest.mark.parametrize("session", ["", "\0", "x" * 65, "é"])
async def test_a_session_is_named_as_clients_name_it(app: duly.App, session: str) -> None:
    async with wired(app.asgi()) as wire:
        wire.session = session
        wire.connect()
        assert (await wire.message())["type"] == "FatalError"


async def test_connections_end_with_the_app(lasting_database: str, caplog: pytest.LogCaptureFixture) -> None:
    app = duly.App(served.__name__, database=lasting_database)
    asgi = app.asgi()
    async with app.client():
        idle, watching, waiting = Wire(asgi), Wire(asgi), Wire(asgi)
        for wire in (idle, watching, waiting):
            wire.connect()
        watching.add(0, "app:texts")
        await watching.message()
        waiting.add(0, "app:texts")
        await waiting.message()
        waiting.mutate(0, "app:write", text="a")
        await waiting.message_of("MutationResponse")
    idle.send("Event", eventType="x", event={})
    for wire in (idle, watching, waiting):
        assert (await wire.until_closed()).code == 1011
        await wire.leave()
    late = Wire(asgi)
    assert (await late.until_closed()).code == 1011
    await late.leave()
    assert "a connection failed" not in caplog.text


async def test_a_token_that_ends_ends_the_connection_of_who_reads_nothing_too(file_database: str) -> None:
    clock = ManualClock(NOW_MS)
    provider = duly.JWTProvider(issuer=ISSUER, audience=AUDIENCE, key=pem(RSA_KEY))
    app = duly.App(served.__name__, database=file_database, identity_providers=[provider])
    app._parts = Parts(clock=clock)
    async with app.client():
        asgi = app.asgi()
        reads, ignores = Wire(asgi), Wire(asgi)
        for wire in (reads, ignores):
            wire.connect()
            wire.send("Authenticate", baseVersion=0, tokenType="User", value=token(ISSUER))
            wire.add(0, "app:whoami")
            assert values_in(await wire.message_of("Transition")) in ({0: "ann"}, {})
        ignores.reads.clear()
        await app.mutation(served.write, "a")
        await clock.advance(3_700)
        error = await reads.message_of("AuthError")
        assert error["authUpdateAttempted"] is False
        await reads.until_closed()
        await clock.advance(60)
        await asyncio.wait_for(ignores.served, 60)
        await reads.leave()


async def test_a_key_that_is_revoked_ends_the_connection_that_it_opened(file_database: str) -> None:
    """Also where nothing is sent any more: what an admin watches would go on."""
    clock = ManualClock()
    app = duly.App(served.__name__, database=file_database)
    app._parts = Parts(clock=clock, store=GatedStore)
    async with app.client(), wired(app.asgi()) as admin, wired(app.asgi()) as anyone:
        store = store_of(app)
        for key in (KEY, OTHER_KEY):
            await store.transact(partial(insert_key, key=key))
        admin.connect()
        anyone.connect()
        for base, key in enumerate((OTHER_KEY, KEY)):
            admin.authenticate(base, "ann", key)
            assert (await admin.message_of("Transition"))["endVersion"]["identity"] == base + 1
        # Neither the key that it came with first, nor that nothing can be told for a while, makes any difference.
        await store.transact(lambda tx: tx.delete_admin_key(hash_admin_key(OTHER_KEY)))
        await clock.advance(11)
        store.down = True
        await clock.advance(11)
        store.down = False
        await clock.advance(11)
        admin.add(0, "app:whoami")
        assert values_in(await admin.message_of("Transition")) == {0: "ann"}
        await store.transact(lambda tx: tx.delete_admin_key(hash_admin_key(KEY)))
        await clock.advance(5)
        error = await admin.message_of("AuthError")
        assert (error["authUpdateAttempted"], error["baseVersion"]) == (False, 2)
        assert "no admin key of this app" in error["error"]
        await admin.until_closed()
        anyone.add(0, "app:whoami")
        assert values_in(await anyone.message_of("Transition")) == {0: None}


async def test_who_never_says_connect_is_sent_away(file_database: str) -> None:
    clock = ManualClock()
    app = duly.App(served.__name__, database=file_database)
    app._parts = Parts(clock=clock)
    async with app.client(), wired(app.asgi()) as wire:
        await clock.advance(31)
        closed = await wire.until_closed()
        assert (closed.code, closed.reason) == (1008, "NoConnectMessage")


async def test_what_a_client_that_is_back_repeats_is_answered_before_its_effects_are_shown(app: duly.App) -> None:
    """Also where the result is there at once, because others watch it, and the repetition comes a little later."""
    asgi = app.asgi()
    async with wired(asgi) as mate, wired(asgi) as cut, wired(asgi) as back:
        mate.connect()
        mate.add(0, "app:texts")
        assert (await mate.message())["modifications"][0]["value"] == []
        cut.connect(sessionId="one-and-the-same")
        cut.mutate(7, "app:write", text="tea")
        answer = await cut.message_of("MutationResponse")
        assert (await mate.message())["modifications"][0]["value"] == ["tea"]

        back.connect(sessionId="one-and-the-same", connectionCount=1)
        back.add(0, "app:texts")
        for _ in range(10):
            await asyncio.sleep(0)
        back.mutate(7, "app:write", text="tea")
        assert await back.message() == answer
        assert (await back.message())["modifications"][0]["value"] == ["tea"]


async def test_what_another_server_answered_is_shown_though_its_clock_is_ahead(lasting_database: str) -> None:
    """A client waits for a transition that is no older than the answer, and there may be no other for long."""
    ahead, behind = (duly.App(served.__name__, database=lasting_database) for _ in range(2))
    async with ahead.client(), behind.client(), wired(ahead.asgi()) as cut, wired(behind.asgi()) as back:
        assert ahead._live is not None
        ahead._live.pass_by(ahead._live.stamp() + 40_000_000_000)
        cut.connect(sessionId="one-and-the-same")
        cut.mutate(7, "app:write", text="tea")
        answer = await cut.message_of("MutationResponse")

        back.connect(sessionId="one-and-the-same", connectionCount=1)
        back.mutate(7, "app:write", text="tea")
        assert await back.message() == answer
        watching = Watching()
        watching.take(answer)
        watching.take(await back.message())  # asserts it


@pytest.mark.parametrize("change", ["gone", "internal", "other arguments"])
async def test_what_took_effect_is_told_though_it_fits_no_more(lasting_database: str, change: str) -> None:
    """A deploy is what cuts connections: the client is back on the code of tomorrow, with the calls of today."""
    before, after = (duly.App(served.__name__, database=lasting_database) for _ in range(2))
    async with before.client(), after.client(), wired(before.asgi()) as cut, wired(after.asgi()) as back:
        cut.connect(sessionId="one-and-the-same")
        cut.mutate(7, "app:write", text="tea")
        answer = await cut.message_of("MutationResponse")

        functions = after._registry.functions
        match change:
            case "gone":
                del functions["app:write"]
            case "internal":
                functions["app:write"].public = False
            case _:
                functions["app:write"] = functions["app:write_all"]
        back.connect(sessionId="one-and-the-same", connectionCount=1)
        back.mutate(7, "app:write", text="tea")
        assert await back.message() == answer
        back.mutate(8, "app:write", text="tea")
        assert (await back.message_of("MutationResponse"))["success"] is False
        assert await after.query(served.texts) == ["tea"]
