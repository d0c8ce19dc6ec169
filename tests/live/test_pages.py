"""Pages of clients: each ends for good where it ended at first, so that they neither overlap nor leave gaps."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import duly
from duly._call.scope import FROM_OUTSIDE, Pages


@duly.mutation
async def add(ctx: duly.MutationCtx, n: int) -> duly.Id[Any]:
    return await ctx.db.insert("numbers", {"n": n})


@duly.mutation
async def remove(ctx: duly.MutationCtx, id: duly.Id[Any]) -> None:
    await ctx.db.delete(id)


@duly.query
async def listed(
    ctx: duly.QueryCtx,
    paginationOpts: duly.PaginationOptions,  # noqa: N803 (as clients name it)
    descending: bool = False,
) -> duly.Page[dict[str, Any]]:
    query = ctx.db.query("numbers").order("desc" if descending else "asc")
    return await query.paginate(paginationOpts)


@duly.query
async def listed_twice(ctx: duly.QueryCtx, paginationOpts: duly.PaginationOptions) -> list[duly.Page[Any]]:  # noqa: N803
    return [await ctx.run_query(listed, paginationOpts), await ctx.run_query(listed, paginationOpts, descending=True)]


async def test_a_client_keeps_the_end_of_one_page(database: str) -> None:
    """With another cursor in its journal it would start over for ever."""
    options: duly.PaginationOptions = {"numItems": 3, "cursor": None}
    async with duly.App(__name__, database=database).client() as app:
        await app.mutation(add, 1)
        assert len(await app.query(listed_twice, options)) == 2
        with pytest.raises(duly.DulyError, match="'test_pages:listed' has more than one page for its client"):
            await page(app, Pages(None), of=listed_twice)


async def page(
    app: duly.App, pages: Pages | None = None, *, descending: bool = False, of: Any = None, **options: Any
) -> duly.Page[Any]:
    """What a live query gives that keeps `pages`."""
    runner = app._running()
    given_options = {"numItems": 3, "cursor": None, **options}
    options_of = {"paginationOpts": given_options} | ({"descending": True} if descending else {})
    function, stored = runner.prepare_stored("query", of or listed, (), options_of)
    arguments = function.signature.load(stored, {})
    result: duly.Page[Any] = await runner.environment.store.read(
        lambda tx: runner.look(FROM_OUTSIDE, function, arguments, tx, pages)
    )
    return result


def ns(found: duly.Page[Any]) -> list[int]:
    return [document["n"] for document in found.page]


async def test_a_page_keeps_its_end(database: str) -> None:
    async with duly.App(__name__, database=database).client() as app:
        ids = [await app.mutation(add, n) for n in range(6)]
        first, second = Pages(None), Pages(None)
        one = await page(app, first)
        two = await page(app, second, cursor=one.continue_cursor)
        assert (ns(one), one.is_done, ns(two), two.is_done) == ([0, 1, 2], False, [3, 4, 5], True)
        await app.mutation(remove, ids[1])
        await app.mutation(remove, ids[2])
        await app.mutation(add, 6)
        again = await page(app, first)
        assert (ns(again), again.continue_cursor, again.is_done) == ([0], one.continue_cursor, False)
        last = await page(app, second, cursor=one.continue_cursor)
        assert (ns(last), last.is_done) == ([3, 4, 5, 6], True)


async def test_newest_first_the_first_page_grows(database: str) -> None:
    async with duly.App(__name__, database=database).client() as app:
        for n in range(5):
            await app.mutation(add, n)
        first, second = Pages(None), Pages(None)
        one = await page(app, first, descending=True)
        two = await page(app, second, descending=True, cursor=one.continue_cursor)
        assert (ns(one), ns(two), two.is_done) == ([4, 3, 2], [1, 0], True)
        await app.mutation(add, 5)
        assert ns(await page(app, first, descending=True)) == [5, 4, 3, 2]
        assert ns(await page(app, second, descending=True, cursor=one.continue_cursor)) == [1, 0]


async def test_a_page_is_split_in_the_middle(database: str) -> None:
    async with duly.App(__name__, database=database).client() as app:
        for n in range(6):
            await app.mutation(add, n)
        whole = await page(app, numItems=6)
        assert whole.split_cursor is not None
        left = await page(app, endCursor=whole.split_cursor)
        right = await page(app, cursor=whole.split_cursor, endCursor=whole.continue_cursor)
        assert (ns(left), ns(right), left.is_done, right.is_done) == ([0, 1, 2], [3, 4, 5], False, True)


async def test_a_cursor_that_does_not_fit_makes_the_hooks_start_over(database: str) -> None:
    async with duly.App(__name__, database=database).client() as app:
        with pytest.raises(duly.AppError) as caught:
            await page(app, cursor="nonsense")
        assert caught.value.data == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
        with pytest.raises(duly.errors.InvalidValueError):
            await page(app, numItems=0)


@pytest.mark.parametrize("id", ["", "no id", "x\0", 5, None])
@pytest.mark.parametrize("field", ["cursor", "endCursor"])
@pytest.mark.parametrize("descending", [False, True])
async def test_a_cursor_that_was_tampered_with_is_refused_and_holds_up_nobody(
    database: str, id: object, field: str, descending: bool
) -> None:
    """An engine that can't even be asked would be asked again for ever, and every other live query wait for it."""
    async with duly.App(__name__, database=database).client() as app:
        await app.mutation(add, 0)
        await app.mutation(add, 1)
        given = await page(app, descending=descending, numItems=1)
        fingerprint, key, real = orjson.loads(base64.urlsafe_b64decode(given.continue_cursor + "=="))
        # Where it would be found if it were one.
        forged = orjson.dumps([fingerprint, key, f"{real[:8]}{id}" if isinstance(id, str) else id])
        options: dict[str, Any] = {field: base64.urlsafe_b64encode(forged).decode()}
        with pytest.raises(duly.AppError) as caught:
            await page(app, descending=descending, **options)
        assert caught.value.data == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=12),
    size=st.integers(1, 4),
    descending=st.booleans(),
)
async def test_pages_are_the_whole_without_gaps(steps: list[tuple[bool, int]], size: int, descending: bool) -> None:
    async with duly.App(__name__, database="sqlite:///:memory:").client() as app:
        ids = [await app.mutation(add, n) for n in range(7)]
        kept: list[tuple[Pages, str | None]] = []
        cursor, done = None, False
        while not done:
            pages = Pages(None)
            found = await page(app, pages, descending=descending, cursor=cursor, numItems=size)
            kept.append((pages, cursor))
            cursor, done = found.continue_cursor, found.is_done
        for grows, n in steps:
            if grows or not ids:
                ids.append(await app.mutation(add, n))
            else:
                await app.mutation(remove, ids.pop(n % len(ids)))
            joined = []
            for pages, start in kept:
                joined += (await page(app, pages, descending=descending, cursor=start, numItems=size)).page
            assert sorted(document["_id"] for document in joined) == sorted(ids)
            assert joined == sorted(joined, key=lambda document: document["_id"], reverse=descending)
