"""A module whose annotations are all strings: `from __future__ import annotations`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NotRequired, Required, TypedDict

import pytest

import duly
from duly.errors import ArgumentError, SchemaError


class Place(TypedDict):
    city: str
    zip: NotRequired[str]


class Partial(TypedDict, total=False):
    title: Required[str]
    note: str


class Event(Partial):
    place: NotRequired[Place]
    seats: int


EVENTS = duly.Table("postponed_events", Event)


@duly.mutation
async def put(ctx: duly.MutationCtx, document: Any) -> duly.Id[Event]:
    return await ctx.db.insert(EVENTS, document)


@duly.mutation
async def take(ctx: duly.MutationCtx, event: Event) -> list[str]:
    return sorted(event)


@pytest.fixture
async def app() -> AsyncIterator[duly.App]:
    async with duly.App(__name__, database="sqlite:///:memory:").client() as opened:
        yield opened


@pytest.mark.parametrize(
    "event",
    [
        {"title": "Tosca", "seats": 1},
        {"title": "Tosca", "seats": 1, "note": "new"},
        {"title": "Tosca", "seats": 1, "place": {"city": "Bern"}},
        {"title": "Tosca", "seats": 1, "place": {"city": "Bern", "zip": "3000"}},
    ],
)
async def test_what_is_not_required_may_be_missing(app: duly.App, event: Any) -> None:
    assert await app.mutation(take, event) == sorted(event)
    await app.mutation(put, event)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"seats": 1}, "title: is missing"),
        ({"title": "Tosca"}, "seats: is missing"),
        ({"title": "Tosca", "seats": 1, "place": {"zip": "3000"}}, "place.city: is missing"),
    ],
)
async def test_what_is_required_may_not(app: duly.App, event: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        await app.mutation(take, event)
    with pytest.raises(SchemaError, match=message):
        await app.mutation(put, event)
