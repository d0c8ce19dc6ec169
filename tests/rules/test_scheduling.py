"""Scheduling: rules S1 to S11, and the documents of `_scheduled_functions`."""

import asyncio
import enum
import math
import re
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import pydantic
import pytest

import duly
from duly._call.scope import CallChain
from duly._ground.clock import Clock, datetime_of
from duly.errors import (
    AppError,
    AppNotOpenError,
    ArgumentError,
    ConflictError,
    FunctionNotFoundError,
    InvalidIdError,
    InvalidTimeError,
    LimitError,
    NotSchedulableError,
)
from tests.rules.stage import Json, Stage, app_with, has_finished
from tests.support import FaultyStore, ManualClock, T, eventually

stage = Stage()

FIVE_YEARS_MS = 5 * 366 * 24 * 60 * 60 * 1_000
ANN = duly.Identity(issuer="https://id.example.com", subject="ann")
NAN, INF = math.nan, math.inf
NAIVE = datetime(2027, 1, 2, 3, 4, 5)  # noqa: DTZ001 - that it has no time zone is the point


@pytest.fixture(autouse=True)
def clear_stage() -> None:
    stage.clear()


# The functions of the app.


class Item(TypedDict):
    name: str


items = duly.Table("items", Item)


@duly.mutation
async def perform(ctx: duly.MutationCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.action
async def act(ctx: duly.ActionCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.action
def act_in_thread(ctx: duly.SyncActionCtx, body: str) -> Any:
    return stage.bodies[body](ctx)


@duly.mutation
async def note(ctx: duly.MutationCtx, what: Any = None) -> None:
    stage.seen.append(what)


@duly.internal_mutation
async def note_internally(ctx: duly.MutationCtx, what: Any) -> None:
    stage.seen.append(what)


@duly.mutation
async def note_now(ctx: duly.MutationCtx) -> None:
    stage.seen.append(ctx.now.timestamp() * 1_000)


@duly.internal_action
async def note_in_action(ctx: duly.ActionCtx, what: Any = None) -> None:
    stage.seen.append(what)


@duly.action
def note_in_thread(ctx: duly.SyncActionCtx, what: Any) -> None:
    stage.seen.append(what)


@duly.mutation
async def add(ctx: duly.MutationCtx, name: str, times: int = 1, *, loud: bool = False) -> None:
    await ctx.db.insert(items, {"name": name})
    stage.seen.append((name, times, loud))


@duly.mutation
async def odd_names(ctx: duly.MutationCtx, self: int, function: str, delay_ms: float, id: str, args: int) -> None:
    stage.seen.append((self, function, delay_ms, id, args))


@duly.query
async def names(ctx: duly.QueryCtx) -> list[str]:
    return [item["name"] async for item in ctx.db.query(items)]


@duly.internal_query
async def job_of(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


@duly.query
async def all_jobs(ctx: duly.QueryCtx) -> Any:
    return await ctx.db.system.query("_scheduled_functions").collect()


async def not_decorated(ctx: duly.MutationCtx) -> None: ...


def _make_nested() -> duly.FunctionReference[[], None]:
    @duly.mutation
    async def nested(ctx: duly.MutationCtx) -> None: ...

    return nested


# What the tests do with it.


def app_on(database: str, **options: Any) -> duly.App:
    # None of these rules is about the time a mutation may take, and a busy machine takes longer.
    return duly.App(__name__, database=database, mutation_timeout=timedelta(minutes=1), **options)


async def job(app: duly.App, id: str) -> Json:
    document: Json | None = await app.query(job_of, id)
    assert document is not None
    return document


async def finished(app: duly.App, id: str, kind: str | None = None) -> Json:
    return await has_finished(lambda: app.query(job_of, id), kind)


@asynccontextmanager
async def working(app: duly.App) -> AsyncIterator[None]:
    """Makes a worker of an app that was opened as a client: for what should be overdue before anybody works."""
    await app._start()
    try:
        yield
    finally:
        await app._stop(timedelta(0))


Place = Literal["mutation", "action", "thread", "python"]
PLACES: list[Place] = ["mutation", "action", "thread", "python"]


async def schedule_in(place: Place, app: duly.App, verb: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a method of the scheduler, untyped, from each place that has one."""

    @stage.body
    async def schedules(ctx: Any) -> Any:
        return await getattr(ctx.scheduler, verb)(*args, **kwargs)

    @stage.thread_body
    def schedules_in_thread(ctx: Any) -> Any:
        return getattr(ctx.scheduler, verb)(*args, **kwargs)

    match place:
        case "mutation":
            return await app.mutation(perform, schedules)
        case "action":
            return await app.action(act, schedules)
        case "thread":
            return await app.action(act_in_thread, schedules_in_thread)
        case "python":
            return await getattr(app.scheduler, verb)(*args, **kwargs)


# S1: delays.


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("delay", [0, 0.0, -0.0, 0.25, 1, 1.5, timedelta(0), timedelta(milliseconds=2)], ids=repr)
async def test_S1_zero_and_fractions_and_timedeltas_are_fine(
    database: str, place: Place, delay: float | timedelta
) -> None:
    async with app_on(database) as app:
        id = await schedule_in(place, app, "run_after", delay, note, "on time")
        await finished(app, id, "success")
    assert stage.seen == ["on time"]


@pytest.mark.parametrize(
    "delay",
    [NAN, INF, -INF, -1, -1e-9, -1e300, -(10**400), timedelta(microseconds=-1), timedelta.min],
    ids=lambda delay: repr(delay)[:20],
)
async def test_S1_negative_nan_and_infinite_delays_are_invalid(database: str, delay: Any) -> None:
    async with app_on(database).client() as app:
        for place in PLACES:
            with pytest.raises(InvalidTimeError):
                await schedule_in(place, app, "run_after", delay, note)
        assert await app.query(all_jobs) == []


@pytest.mark.parametrize(
    "delay",
    [
        True,
        False,
        None,
        "5",
        b"5",
        Decimal(5),
        Fraction(1, 2),
        5j,
        [5],
        {},
        datetime(2030, 1, 1, tzinfo=UTC),
        date(2030, 1, 1),
        object(),
    ],
    ids=lambda delay: type(delay).__name__,
)
async def test_S1_delays_of_other_types_are_type_errors(database: str, delay: Any) -> None:
    async with app_on(database).client() as app:
        for place in PLACES:
            with pytest.raises(TypeError, match="delay_ms"):
                await schedule_in(place, app, "run_after", delay, note)
        assert await app.query(all_jobs) == []


async def test_S1_an_invalid_time_is_a_value_error_and_a_duly_error() -> None:
    assert issubclass(InvalidTimeError, ValueError)
    assert issubclass(InvalidTimeError, duly.DulyError)


async def test_S1_an_invalid_delay_is_caught_and_what_was_scheduled_before_stays(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> list[str]:
            before = await ctx.scheduler.run_after(0, note, "before")
            for delay in (-1, NAN, INF, 1e300):
                with pytest.raises(InvalidTimeError):
                    await ctx.scheduler.run_after(delay, note, "never")
            return [before, await ctx.scheduler.run_after(0, note, "after")]

        for id in await app.mutation(perform, schedules):
            await finished(app, id, "success")
    assert stage.seen == ["before", "after"]


# S2: points in time.


@pytest.mark.parametrize("place", PLACES)
async def test_S2_a_timestamp_is_milliseconds_or_an_aware_datetime(database: str, place: Place) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock).client() as app:
        moment = datetime(2027, 6, 1, 12, 30, 0, 123_456, tzinfo=UTC)
        elsewhere = moment.astimezone(timezone(timedelta(hours=-7, minutes=-30)))
        ms = moment.timestamp() * 1_000
        for timestamp in (moment, elsewhere, ms):
            id = await schedule_in(place, app, "run_at", timestamp, note)
            assert (await job(app, id))["scheduledTime"] == pytest.approx(ms, abs=0.001)
        id = await schedule_in(place, app, "run_at", 1_800_000_000_000, note)
        scheduled = (await job(app, id))["scheduledTime"]
        assert scheduled == 1_800_000_000_000
        assert type(scheduled) is float


@pytest.mark.parametrize(
    "timestamp",
    [
        NAN,
        INF,
        -INF,
        10**400,
        NAIVE,
        NAIVE.replace(year=1),
        NAIVE.replace(year=9999),
        datetime.max.replace(tzinfo=UTC),
        0,
        -1,
    ],
    ids=lambda timestamp: repr(timestamp)[:30],
)
async def test_S2_naive_datetimes_and_what_is_not_finite_or_far_away_are_invalid(database: str, timestamp: Any) -> None:
    async with app_on(database).client() as app:
        for place in PLACES:
            with pytest.raises(InvalidTimeError):
                await schedule_in(place, app, "run_at", timestamp, note)
        assert await app.query(all_jobs) == []


async def test_S2_the_error_for_a_naive_datetime_says_what_to_do(database: str) -> None:
    async with app_on(database).client() as app:
        with pytest.raises(InvalidTimeError, match=r"tzinfo=UTC.*datetime\.now\(UTC\)"):
            await app.scheduler.run_at(NAIVE, note)


@pytest.mark.parametrize(
    "timestamp",
    [True, None, "2027-01-01T00:00:00Z", Decimal(1_800_000_000_000), date(2027, 1, 1), timedelta(days=1), b"", [1]],
    ids=lambda timestamp: type(timestamp).__name__,
)
async def test_S2_timestamps_of_other_types_are_type_errors(database: str, timestamp: Any) -> None:
    async with app_on(database).client() as app:
        for place in PLACES:
            with pytest.raises(TypeError, match="timestamp"):
                await schedule_in(place, app, "run_at", timestamp, note)
        assert await app.query(all_jobs) == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("direction", [1, -1], ids=["future", "past"])
async def test_S2_five_years_are_the_bound_and_belong_to_it(database: str, place: Place, direction: int) -> None:
    clock = ManualClock()
    now = clock.now_ms()
    async with app_with(app_on(database), clock).client() as app:
        for offset in (FIVE_YEARS_MS - 1, FIVE_YEARS_MS - 0.001, FIVE_YEARS_MS):
            id = await schedule_in(place, app, "run_at", now + direction * offset, note)
            assert (await job(app, id))["scheduledTime"] == now + direction * offset
        bound = datetime_of(now + direction * FIVE_YEARS_MS)
        await schedule_in(place, app, "run_at", bound, note)
        for offset in (FIVE_YEARS_MS + 0.001, FIVE_YEARS_MS + 1, FIVE_YEARS_MS * 2):
            with pytest.raises(InvalidTimeError, match="5 × 366 days"):
                await schedule_in(place, app, "run_at", now + direction * offset, note)
        with pytest.raises(InvalidTimeError, match="5 × 366 days"):
            await schedule_in(place, app, "run_at", bound + direction * timedelta(microseconds=1), note)


async def test_S2_seconds_that_are_taken_for_milliseconds_are_told(database: str) -> None:
    clock = ManualClock()
    now = clock.now_ms()
    async with app_with(app_on(database), clock).client() as app:
        with pytest.raises(InvalidTimeError, match="this one looks like seconds"):
            await schedule_in("python", app, "run_at", now / 1_000, note)
        with pytest.raises(InvalidTimeError, match=r"from now$"):
            await schedule_in("python", app, "run_at", 5.0, note)


@pytest.mark.parametrize("place", PLACES)
async def test_S2_run_after_has_the_same_bound(database: str, place: Place) -> None:
    async with app_with(app_on(database), ManualClock()).client() as app:
        five_years = timedelta(days=5 * 366)
        for delay in (FIVE_YEARS_MS, FIVE_YEARS_MS - 0.001, five_years, five_years - timedelta(microseconds=1)):
            assert await schedule_in(place, app, "run_after", delay, note)
        for delay in (
            FIVE_YEARS_MS + 0.001,
            FIVE_YEARS_MS + 1,
            five_years + timedelta(microseconds=1),
            timedelta.max,
            1e300,
            sys.float_info.max,
            10**400,
        ):
            with pytest.raises(InvalidTimeError):
                await schedule_in(place, app, "run_after", delay, note)


async def test_S2_now_is_the_start_of_a_mutation_and_the_clock_in_an_action(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock).client() as app:
        start = clock.now_ms()

        @stage.body
        async def in_mutation(ctx: duly.MutationCtx) -> None:
            await clock.advance(1)
            await ctx.scheduler.run_at(start + FIVE_YEARS_MS, note)
            with pytest.raises(InvalidTimeError):
                await ctx.scheduler.run_at(start + FIVE_YEARS_MS + 1, note)

        @stage.body
        async def in_action(ctx: duly.ActionCtx) -> None:
            before = clock.now_ms()
            await clock.advance(1)
            await ctx.scheduler.run_at(before + FIVE_YEARS_MS + 1, note)

        await app.mutation(perform, in_mutation)
        await app.action(act, in_action)


# S3: what is scheduled.


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", [note, note_internally, note_in_action, note_in_thread], ids=repr)
async def test_S3_mutations_and_actions_are_scheduled_public_and_internal(
    database: str, place: Place, target: duly.FunctionReference[..., Any]
) -> None:
    async with app_on(database) as app:
        id = await schedule_in(place, app, "run_after", 0, target, what="it")
        await finished(app, id, "success")
    assert stage.seen == ["it"]


@pytest.mark.parametrize(
    "target",
    [note, "test_scheduling:note", duly.internal.test_scheduling.note, duly.api.test_scheduling.note],
    ids=["function", "path", "internal", "api"],
)
@pytest.mark.parametrize("place", PLACES)
async def test_S3_a_reference_is_the_function_or_lazy_or_a_path(database: str, place: Place, target: Any) -> None:
    async with app_on(database) as app:
        for verb, when in (("run_after", 0), ("run_at", datetime.now(UTC))):
            id = await schedule_in(place, app, verb, when, target, "by any name")
            assert (await finished(app, id, "success"))["name"] == "test_scheduling:note"
    assert stage.seen == ["by any name"] * 2


async def test_S3_the_name_of_a_job_is_a_reference_again(database: str) -> None:
    async with app_on(database) as app:
        first = await finished(app, await app.scheduler.run_after(0, note, "again"), "success")
        await finished(app, await app.scheduler.run_after(0, first["name"], **first["args"][0]), "success")
    assert stage.seen == ["again", "again"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", [names, job_of, "test_scheduling:names", duly.api.test_scheduling.names], ids=str)
async def test_S3_a_query_is_not_schedulable(database: str, place: Place, target: Any) -> None:
    async with app_on(database).client() as app:
        with pytest.raises(NotSchedulableError, match="is a query") as raised:
            await schedule_in(place, app, "run_after", 0, target)
        assert raised.value.kind == "query"
        assert raised.value.path in ("test_scheduling:names", "test_scheduling:job_of")
        assert await app.query(all_jobs) == []


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("test_scheduling:notes", "test_scheduling:note"),
        ("test_scheduling:note_in_actoin", "test_scheduling:note_in_action"),
        ("note", "test_scheduling:note"),
        ("elsewhere:add", "test_scheduling:add"),
        ("test_scheduling.note", "test_scheduling:note"),
    ],
)
async def test_S3_an_unknown_function_is_refused_with_the_nearest_names(database: str, path: str, nearest: str) -> None:
    async with app_on(database).client() as app:
        for place in PLACES:
            with pytest.raises(FunctionNotFoundError) as raised:
                await schedule_in(place, app, "run_after", 0, path)
            assert raised.value.path == path
            assert nearest in raised.value.nearest
            assert nearest in str(raised.value)
        assert await app.query(all_jobs) == []


@pytest.mark.parametrize(
    "target",
    ["", ":", "zzz", "test_scheduling:", ":note", "test_scheduling:not_decorated", "\ud800", "a" * 100_000],
    ids=lambda target: repr(target)[:30],
)
async def test_S3_a_path_that_names_nothing_is_refused(database: str, target: str) -> None:
    async with app_on(database).client() as app:
        with pytest.raises(FunctionNotFoundError):
            await app.scheduler.run_after(0, target)
        with pytest.raises(FunctionNotFoundError):
            await app.scheduler.run_after(0, duly.internal.test_scheduling.notes)
        assert await app.query(all_jobs) == []


@pytest.mark.parametrize(
    "target",
    [not_decorated, lambda ctx: None, None, 5, b"test_scheduling:note", object(), duly.internal, duly.internal.note],
    ids=lambda target: type(target).__name__,
)
async def test_S3_what_is_no_reference_is_a_type_error(database: str, target: Any) -> None:
    async with app_on(database).client() as app:
        for place in PLACES:
            with pytest.raises(TypeError):
                await schedule_in(place, app, "run_after", 0, target)
        assert await app.query(all_jobs) == []


async def test_S3_a_function_that_is_not_part_of_the_app_is_refused(database: str) -> None:
    with deployed("elsewhere", "", note_source("")) as module:
        async with app_on(database).client() as app:
            with pytest.raises(FunctionNotFoundError, match=re.escape(f"this function is in {module.__name__!r}")):
                await app.scheduler.run_after(0, module.note)
            with pytest.raises(FunctionNotFoundError, match="top level of its module"):
                await app.scheduler.run_after(0, _make_nested())
            assert await app.query(all_jobs) == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "name: is missing"),
        (("tea",), {"colour": 1}, "colour: is not expected"),
        ((5,), {}, "name: input should be a valid string, not 5"),
        (("tea", "often"), {}, "times: input should be a valid integer"),
        (("tea",), {"name": "coffee"}, "name: was given twice"),
        (("tea", 1, True), {}, "too many"),
        (("tea", 2**63), {}, "does not fit 64 bits"),
        (("\ud800",), {}, "name: "),
        ((None,), {}, "name: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_S3_arguments_are_validated_when_scheduling(
    database: str, place: Place, args: tuple[Any, ...], kwargs: Json, problem: str
) -> None:
    async with app_on(database).client() as app:
        with pytest.raises(ArgumentError) as raised:
            await schedule_in(place, app, "run_after", 0, add, *args, **kwargs)
        assert raised.value.path == "test_scheduling:add"
        assert any(problem in each for each in raised.value.problems), raised.value.problems
        assert await app.query(all_jobs) == []


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {"_a": 1},
        {"$a": 1},
        {"a": {"_b": 1}},
        2**63,
        -(2**63) - 1,
        "\udfff",
        {"\udfff": 1},
        print,
        [{1, object()}],
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_S3_what_cannot_be_stored_is_an_argument_error(database: str, value: Any) -> None:
    async with app_on(database).client() as app:
        for place in PLACES:
            with pytest.raises(ArgumentError) as raised:
                await schedule_in(place, app, "run_after", 0, note, value)
            assert raised.value.problems[0].startswith("what")
        assert await app.query(all_jobs) == []


async def test_S3_arguments_too_deep_are_a_limit(database: str) -> None:
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    async with app_on(database).client() as app:
        with pytest.raises(LimitError, match="nesting"):
            await app.scheduler.run_after(0, note, deep)


async def test_S3_every_problem_of_the_arguments_is_named(database: str) -> None:
    async with app_on(database).client() as app:
        with pytest.raises(ArgumentError) as raised:
            await schedule_in("python", app, "run_after", 0, add, 5, times="x", colour=1)
        assert [problem.partition(":")[0] for problem in raised.value.problems] == ["name", "times", "colour"]


async def test_S3_arguments_by_position_and_by_name_and_defaults(database: str) -> None:
    async with app_on(database) as app:
        for id in [
            await app.scheduler.run_after(0, add, "a"),
            await app.scheduler.run_after(0, add, "b", 2),
            await app.scheduler.run_after(0, add, "c", 3, loud=True),
            await app.scheduler.run_after(0, add, times=4, name="d"),
        ]:
            await finished(app, id, "success")
    assert stage.seen == [("a", 1, False), ("b", 2, False), ("c", 3, True), ("d", 4, False)]


async def test_S3_parameters_may_be_named_as_those_of_the_scheduler(database: str) -> None:
    async with app_on(database) as app:
        odd: Json = {"self": 1, "function": "f", "delay_ms": 2.5, "id": "x", "args": 3}
        for place in PLACES:
            await finished(app, await schedule_in(place, app, "run_after", 0, odd_names, **odd), "success")
    assert stage.seen == [(1, "f", 2.5, "x", 3)] * 4


async def test_S3_times_are_checked_before_functions_and_functions_before_arguments(database: str) -> None:
    async with app_on(database).client() as app:
        with pytest.raises(InvalidTimeError):
            await app.scheduler.run_after(-1, "no:such", wrong=1)
        with pytest.raises(FunctionNotFoundError):
            await app.scheduler.run_after(0, "no:such", wrong=1)
        with pytest.raises(NotSchedulableError):
            await app.scheduler.run_after(0, "test_scheduling:names", wrong=1)


async def test_S3_errors_are_caught_in_a_mutation_and_what_was_scheduled_before_stays(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> str:
            id = await ctx.scheduler.run_after(0, note, "kept")
            with pytest.raises(FunctionNotFoundError):
                await ctx.scheduler.run_after(0, "test_scheduling:nothing")
            with pytest.raises(NotSchedulableError):
                await ctx.scheduler.run_after(0, names)
            with pytest.raises(ArgumentError):
                await ctx.scheduler.run_after(0, "test_scheduling:add", 5)
            return id

        await finished(app, await app.mutation(perform, schedules), "success")
        assert len(await app.query(all_jobs)) == 1
    assert stage.seen == ["kept"]


# S3: arguments of every type.


class Colour(enum.Enum):
    RED = "red"


class Size(str, enum.Enum):  # noqa: UP042 - its str() is not its value, unlike a StrEnum's
    LARGE = "l"


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: float


@dataclass(frozen=True)
class Line:
    sku: str
    price: Decimal
    photo: bytes
    tags: frozenset[bytes] = frozenset()


class Note(TypedDict, total=False):
    text: str
    seen: datetime


@dataclass
class Parcel:
    notes: list[Note]


class Address(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)

    street: str = pydantic.Field(alias="streetName")
    since: date
    key: bytes

    @pydantic.computed_field
    def label(self) -> str:
        return self.street.upper()


class Shipment(pydantic.BaseModel):
    to: Address
    lines: list[Line]
    notes: dict[UUID, date] = {}
    parent: "Shipment | None" = None


RICH: dict[str, tuple[Any, Any]] = {
    "bool": (bool, True),
    "int": (int, -(2**63)),
    "float": (float, 1.0),
    "minus_zero": (float, -0.0),
    "nan": (float, NAN),
    "infinity": (float, -INF),
    "str": (str, 'tea ☕ \x00 "{\'$"'),
    "looks_like_an_escape": (str, '{"$bytes": "aGk="}'),
    "bytes": (bytes, b"\xff\x00"),
    "none": (type(None), None),
    "anything": (Any, {"a": [1, 1.0, None, b"\xff", {"b": NAN}], "c": -0.0}),
    "datetime": (datetime, datetime(2027, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)),
    "naive_datetime": (datetime, NAIVE),
    "date": (date, date(2027, 1, 2)),
    "time": (time, time(1, 2, 3)),
    "timedelta": (timedelta, timedelta(days=-1, microseconds=7)),
    "uuid": (UUID, UUID(int=7)),
    "decimal": (Decimal, Decimal("1.10")),
    "path": (Path, Path("a/b")),
    "enum": (Colour, Colour.RED),
    "str_enum": (Size, Size.LARGE),
    "int_enum": (Level, Level.HIGH),
    "literal": (Literal["a", 1], 1),
    "optional": (UUID | None, None),
    "union": (int | str, "5"),
    "list": (list[Decimal], [Decimal(1), Decimal("2.50")]),
    "tuple": (tuple[int, bytes], (1, b"\xff")),
    "named_tuple": (Point, Point(1, NAN)),
    "set": (set[UUID], {UUID(int=1), UUID(int=2)}),
    "set_of_bytes": (set[bytes], {b"\xff"}),
    "set_of_floats": (frozenset[float], frozenset([INF])),
    "int_keys": (dict[int, str], {1: "one"}),
    "uuid_keys": (dict[UUID, list[dict[date, bytes]]], {UUID(int=1): [{date(2027, 1, 1): b"\xff"}]}),
    "enum_keys": (dict[Size, Colour], {Size.LARGE: Colour.RED}),
    "typed_dict": (Note, {"text": "hello", "seen": datetime(2027, 1, 1, tzinfo=UTC)}),
    "part_of_a_typed_dict": (Note, {}),
    "typed_dict_in_a_dataclass": (Parcel, Parcel([{"text": "hello"}, {}])),
    "dataclass": (Line, Line("x", Decimal("9.99"), b"\xfe", frozenset([b"\xff"]))),
    "model": (Address, Address(streetName="Here", since=date(2020, 1, 1), key=b"\xff")),
    "model_without_bytes": (dict[str, Address], {"a": Address(streetName="Here", since=date(2020, 1, 1), key=b"")}),
    "nested": (
        Shipment,
        Shipment(
            to=Address(streetName="There", since=date(2021, 1, 1), key=b"\xff"),
            lines=[Line("x", Decimal("9.99"), b"\xfe")],
            notes={UUID(int=3): date(2027, 1, 1)},
            parent=Shipment(to=Address(streetName="Home", since=date(2022, 1, 1), key=b""), lines=[]),
        ),
    ),
    "strict": (Annotated[tuple[bytes, ...], pydantic.Strict()], (b"\xff",)),
}


def _define_rich(name: str, annotation: Any) -> None:
    async def takes(ctx: duly.MutationCtx, value: Any) -> None:
        stage.seen.append(value)

    takes.__name__ = f"takes_{name}"
    takes.__annotations__ = {"ctx": duly.MutationCtx, "value": annotation, "return": None}
    globals()[takes.__name__] = duly.mutation(takes)


for _name, (_annotation, _) in RICH.items():
    _define_rich(_name, _annotation)


@pytest.mark.parametrize("name", RICH)
async def test_S3_arguments_arrive_as_the_annotated_type(database: str, name: str) -> None:
    _, value = RICH[name]
    async with app_on(database) as app:
        await finished(app, await app.scheduler.run_after(0, f"test_scheduling:takes_{name}", value), "success")
    (arrived,) = stage.seen
    assert repr_of(arrived) == repr_of(value)


def repr_of(value: Any) -> str:
    """Tells 1 from 1.0, -0.0 from 0.0, types from their likes, and finds NaN equal; but one UTC is like another."""
    return f"{type(value).__name__} {value!r}".replace("TzInfo(0)", "datetime.timezone.utc").replace(
        "TzInfo(UTC)", "datetime.timezone.utc"
    )


async def test_S3_arguments_are_stored_as_json_never_pickled(database: str) -> None:
    async with app_on(database).client() as app:
        line = Line("x", Decimal("9.99"), b"\xfe")
        id = await app.scheduler.run_after(0, "test_scheduling:takes_dataclass", line)
        assert (await job(app, id))["args"] == [{"value": {"sku": "x", "price": "9.99", "photo": b"\xfe", "tags": []}}]


async def test_S3_arguments_are_what_they_were_when_scheduled(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> str:
            basket = ["tea"]
            id = await ctx.scheduler.run_after(0, note, basket)
            basket.append("changed later")
            return id

        await finished(app, await app.mutation(perform, schedules), "success")
    assert stage.seen == [["tea"]]


# S3: checked again when it runs, against the code deployed then.


class deployed:  # noqa: N801 - reads as a statement: with deployed(…)
    """A module `jobs` made of source, as one version of an app's code."""

    def __init__(self, version: str, head: str, *functions: str) -> None:
        self.module = types.ModuleType(f"tests.rules._{version}.jobs")
        source = "\n".join(["import duly", "from tests.rules.test_scheduling import stage", head, *functions])
        sys.modules[self.module.__name__] = self.module
        exec(compile(source, self.module.__name__, "exec"), vars(self.module))

    def __enter__(self) -> types.ModuleType:
        return self.module

    def __exit__(self, *_: object) -> None:
        del sys.modules[self.module.__name__]


def note_source(parameters: str, kind: str = "mutation", name: str = "note") -> str:
    context = {"mutation": "MutationCtx", "action": "ActionCtx", "query": "QueryCtx"}[kind]
    return (
        f"@duly.{kind}\nasync def {name}(ctx: duly.{context}, {parameters}) -> None:\n"
        "    stage.seen.append(dict(locals(), ctx=None))\n"
        f"@duly.query\nasync def job_of_{name}(ctx: duly.QueryCtx, id: str) -> dict | None:\n"
        "    return await ctx.db.system.get(id)\n"
    )


async def _run_with(database: str, module: types.ModuleType, id: str, look: str = "jobs:job_of_note") -> Json:
    async with duly.App(module.__name__, database=database) as app:
        return await has_finished(lambda: app.query(look, id=id))


async def _schedule_with(database: str, module: types.ModuleType, **kwargs: Any) -> str:
    async with duly.App(module.__name__, database=database).client() as app:
        return await app.scheduler.run_after(0, "jobs:note", **kwargs)


@pytest.mark.parametrize("kind", ["mutation", "action"])
async def test_S3_arguments_that_no_longer_validate_fail_and_are_not_retried(file_database: str, kind: str) -> None:
    with deployed("one", "", note_source("count: int", kind)) as one:
        id = await _schedule_with(file_database, one, count=3)
    with deployed("two", "", note_source("count: int, colour: str", kind)) as two:
        job = await _run_with(file_database, two, id)
    assert job["state"]["kind"] == "failed"
    assert "ArgumentError" in job["state"]["error"]
    assert "colour: is missing" in job["state"]["error"]
    with deployed("three", "", note_source("count: int", kind)) as three:
        assert await _run_with(file_database, three, id) == job
    assert stage.seen == []


@pytest.mark.parametrize("kind", ["mutation", "action"])
async def test_S3_arguments_arrive_as_the_code_that_runs_annotates_them(file_database: str, kind: str) -> None:
    with deployed("one", "", note_source("count: int", kind)) as one:
        id = await _schedule_with(file_database, one, count=3)
    with deployed("two", "", note_source("count: float, colour: str = 'red'", kind)) as two:
        assert (await _run_with(file_database, two, id))["state"] == {"kind": "success"}
    (seen,) = stage.seen
    assert repr(seen["count"]) == "3.0"
    assert seen["colour"] == "red"


@pytest.mark.parametrize("kind", ["mutation", "action"])
async def test_S3_a_function_that_has_become_a_query_fails_clearly(file_database: str, kind: str) -> None:
    with deployed("one", "", note_source("count: int", kind)) as one:
        id = await _schedule_with(file_database, one, count=3)
    with deployed("two", "", note_source("count: int", "query")) as two:
        job = await _run_with(file_database, two, id)
    assert job["state"]["kind"] == "failed"
    assert "NotSchedulableError" in job["state"]["error"]
    assert "is a query" in job["state"]["error"]
    assert stage.seen == []


@pytest.mark.parametrize(("before", "after"), [("mutation", "action"), ("action", "mutation")])
async def test_S3_a_function_that_has_become_the_other_kind_runs_as_that(
    file_database: str, before: str, after: str
) -> None:
    with deployed("one", "", note_source("count: int", before)) as one:
        id = await _schedule_with(file_database, one, count=3)
    with deployed("two", "", note_source("count: int", after)) as two:
        assert (await _run_with(file_database, two, id))["state"] == {"kind": "success"}
    assert [seen["count"] for seen in stage.seen] == [3]


@pytest.mark.parametrize("kind", ["mutation", "action"])
async def test_S3_a_function_that_is_gone_leaves_its_job_pending_until_a_worker_has_it(
    file_database: str, kind: str
) -> None:
    with deployed("one", "", note_source("count: int", kind)) as one:
        id = await _schedule_with(file_database, one, count=3)
    with deployed("two", "", note_source("", name="other")) as two:
        async with duly.App(two.__name__, database=file_database) as app:

            async def parked() -> Json | None:
                document: Json = await app.query("jobs:job_of_other", id=id)
                assert document["state"] == {"kind": "pending"}
                return document if "pendingReason" in document else None

            job = await eventually(parked)
            assert job is not None
            assert "jobs:note" in job["pendingReason"]
            # It holds up nobody.
            other = await app.scheduler.run_after(0, "jobs:other")
            await has_finished(lambda: app.query("jobs:job_of_other", id=other), "success")
    stage.seen.clear()
    with deployed("three", "", note_source("count: int", kind)) as three:
        job = await _run_with(file_database, three, id)
    assert job["state"] == {"kind": "success"}
    assert "pendingReason" not in job
    assert [seen["count"] for seen in stage.seen] == [3]


async def test_S3_a_job_whose_function_is_gone_can_be_cancelled(file_database: str) -> None:
    with deployed("one", "", note_source("count: int")) as one:
        id = await _schedule_with(file_database, one, count=3)
    with deployed("two", "", note_source("", name="other")) as two:
        async with duly.App(two.__name__, database=file_database) as app:

            async def parked() -> bool:
                return "pendingReason" in await app.query("jobs:job_of_other", id=id)

            await eventually(parked)
            await app.scheduler.cancel(duly.Id(id))
            canceled = await app.query("jobs:job_of_other", id=id)
            assert canceled["state"] == {"kind": "canceled"}
            assert "pendingReason" not in canceled
    with deployed("three", "", note_source("count: int")) as three:
        assert (await _run_with(file_database, three, id))["state"] == {"kind": "canceled"}
    assert stage.seen == []


# S4: in a mutation.


async def test_S4_the_delay_counts_from_the_start_of_the_mutation(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock).client() as app:
        start = clock.now_ms()

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> list[str]:
            ids = [await ctx.scheduler.run_after(1_000, note)]
            await clock.advance(2)
            assert ctx.now == datetime_of(start)
            return [*ids, await ctx.scheduler.run_after(1_000, note)]

        for id in await app.mutation(perform, schedules):
            assert (await job(app, id))["scheduledTime"] == start + 1_000


async def test_S4_the_job_exists_only_once_the_mutation_commits(file_database: str) -> None:
    """Seen from another app on the same file, whose reads do not wait for the writer."""
    async with app_on(file_database) as app, app_on(file_database).client() as onlooker:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> str:
            id = await ctx.scheduler.run_after(0, note, "started")
            stage.seen.append("scheduled")
            assert await ctx.db.system.get(id) is not None
            await stage.gate("looked").wait()
            stage.seen.append("last line")
            return id

        running = asyncio.create_task(app.mutation(perform, schedules))
        await stage.has_seen(1)
        assert await onlooker.query(all_jobs) == []
        stage.gate("looked").set()
        await finished(app, await running, "success")
    assert stage.seen == ["scheduled", "last line", "started"]


async def test_S4_a_job_never_starts_inside_the_mutation_that_schedules_it(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> list[str]:
            ids: list[str] = [
                await ctx.scheduler.run_after(0, note, "mutation"),
                await ctx.scheduler.run_after(0, note_in_action, "action"),
            ]
            for _ in range(100):
                await asyncio.sleep(0)
            stage.seen.append("last line")
            return ids

        for id in await app.mutation(perform, schedules):
            await finished(app, id, "success")
    assert stage.seen[0] == "last line"
    assert sorted(stage.seen) == ["action", "last line", "mutation"]


async def test_S4_a_rolled_back_mutation_leaves_no_job(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert(items, {"name": "never"})
            stage.seen.append(await ctx.scheduler.run_after(0, note, "never"))
            await ctx.scheduler.run_after(1_000, note_in_action, "never")
            raise AppError("no")

        with pytest.raises(AppError):
            await app.mutation(perform, schedules)
        assert await app.query(all_jobs) == []
        assert await app.query(job_of, stage.seen[0]) is None
        assert await app.query(names) == []
        # Whatever it could have started would have started by now.
        await finished(app, await app.scheduler.run_after(0, note, "later"), "success")
        await finished(app, await app.scheduler.run_after(0, note_in_action, "later"), "success")
    assert stage.seen[1:] == ["later", "later"]


async def test_S4_a_scheduled_mutation_that_fails_leaves_no_job(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            await ctx.scheduler.run_after(0, note, "never")
            raise AppError("no")

        id = await app.scheduler.run_after(0, perform, schedules)
        await finished(app, id, "failed")
        assert [job["_id"] for job in await app.query(all_jobs)] == [id]
    assert stage.seen == []


async def test_S4_a_mutation_that_returns_the_wrong_type_leaves_no_job(database: str) -> None:
    with deployed(
        "wrong",
        "",
        "@duly.mutation\nasync def wrong(ctx: duly.MutationCtx) -> int:\n"
        "    await ctx.scheduler.run_after(0, wrong)\n    return 'no int'\n",
    ) as module:
        async with duly.App(module.__name__, database=database).client() as app:
            with pytest.raises(duly.errors.ReturnValueError):
                await app.mutation(module.wrong)

            async def count(tx: Any) -> int:
                found: int = await tx.count_jobs("", "~")
                return found

            assert app._store is not None
            assert await app._store.read(count) == 0


class LosingStore(FaultyStore):
    """Lets some transactions run to their end, and then lose against another."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, clock)
        self.losses = 0

    async def transact(self, body: Callable[[Any], Awaitable[T]], /, *, claims: bool = False) -> T:
        if self.losses == 0:
            return await super().transact(body, claims=claims)
        self.losses -= 1

        async def loses(tx: Any) -> T:
            await body(tx)
            raise ConflictError("lost against another transaction")

        return await super().transact(loses, claims=claims)


async def test_S4_a_retried_attempt_leaves_no_job(database: str) -> None:
    stores: list[LosingStore] = []

    def make(url: str, clock: Clock) -> LosingStore:
        stores.append(LosingStore(url, clock))
        return stores[0]

    async with app_with(app_on(database), store=make).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> str:
            id = await ctx.scheduler.run_after(0, note)
            stage.seen.append((id, ctx.now))
            return id

        stores[0].losses = 2
        id = await app.mutation(perform, schedules)
        attempts = [seen[0] for seen in stage.seen]
        assert len(set(attempts)) == 3
        assert id == attempts[-1]
        (job,) = await app.query(all_jobs)
        assert job["_id"] == id
        # The delay counts from the start of the attempt that committed.
        assert datetime_of(job["scheduledTime"]) == stage.seen[-1][1] > stage.seen[0][1]

        stores[0].losses = 100
        with pytest.raises(ConflictError):
            await app.mutation(perform, schedules)
        assert len(await app.query(all_jobs)) == 1


async def test_S4_a_nested_mutation_that_fails_takes_its_jobs_with_it(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def inner(ctx: duly.MutationCtx) -> None:
            await ctx.scheduler.run_after(0, note, "inner")
            raise AppError("no")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> list[str]:
            ids = [await ctx.scheduler.run_after(0, note, "before")]
            with pytest.raises(AppError):
                await ctx.run_mutation(perform, inner)
            return [*ids, await ctx.scheduler.run_after(0, note, "after")]

        ids = await app.mutation(perform, outer)
        for id in ids:
            await finished(app, id, "success")
        assert [job["_id"] for job in await app.query(all_jobs)] == ids
    assert stage.seen == ["before", "after"]


# S5: in an action, and from ordinary Python.


@pytest.mark.parametrize("scheduled", [True, False], ids=["scheduled", "called"])
async def test_S5_what_an_action_scheduled_survives_its_failure(database: str, scheduled: bool) -> None:
    async with app_on(database) as app:

        @stage.body
        async def fails(ctx: duly.ActionCtx) -> None:
            stage.seen.append(await ctx.scheduler.run_after(0, note, "survives"))
            raise AppError("no")

        if scheduled:
            await finished(app, await app.scheduler.run_after(0, act, fails), "failed")
        else:
            with pytest.raises(AppError):
                await app.action(act, fails)
        await stage.has_seen(2)
        await finished(app, stage.seen[0], "success")
    assert stage.seen[1:] == ["survives"]


async def test_S5_what_an_action_scheduled_survives_its_timeout_and_its_cancellation(database: str) -> None:
    async with app_on(database, action_timeout=timedelta(milliseconds=100)) as app:

        @stage.body
        async def hangs(ctx: duly.ActionCtx) -> None:
            await ctx.scheduler.run_after(0, note, "survives")
            await stage.gate("never").wait()

        await finished(app, await app.scheduler.run_after(0, act, hangs), "failed")
        await stage.has_seen(1)
        called = asyncio.create_task(app.action(act, hangs))
        await stage.has_seen(2)
        called.cancel()
        with pytest.raises(asyncio.CancelledError):
            await called
    assert stage.seen == ["survives", "survives"]


async def test_S5_delay_0_is_due_at_once_while_the_action_still_runs(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def waits_for_its_effect(ctx: duly.ActionCtx) -> str:
            id = await ctx.scheduler.run_after(0, add, "effect")

            async def look() -> bool:
                return await ctx.run_query(names) == ["effect"]

            await eventually(look)
            return id

        @stage.thread_body
        def waits_in_thread(ctx: duly.SyncActionCtx) -> None:
            ctx.scheduler.run_after(0, perform, opens)
            assert stage.thread_gate("opened").wait(20)

        @stage.body
        async def opens(ctx: duly.MutationCtx) -> None:
            stage.thread_gate("opened").set()

        await finished(app, await app.scheduler.run_after(0, act, waits_for_its_effect), "success")
        await finished(app, await app.scheduler.run_after(0, act_in_thread, waits_in_thread), "success")


async def test_S5_each_call_commits_before_it_returns(file_database: str) -> None:
    async with app_on(file_database).client() as app, app_on(file_database).client() as onlooker:

        @stage.body
        async def schedules(ctx: duly.ActionCtx) -> None:
            for number in range(3):
                id = await ctx.scheduler.run_after(0, note)
                assert (await job(onlooker, id))["state"] == {"kind": "pending"}
                assert len(await onlooker.query(all_jobs)) == number + 1
                await ctx.scheduler.cancel(id)
                assert (await job(onlooker, id))["state"] == {"kind": "canceled"}

        await app.action(act, schedules)


async def test_S5_the_delay_counts_from_the_call(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock).client() as app:

        @stage.body
        async def schedules(ctx: duly.ActionCtx) -> None:
            for _ in range(2):
                id = await ctx.scheduler.run_after(500, note)
                assert (await job(app, id))["scheduledTime"] == clock.now_ms() + 500
                await clock.advance(7)

        await app.action(act, schedules)


async def test_S5_ordinary_python_schedules_and_cancels_through_the_app(database: str) -> None:
    async with app_on(database) as app:
        ids = [
            await app.scheduler.run_after(0, note, "delay"),
            await app.scheduler.run_at(datetime.now(UTC), note, "moment"),
        ]
        for id in ids:
            await finished(app, id, "success")
        later = await app.scheduler.run_after(timedelta(days=1), note, "never")
        await app.scheduler.cancel(later)
        assert (await job(app, later))["state"] == {"kind": "canceled"}
    assert stage.seen == ["delay", "moment"]


async def test_S5_the_scheduler_of_an_app_works_while_the_app_is_open(database: str) -> None:
    app = app_on(database)
    with pytest.raises(AppNotOpenError):
        app.scheduler  # noqa: B018 - asking for it is refused
    async with app.client():
        scheduler = app.scheduler
        id = await scheduler.run_after(0, note)
    with pytest.raises(AppNotOpenError):
        await scheduler.run_after(0, note)
    with pytest.raises(AppNotOpenError):
        await scheduler.cancel(id)


async def test_S5_the_scheduler_of_the_app_is_refused_inside_a_mutation(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            await app.scheduler.run_after(0, note)

        with pytest.raises(duly.errors.MutationWaitError, match=r"ctx\.scheduler"):
            await app.mutation(perform, schedules)
        assert await app.query(all_jobs) == []


# S6: the past.


@pytest.mark.parametrize("place", PLACES)
async def test_S6_a_time_in_the_past_is_due_now_and_kept_as_asked(database: str, place: Place) -> None:
    async with app_on(database) as app:
        asked = datetime.now(UTC).timestamp() * 1_000 - FIVE_YEARS_MS + 60_000
        id = await schedule_in(place, app, "run_at", asked, note, "late")
        assert (await finished(app, id, "success"))["scheduledTime"] == asked
        moment = datetime.now(UTC) - timedelta(days=400)
        id = await schedule_in(place, app, "run_at", moment, note_in_action, "later")
        scheduled = (await finished(app, id, "success"))["scheduledTime"]
        assert scheduled == pytest.approx(moment.timestamp() * 1_000, abs=0.001)
    assert stage.seen == ["late", "later"]


@pytest.mark.parametrize("target", [note, note_in_action], ids=["mutations", "actions"])
async def test_S6_a_time_in_the_past_queues_behind_what_is_overdue(
    database: str, target: duly.FunctionReference[[Any], None]
) -> None:
    clock = ManualClock()
    async with app_with(app_on(database, concurrent_actions=1), clock).client() as app:
        start = clock.now_ms()
        await app.scheduler.run_after(5_000, target, "overdue since 5 s")
        await clock.advance(10)
        await app.scheduler.run_at(start - 3_600_000, target, "asked for an hour ago")
        await app.scheduler.run_after(0, target, "due now")
        await app.scheduler.run_at(start - 7_200_000, target, "asked for two hours ago")
        async with working(app):
            await stage.has_seen(4)
    assert stage.seen == ["overdue since 5 s", "asked for an hour ago", "due now", "asked for two hours ago"]


# S7: start order.


@pytest.mark.parametrize("target", [note, note_in_action], ids=["mutations", "actions"])
@pytest.mark.parametrize("delay", [0, 1_000])
async def test_S7_jobs_of_one_mutation_start_in_the_order_of_scheduling(
    database: str, target: duly.FunctionReference[[Any], None], delay: int
) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for number in range(300):
                await ctx.scheduler.run_after(delay, target, number)

        await app.mutation(perform, schedules)
        await clock.advance(delay / 1_000)
        await stage.has_seen(300)
    assert stage.seen == list(range(300))


@pytest.mark.parametrize("target", [note, note_in_action], ids=["mutations", "actions"])
async def test_S7_jobs_of_several_mutations_with_one_due_time_start_in_the_order_of_scheduling(
    database: str, target: duly.FunctionReference[[Any], None]
) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        due = clock.now_ms() + 1_000

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for _ in range(20):
                await ctx.scheduler.run_at(due, target, len(stage.seen))
                stage.seen.append(None)

        for _ in range(5):
            await app.mutation(perform, schedules)
            await clock.advance(0.1)
        await app.scheduler.run_at(datetime_of(due), target, 100)
        stage.seen.clear()
        await clock.advance(1)
        await stage.has_seen(101)
    assert stage.seen == list(range(101))


@pytest.mark.parametrize("target", [note, note_in_action], ids=["mutations", "actions"])
async def test_S7_jobs_start_in_the_order_of_their_due_times(
    database: str, target: duly.FunctionReference[[Any], None]
) -> None:
    clock = ManualClock()
    delays = [(number * 37) % 101 for number in range(101)]
    async with app_with(app_on(database, concurrent_actions=3), clock).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for delay in delays:
                await ctx.scheduler.run_after(delay / 2, target, delay)

        await app.mutation(perform, schedules)
        await clock.advance(1)
        async with working(app):
            await stage.has_seen(101)
    assert stage.seen == sorted(delays)


async def test_S7_a_burst_is_not_overtaken_by_what_it_schedules(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def follows_up(ctx: duly.MutationCtx) -> None:
            stage.seen.append("first")
            await ctx.scheduler.run_after(0, note, "follow-up")
            await ctx.scheduler.run_at(ctx.now - timedelta(days=1), note, "follow-up")

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for _ in range(700):
                await ctx.scheduler.run_after(0, perform, follows_up)

        await app.mutation(perform, schedules)
        await stage.has_seen(2_100)
    assert stage.seen == ["first"] * 700 + ["follow-up"] * 1_400


async def test_S7_a_saturated_pool_of_actions_is_not_overtaken(database: str) -> None:
    async with app_on(database, concurrent_actions=2) as app:

        @stage.body
        async def occupies(ctx: duly.ActionCtx) -> None:
            stage.seen.append("busy")
            await stage.gate("free").wait()

        for _ in range(2):
            await app.scheduler.run_after(0, act, occupies)
        await stage.has_seen(2)
        for number in range(50):
            await app.scheduler.run_after(0, note_in_action, number)
        # Asked for long ago, and yet last come.
        await app.scheduler.run_at(datetime.now(UTC) - timedelta(days=1), note_in_action, 50)
        assert stage.seen == ["busy", "busy"]
        stage.gate("free").set()
        await stage.has_seen(53)
    assert stage.seen[2:] == list(range(51))


# S8: never early, and at once when idle.


@pytest.mark.parametrize("target", ["test_scheduling:note", "test_scheduling:note_in_action"])
async def test_S8_a_job_never_starts_before_its_due_time(database: str, target: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        id = await app.scheduler.run_after(timedelta(days=7), target, "week")
        await clock.advance(7 * 24 * 3_600 - 0.001)
        assert stage.seen == []
        assert (await job(app, id))["state"] == {"kind": "pending"}
        await clock.advance(0.001)
        await finished(app, id, "success")
    assert stage.seen == ["week"]


async def test_S8_no_job_is_early_on_the_clock_of_the_machine(database: str) -> None:
    async with app_on(database) as app:
        ids = [await app.scheduler.run_after(delay / 7, note_now) for delay in range(0, 300, 10)]
        jobs = [await finished(app, id, "success") for id in ids]
    starts = sorted(stage.seen)
    due = sorted(job["scheduledTime"] for job in jobs)
    assert all(start >= at - 0.001 for start, at in zip(starts, due, strict=True))
    assert all(job["startedTime"] >= job["scheduledTime"] for job in jobs)


async def test_S8_a_job_that_is_due_earlier_wakes_a_worker_that_sleeps_until_later(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        await app.scheduler.run_after(60_000, note, "late")
        await clock.advance(1)
        await app.scheduler.run_after(1_000, note, "early")
        await clock.advance(1)
        await stage.has_seen(1)
        assert stage.seen == ["early"]
        await clock.advance(58)
        await stage.has_seen(2)
    assert stage.seen == ["early", "late"]


@pytest.mark.parametrize("target", ["test_scheduling:note", "test_scheduling:note_in_action"])
async def test_S8_delay_0_on_an_idle_worker_starts_within_milliseconds(database: str, target: str) -> None:
    """Loosely: the benchmark has the figures. A worker that polls would take longer than this."""
    async with app_on(database) as app:
        waits: list[float] = []
        for _ in range(15):
            job = await finished(app, await app.scheduler.run_after(0, target), "success")
            waits.append(job["startedTime"] - job["scheduledTime"])
    assert sorted(waits)[7] < 100


class CountingStore(FaultyStore):
    """Counts reads as well."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, clock)
        self.calls = 0

    async def read(self, body: Callable[[Any], Awaitable[T]], /, *, follows: bool = False) -> T:
        self.calls += 1
        return await super().read(body, follows=follows)

    async def transact(self, body: Callable[[Any], Awaitable[T]], /, *, claims: bool = False) -> T:
        self.calls += 1
        return await super().transact(body, claims=claims)


async def test_S8_an_idle_worker_does_nothing(database: str) -> None:
    clock = ManualClock()
    stores: list[CountingStore] = []

    def make(url: str, clock: Clock) -> CountingStore:
        stores.append(CountingStore(url, clock))
        return stores[0]

    async with app_with(app_on(database), clock, make) as app:
        (store,) = stores
        # What has run, and what is for later, makes no difference.
        id = await app.scheduler.run_after(0, note)
        await finished(app, id, "success")
        await finished(app, await app.scheduler.run_after(0, note_in_action), "success")
        later = await app.scheduler.run_after(timedelta(days=3), note, "later")
        await clock.advance(1)
        calls = store.calls
        await clock.advance(2 * 24 * 3_600)
        assert store.calls == calls
        await clock.advance(24 * 3_600)
        await finished(app, later, "success")
        assert store.calls > calls


async def test_S8_an_idle_worker_does_nothing_on_the_clock_of_the_machine(database: str) -> None:
    stores: list[CountingStore] = []

    def make(url: str, clock: Clock) -> CountingStore:
        stores.append(CountingStore(url, clock))
        return stores[0]

    async with app_with(app_on(database), store=make) as app:
        (store,) = stores
        await finished(app, await app.scheduler.run_after(0, note), "success")
        await app.scheduler.run_after(timedelta(hours=1), note)

        async def quiet() -> bool:
            # Nothing to wait for: that nothing happens takes time to see.
            calls = store.calls
            await asyncio.sleep(0.3)
            return store.calls == calls

        await eventually(quiet)


async def test_S8_a_client_runs_nothing(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock).client() as app:
        id = await app.scheduler.run_after(0, note)
        await clock.advance(3_600)
        assert (await job(app, id))["state"] == {"kind": "pending"}
    assert stage.seen == []


# S9: limits.


async def test_S9_a_thousand_jobs_and_not_one_more(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for _ in range(1_000):
                await ctx.scheduler.run_after(1_000, note)
            for _ in range(2):
                with pytest.raises(LimitError) as raised:
                    await ctx.scheduler.run_after(1_000, note)
                assert (raised.value.actual, raised.value.maximum) == (1_001, 1_000)
                assert "functions scheduled" in raised.value.limit
            await ctx.db.insert(items, {"name": "committed"})

        await app.mutation(perform, schedules)
        assert len(await app.query(all_jobs)) == 1_000
        assert await app.query(names) == ["committed"]
        # The next mutation has a share of its own.
        await app.mutation(perform, schedules)
        assert len(await app.query(all_jobs)) == 2_000


async def test_S9_a_limit_that_is_not_caught_rolls_everything_back(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for number in range(1_001):
                await ctx.scheduler.run_after(0, note, number)

        with pytest.raises(LimitError):
            await app.mutation(perform, schedules)
        assert await app.query(all_jobs) == []
        failed = await finished(app, await app.scheduler.run_after(0, perform, schedules), "failed")
        assert "LimitError" in failed["state"]["error"]
    assert stage.seen == []


MIB = 1024 * 1024
EXACT = 4 * MIB - len('{"what":""}')
"""The longest text whose arguments are 4 MiB."""


@pytest.mark.parametrize("place", PLACES)
async def test_S9_the_arguments_of_one_job_are_at_most_4_mib(database: str, place: Place) -> None:
    async with app_on(database) as app:
        await finished(app, await schedule_in(place, app, "run_after", 0, note, "x" * EXACT), "success")
        with pytest.raises(LimitError) as raised:
            await schedule_in(place, app, "run_after", 0, note, "x" * (EXACT + 1))
        assert (raised.value.actual, raised.value.maximum) == (4 * MIB + 1, 4 * MIB)
        assert len(await app.query(all_jobs)) == 1
    assert [len(seen) for seen in stage.seen] == [EXACT]


async def test_S9_the_arguments_are_measured_in_bytes_not_characters(database: str) -> None:
    async with app_on(database).client() as app:
        await app.scheduler.run_after(0, note, "é" * (EXACT // 2))
        with pytest.raises(LimitError):
            await app.scheduler.run_after(0, note, "é" * (EXACT // 2 + 1))


async def test_S9_all_arguments_of_a_mutation_are_at_most_16_mib(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> list[str]:
            ids: list[str] = [await ctx.scheduler.run_after(1_000, note, "x" * EXACT) for _ in range(3)]
            with pytest.raises(LimitError) as raised:
                await ctx.scheduler.run_after(1_000, note, "x" * (EXACT + 1))
            assert raised.value.maximum == 4 * MIB
            ids.append(await ctx.scheduler.run_after(1_000, note, "x" * EXACT))
            with pytest.raises(LimitError) as raised:
                await ctx.scheduler.run_after(1_000, note, "")
            assert raised.value.maximum == 16 * MIB
            assert raised.value.actual == 16 * MIB + len('{"what":""}')
            return ids

        ids = await app.mutation(perform, schedules)
        assert [job["_id"] for job in await app.query(all_jobs)] == ids


async def test_S9_nested_mutations_share_the_limit(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def inner(ctx: duly.MutationCtx) -> None:
            for _ in range(600):
                await ctx.scheduler.run_after(1_000, note)

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(perform, inner)
            with pytest.raises(LimitError):
                await ctx.run_mutation(perform, inner)
            for _ in range(400):
                await ctx.scheduler.run_after(1_000, note)
            with pytest.raises(LimitError):
                await ctx.scheduler.run_after(1_000, note)

        await app.mutation(perform, outer)
        assert len(await app.query(all_jobs)) == 1_000


async def test_S9_a_refused_call_takes_no_share(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for _ in range(5):
                with pytest.raises(LimitError):
                    await ctx.scheduler.run_after(0, note, "x" * (EXACT + 1))
            for _ in range(1_000):
                with pytest.raises(InvalidTimeError):
                    await ctx.scheduler.run_after(-1, note)
                with pytest.raises(ArgumentError):
                    await ctx.scheduler.run_after(0, "test_scheduling:add")
                await ctx.scheduler.run_after(1_000, note)

        await app.mutation(perform, schedules)
        assert len(await app.query(all_jobs)) == 1_000


async def test_S9_an_action_may_schedule_any_number(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules(ctx: duly.ActionCtx) -> None:
            await asyncio.gather(*(ctx.scheduler.run_after(1_000, note) for _ in range(1_100)))

        await app.action(act, schedules)
        assert len(await app.query(all_jobs)) == 1_100


# S10: a mutation sees its own jobs.


async def test_S10_a_mutation_reads_the_jobs_it_has_just_scheduled(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            id = await ctx.scheduler.run_after(1_000, note, "mine")
            own = await ctx.db.system.get(id)
            assert own is not None
            assert own["name"] == "test_scheduling:note"
            assert own["args"] == [{"what": "mine"}]
            assert own["state"] == {"kind": "pending"}
            assert datetime_of(own["scheduledTime"]) == ctx.now + timedelta(seconds=1)
            (listed,) = await ctx.db.system.query("_scheduled_functions").collect()
            assert listed == own
            assert await ctx.run_query(job_of, id) == own

        await app.mutation(perform, schedules)


async def test_S10_a_mutation_cancels_the_jobs_it_has_just_scheduled(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> str:
            id = await ctx.scheduler.run_after(0, note, "never")
            await ctx.scheduler.cancel(id)
            own = await ctx.db.system.get(id)
            assert own is not None
            assert own["state"] == {"kind": "canceled"}
            await ctx.scheduler.cancel(id)
            await ctx.scheduler.run_after(0, note, "next")
            return id

        id = await app.mutation(perform, schedules)
        await stage.has_seen(1)
        canceled = await job(app, id)
        assert canceled["state"] == {"kind": "canceled"}
        assert "completedTime" in canceled
        assert "nextAttemptTime" not in canceled
    assert stage.seen == ["next"]


async def test_S10_jobs_of_a_nested_mutation_that_failed_are_not_seen(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def inner(ctx: duly.MutationCtx) -> None:
            stage.seen.append(await ctx.scheduler.run_after(0, note))
            raise AppError("no")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            with pytest.raises(AppError):
                await ctx.run_mutation(perform, inner)
            assert await ctx.db.system.get(stage.seen[0]) is None
            with pytest.raises(duly.errors.ScheduledFunctionNotFoundError):
                await ctx.scheduler.cancel(stage.seen[0])

        await app.mutation(perform, outer)


# S11: no identity.


@pytest.mark.parametrize("identity", [None, ANN], ids=["nobody", "ann"])
async def test_S11_a_scheduled_function_runs_with_no_identity(database: str, identity: duly.Identity | None) -> None:
    async with app_on(database) as app:
        chain = CallChain(identity=identity)

        @stage.body
        async def runs(ctx: duly.MutationCtx) -> None:
            stage.seen.append(await ctx.auth.identity())

        @stage.body
        async def runs_as_action(ctx: duly.ActionCtx) -> None:
            stage.seen.append(await ctx.auth.identity())
            await ctx.run_mutation(perform, runs)

        @stage.thread_body
        def runs_in_thread(ctx: duly.SyncActionCtx) -> None:
            stage.seen.append(ctx.auth.identity())

        @stage.body
        async def schedules(ctx: Any) -> list[str]:
            assert await ctx.auth.identity() == identity
            return [
                await ctx.scheduler.run_after(0, perform, runs),
                await ctx.scheduler.run_after(0, act, runs_as_action),
                await ctx.scheduler.run_after(0, act_in_thread, runs_in_thread),
            ]

        runner = app._running()
        for ids in (
            await runner.mutation(chain, perform, (schedules,), {}),
            await runner.action(chain, act, (schedules,), {}),
        ):
            for id in ids:
                await finished(app, id, "success")
    assert stage.seen == [None] * 8


async def test_S11_a_job_knows_the_id_of_the_root_of_its_chain_and_not_of_who_scheduled_it(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def second(ctx: duly.MutationCtx) -> None:
            stage.seen.append(ctx.scheduled_function_id)

        @stage.body
        async def inner(ctx: duly.MutationCtx) -> None:
            stage.seen.append(ctx.scheduled_function_id)

        @stage.body
        async def first(ctx: duly.ActionCtx) -> None:
            stage.seen.append(ctx.scheduled_function_id)
            await ctx.run_mutation(perform, inner)
            stage.seen.append(await ctx.scheduler.run_after(0, perform, second))

        id = await app.scheduler.run_after(0, act, first)
        await stage.has_seen(4)
        await finished(app, id, "success")
        assert stage.seen[:2] == [id, id]
        assert stage.seen[2] == stage.seen[3] != id
        stage.seen.clear()
        await app.mutation(perform, inner)
        assert stage.seen == [None]


# The documents of `_scheduled_functions` (DESIGN 3.6).


async def test_a_pending_job_shows_what_was_asked_for(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock).client() as app:
        now = clock.now_ms()
        id = await app.scheduler.run_after(1_000, add, "tea", loud=True)
        document = await job(app, id)
        assert isinstance(document["_creationTime"], float)
        assert document == {
            "_id": id,
            "_creationTime": now,
            "name": "test_scheduling:add",
            "args": [{"name": "tea", "loud": True}],
            "scheduledTime": now + 1_000,
            "state": {"kind": "pending"},
            "attempts": 0,
            "nextAttemptTime": now + 1_000,
        }
        bare = await job(app, await app.scheduler.run_after(0, note))
        assert bare["args"] == [{}]


async def test_a_mutation_is_pending_until_it_is_success(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:

        @stage.body
        async def looks_at_itself(ctx: duly.MutationCtx) -> None:
            assert ctx.scheduled_function_id is not None
            itself = await ctx.db.system.get(ctx.scheduled_function_id)
            assert itself is not None
            stage.seen.append(itself["state"])

        id = await app.scheduler.run_after(1_000, perform, looks_at_itself)
        asked = (await job(app, id))["scheduledTime"]
        await clock.advance(5)
        done = await finished(app, id, "success")
        assert done["scheduledTime"] == asked
        assert done["startedTime"] == done["completedTime"] == asked
        assert done["attempts"] == 1
        assert done["state"] == {"kind": "success"}
        assert "nextAttemptTime" not in done
    assert stage.seen == [{"kind": "pending"}]


async def test_an_action_is_in_progress_while_it_runs(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            assert ctx.scheduled_function_id is not None
            stage.seen.append(await ctx.run_query(job_of, ctx.scheduled_function_id))
            await stage.gate("go").wait()

        started = clock.now_ms()
        id = await app.scheduler.run_after(0, act, runs)
        await stage.has_seen(1)
        (running,) = stage.seen
        assert running["state"] == {"kind": "inProgress"}
        assert running["startedTime"] == started
        assert running["attempts"] == 1
        assert "completedTime" not in running
        assert "nextAttemptTime" not in running
        await clock.advance(2)
        stage.gate("go").set()
        done = await finished(app, id, "success")
        assert done["completedTime"] == started + 2_000
        assert done["startedTime"] == started


@pytest.mark.parametrize("target", [perform, act], ids=["mutation", "action"])
async def test_a_failed_job_tells_its_error(database: str, target: duly.FunctionReference[[str], Any]) -> None:
    async with app_on(database) as app:

        @stage.body
        async def fails(ctx: Any) -> None:
            raise ValueError("no such order")

        failed = await finished(app, await app.scheduler.run_after(0, target, fails), "failed")
        assert set(failed["state"]) == {"kind", "error"}
        assert "ValueError: no such order" in failed["state"]["error"]
        assert failed["completedTime"] >= failed["scheduledTime"]


async def test_jobs_are_listed_in_the_order_they_were_created(database: str) -> None:
    async with app_on(database).client() as app:
        ids = [await app.scheduler.run_after(1_000 - number, note) for number in range(5)]
        jobs = await app.query(all_jobs)
        assert [job["_id"] for job in jobs] == ids
        times = [job["_creationTime"] for job in jobs]
        assert times == sorted(times)
        assert len(set(times)) == 5


async def test_the_system_table_is_read_only_and_apart_from_documents(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def meddles(ctx: duly.MutationCtx) -> None:
            id: Any = await ctx.scheduler.run_after(1_000, note)
            before = await ctx.db.system.get(id)
            for attempt in (
                ctx.db.get(id),
                ctx.db.patch(id, {"name": "x"}),
                ctx.db.replace(id, {"name": "x"}),
                ctx.db.delete(id),
            ):
                with pytest.raises(InvalidIdError):
                    await attempt
            with pytest.raises(duly.errors.SchemaError):
                await ctx.db.insert("_scheduled_functions", {"name": "x"})
            assert await ctx.db.system.get(id) == before
            item = await ctx.db.insert(items, {"name": "tea"})
            with pytest.raises(InvalidIdError):
                await ctx.db.system.get(str(item))

        await app.mutation(perform, meddles)
