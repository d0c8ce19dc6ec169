"""Documents, tables, indexes and queries (DESIGN section 3.4), through the public interface."""

import asyncio
import base64
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

import pytest

import duly
from duly._app import Parts
from duly.errors import (
    DocumentNotFoundError,
    IndexNotFoundError,
    InvalidIdError,
    InvalidValueError,
    NotUniqueError,
    SchemaError,
)
from tests.support import ManualClock

# --- the app under test ---------------------------------------------------------------------------------------------


class Level(Enum):
    LOW = "low"
    HIGH = "high"


class Address(TypedDict):
    city: str
    zip: NotRequired[str]


class Customer(TypedDict):
    name: str
    address: NotRequired[Address]


class Event(TypedDict):
    at: datetime
    day: date
    price: Decimal
    level: Level
    key: UUID
    took: timedelta
    tags: set[str]
    pair: tuple[int, str]
    of: NotRequired[duly.Id[Customer]]


class Row(TypedDict):
    n: int
    big: NotRequired[duly.Int64]
    group: NotRequired[str | None]
    kind: NotRequired[Literal["a", "b"]]


customers = duly.Table("customers", Customer, indexes={"by_city": ["address.city", "name"]})
events = duly.Table("events", Event, indexes={"by_at": ["at"], "by_level": ["level"]})
rows = duly.Table("rows", Row, indexes={"by_group": ["group", "n"], "by_n": ["n"]})
loose = duly.Table("loose", indexes={"by_value": ["value"], "by_path": ["a.b.c"]})

Body = Callable[[Any], Any]
"""What a test does with `ctx`. Kept here because a function is named by its path, and its arguments are JSON."""
_bodies: list[Body] = []


@duly.mutation
async def write(ctx: duly.MutationCtx) -> Any:
    return await _bodies[-1](ctx)


@duly.query
async def read(ctx: duly.QueryCtx) -> Any:
    return await _bodies[-1](ctx)


async def writing(app: duly.App, body: Callable[[duly.MutationCtx], Any]) -> Any:
    """What a mutation of this body returns."""
    _bodies.append(body)
    try:
        return await app.mutation(write)
    finally:
        _bodies.remove(body)


async def reading(app: duly.App, body: Callable[[duly.QueryCtx], Any]) -> Any:
    """What a query of this body returns."""
    _bodies.append(body)
    try:
        return await app.query(read)
    finally:
        _bodies.remove(body)


@duly.mutation
async def noop(ctx: duly.MutationCtx) -> None: ...


def make_app(database: str) -> duly.App:
    return duly.App(__name__, database=database)


def fields_of(document: Any) -> dict[str, Any]:
    """The document without what the system adds."""
    return {name: value for name, value in document.items() if not name.startswith("_")}


async def insert_all(app: duly.App, table: Any, documents: list[dict[str, Any]]) -> list[duly.Id[Any]]:
    async def body(ctx: duly.MutationCtx) -> list[duly.Id[Any]]:
        return [await ctx.db.insert(table, document) for document in documents]

    ids: list[duly.Id[Any]] = await writing(app, body)
    return ids


async def getting(id: duly.Id[Any], ctx: duly.QueryCtx) -> Any:
    return await ctx.db.get(id)


async def patching(id: duly.Id[Any], fields: dict[str, Any], ctx: duly.MutationCtx) -> None:
    await ctx.db.patch(id, fields)


async def collecting(table: Any, ctx: duly.QueryCtx) -> list[Any]:
    documents: list[Any] = await ctx.db.query(table).collect()
    return documents


async def turning(
    query: Callable[[duly.QueryCtx], duly.Query[Any]], cursor: str | None, page_size: int, ctx: duly.QueryCtx
) -> duly.Page[Any]:
    return await query(ctx).paginate(cursor, page_size)


# --- one document ---------------------------------------------------------------------------------------------------


async def test_a_document_is_inserted_and_read_with_its_id_and_creation_time(database: str) -> None:
    async with make_app(database).client() as app:
        before = datetime.now(UTC)
        (id,) = await insert_all(app, rows, [{"n": 1, "group": "x"}])
        document = await reading(app, lambda ctx: ctx.db.get(id))
        assert document == {"_id": id, "_creationTime": document["_creationTime"], "n": 1, "group": "x"}
        assert isinstance(document["_creationTime"], float)
        assert duly.id_of(document) == id
        created = duly.created_at(document)
        assert created.tzinfo is UTC
        assert before - timedelta(milliseconds=1) <= created <= datetime.now(UTC) + timedelta(milliseconds=1)


async def test_a_document_that_is_not_there_is_none(database: str) -> None:
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, rows, [{"n": 1}])
        await writing(app, lambda ctx: ctx.db.delete(id))
        assert await reading(app, lambda ctx: ctx.db.get(id)) is None


async def test_a_mutation_reads_what_it_wrote(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> None:
        id = await ctx.db.insert(rows, {"n": 1})
        assert fields_of(await ctx.db.get(id)) == {"n": 1}
        assert await ctx.db.query(rows).with_index("by_n", n=1).count() == 1
        await ctx.db.patch(id, {"n": 2})
        assert await ctx.db.query(rows).with_index("by_n", n=1).count() == 0
        assert fields_of(await ctx.db.query(rows).with_index("by_n", n=2).unique()) == {"n": 2}
        await ctx.db.delete(id)
        assert await ctx.db.query(rows).collect() == []
        assert await ctx.db.query(rows).with_index("by_n").collect() == []

    async with make_app(database).client() as app:
        await writing(app, body)


async def test_patch_merges_shallowly_and_unset_removes(database: str) -> None:
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, "things", [{"a": 1, "b": {"x": 1, "y": 2}, "c": 3}])
        await writing(app, lambda ctx: ctx.db.patch(id, {"b": {"x": 9}, "c": duly.UNSET, "d": None}))
        assert fields_of(await reading(app, lambda ctx: ctx.db.get(id))) == {"a": 1, "b": {"x": 9}, "d": None}
        await writing(app, lambda ctx: ctx.db.patch(id, {"zzz": duly.UNSET}))
        await writing(app, lambda ctx: ctx.db.patch(id, {}))
        assert fields_of(await reading(app, lambda ctx: ctx.db.get(id))) == {"a": 1, "b": {"x": 9}, "d": None}


async def test_replace_leaves_nothing_of_what_was(database: str) -> None:
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, rows, [{"n": 1, "group": "x"}])
        created = (await reading(app, lambda ctx: ctx.db.get(id)))["_creationTime"]
        await writing(app, lambda ctx: ctx.db.replace(id, {"n": 2}))
        assert await reading(app, lambda ctx: ctx.db.get(id)) == {"_id": id, "_creationTime": created, "n": 2}


async def test_what_was_read_can_be_written_back(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> None:
        id = await ctx.db.insert(rows, {"n": 1})
        document: Any = await ctx.db.get(id)
        changed: Any = {**document, "n": 2}
        await ctx.db.replace(id, changed)
        await ctx.db.patch(id, {**document, "group": "x"})
        assert fields_of(await ctx.db.get(id)) == {"n": 1, "group": "x"}

    async with make_app(database).client() as app:
        await writing(app, body)


@pytest.mark.parametrize("field", ["_id", "_creationTime"])
@pytest.mark.parametrize("verb", ["patch", "replace"])
async def test_the_fields_of_the_system_can_not_be_changed(database: str, verb: str, field: str) -> None:
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, rows, [{"n": 1}])
        with pytest.raises(InvalidValueError, match=field):
            await writing(app, lambda ctx: getattr(ctx.db, verb)(id, {"n": 2, field: 7}))
        assert fields_of(await reading(app, lambda ctx: ctx.db.get(id))) == {"n": 1}


@pytest.mark.parametrize("field", ["_id", "_other", "$x"])
async def test_a_new_document_has_no_fields_with_reserved_names(database: str, field: str) -> None:
    async with make_app(database).client() as app:
        with pytest.raises(InvalidValueError, match="reserved"):
            await insert_all(app, "things", [{field: 1}])


async def test_what_is_not_there_can_not_be_changed(database: str) -> None:
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, rows, [{"n": 1}])
        await writing(app, lambda ctx: ctx.db.delete(id))
        changes: list[Body] = [
            lambda ctx: ctx.db.patch(id, {"n": 2}),
            lambda ctx: ctx.db.replace(id, {"n": 2}),
            lambda ctx: ctx.db.delete(id),
        ]
        for change in changes:
            with pytest.raises(DocumentNotFoundError) as caught:
                await writing(app, change)
            assert caught.value.id == id


async def test_an_id_that_is_none_is_told_from_one_of_the_system_and_of_no_table(database: str) -> None:
    async with make_app(database).client() as app, duly.App(__name__, database="sqlite:///:memory:").client() as other:
        (id,) = await insert_all(app, rows, [{"n": 1}])
        (stranger,) = await insert_all(other, "only_there", [{}])
        job_id = await app.scheduler.run_after(60_000, noop)
        mistyped = id[:-1] + ("0" if id[-1] != "0" else "1")
        verbs: list[Callable[[Any, duly.MutationCtx], Any]] = [
            lambda id, ctx: ctx.db.get(id),
            lambda id, ctx: ctx.db.patch(id, {}),
            lambda id, ctx: ctx.db.replace(id, {}),
            lambda id, ctx: ctx.db.delete(id),
        ]
        cases: list[tuple[Any, str]] = [
            ("hello", "is no id"),
            (7, "is no id"),
            (None, "is no id"),
            (mistyped, "mistyped"),
            (job_id, "scheduled function"),
            (stranger, "no table of this database"),
        ]
        for wrong, message in cases:
            for verb in verbs:
                with pytest.raises(InvalidIdError, match=message) as caught:
                    await writing(app, partial(verb, wrong))
                assert caught.value.id == wrong


def test_id_of_and_created_at_take_only_what_was_read() -> None:
    for wrong in ({"n": 1}, None, 7, "x"):
        with pytest.raises(InvalidIdError):
            duly.id_of(wrong)
        with pytest.raises(InvalidIdError):
            duly.created_at(wrong)


# --- what a document may hold ---------------------------------------------------------------------------------------


async def test_values_come_back_exactly(database: str) -> None:
    document: dict[str, Any] = {
        "none": None,
        "bool": True,
        "ints": [0, -1, (1 << 63) - 1, -(1 << 63), (1 << 53) + 1],
        "floats": [1.0, 1e300, 5e-324, math.inf, -math.inf],
        "bytes": b"\x00\xff",
        "text": 'Zoë \0 🍵 {"$bytes": 1}',
        "int64": duly.Int64(7),
        "deep": {"a": {"b": [{"c": []}]}},
        "": "an empty key",
    }
    async with make_app(database).client() as app:
        ids = await insert_all(app, "things", [document, {"nan": math.nan, "zero": -0.0}])
        found = fields_of(await reading(app, lambda ctx: ctx.db.get(ids[0])))
        assert found == document
        assert type(found["int64"]) is duly.Int64
        assert [type(number) for number in found["floats"]] == [float] * 5
        odd = await reading(app, lambda ctx: ctx.db.get(ids[1]))
        assert math.isnan(odd["nan"])
        assert math.copysign(1, odd["zero"]) == -1


async def test_without_a_type_what_json_can_hold_is_stored_as_such(database: str) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with make_app(database).client() as app:
        (id,) = await insert_all(
            app, "things", [{"at": at, "price": Decimal("1.10"), "level": Level.HIGH, "t": (1, 2)}]
        )
        found = fields_of(await reading(app, lambda ctx: ctx.db.get(id)))
        assert found == {"at": "2026-01-02T03:04:05.000000Z", "price": "1.10", "level": "high", "t": [1, 2]}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), "bad.here"),
        ({"x": 1 << 63}, "bad.here.x"),
        (["\ud800"], "bad.here[0]"),
        ({"_x": 1}, "bad.here"),
        ({1: 1}, "bad.here"),
        (duly.UNSET, "bad.here"),
    ],
)
async def test_what_can_not_be_stored_is_named(database: str, value: Any, where: str) -> None:
    async with make_app(database).client() as app:
        with pytest.raises(InvalidValueError) as caught:
            await insert_all(app, "things", [{"bad": {"here": value}}])
        assert caught.value.where == where
        with pytest.raises(InvalidValueError):
            await reading(app, lambda ctx: ctx.db.query(loose).with_index("by_value", value=value).collect())


@pytest.mark.parametrize("document", [None, 7, "text", [], [("n", 1)]])
@pytest.mark.parametrize("table", [rows, "things"])
async def test_a_document_is_a_dict(database: str, table: Any, document: Any) -> None:
    async with make_app(database).client() as app:
        with pytest.raises(SchemaError, match="must be a dict"):
            await insert_all(app, table, [document])
        (id,) = await insert_all(app, table, [{"n": 1}])
        with pytest.raises(SchemaError, match="must be a dict"):
            await writing(app, lambda ctx: ctx.db.replace(id, document))
        with pytest.raises(SchemaError, match="must be a dict"):
            await writing(app, lambda ctx: ctx.db.patch(id, document))


# --- tables with a type ---------------------------------------------------------------------------------------------

KEY = UUID("12345678-1234-5678-1234-567812345678")


def event(**changes: Any) -> dict[str, Any]:
    return {
        "at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "price": Decimal("12.340"),
        "level": Level.HIGH,
        "key": KEY,
        "took": timedelta(hours=1, microseconds=5),
        "tags": {"x", "y"},
        "pair": (1, "one"),
        **changes,
    }


async def test_a_typed_document_arrives_as_its_type_says(database: str) -> None:
    async with make_app(database).client() as app:
        (customer,) = await insert_all(app, customers, [{"name": "Ann"}])
        (id,) = await insert_all(app, events, [event(of=customer)])
        found = fields_of(await reading(app, lambda ctx: ctx.db.get(id)))
        assert found == event(of=customer)
        assert {name: type(value) for name, value in found.items()} == {
            name: type(value) for name, value in event(of=customer).items()
        }
        by_index = await reading(app, lambda ctx: ctx.db.query(events).with_index("by_level", level=Level.HIGH).first())
        assert fields_of(by_index) == event(of=customer)


async def test_an_int64_arrives_as_one(database: str) -> None:
    async with make_app(database).client() as app:
        ids = await insert_all(app, rows, [{"n": 1, "big": duly.Int64(1 << 62)}, {"n": duly.Int64(5), "big": 7}])
        for id, n, big in zip(ids, (1, 5), (1 << 62, 7), strict=True):
            found = await reading(app, partial(getting, id))
            assert (found["n"], found["big"]) == (n, big)
            assert type(found["big"]) is duly.Int64


async def test_a_typed_document_may_be_given_as_json(database: str) -> None:
    given = event(at="2026-01-02T03:04:05.000678Z", level="high", price="12.340", key=str(KEY), pair=[1, "one"])
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, events, [given])
        assert fields_of(await reading(app, lambda ctx: ctx.db.get(id))) == event()


async def test_patch_of_a_typed_document_leaves_the_other_fields_as_they_are(database: str) -> None:
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, events, [event()])
        await writing(app, lambda ctx: ctx.db.patch(id, {"price": Decimal(7)}))
        assert fields_of(await reading(app, lambda ctx: ctx.db.get(id))) == event(price=Decimal(7))
        await writing(app, lambda ctx: ctx.db.replace(id, event(level=Level.LOW)))
        assert fields_of(await reading(app, lambda ctx: ctx.db.get(id))) == event(level=Level.LOW)


@pytest.mark.parametrize(
    ("table", "document", "problems"),
    [
        (rows, {}, "n: is missing"),
        (rows, {"n": "seven"}, "n: input should be a valid integer"),
        (rows, {"n": 1, "colour": "red"}, "colour: is not expected"),
        (rows, {"n": 1, "kind": "c"}, "kind: input should be 'a' or 'b'"),
        (rows, {"n": None, "group": 5}, "n: .*; group"),
        (customers, {"name": "Ann", "address": {}}, r"address\.city: is missing"),
        (customers, {"name": "Ann", "address": {"city": "X", "street": "Y"}}, r"address\.street: is not expected"),
        (events, event(at="yesterday"), "at: input should be a valid datetime"),
        (events, event(level="middle"), "level: input should be 'low' or 'high'"),
        (events, event(of="nobody"), "of: 'nobody' is no id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_document_that_does_not_fit_its_type_is_refused(
    database: str, table: Any, document: dict[str, Any], problems: str
) -> None:
    all_fine: dict[str, dict[str, Any]] = {"rows": {"n": 1}, "customers": {"name": "Ann"}, "events": event()}
    fine = all_fine[table.name]
    async with make_app(database).client() as app:
        with pytest.raises(SchemaError, match=f"does not fit table '{table.name}': {problems}"):
            await insert_all(app, table, [document])
        (id,) = await insert_all(app, table, [fine])
        with pytest.raises(SchemaError, match=problems):
            await writing(app, lambda ctx: ctx.db.replace(id, document))
        assert fields_of(await reading(app, lambda ctx: ctx.db.get(id))) == fine


async def test_a_patch_that_would_not_fit_is_refused(database: str) -> None:
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, rows, [{"n": 1, "group": "x"}])
        patches: list[tuple[dict[str, Any], str]] = [
            ({"n": duly.UNSET}, "n: is missing"),
            ({"n": "x"}, "n: input"),
            ({"colour": 1}, "colour: is not expected"),
        ]
        for fields, problem in patches:
            with pytest.raises(SchemaError, match=problem):
                await writing(app, partial(patching, id, fields))
        await writing(app, lambda ctx: ctx.db.patch(id, {"group": duly.UNSET}))
        assert fields_of(await reading(app, lambda ctx: ctx.db.get(id))) == {"n": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: duly.Table(""), "no name for a table"),
        (lambda: duly.Table("_mine"), "no name for a table"),
        (lambda: duly.Table("a-b"), "no name for a table"),
        (lambda: duly.Table("größe"), "no name for a table"),
        (lambda: duly.Table("x" * 65), "no name for a table"),
        (lambda: duly.Table("rows\n"), "no name for a table"),
        (lambda: duly.Table("rows", dict), "must be a TypedDict"),
        (lambda: duly.Table("rows", Row, indexes={"by_id": ["n"]}), "no name for an index"),
        (lambda: duly.Table("rows", Row, indexes={"by_creation_time": ["n"]}), "no name for an index"),
        (lambda: duly.Table("rows", Row, indexes={"by n": ["n"]}), "no name for an index"),
        (lambda: duly.Table("rows", Row, indexes={"by_n": []}), "no fields"),
        (lambda: duly.Table("rows", Row, indexes={"by_n": ["n", "n"]}), "twice"),
        (lambda: duly.Table("rows", Row, indexes={"by_n": ["colour"]}), "Row has no field 'colour'"),
        (lambda: duly.Table("rows", Row, indexes={"by_n": ["_creationTime"]}), "can't have the field"),
        (lambda: duly.Table("rows", Row, indexes={"by_n": [""]}), "can't have the field"),
    ],
)
def test_a_table_that_is_declared_wrongly_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        make()


async def test_a_table_of_another_app_is_refused(database: str) -> None:
    stranger = duly.Table("strangers")
    twin = duly.Table("rows", Row)
    async with make_app(database).client() as app:
        for table in (stranger, twin):
            with pytest.raises(SchemaError, match="is not part of this app"):
                await insert_all(app, table, [{"n": 1}])
            with pytest.raises(SchemaError, match="is not part of this app"):
                await reading(app, partial(collecting, table))
        for wrong in (7, None, Row):
            with pytest.raises(TypeError, match="or its name"):
                await insert_all(app, wrong, [{"n": 1}])
        with pytest.raises(SchemaError, match=r"db\.system"):
            await insert_all(app, "_scheduled_functions", [{"n": 1}])
        with pytest.raises(SchemaError, match="no name for a table"):
            await insert_all(app, "no table", [{"n": 1}])


async def test_a_table_by_its_name_is_the_same_table(database: str) -> None:
    async with make_app(database).client() as app:
        (id,) = await insert_all(app, "rows", [{"n": 1}])
        assert await reading(app, lambda ctx: ctx.db.query(rows).with_index("by_n", n=1).count()) == 1
        assert duly.id_of(await reading(app, lambda ctx: ctx.db.query("rows").first())) == id
        with pytest.raises(SchemaError):
            await insert_all(app, "rows", [{"n": "no number"}])


async def test_a_name_that_is_not_declared_takes_any_document(database: str) -> None:
    async with make_app(database).client() as app:
        assert await reading(app, lambda ctx: ctx.db.query("never_used").collect()) == []
        (id,) = await insert_all(app, "things", [{"a": 1}])
        await insert_all(app, "things", [{"b": [None]}, {}])
        assert await reading(app, lambda ctx: ctx.db.query("things").count()) == 3
        await writing(app, lambda ctx: ctx.db.patch(id, {"a": "text"}))
        found = await reading(app, lambda ctx: ctx.db.query("things").collect())
        assert [fields_of(document) for document in found] == [{"a": "text"}, {"b": [None]}, {}]


# --- indexes --------------------------------------------------------------------------------------------------------

ORDERED: list[dict[str, Any]] = [
    {},
    {"value": None},
    {"value": -math.inf},
    {"value": -(1 << 63)},
    {"value": -1.5},
    {"value": 0},
    {"value": (1 << 53)},
    {"value": (1 << 53) + 1},
    {"value": float((1 << 53) + 2)},
    {"value": math.inf},
    {"value": False},
    {"value": True},
    {"value": ""},
    {"value": "Z"},
    {"value": "a"},
    {"value": "a\0"},
    {"value": "aa"},
    {"value": "é"},
    {"value": "🍵"},
    {"value": b""},
    {"value": b"\0"},
    {"value": []},
    {"value": [0]},
    {"value": [0, 0]},
    {"value": [1]},
    {"value": {}},
    {"value": {"a": 1}},
    {"value": {"a": 2}},
    {"value": {"b": 0}},
]


async def test_an_index_orders_absent_none_and_values_of_all_kinds(database: str) -> None:
    async with make_app(database).client() as app:
        await insert_all(app, loose, ORDERED[1::2] + ORDERED[::2])

        async def read(direction: str) -> list[dict[str, Any]]:
            found = await reading(
                app, lambda ctx: ctx.db.query(loose).with_index("by_value").order(direction).collect()
            )
            return [fields_of(document) for document in found]

        assert await read("asc") == ORDERED
        assert await read("desc") == ORDERED[::-1]


@pytest.mark.parametrize("place", range(1, len(ORDERED)))
async def test_a_range_of_an_index_begins_and_ends_where_it_says(place: int) -> None:
    value = ORDERED[place]["value"]
    async with make_app("sqlite:///:memory:").client() as app:
        await insert_all(app, loose, ORDERED)

        async def read(given: Any) -> list[dict[str, Any]]:
            found = await reading(app, lambda ctx: ctx.db.query(loose).with_index("by_value", value=given).collect())
            return [fields_of(document) for document in found]

        assert await read(value) == [ORDERED[place]]
        assert await read(duly.gt(value)) == ORDERED[place + 1 :]
        assert await read(duly.gte(value)) == ORDERED[place:]
        assert await read(duly.lt(value)) == ORDERED[:place]
        assert await read(duly.lte(value)) == ORDERED[: place + 1]
        assert await read(duly.gte(value) & duly.lte(value)) == [ORDERED[place]]
        assert await read(duly.gt(value) & duly.lt(value)) == []
        assert await read(duly.gt(None) & duly.lte(value)) == ORDERED[2 : place + 1]


async def test_numbers_are_equal_whatever_their_type(database: str) -> None:
    async with make_app(database).client() as app:
        numbers: list[Any] = [1, 1.0, 0.0, -0.0, True]
        ids = await insert_all(app, loose, [{"value": number} for number in numbers])

        async def read(value: Any) -> list[str]:
            found = await reading(app, lambda ctx: ctx.db.query(loose).with_index("by_value", value=value).collect())
            return [document["_id"] for document in found]

        assert await read(1.0) == ids[:2]
        assert await read(duly.Int64(1)) == ids[:2]
        assert await read(0) == ids[2:4]
        assert await read(True) == ids[4:]


async def test_a_prefix_of_the_fields_and_a_range_narrow_an_index(database: str) -> None:
    async with make_app(database).client() as app:
        documents: list[dict[str, Any]] = [{"n": n, "group": group} for n in (3, 1, 2) for group in ("b", "a")] + [
            {"n": 9},
            {"n": 0, "group": None},
        ]
        await insert_all(app, rows, documents)

        async def read(**fields: Any) -> list[tuple[Any, int]]:
            found = await reading(app, lambda ctx: ctx.db.query(rows).with_index("by_group", **fields).collect())
            return [(document.get("group", "absent"), document["n"]) for document in found]

        a, b = [("a", 1), ("a", 2), ("a", 3)], [("b", 1), ("b", 2), ("b", 3)]
        assert await read() == [("absent", 9), (None, 0), *a, *b]
        assert await read(group="a") == a
        assert await read(group="a", n=2) == [("a", 2)]
        assert await read(group="a", n=duly.gt(1)) == a[1:]
        assert await read(group="a", n=duly.gte(1) & duly.lt(3)) == a[:2]
        assert await read(group=duly.gt("a")) == b
        assert await read(group=None) == [(None, 0)]
        assert await read(group=duly.lte(None)) == [("absent", 9), (None, 0)]
        assert await read(group=duly.lt(None)) == [("absent", 9)]
        assert await read(group="c") == []
        assert await read(group=duly.gt("b") & duly.lt("a")) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"colour": 1}, "no field 'colour'"),
        ({"n": 1}, "without a gap"),
        ({"group": "a", "_creationTime": 1}, "without a gap"),
        ({"group": duly.gt("a"), "n": 1}, "nothing can follow"),
    ],
)
async def test_an_index_that_is_used_wrongly_says_how(database: str, fields: dict[str, Any], message: str) -> None:
    async with make_app(database).client() as app:
        with pytest.raises(InvalidValueError, match=message):
            await reading(app, lambda ctx: ctx.db.query(rows).with_index("by_group", **fields).collect())


async def test_an_index_that_is_not_declared_is_named_with_those_that_are(database: str) -> None:
    async with make_app(database).client() as app:
        with pytest.raises(IndexNotFoundError) as caught:
            await reading(app, lambda ctx: ctx.db.query(rows).with_index("by_colour").collect())
        assert (caught.value.table, caught.value.index) == ("rows", "by_colour")
        assert caught.value.indexes == ("by_group", "by_n", "by_creation_time")
        with pytest.raises(IndexNotFoundError):
            await reading(app, lambda ctx: ctx.db.query("things").with_index("by_n").collect())


async def test_an_index_of_a_nested_field(database: str) -> None:
    async with make_app(database).client() as app:
        people: list[dict[str, Any]] = [
            {"name": "Dan", "address": {"city": "Rome"}},
            {"name": "Ann", "address": {"city": "Rome"}},
            {"name": "Bob", "address": {"city": "Bern"}},
            {"name": "Cid"},
        ]
        await insert_all(app, customers, people)

        async def read(**fields: Any) -> list[str]:
            found = await reading(app, lambda ctx: ctx.db.query(customers).with_index("by_city", **fields).collect())
            return [document["name"] for document in found]

        assert await read() == ["Cid", "Bob", "Ann", "Dan"]
        assert await read(**{"address.city": "Rome"}) == ["Ann", "Dan"]
        assert await read(**{"address.city": "Rome", "name": duly.gt("Ann")}) == ["Dan"]

        await insert_all(app, loose, [{"a": {"b": {"c": 1}}}, {"a": {"b": 1}}, {"a": 1}, {}])
        assert await reading(app, lambda ctx: ctx.db.query(loose).with_index("by_path", **{"a.b.c": 1}).count()) == 1


async def test_a_typed_value_finds_its_like(database: str) -> None:
    async with make_app(database).client() as app:
        days = [datetime(2026, 1, day, tzinfo=UTC) for day in (3, 1, 2)]
        await insert_all(app, events, [event(at=day) for day in days])
        found = await reading(
            app,
            lambda ctx: (
                ctx.db.query(events).with_index("by_at", at=duly.gte(datetime(2026, 1, 2, tzinfo=UTC))).collect()
            ),
        )
        assert [document["at"].day for document in found] == [2, 3]


async def test_documents_of_equal_keys_come_by_creation(database: str) -> None:
    async with make_app(database).client() as app:
        ids = await insert_all(app, rows, [{"n": 5} for _ in range(30)])
        found = await reading(app, lambda ctx: ctx.db.query(rows).with_index("by_n", n=5).collect())
        assert [document["_id"] for document in found] == ids
        found = await reading(app, lambda ctx: ctx.db.query(rows).with_index("by_n", n=5).order("desc").collect())
        assert [document["_id"] for document in found] == ids[::-1]


# --- by creation ----------------------------------------------------------------------------------------------------


async def test_without_an_index_documents_come_by_creation(database: str) -> None:
    async with make_app(database).client() as app:
        ids = await insert_all(app, rows, [{"n": n} for n in (3, 1, 2)])
        await insert_all(app, "others", [{}])

        async def read(body: Callable[[duly.Query[Row]], duly.Query[Row]]) -> list[str]:
            found = await reading(app, lambda ctx: body(ctx.db.query(rows)).collect())
            return [document["_id"] for document in found]

        assert await read(lambda q: q) == ids
        assert await read(lambda q: q.order("asc")) == ids
        assert await read(lambda q: q.order("desc")) == ids[::-1]
        assert await read(lambda q: q.with_index("by_creation_time")) == ids
        assert await read(lambda q: q.with_index("by_creation_time").order("desc")) == ids[::-1]
        assert await read(lambda q: q.with_index("by_n", n=1).with_index("by_creation_time")) == ids, (
            "the last one counts"
        )
        with pytest.raises(InvalidValueError, match="'asc' or 'desc'"):
            await read(lambda q: q.order("up"))


async def test_creation_time_narrows_every_index(database: str) -> None:
    clock = ManualClock()
    app = make_app(database)
    app._parts = Parts(clock=clock)
    async with app.client():
        ids: list[str] = []
        for n in range(5):
            ids += await insert_all(app, rows, [{"n": 1, "group": "g"}])
            await clock.advance(0.001 if n % 2 else 0.000_001)
        documents = await reading(app, lambda ctx: ctx.db.query(rows).collect())
        times = [document["_creationTime"] for document in documents]
        assert times == sorted(set(times))

        for index, fields in (("by_creation_time", {}), ("by_n", {"n": 1}), ("by_group", {"group": "g", "n": 1})):

            async def read(given: Any, index: str = index, fields: dict[str, Any] = fields) -> list[int]:
                found = await reading(
                    app, lambda ctx: ctx.db.query(rows).with_index(index, **fields, _creationTime=given).collect()
                )
                return [ids.index(document["_id"]) for document in found]

            for place, time in enumerate(times):
                assert await read(time) == [place]
                assert await read(duly.gt(time)) == [0, 1, 2, 3, 4][place + 1 :]
                assert await read(duly.gte(time)) == [0, 1, 2, 3, 4][place:]
                assert await read(duly.lt(time)) == [0, 1, 2, 3, 4][:place]
                assert await read(duly.lte(time)) == [0, 1, 2, 3, 4][: place + 1]
            assert await read(duly.gt(times[0]) & duly.lt(times[3])) == [1, 2]
            for far in (1e300, 10**400, math.inf):
                assert await read(duly.gte(far)) == await read(duly.lt(-far)) == await read(far) == []
                assert await read(duly.lte(far)) == await read(duly.gt(-far)) == [0, 1, 2, 3, 4]
            wrong: list[Any] = ["today", math.nan, None, True, datetime.now(UTC)]
            for time in wrong:
                with pytest.raises(InvalidValueError, match="_creationTime"):
                    await read(duly.gt(time))


# --- reading a query ------------------------------------------------------------------------------------------------


async def test_the_ways_to_read_a_query(database: str) -> None:
    async def body(ctx: duly.QueryCtx) -> None:
        q = ctx.db.query(rows).with_index("by_n")
        assert [row["n"] for row in await q.collect()] == list(range(100))
        assert [row["n"] async for row in q] == list(range(100))
        assert [row["n"] for row in await q.take(3)] == [0, 1, 2]
        assert await q.take(0) == []
        assert len(await q.take(1_000)) == 100
        first = await q.first()
        assert first is not None
        assert first["n"] == 0
        last = await q.order("desc").first()
        assert last is not None
        assert last["n"] == 99
        assert await q.count() == 100
        one = await ctx.db.query(rows).with_index("by_n", n=7).unique()
        assert one is not None
        assert one["n"] == 7
        nobody = ctx.db.query(rows).with_index("by_n", n=-1)
        assert await nobody.first() is await nobody.unique() is None
        assert await nobody.collect() == await nobody.take(5) == []
        assert await nobody.count() == 0
        with pytest.raises(NotUniqueError) as caught:
            await q.unique()
        assert caught.value.table == "rows"
        async for row in q:  # a loop may be left
            if row["n"] == 40:
                break

    async with make_app(database).client() as app:
        await insert_all(app, rows, [{"n": n} for n in reversed(range(100))])
        await reading(app, body)


async def test_a_filter_sees_what_the_index_yields(database: str) -> None:
    async def body(ctx: duly.QueryCtx) -> None:
        even = ctx.db.query(rows).with_index("by_n", n=duly.lt(50)).filter(lambda row: row["n"] % 2 == 0)
        assert [row["n"] for row in await even.collect()] == list(range(0, 50, 2))
        assert [row["n"] for row in await even.order("desc").take(3)] == [48, 46, 44]
        assert await even.count() == 25
        both = even.filter(lambda row: row["n"] % 3 == 0)
        assert [row["n"] async for row in both] == list(range(0, 50, 6))
        assert [row["n"] for row in await both.filter(lambda row: row["n"] == 18).take(2)] == [18]
        assert await even.count() == 25, "each step makes a new query"
        late = ctx.db.query(rows).with_index("by_n").filter(lambda row: row["n"] >= 1_195)
        assert [row["n"] for row in await late.take(2)] == [1_195, 1_196]

    async with make_app(database).client() as app:
        await insert_all(app, rows, [{"n": n} for n in range(1_200)])
        await reading(app, body)


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "3", None])
async def test_take_and_page_size_are_counts(database: str, wrong: Any) -> None:
    async with make_app(database).client() as app:
        with pytest.raises((TypeError, InvalidValueError)):
            await reading(app, lambda ctx: ctx.db.query(rows).take(wrong))
        with pytest.raises((TypeError, InvalidValueError)):
            await reading(app, lambda ctx: ctx.db.query(rows).paginate(page_size=wrong))
        with pytest.raises(InvalidValueError):
            await reading(app, lambda ctx: ctx.db.query(rows).paginate(page_size=0))


async def test_what_changes_while_it_is_iterated_neither_repeats_nor_hides_another(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> list[int]:
        seen: list[int] = []
        async for row in ctx.db.query(rows).with_index("by_n"):
            n = row["n"]
            seen.append(n)
            if n % 2:
                await ctx.db.delete(duly.id_of(row))
            else:
                await ctx.db.patch(duly.id_of(row), {"n": n - 10_000})  # moved to where it has been
        return seen

    async with make_app(database).client() as app:
        await insert_all(app, rows, [{"n": n} for n in range(200)])
        assert await writing(app, body) == list(range(200))
        assert await reading(app, lambda ctx: ctx.db.query(rows).count()) == 100


async def test_queries_may_be_gathered(database: str) -> None:
    async def body(ctx: duly.QueryCtx) -> list[int]:
        return await asyncio.gather(*(ctx.db.query(rows).with_index("by_n", n=duly.lt(n)).count() for n in range(20)))

    async with make_app(database).client() as app:
        await insert_all(app, rows, [{"n": n} for n in range(20)])
        assert await reading(app, body) == list(range(20))


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["by_creation_time", "by_n", "by_group"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(("count", "page_size"), [(0, 3), (1, 3), (3, 3), (7, 3), (9, 3), (700, 600)])
async def test_pages_hold_everything_once(index: str, direction: str, count: int, page_size: int) -> None:
    async with make_app("sqlite:///:memory:").client() as app:
        await insert_all(app, rows, [{"n": n // 2, "group": "xyz"[n % 3]} for n in range(count)])

        def query(ctx: duly.QueryCtx) -> duly.Query[Row]:
            return ctx.db.query(rows).with_index(index).order(direction)

        expected = await reading(app, lambda ctx: query(ctx).collect())
        found: list[Any] = []
        cursor = None
        while True:
            page = await reading(app, partial(turning, query, cursor, page_size))
            found += page.page
            cursor = page.continue_cursor
            assert page.is_done == (len(found) == count)
            if page.is_done:
                break
            assert len(page.page) == page_size
        assert found == expected
        after = await reading(app, lambda ctx: query(ctx).paginate(cursor))
        assert (after.page, after.is_done) == ([], True)


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_go_on_where_they_were_while_rows_come_and_go(database: str, direction: str) -> None:
    async with make_app(database).client() as app:
        ids = await insert_all(app, rows, [{"n": n} for n in range(0, 100, 10)])
        by_n = dict(zip(range(0, 100, 10), ids, strict=True))

        async def page(cursor: str | None) -> tuple[list[int], str]:
            found = await reading(
                app, lambda ctx: ctx.db.query(rows).with_index("by_n").order(direction).paginate(cursor, page_size=4)
            )
            return [row["n"] for row in found.page], found.continue_cursor

        up = direction == "asc"
        first, cursor = await page(None)
        assert first == ([0, 10, 20, 30] if up else [90, 80, 70, 60])
        # What the cursor stands on goes, as do others; some come before it, some after.
        await writing(app, lambda ctx: ctx.db.delete(by_n[first[-1]]))
        await writing(app, lambda ctx: ctx.db.delete(by_n[first[0]]))
        await writing(app, lambda ctx: ctx.db.delete(by_n[50]))
        await insert_all(app, rows, [{"n": 5}, {"n": 45}, {"n": 95}])
        second, cursor = await page(cursor)
        assert second == ([40, 45, 60, 70] if up else [45, 40, 30, 20])
        third, _ = await page(cursor)
        assert third == ([80, 90, 95] if up else [10, 5, 0])


async def test_pages_of_a_filtered_range(database: str) -> None:
    async with make_app(database).client() as app:
        await insert_all(app, rows, [{"n": n} for n in range(100)])

        def query(ctx: duly.QueryCtx) -> duly.Query[Row]:
            return ctx.db.query(rows).with_index("by_n", n=duly.gte(20)).filter(lambda row: row["n"] % 10 == 0)

        first = await reading(app, lambda ctx: query(ctx).paginate(page_size=5))
        assert [row["n"] for row in first.page] == [20, 30, 40, 50, 60]
        second = await reading(app, lambda ctx: query(ctx).paginate(first.continue_cursor, page_size=5))
        assert [row["n"] for row in second.page] == [70, 80, 90]
        assert second.is_done


async def test_a_cursor_goes_with_its_query(database: str) -> None:
    async with make_app(database).client() as app:
        await insert_all(app, rows, [{"n": n, "group": "g"} for n in range(10)])
        await insert_all(app, loose, [{"value": n} for n in range(10)])
        page = await reading(app, lambda ctx: ctx.db.query(rows).with_index("by_n").paginate(page_size=3))
        others: list[Callable[[duly.QueryCtx], duly.Query[Any]]] = [
            lambda ctx: ctx.db.query(rows),
            lambda ctx: ctx.db.query(rows).with_index("by_n").order("desc"),
            lambda ctx: ctx.db.query(rows).with_index("by_n", n=duly.gt(0)),
            lambda ctx: ctx.db.query(rows).with_index("by_group"),
            lambda ctx: ctx.db.query(loose).with_index("by_value"),
        ]
        for other in others:
            with pytest.raises(InvalidValueError, match="of another query"):
                await reading(app, partial(turning, other, page.continue_cursor, 3))


@pytest.mark.parametrize(
    "cursor", ["", "x", "garbage!", "é", "bnVsbA", "W10", "WzEsMiwzXQ", "eyJhIjoxfQ", 7, b"x", ["x"]]
)
async def test_what_is_no_cursor_is_refused(database: str, cursor: Any) -> None:
    async with make_app(database).client() as app:
        with pytest.raises(InvalidValueError, match="is no cursor"):
            await reading(app, lambda ctx: ctx.db.query(rows).paginate(cursor))


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_a_cursor_that_was_tampered_with_does_not_lead_out_of_the_query(database: str, direction: str) -> None:
    async with make_app(database).client() as app:
        own = await insert_all(app, rows, [{"n": n} for n in range(5)])
        # Of tables some of which stand before it in the order of ids, and some after.
        others = [id for number in range(9) for id in await insert_all(app, f"secrets{number}", [{"n": 1}])]
        assert min(others) < min(own) < max(own) < max(others)
        page = await reading(app, lambda ctx: ctx.db.query(rows).order(direction).paginate(page_size=2))
        raw = page.continue_cursor
        fingerprint, key, _ = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
        place = min(others) if direction == "asc" else max(others)
        forged = base64.urlsafe_b64encode(json.dumps([fingerprint, key, place]).encode()).decode()
        with pytest.raises(InvalidValueError, match="outside of the query"):
            await reading(app, lambda ctx: ctx.db.query(rows).order(direction).paginate(forged))


# --- the system table -----------------------------------------------------------------------------------------------


async def test_scheduled_functions_are_read_like_documents(database: str) -> None:
    async def body(ctx: duly.QueryCtx) -> None:
        q = ctx.db.system.query("_scheduled_functions")
        found: list[Any] = await q.collect()
        assert [job["_id"] for job in found] == ids
        assert [duly.id_of(job) for job in await q.order("desc").take(2)] == ids[:2:-1]
        assert await q.count() == 5
        job: Any = await ctx.db.system.get(ids[0])
        assert job == found[0]
        assert job["name"] == "test_documents:noop"
        assert job["args"] == [{}]
        assert job["state"] == {"kind": "pending"}
        assert job["attempts"] == 0
        assert job["scheduledTime"] == job["nextAttemptTime"] == at
        assert duly.created_at(job) < datetime.now(UTC) + timedelta(seconds=1)
        time = found[2]["_creationTime"]
        ranged = await q.with_index("by_creation_time", _creationTime=duly.gte(time)).collect()
        assert [duly.id_of(job) for job in ranged] == ids[2:]
        assert await q.filter(lambda job: job["state"]["kind"] == "canceled").collect() == []
        first = await q.paginate(page_size=3)
        second = await q.paginate(first.continue_cursor, page_size=3)
        assert [duly.id_of(job) for job in first.page + second.page] == ids
        assert (first.is_done, second.is_done) == (False, True)
        with pytest.raises(IndexNotFoundError):
            q.with_index("by_name")
        with pytest.raises(SchemaError, match="there is '_scheduled_functions'"):
            ctx.db.system.query("jobs")
        document_id = duly.id_of((await ctx.db.query(rows).collect())[0])
        with pytest.raises(InvalidIdError, match=r"ctx\.db\.get"):
            await ctx.db.system.get(document_id)
        with pytest.raises(InvalidIdError, match="is no id"):
            await ctx.db.system.get("nothing")
        with pytest.raises(SchemaError, match=r"db\.system"):
            ctx.db.query("_scheduled_functions")

    at = float(round((datetime.now(UTC) + timedelta(hours=1)).timestamp()) * 1_000)
    async with make_app(database).client() as app:
        await insert_all(app, rows, [{"n": 1}])
        ids = [await app.scheduler.run_at(at, noop) for _ in range(5)]
        await reading(app, body)


# --- several apps, and code that changes ----------------------------------------------------------------------------

MODULE = """
import duly
from typing import Any, TypedDict

class Note(TypedDict):
    text: str
    stars: int

notes = duly.Table("notes", Note, indexes={INDEXES})

@duly.mutation
async def add(ctx: duly.MutationCtx, text: str, stars: int) -> str:
    return await ctx.db.insert(notes, {"text": text, "stars": stars})

@duly.mutation
async def change(ctx: duly.MutationCtx, id: str, stars: int) -> None:
    await ctx.db.patch(id, {"stars": stars})

@duly.mutation
async def remove(ctx: duly.MutationCtx, id: str) -> None:
    await ctx.db.delete(id)

@duly.query
async def by(ctx: duly.QueryCtx, index: str) -> list[Any]:
    return [note["text"] for note in await ctx.db.query(notes).with_index(index).collect()]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, indexes: str) -> str:
        (tmp_path / f"{name}.py").write_text(MODULE.replace("{INDEXES}", indexes), "utf-8")
        return name

    return make


async def test_an_index_added_later_finds_what_was_there_before(
    file_database: str, module: Callable[[str, str], str]
) -> None:
    old, new = module("notes_v1", "{}"), module("notes_v2", "{'by_stars': ['stars'], 'by_text': ['text']}")
    async with duly.App(old, database=file_database).client() as app:
        ids = [await app.mutation(f"{old}:add", text, stars) for text, stars in (("b", 2), ("c", 1), ("a", 3))]
    async with duly.App(new, database=file_database).client() as app:
        assert await app.query(f"{new}:by", "by_stars") == ["c", "b", "a"]
        assert await app.query(f"{new}:by", "by_text") == ["a", "b", "c"]
    # Code without the index keeps it up all the same.
    async with duly.App(old, database=file_database).client() as app:
        await app.mutation(f"{old}:change", ids[2], 0)
        await app.mutation(f"{old}:remove", ids[1])
        await app.mutation(f"{old}:add", "d", 9)
        with pytest.raises(IndexNotFoundError):
            await app.query(f"{old}:by", "by_stars")
    async with duly.App(new, database=file_database).client() as app:
        assert await app.query(f"{new}:by", "by_stars") == ["a", "b", "d"]
        assert await app.query(f"{new}:by", "by_text") == ["a", "b", "d"]


async def test_old_and_new_code_on_one_file_at_once(file_database: str, module: Callable[[str, str], str]) -> None:
    old = module("notes_v3", "{'by_stars': ['stars']}")
    new = module("notes_v4", "{'by_stars': ['stars', 'text'], 'by_text': ['text']}")
    async with duly.App(old, database=file_database).client() as one:
        await one.mutation(f"{old}:add", "b", 1)
        async with duly.App(new, database=file_database).client() as two:
            await one.mutation(f"{old}:add", "a", 1)
            await two.mutation(f"{new}:add", "c", 0)
            assert await one.query(f"{old}:by", "by_stars") == ["c", "b", "a"]
            assert await two.query(f"{new}:by", "by_stars") == ["c", "a", "b"]
            assert await two.query(f"{new}:by", "by_text") == ["a", "b", "c"]


async def test_two_apps_over_one_module_are_apart(tmp_path: Path) -> None:
    first, second = make_app(f"sqlite:///{tmp_path / 'a.db'}"), make_app(f"sqlite:///{tmp_path / 'b.db'}")
    async with first.client() as one, second.client() as two:
        (id,) = await insert_all(one, rows, [{"n": 1}])
        await insert_all(two, rows, [{"n": 2}])
        assert [row["n"] for row in await reading(one, lambda ctx: ctx.db.query(rows).collect())] == [1]
        assert [row["n"] for row in await reading(two, lambda ctx: ctx.db.query(rows).collect())] == [2]
        assert await reading(two, lambda ctx: ctx.db.get(id)) is None


async def test_two_apps_over_one_file_share_it(file_database: str) -> None:
    async with make_app(file_database).client() as one, make_app(file_database).client() as two:
        for n in range(10):
            writer, reader = (one, two) if n % 2 else (two, one)
            (id,) = await insert_all(writer, rows, [{"n": n}])
            assert fields_of(await reading(reader, partial(getting, id))) == {"n": n}
            (strange,) = await insert_all(writer, f"things_{n}", [{"n": n}])
            assert fields_of(await reading(reader, partial(getting, strange))) == {"n": n}
        assert await reading(one, lambda ctx: ctx.db.query(rows).with_index("by_n").count()) == 10


async def test_what_was_written_is_there_when_the_app_is_opened_again(file_database: str) -> None:
    app = make_app(file_database)
    for n in range(3):
        async with app.client():
            await insert_all(app, rows, [{"n": n}])
            found = await reading(app, lambda ctx: ctx.db.query(rows).with_index("by_n").collect())
            assert [row["n"] for row in found] == list(range(n + 1))


class Campaign(TypedDict):
    send_at: datetime


campaigns = duly.Table("campaigns", Campaign, indexes={"by_send_at": ["send_at"]})


async def inserting_campaign(moment: datetime, ctx: duly.MutationCtx) -> None:
    await ctx.db.insert(campaigns, {"send_at": moment})


async def test_an_index_orders_datetimes_by_time_whatever_their_offsets_and_fractions(database: str) -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    moments = [
        noon,
        noon + timedelta(microseconds=1),
        noon.astimezone(timezone(timedelta(hours=2))) + timedelta(milliseconds=500),
        noon.astimezone(timezone(timedelta(hours=-11))) + timedelta(seconds=1),
    ]
    async with duly.App(__name__, database=database).client() as app:
        for moment in reversed(moments):
            await writing(app, partial(inserting_campaign, moment))
        later = await reading(
            app, lambda ctx: ctx.db.query(campaigns).with_index("by_send_at", send_at=duly.gt(noon)).collect()
        )
    assert [campaign["send_at"] for campaign in later] == moments[1:]


@pytest.mark.parametrize("unordered", [Decimal, timedelta, Decimal | None])
def test_a_field_whose_text_does_not_order_by_its_value_can_not_be_indexed(unordered: Any) -> None:
    make_typed_dict: Any = TypedDict
    shape = make_typed_dict("shape", {"field": unordered})
    with pytest.raises(SchemaError, match="would not order by its value; store a number"):
        duly.Table("shapes", shape, indexes={"by_field": ["field"]})


class Moment(TypedDict):
    at: datetime | None


def test_a_moment_that_is_indexed_needs_a_time_zone() -> None:
    """Without one it can't be put in order with others, and would silently be missing from ranges."""
    table = duly.Table("moments", Moment, indexes={"by_at": ["at"]})
    with pytest.raises(SchemaError, match=r"at: datetime.* has no time zone"):
        table.dump({"at": datetime(2027, 1, 1)})  # noqa: DTZ001
    table.dump({"at": datetime(2027, 1, 1, tzinfo=UTC)})
    table.dump({"at": None})
    duly.Table("wall", Moment).dump({"at": datetime(2027, 1, 1)})  # noqa: DTZ001 (nobody orders by it)
