"""The query builder: what to read, in which order, how much of it."""

import base64
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Generic, NoReturn, NotRequired, Protocol, TypeVar, cast

import orjson
from pydantic import Field
from typing_extensions import TypedDict

from duly._call.scope import Scope
from duly._ground.ids import ID_HIGHEST, TIME_US_END, check_id, first_id_at
from duly._ground.keys import encode_key
from duly._ground.values import normalize
from duly._model.ranges import Range, key_bounds
from duly._model.schema import Index, Table
from duly._model.signature import storable
from duly._store.port import Position
from duly.errors import AppError, DulyError, IndexNotFoundError, InvalidIdError, InvalidValueError, NotUniqueError

__all__ = ["Page", "PaginationOptions", "Query", "Source"]

D = TypeVar("D")
D_co = TypeVar("D_co", covariant=True)

_BATCH_FIRST, _BATCH_MAX = 32, 512


@dataclass(frozen=True, slots=True)
class Page(Generic[D_co]):
    """One page of a query.

    `page` holds the documents; `is_done` says that there are no more; `continue_cursor` is passed to `paginate` for
    the next page, and is good also when rows come and go in between.

    Example:
        result = await ctx.db.query(orders).paginate(cursor=None, page_size=50)
        next_result = await ctx.db.query(orders).paginate(cursor=result.continue_cursor, page_size=50)
    """

    page: list[D_co]
    # Clients know these by other names.
    is_done: Annotated[bool, Field(serialization_alias="isDone")]
    continue_cursor: Annotated[str, Field(serialization_alias="continueCursor")]
    # About the middle of the page, for who wants to have it as two.
    split_cursor: Annotated[str | None, Field(serialization_alias="splitCursor")] = None


class PaginationOptions(TypedDict):
    """What the hooks of Convex's clients pass as the argument `paginationOpts`, for `paginate` to take.

    Example:
        options: duly.PaginationOptions = {"numItems": 20, "cursor": None}
        result = await ctx.db.query(orders).order("desc").paginate(options)
    """

    numItems: int
    cursor: str | None
    endCursor: NotRequired[str | None]
    id: NotRequired[float]
    maximumRowsRead: NotRequired[float | None]
    maximumBytesRead: NotRequired[float | None]


class Source(Protocol):
    """Where a query reads: documents of a table, or scheduled functions."""

    name: str
    tag: str
    table: Table[Any]

    async def scan(
        self, scope: Scope, index: Index | None, after: Position, before: Position, descending: bool, limit: int, /
    ) -> list[tuple[Position, dict[str, Any]]]: ...

    async def count(self, scope: Scope, index: Index | None, after: Position, before: Position, /) -> int: ...


class Query(Generic[D]):
    """A query under construction. Each method returns a new one; nothing is read until it is awaited or iterated.

    Without an index it reads by creation time, oldest first.

    Example:
        unpaid = await ctx.db.query(orders).with_index("by_status", status="open").order("desc").take(10)
    """

    def __init__(self, scope: Scope, source: Source) -> None:
        self._scope = scope
        self._source = source
        self._index: Index | None = None
        self._after = Position(b"", source.tag)
        self._before = Position(b"", source.tag + ID_HIGHEST)
        self._descending = False
        self._predicates: tuple[Callable[[D], object], ...] = ()

    def _with(self, **changes: Any) -> "Query[D]":
        query: Query[D] = object.__new__(Query)
        query.__dict__.update(self.__dict__ | changes)
        return query

    def with_index(self, index: str, /, **fields: Any) -> "Query[D]":
        """Reads through an index, in its order: its fields, then `_creationTime`.

        Args:
            index: The index's name; `by_creation_time` always exists.
            fields: Values for a prefix of its fields; the last given may be a range: `duly.gt`, `gte`, `lt`, `lte`,
                joined by `&`. After all fields `_creationTime` may have a value or a range (ms since the epoch).

        Raises:
            IndexNotFoundError: The table has no such index.
            InvalidValueError: A field that the index has not, a gap before one, or a value that can't be stored.

        Example:
            due = ctx.db.query(orders).with_index("by_status_and_due", status="open", due=duly.lt(ctx.now.timestamp()))
        """
        if index == "by_creation_time":
            spec = Index(index, ())
        else:
            found = self._source.table.indexes.get(index)
            if found is None:
                raise IndexNotFoundError(self._source.name, index, [*self._source.table.indexes, "by_creation_time"])
            spec = found
        after, before = self._bounds(spec, fields)
        return self._with(_index=spec if spec.fields else None, _after=after, _before=before)

    def _bounds(self, index: Index, fields: dict[str, Any]) -> tuple[Position, Position]:
        names = (*index.fields, "_creationTime")
        given = [name for name in names if name in fields]
        if len(given) < len(fields):
            unknown = next(name for name in fields if name not in names)
            raise InvalidValueError(f"index {index.name!r} has no field {unknown!r}; it has {', '.join(names)}")
        if given != list(names[: len(given)]):
            raise InvalidValueError(
                f"index {index.name!r} orders by {', '.join(names)}; give values for the first of them without a gap"
            )
        prefix: list[Any] = []
        last = Range()
        for number, name in enumerate(given):
            value = fields[name]
            if isinstance(value, Range):
                if number < len(given) - 1:
                    raise InvalidValueError(f"{name!r} has a range, so nothing can follow it; {given[-1]!r} does")
                last = value
            elif name != "_creationTime":
                prefix.append(_stored(value, name))
        if "_creationTime" in given:
            return self._time_bounds(encode_key(prefix) if index.fields else b"", fields["_creationTime"])
        bounds = (bound and replace(bound, value=_stored(bound.value, given[-1])) for bound in (last.lower, last.upper))
        last = Range(*bounds)
        if not index.fields:
            return Position(b"", self._source.tag), Position(b"", self._source.tag + ID_HIGHEST)
        lower, upper = key_bounds(prefix, last)
        return Position(lower, ""), Position(upper, "")

    def _time_bounds(self, key: bytes, time: Any) -> tuple[Position, Position]:
        tag = self._source.tag
        if not isinstance(time, Range):
            first = first_id_at(tag, _first_us(time, above=False))
            return Position(key, first), Position(key, first_id_at(tag, _first_us(time, above=True)))
        after, before = tag, tag + ID_HIGHEST
        if time.lower:
            after = first_id_at(tag, _first_us(time.lower.value, above=not time.lower.inclusive))
        if time.upper:
            before = first_id_at(tag, _first_us(time.upper.value, above=time.upper.inclusive))
        return Position(key, after), Position(key, before)

    def order(self, direction: str, /) -> "Query[D]":
        """`"asc"` (the default) or `"desc"`: the order of the index, or of creation.

        Raises:
            InvalidValueError: Another word.

        Example:
            newest = await ctx.db.query(orders).order("desc").first()
        """
        if direction not in ("asc", "desc"):
            raise InvalidValueError(f"the order is 'asc' or 'desc', not {direction!r}")
        return self._with(_descending=direction == "desc")

    def filter(self, predicate: Callable[[D], object], /) -> "Query[D]":
        """Keeps the documents for which the predicate is true. Those it drops are read all the same: prefer an index.

        Example:
            large = await ctx.db.query(orders).filter(lambda order: len(order["items"]) > 10).collect()
        """
        return self._with(_predicates=(*self._predicates, predicate))

    async def collect(self) -> list[D]:
        """All documents. Raises `LimitError` past 32,000 read in the transaction: then `take` or `paginate`.

        Example:
            everything = await ctx.db.query(orders).collect()
        """
        return [document async for document in self]

    async def take(self, n: int, /) -> list[D]:
        """The first `n` documents, or as many as there are.

        Raises:
            InvalidValueError: `n` is negative.

        Example:
            ten = await ctx.db.query(orders).take(10)
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"take() takes an int, not {n!r}")
        if n < 0:
            raise InvalidValueError(f"take() takes 0 or more, not {n}")
        documents: list[D] = []
        if n:
            async for document in self._iterate(self._after, self._before, n):
                documents.append(document[1])
                if len(documents) == n:
                    break
        return documents

    async def first(self) -> D | None:
        """The first document, or None.

        Example:
            oldest = await ctx.db.query(orders).first()
        """
        documents = await self.take(1)
        return documents[0] if documents else None

    async def unique(self) -> D | None:
        """The only document, or None.

        Raises:
            NotUniqueError: There is more than one.

        Example:
            user = await ctx.db.query(users).with_index("by_email", email=email).unique()
        """
        documents = await self.take(2)
        if len(documents) > 1:
            raise NotUniqueError(self._source.name)
        return documents[0] if documents else None

    async def count(self) -> int:
        """How many documents there are. Without a filter it reads none of them.

        Example:
            open_orders = await ctx.db.query(orders).with_index("by_status", status="open").count()
        """
        if self._predicates:
            return len(await self.collect())
        return await self._scope.operation(self._count())

    async def _count(self) -> int:
        if self._scope.enter():
            await self._scope.turn()
        return await self._source.count(self._scope, self._index, self._after, self._before)

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError("documents are read with 'async for', or at once with 'await query.collect()'")

    def __aiter__(self) -> AsyncIterator[D]:
        return self._documents()

    async def _documents(self) -> AsyncIterator[D]:
        async for _, document in self._iterate(self._after, self._before, _BATCH_FIRST):
            yield document

    async def _iterate(self, after: Position, before: Position, batch: int) -> AsyncIterator[tuple[Position, D]]:
        while True:
            batch = min(batch, _BATCH_MAX)
            rows = await self._scope.operation(self._scan(after, before, batch))
            for position, document in rows:
                # A position at a time, so that what is changed while iterating neither repeats nor hides another.
                if all(predicate(cast("D", document)) for predicate in self._predicates):
                    yield position, cast("D", document)
            if len(rows) < batch:
                return
            after, before = (after, rows[-1][0]) if self._descending else (rows[-1][0], before)
            batch *= 2

    async def _scan(self, after: Position, before: Position, batch: int) -> list[tuple[Position, dict[str, Any]]]:
        if self._scope.enter():
            await self._scope.turn()
        return await self._source.scan(self._scope, self._index, after, before, self._descending, batch)

    async def paginate(self, cursor: str | PaginationOptions | None = None, page_size: int = 50) -> Page[D]:
        """One page of the documents.

        A page that a client is subscribed to ends for good where it ended at first: it grows and shrinks in place as
        rows come and go, so that pages neither overlap nor leave gaps.

        Args:
            cursor: None for the first page, then the `continue_cursor` of the page before. Or the argument
                `paginationOpts` that the hooks of clients pass, whole: it holds the page size, too.
            page_size: How many documents at most, 1 or more; default 50.

        Raises:
            InvalidValueError: The page size is not positive, or the cursor is not one of this query.
            AppError: The same of a client's cursor: its hooks start over.
            DulyError: A client is subscribed, and the query has had a page for it already.

        Example:
            result = await ctx.db.query(orders).paginate(cursor=cursor, page_size=20)
        """
        if isinstance(cursor, Mapping):
            return await self._page_of(cursor)
        return await self._page(cursor, page_size, None)

    async def _page_of(self, options: PaginationOptions) -> Page[D]:
        pages = self._scope.pages
        if pages is not None:
            if pages.is_read:
                raise DulyError(
                    f"{self._scope.path!r} has more than one page for its client, which keeps the end of one; make a "
                    "query of each"
                )
            pages.is_read = True
        end = options.get("endCursor") or (pages.end if pages is not None else None)
        try:
            page = await self._page(options["cursor"], options["numItems"], end)
        except _CursorError as error:
            raise AppError({"isConvexSystemError": True, "paginationError": "InvalidCursor"}) from error
        if pages is not None:
            pages.end = page.continue_cursor
        return page

    async def _page(self, cursor: str | None, page_size: int, end: str | None) -> Page[D]:
        """`end`: the cursor at which the page ends, however many documents there are up to it."""
        if isinstance(page_size, bool) or not isinstance(page_size, int):
            raise TypeError(f"page_size is an int, not {page_size!r}")
        if page_size < 1:
            raise InvalidValueError(f"page_size is 1 or more, not {page_size}")
        after, before = self._after, self._before
        if cursor is not None:
            position = self._read_cursor(cursor)
            after, before = (after, position) if self._descending else (position, before)
        limit = math.inf if end is not None else page_size
        last = self._after if self._descending else self._before
        stop = last if end is None else self._read_cursor(end)
        if stop != last:
            # Bounds are exclusive, and the last of the page is in it.
            after, before = (_just_before(stop), before) if self._descending else (after, _just_after(stop))
        page: list[D] = []
        positions: list[Position] = []
        # One more than the page, to know whether it is the last.
        async for position, document in self._iterate(after, before, page_size + 1):
            if len(page) == limit:
                stop = positions[-1]
                break
            page.append(document)
            positions.append(position)
        middle = self._write_cursor(positions[len(page) // 2 - 1]) if len(page) > 1 else None
        return Page(page, stop == last, self._write_cursor(stop), middle)

    def _fingerprint(self) -> str:
        parts = (self._source.name, self._index, self._after, self._before, self._descending)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def _write_cursor(self, position: Position) -> str:
        raw = orjson.dumps([self._fingerprint(), position.key.hex(), position.id])
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def _read_cursor(self, cursor: str) -> Position:
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            fingerprint, key, id = orjson.loads(raw)
            position = Position(bytes.fromhex(key), id)
            if position not in (self._after, self._before):
                # Cursors come back from clients, and there are texts that an engine can't even be asked about.
                check_id(id)
        except (ValueError, TypeError, InvalidIdError) as error:
            raise _CursorError(f"{cursor!r} is no cursor; pass what the page before gave, or None") from error
        if fingerprint != self._fingerprint():
            raise _CursorError("the cursor is of another query; it goes with the same table, index and order")
        if not self._after <= position <= self._before:
            # One that was tampered with must not lead out of the query.
            raise _CursorError("the cursor points outside of the query; pass what the page before gave, or None")
        return position


class _CursorError(InvalidValueError):
    """A cursor that is not one of the query."""


def _just_after(position: Position) -> Position:
    """Between a position and the next: ids are of one length, and a blank is lower than what they are made of."""
    return Position(position.key, position.id + " ")


def _just_before(position: Position) -> Position:
    """Between a position and the one before."""
    return Position(position.key, position.id[:-1] + chr(ord(position.id[-1]) - 1) + "~")


def _stored(value: Any, where: str) -> Any:
    """What the value is once stored, so that it is compared with its like."""
    return normalize({where: value}, storable)[where]


def _first_us(ms: Any, *, above: bool) -> int:
    """The first microsecond whose time in ms is not below (or is above) the given one, as floats compare."""
    if isinstance(ms, bool) or not isinstance(ms, (int, float)) or ms != ms:
        raise InvalidValueError(f"_creationTime is a number of milliseconds since the epoch, not {ms!r}")
    # Outside of what an id can hold, all ids are on one side.
    if ms < 0:
        return 0
    if ms >= TIME_US_END / 1_000:
        return TIME_US_END
    us = math.floor(ms * 1_000) - 2
    while us / 1_000 < ms or (above and us / 1_000 <= ms):
        us += 1
    return us
