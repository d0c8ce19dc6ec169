"""Live queries from Python: they keep up, agree with each other, and are computed no more often than it takes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypedDict, TypeVar, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import duly
from duly._app import Parts
from duly._ground.clock import Clock
from duly._store.open import make_store
from duly._store.port import Transaction
from duly.errors import ConflictError, StoreUnavailableError
from duly.testing.faults import StoreView
from tests.support import DEADLINE_S, ManualClock, eventually

T = TypeVar("T")


class Note(TypedDict):
    box: str
    n: int


notes = duly.Table("notes", Note, indexes={"by_box": ["box", "n"]})


@duly.mutation
async def add(ctx: duly.MutationCtx, box: str, n: int) -> duly.Id[Note]:
    return await ctx.db.insert(notes, {"box": box, "n": n})


@duly.mutation
async def change(ctx: duly.MutationCtx, id: duly.Id[Note], box: str, n: int) -> None:
    await ctx.db.replace(id, {"box": box, "n": n})


@duly.mutation
async def remove(ctx: duly.MutationCtx, id: duly.Id[Note]) -> None:
    await ctx.db.delete(id)


@duly.query
async def in_box(ctx: duly.QueryCtx, box: str) -> list[int]:
    return [note["n"] async for note in ctx.db.query(notes).with_index("by_box", box=box)]


@duly.query
async def first_in_box(ctx: duly.QueryCtx, box: str, descending: bool = False) -> int | None:
    query = ctx.db.query(notes).with_index("by_box", box=box).order("desc" if descending else "asc")
    found = await query.first()
    return None if found is None else found["n"]


@duly.query
async def between(ctx: duly.QueryCtx, box: str, low: int, high: int) -> list[int]:
    query = ctx.db.query(notes).with_index("by_box", box=box, n=duly.gte(low) & duly.lt(high))
    return [note["n"] async for note in query]


@duly.query
async def how_many(ctx: duly.QueryCtx) -> int:
    return await ctx.db.query(notes).count()


@duly.query
async def newest(ctx: duly.QueryCtx, number: int) -> list[int]:
    return [note["n"] for note in await ctx.db.query(notes).order("desc").take(number)]


@duly.query
async def one(ctx: duly.QueryCtx, id: duly.Id[Note]) -> int | None:
    found = await ctx.db.get(id)
    return None if found is None else found["n"]


@duly.query
async def states(ctx: duly.QueryCtx) -> list[str]:
    return [job["state"]["kind"] for job in await ctx.db.system.query("_scheduled_functions").collect()]


@duly.query
async def fails_beyond(ctx: duly.QueryCtx, limit: int) -> int:
    number = await ctx.db.query(notes).count()
    if number > limit:
        raise duly.AppError({"too many": number})
    return number


@duly.query
async def raises(ctx: duly.QueryCtx, error: str) -> int:
    raise getattr(duly.errors, error)("of its own making, or another app's")


@duly.query
async def both(ctx: duly.QueryCtx) -> tuple[int, int]:
    return await ctx.db.query(notes).count(), len(await ctx.db.query(notes).collect())


@pytest.fixture
async def app(database: str) -> AsyncIterator[duly.App]:
    app = duly.App(__name__, database=database)
    async with app:
        yield app


async def upcoming(results: AsyncIterator[Any]) -> Any:
    return await asyncio.wait_for(anext(results), 30)


def runs(app: duly.App) -> int:
    assert app._live is not None
    return app._live.runs


async def stepped(app: duly.App) -> None:
    """All that is committed by now has been looked at."""
    assert app._live is not None
    await app._live.reach(app._live.stamp())


async def test_a_subscription_gives_the_result_and_each_later_one(app: duly.App) -> None:
    results = app.subscribe(in_box, "a")
    assert await upcoming(results) == []
    await app.mutation(add, "a", 1)
    assert await upcoming(results) == [1]
    id = await app.mutation(add, "a", 2)
    assert await upcoming(results) == [1, 2]
    await app.mutation(change, id, "a", 0)
    assert await upcoming(results) == [0, 1]
    await app.mutation(change, id, "b", 0)
    assert await upcoming(results) == [1]


async def test_scheduled_functions_and_their_states_are_seen(app: duly.App) -> None:
    results, boxes = app.subscribe(states), app.subscribe(in_box, "a")
    assert (await upcoming(results), await upcoming(boxes)) == ([], [])
    await app.scheduler.run_after(timedelta(milliseconds=300), add, "a", 7)
    assert await upcoming(results) == ["pending"]
    assert await upcoming(results) == ["success"]
    assert await upcoming(boxes) == [7]


async def test_what_it_did_not_read_computes_nothing(app: duly.App) -> None:
    other = await app.mutation(add, "b", 1)
    subscriptions = [app.subscribe(in_box, "a"), app.subscribe(first_in_box, "a"), app.subscribe(between, "a", 3, 5)]
    for subscription in subscriptions:
        await upcoming(subscription)
    before = runs(app)
    await app.mutation(add, "b", 4)
    await app.mutation(change, other, "c", 4)
    await app.mutation(remove, other)
    await stepped(app)
    assert runs(app) == before
    await app.mutation(add, "a", 9)  # not between 3 and 5
    assert await upcoming(subscriptions[0]) == [9]
    assert await upcoming(subscriptions[1]) == 9
    assert runs(app) == before + 2


async def test_what_lies_beyond_the_last_that_was_read_computes_nothing(app: duly.App) -> None:
    await app.mutation(add, "a", 5)
    first, last = app.subscribe(first_in_box, "a"), app.subscribe(first_in_box, "a", descending=True)
    assert (await upcoming(first), await upcoming(last)) == (5, 5)
    before = runs(app)
    await app.mutation(add, "a", 6)
    assert await upcoming(last) == 6
    await stepped(app)
    assert runs(app) == before + 1
    await app.mutation(add, "a", 4)
    assert await upcoming(first) == 4
    assert runs(app) == before + 2


async def test_equal_subscriptions_are_one_computation(app: duly.App) -> None:
    many = [app.subscribe(in_box, "a") for _ in range(50)]
    await asyncio.gather(*map(upcoming, many))
    assert runs(app) == 1
    await app.mutation(add, "a", 1)
    assert await asyncio.gather(*map(upcoming, many)) == [[1]] * 50
    assert runs(app) == 2


async def test_a_result_is_each_subscribers_own(app: duly.App) -> None:
    await app.mutation(add, "a", 1)
    ours, theirs = app.subscribe(in_box, "a"), app.subscribe(in_box, "a")
    (await upcoming(ours)).clear()
    assert await upcoming(theirs) == [1]


async def test_an_equal_result_is_not_told(app: duly.App) -> None:
    id = await app.mutation(add, "a", 1)
    results = app.subscribe(how_many)
    assert await upcoming(results) == 1

    pending = asyncio.ensure_future(upcoming(results))
    await app.mutation(change, id, "a", 2)
    await stepped(app)
    assert not pending.done()
    await app.mutation(add, "a", 3)
    assert await pending == 2


async def test_who_is_slow_gets_the_newest(app: duly.App) -> None:
    results = app.subscribe(how_many)
    assert await upcoming(results) == 0
    for number in range(20):
        await app.mutation(add, "a", number)
    await stepped(app)
    assert await upcoming(results) == 20


async def test_an_error_of_the_query_ends_the_subscription(app: duly.App) -> None:
    results = app.subscribe(fails_beyond, 1)
    assert await upcoming(results) == 0
    await app.mutation(add, "a", 1)
    assert await upcoming(results) == 1
    await app.mutation(add, "a", 2)
    with pytest.raises(duly.AppError):
        await upcoming(results)
    with pytest.raises(StopAsyncIteration):
        await anext(results)


@pytest.mark.parametrize("error", [ConflictError, StoreUnavailableError])
async def test_what_a_query_raises_as_if_it_were_the_store_ends_its_own_subscription_only(
    app: duly.App, error: type[Exception]
) -> None:
    others = app.subscribe(how_many)
    assert await upcoming(others) == 0
    with pytest.raises(error):
        await upcoming(app.subscribe(raises, error.__name__))
    await app.mutation(add, "a", 1)
    assert await upcoming(others) == 1


async def test_bad_calls_are_refused_at_once(app: duly.App) -> None:
    with pytest.raises(duly.errors.ArgumentError):
        app.subscribe("tests.live.test_subscribe:in_box".rpartition(".")[2], box=7)
    with pytest.raises(duly.errors.FunctionKindError):
        app.subscribe(add, "a", 1)


async def test_nothing_is_left_when_nobody_subscribes(app: duly.App) -> None:
    results = app.subscribe(how_many)
    await upcoming(results)
    assert app._live is not None
    assert app._live.watched == 1
    await results.aclose()  # type: ignore[attr-defined]
    assert app._live.watched == 0


async def test_another_process_is_followed(lasting_database: str) -> None:
    ours = duly.App(__name__, database=lasting_database)
    theirs = duly.App(__name__, database=lasting_database)
    async with ours.client(), theirs.client():
        results = ours.subscribe(in_box, "a")
        assert await upcoming(results) == []
        for number in range(5):
            await theirs.mutation(add, "a", number)
            assert await upcoming(results) == list(range(number + 1))


async def test_closing_the_app_ends_it(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        results = app.subscribe(how_many)
        await upcoming(results)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "duly live queries"]


async def test_two_queries_never_show_different_moments(lasting_database: str) -> None:
    """One result that rests on two reads, while another process writes."""
    ours = duly.App(__name__, database=lasting_database)
    theirs = duly.App(__name__, database=lasting_database)
    async with ours.client(), theirs.client():
        seen: list[tuple[int, int]] = []

        async def watch() -> None:
            async for pair in ours.subscribe(both):
                seen.append(pair)
                if pair[0] == 40:
                    return

        watching = asyncio.ensure_future(watch())
        for number in range(40):
            await theirs.mutation(add, "a", number)
        await asyncio.wait_for(watching, 30)
    assert all(one == other for one, other in seen)
    assert seen == sorted(seen)


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "change", "remove"]), st.sampled_from("abc"), st.integers(0, 9)), max_size=12
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_every_result_is_what_the_query_returns(steps: list[tuple[str, str, int]]) -> None:
    app = duly.App(__name__, database="sqlite:///:memory:")
    async with app.client():
        calls: list[tuple[Any, tuple[Any, ...]]] = [
            *((in_box, (box,)) for box in "ab"),
            *((first_in_box, (box, descending)) for box in "ab" for descending in (False, True)),
            (between, ("a", 2, 6)),
            (how_many, ()),
            *((newest, (number,)) for number in (1, 3)),
        ]
        assert app._live is not None
        latest: dict[int, Any] = {}

        async def keep(number: int) -> None:
            function, args = calls[number]
            async for result in app.subscribe(function, *args):
                latest[number] = result

        tasks = [asyncio.ensure_future(keep(number)) for number in range(len(calls))]
        ids: list[duly.Id[Note]] = []
        for what, box, n in steps:
            if what == "add" or not ids:
                ids.append(await app.mutation(add, box, n))
            elif what == "change":
                await app.mutation(change, ids[n % len(ids)], box, n)
            else:
                await app.mutation(remove, ids.pop(n % len(ids)))
            await stepped(app)

            async def all_told() -> bool:
                return [await app.query(function, *args) for function, args in calls] == [
                    latest.get(number) for number in range(len(calls))
                ]

            await eventually(all_told, deadline_s=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@duly.query
async def cancels_itself(ctx: duly.QueryCtx) -> None:
    raise asyncio.CancelledError


async def test_a_query_that_cancels_itself_ends_nobody_elses_subscription(app: duly.App) -> None:
    results = app.subscribe(how_many)
    assert await upcoming(results) == 0
    with pytest.raises(asyncio.CancelledError):
        await upcoming(app.subscribe(cancels_itself))
    await app.mutation(add, "a", 1)
    assert await upcoming(results) == 1


async def test_closing_the_app_tells_who_waits(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        results = app.subscribe(how_many)
        await upcoming(results)
        later = asyncio.ensure_future(upcoming(results))
        await stepped(app)
    with pytest.raises(duly.errors.AppNotOpenError):
        await later


@duly.query
async def waits_for_ever(ctx: duly.QueryCtx) -> int:
    number = await ctx.db.query(notes).count()
    with suppress(asyncio.CancelledError):  # nor does it listen when it is told to end
        await asyncio.Event().wait()
    await asyncio.Event().wait()
    return number


async def test_a_query_that_waits_for_ever_fails_and_holds_up_no_other_for_long(lasting_database: str) -> None:
    app = duly.App(__name__, database=lasting_database)
    clock = ManualClock()
    app._parts = Parts(clock=clock)
    async with app.client():
        stuck = asyncio.ensure_future(anext(app.subscribe(waits_for_ever)))
        others = app.subscribe(how_many)
        waiting = asyncio.ensure_future(anext(others))

        async def both_have_something() -> bool:
            await clock.advance(1)
            return stuck.done() and waiting.done()

        await eventually(both_have_something)
        with pytest.raises(duly.errors.LimitError, match="a live query may run for 10 seconds and was stopped after 1"):
            await stuck
        assert await waiting == 0


class CutOff(StoreView):
    """A store that can't be reached while `down`."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(make_store(url, clock))
        self.down = False

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /, *, follows: bool = False) -> T:
        if self.down:
            raise StoreUnavailableError("it is down")
        return await self._store.read(body, follows=follows)

    async def follow(self, follower: str, seconds: float) -> None:
        if self.down:
            raise StoreUnavailableError("it is down")
        await self._store.follow(follower, seconds)


async def test_what_is_committed_while_nobody_took_note_is_seen_afterwards(
    lasting_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut off for so long that its word that it follows has run out: then commits leave no word for it."""
    clock = ManualClock()
    ours, theirs = duly.App(__name__, database=lasting_database), duly.App(__name__, database=lasting_database)
    ours._parts, theirs._parts = Parts(clock=clock, store=CutOff), Parts(clock=clock)
    async with ours.client(), theirs.client():
        results = ours.subscribe(how_many)
        assert await upcoming(results) == 0
        store = cast("CutOff", ours._store)
        store.down = True
        for _ in range(50):
            await clock.advance(1)
        await theirs.mutation(add, "a", 1)
        store.down = False
        later = asyncio.ensure_future(anext(results))

        async def has_come() -> bool:
            await clock.advance(1)
            return later.done()

        await eventually(has_come)
        assert await later == 1
    assert [
        (record.levelname, record.getMessage()) for record in caplog.records if "live queries" in record.message
    ] == [
        ("WARNING", "live queries can't be computed, and are once it works again: it is down"),
        ("WARNING", "live queries are computed again"),
    ]


class LongFarewell(StoreView):
    """A store on which it takes as long as the test likes to follow no more."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(make_store(url, clock))
        self.leaving, self.may_leave = asyncio.Event(), asyncio.Event()

    async def unfollow(self, follower: str) -> None:
        self.leaving.set()
        await self.may_leave.wait()
        await self._store.unfollow(follower)


async def test_who_watches_while_the_last_one_is_seen_off_is_followed_for(lasting_database: str) -> None:
    app = duly.App(__name__, database=lasting_database)
    app._parts = Parts(store=LongFarewell)
    async with app.client():
        store = cast("LongFarewell", app._store)
        results = app.subscribe(how_many)
        assert await upcoming(results) == 0
        await cast("Any", results).aclose()
        await app.mutation(add, "a", 1)
        await asyncio.wait_for(store.leaving.wait(), DEADLINE_S)
        later = app.subscribe(how_many)
        first = asyncio.ensure_future(anext(later))
        await asyncio.wait({first}, timeout=0.5)
        store.may_leave.set()
        assert await asyncio.wait_for(first, DEADLINE_S) == 1
        await app.mutation(add, "a", 2)
        assert await upcoming(later) == 2
