"""`ctx.sql`: the user's own tables, in the transaction of the mutation (DESIGN 3.2, M1, T1)."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import pytest

import duly
import duly.testing
from duly._app import Parts
from duly._ground.clock import Clock
from duly._ground.values import Int64
from duly._store.open import make_store
from duly._store.port import Transaction
from duly.errors import AppError, ConflictError, DulyError, InvalidValueError, LimitError, SQLError
from duly.testing.faults import StoreView
from tests.rules.stage import Json, Stage, app_with, has_finished
from tests.support import LOADED_S, own_table

T = TypeVar("T")

stage = Stage()


@pytest.fixture(autouse=True)
def clear_stage() -> None:
    stage.clear()


notes = duly.Table("notes")

ACCOUNTS = "CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents BIGINT NOT NULL CHECK (cents >= 0))"
UNIQUE = {"sqlite": "SQLITE_CONSTRAINT_PRIMARYKEY", "postgresql": "23505"}


@duly.mutation
async def perform(ctx: duly.MutationCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.query
async def look(ctx: duly.QueryCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.action
async def act(ctx: duly.ActionCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.mutation
async def set_up(ctx: duly.MutationCtx) -> None:
    await ctx.sql(ACCOUNTS)
    await ctx.sql("INSERT INTO accounts VALUES ($1, $2), ($3, $4)", "Ann", 1_000, "Bob", 0)


@duly.mutation
async def transfer(ctx: duly.MutationCtx, cents: int) -> None:
    await ctx.sql("UPDATE accounts SET cents = cents + $1 WHERE name = $2", cents, "Bob")
    await ctx.sql("UPDATE accounts SET cents = cents - $1 WHERE name = $2", cents, "Ann")
    await ctx.db.insert(notes, {"cents": cents})


@duly.mutation
async def open_account(ctx: duly.MutationCtx, name: str) -> None:
    await ctx.db.insert(notes, {"name": name})
    await ctx.sql("INSERT INTO accounts VALUES ($1, 0)", name)


@duly.mutation
async def balances(ctx: duly.MutationCtx) -> dict[str, int]:
    rows = await ctx.sql("SELECT name, cents FROM accounts ORDER BY name")
    return {row["name"]: row["cents"] for row in rows}


@duly.query
async def all_notes(ctx: duly.QueryCtx) -> list[Json]:
    return [
        {name: value for name, value in note.items() if not name.startswith("_")}
        for note in await ctx.db.query(notes).collect()
    ]


@duly.query
async def job_of(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


def app_on(database: str, **options: Any) -> duly.App:
    # None of these rules is about the time a mutation may take, and a busy machine takes longer.
    return duly.App(__name__, database=database, mutation_timeout=timedelta(minutes=1), **options)


async def in_a_mutation(database: str, body: Callable[[duly.MutationCtx], Awaitable[T]]) -> T:
    """What a body returns that runs in a mutation of its own, with the accounts of Ann and Bob."""
    async with app_on(database) as app:
        await app.mutation(set_up)
        result: T = await app.mutation(perform, stage.body(body))
        return result


# One transaction.


async def test_M1_a_transfer_between_tables_of_the_users_happens_exactly_once(database: str) -> None:
    async with app_on(database) as app:
        await app.mutation(set_up)
        ids = [await app.scheduler.run_after(0, transfer, cents=cents) for cents in (100, 5_000, 200)]
        jobs = [await has_finished(lambda id=id: app.query(job_of, id)) for id in ids]  # type: ignore[misc]
        assert [job["state"]["kind"] for job in jobs] == ["success", "failed", "success"]
        assert jobs[1]["state"]["error"].startswith("SQLError: ")
        assert await app.mutation(balances) == {"Ann": 700, "Bob": 300}
        assert await app.query(all_notes) == [{"cents": 100}, {"cents": 200}]


async def test_what_sql_changed_is_rolled_back_with_the_mutation(database: str) -> None:
    async with app_on(database) as app:
        await app.mutation(set_up)

        @stage.body
        async def fail(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(transfer, cents=100)
            await ctx.sql("CREATE TABLE fresh (a INTEGER)")
            raise AppError("no")

        @stage.body
        async def count(ctx: duly.MutationCtx) -> None:
            await ctx.sql("SELECT * FROM fresh")

        with pytest.raises(AppError):
            await app.mutation(perform, fail)
        assert await app.mutation(balances) == {"Ann": 1_000, "Bob": 0}
        assert await app.query(all_notes) == []
        with pytest.raises(SQLError, match="fresh"):
            await app.mutation(perform, count)


async def test_a_nested_mutation_that_fails_takes_its_sql_with_it(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> Any:
        async def give_and_fail(ctx: duly.MutationCtx) -> None:
            await ctx.sql("UPDATE accounts SET cents = 7")
            await ctx.db.insert(notes, {"lost": True})
            raise AppError("no")

        await ctx.sql("UPDATE accounts SET cents = 5 WHERE name = 'Bob'")
        with pytest.raises(AppError):
            await ctx.run_mutation(perform, stage.body(give_and_fail))
        return [await ctx.run_mutation(balances), await ctx.run_query(all_notes)]

    assert await in_a_mutation(database, body) == [{"Ann": 1_000, "Bob": 5}, []]


async def test_a_violation_that_is_caught_undoes_its_statement_and_nothing_else(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> Any:
        note_id = await ctx.db.insert(notes, {"n": 1})
        job_id = await ctx.scheduler.run_after(timedelta(days=1), transfer, cents=1)
        await ctx.sql("UPDATE accounts SET cents = 5 WHERE name = 'Bob'")
        with pytest.raises(SQLError) as caught:
            await ctx.sql("INSERT INTO accounts VALUES ('Eve', 0), ($1, 0)", "Ann")
        await ctx.db.patch(note_id, {"n": 2})
        await ctx.sql("INSERT INTO accounts VALUES ('Dan', 0)")
        error = caught.value
        return job_id, error.sqlstate, error.message

    async with app_on(database) as app:
        await app.mutation(set_up)
        job_id, sqlstate, message = await app.mutation(perform, stage.body(body))
        assert sqlstate == UNIQUE[database.partition(":")[0]]
        assert "accounts" in message
        assert await app.mutation(balances) == {"Ann": 1_000, "Bob": 5, "Dan": 0}
        assert await app.query(all_notes) == [{"n": 2}]
        assert (await app.query(job_of, job_id))["state"]["kind"] == "pending"


async def test_a_violation_fails_its_mutation_and_none_that_commits_with_it(database: str) -> None:
    names = ["Ann", "Carl", "Bob", "Dan", "Carl", "Eve"]
    async with app_on(database) as app:
        await app.mutation(set_up)
        results = await asyncio.gather(*[app.mutation(open_account, name) for name in names], return_exceptions=True)
        opened = [name for name, result in zip(names, results, strict=True) if result is None]
        assert sorted(opened) == ["Carl", "Dan", "Eve"]
        assert all(result is None or isinstance(result, SQLError) for result in results)
        assert sorted(await app.mutation(balances)) == ["Ann", "Bob", "Carl", "Dan", "Eve"]
        assert sorted(note["name"] for note in await app.query(all_notes)) == opened


class _ConflictingStore(StoreView):
    """The first transactions lose against others when they are about to commit."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(make_store(url, clock))
        self.conflicts = 0

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        async def losing(tx: Transaction) -> T:
            result = await body(tx)
            if self.conflicts:
                self.conflicts -= 1
                raise ConflictError("another was first")
            return result

        return await self._store.transact(losing)


async def test_T1_a_mutation_that_runs_again_has_run_its_sql_once(database: str) -> None:
    stores: list[_ConflictingStore] = []

    def make(url: str, clock: Clock) -> _ConflictingStore:
        stores.append(_ConflictingStore(url, clock))
        return stores[0]

    async with app_with(app_on(database), store=make).client() as app:
        await app.mutation(set_up)
        stores[0].conflicts = 2
        await app.mutation(transfer, cents=100)
        assert stores[0].conflicts == 0
        assert await app.mutation(balances) == {"Ann": 900, "Bob": 100}


async def test_sql_sees_what_the_mutation_has_written_before(database: str) -> None:
    documents_of = f"SELECT body FROM {own_table(database, 'documents')} WHERE id = $1"
    state_of = f"SELECT state FROM {own_table(database, 'scheduled_functions')} WHERE id = $1"

    async def body(ctx: duly.MutationCtx) -> Any:
        note_id = await ctx.db.insert(notes, {"n": 1})
        job_id = await ctx.scheduler.run_after(timedelta(days=1), transfer, cents=1)
        documents = await ctx.sql(documents_of, note_id)
        jobs = await ctx.sql(state_of, job_id)
        await ctx.db.patch(note_id, {"n": 2})
        await ctx.scheduler.cancel(job_id)
        again = await ctx.sql(documents_of, note_id)
        jobs += await ctx.sql(state_of, job_id)
        return [documents, again, jobs]

    assert await in_a_mutation(database, body) == [
        [{"body": '{"n":1}'}],
        [{"body": '{"n":2}'}],
        [{"state": "pending"}, {"state": "canceled"}],
    ]


# Statements and their parameters.


async def test_parameters_are_bound_and_never_part_of_the_statement(database: str) -> None:
    text = "'; DROP TABLE accounts; -- $1"

    async def body(ctx: duly.MutationCtx) -> Any:
        await ctx.sql("INSERT INTO accounts (cents, name) VALUES ($2, $1)", text, 7)
        return await ctx.sql("SELECT name FROM accounts WHERE cents = $1 /* $2 */ AND name <> '$3' -- $4", 7)

    assert await in_a_mutation(database, body) == [{"name": text}]


async def test_rows_are_dicts_and_statements_without_rows_return_none(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> Any:
        return [
            await ctx.sql("UPDATE accounts SET cents = 1"),
            await ctx.sql("UPDATE accounts SET cents = 2 WHERE name = 'Bob' RETURNING name, cents"),
            await ctx.sql("DELETE FROM accounts WHERE name = 'nobody' RETURNING name"),
            await ctx.sql("SELECT count(*) AS n, 'x' AS \"odd name\" FROM accounts;"),
        ]

    assert await in_a_mutation(database, body) == [
        [],
        [{"name": "Bob", "cents": 2}],
        [],
        [{"n": 2, "odd name": "x"}],
    ]


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("TEXT", "täa\n", "täa\n"),
        ("BIGINT", -(2**63), -(2**63)),
        ("BIGINT", Int64(7), 7),
        ("DOUBLE PRECISION", 0.1, 0.1),
        ("DOUBLE PRECISION", -float("inf"), -float("inf")),
        ("TEXT", None, None),
        ("BOOLEAN", True, True),
        ("TEXT", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), "2026-05-04T03:02:01.000000Z"),
        ("TEXT", UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ("TEXT", Decimal("1.50"), "1.50"),
    ],
)
async def test_values_come_back_as_they_are(database: str, kind: str, value: Any, stored: Any) -> None:
    async def body(ctx: duly.MutationCtx) -> None:
        await ctx.sql(f"CREATE TABLE box (content {kind})")
        await ctx.sql("INSERT INTO box VALUES ($1)", value)
        assert await ctx.sql("SELECT content FROM box") == [{"content": stored}]

    await in_a_mutation(database, body)


async def test_bytes_come_back_as_bytes(database: str) -> None:
    kind = "BYTEA" if database.startswith("postgresql") else "BLOB"

    async def body(ctx: duly.MutationCtx) -> None:
        await ctx.sql(f"CREATE TABLE box (content {kind})")
        await ctx.sql("INSERT INTO box VALUES ($1)", b"\0\xff")
        ((content,),) = [row.values() for row in await ctx.sql("SELECT content FROM box")]
        assert content == b"\0\xff"

    await in_a_mutation(database, body)


@pytest.mark.parametrize(
    ("statement", "parameters", "error", "message"),
    [
        ("SELECT 1", [1], TypeError, "takes no parameters, and 1 was given"),
        ("SELECT $1, $2", ["a"], TypeError, "takes 2 parameters, and 1 was given"),
        ("SELECT $1, $1", ["a", "b"], TypeError, r"takes one parameter \(\$1\), and 2 were given"),
        (7, [], TypeError, "a statement is a str"),
        ("SELECT $1", [object()], TypeError, r"\$1 is of type 'object'"),
        ("SELECT $1", [["a"]], TypeError, r"\$1 is of type 'list'"),
        ("SELECT $1", [{"a": 1}], TypeError, r"\$1 is of type 'dict'"),
        ("SELECT $1", [2**63], InvalidValueError, r"\$1: the int .* 64 bits"),
        ("SELECT $1", ["\ud800"], InvalidValueError, r"\$1: .* surrogate"),
        ("SELECT $1, $3", ["a", "b"], SQLError, r"\$1, \$2 and so on"),
        ("SELEC 1", [], SQLError, "(?i)syntax error"),
        ("SELECT * FROM nothing", [], SQLError, "nothing"),
        ("SELECT 1 AS a, 2 AS a", [], SQLError, "more than one column is named 'a'"),
        ("  -- nothing\n ;", [], SQLError, "there is no statement"),
        ("SELECT 1; SELECT 2", [], SQLError, "(?i)several statements|multiple commands"),
        (
            "UPDATE accounts SET cents = 0; DROP TABLE accounts",
            [],
            SQLError,
            "(?i)several statements|multiple commands",
        ),
    ],
)
async def test_what_can_not_be_run_is_refused_and_the_mutation_goes_on(
    database: str, statement: Any, parameters: list[Any], error: type[Exception], message: str
) -> None:
    async def body(ctx: duly.MutationCtx) -> Any:
        for _ in range(2):
            with pytest.raises(error, match=message):
                await ctx.sql(statement, *parameters)
        return await ctx.run_mutation(balances)

    assert await in_a_mutation(database, body) == {"Ann": 1_000, "Bob": 0}


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN",
        "begin immediate",
        "START TRANSACTION",
        "COMMIT",
        "END",
        "ROLLBACK",
        "ROLLBACK TO s1",
        "ABORT",
        "SAVEPOINT a",
        "RELEASE s1",
        "PREPARE TRANSACTION 'a'",
        "/* harmless */ -- really\n COMMIT",
        "; COMMIT",
        "PRAGMA synchronous = OFF",
        "ATTACH 'other.db' AS other",
        "DETACH main",
        "VACUUM",
    ],
)
async def test_what_is_not_about_tables_is_refused(database: str, statement: str) -> None:
    async def body(ctx: duly.MutationCtx) -> Any:
        await ctx.db.insert(notes, {"n": 1})
        with pytest.raises(SQLError, match=r"can't be used in ctx\.sql: .*(mutation|connection)"):
            await ctx.sql(statement)
        return await ctx.run_query(all_notes)

    assert await in_a_mutation(database, body) == [{"n": 1}]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {documents} (id, body) VALUES ('a', '{{}}')",
        "INSERT INTO {quoted} (id, body) VALUES ('a', '{{}}')",
        "UPDATE {jobs} SET state = 'success'",
        "DELETE FROM {documents}",
        "WITH x AS (SELECT 1) DELETE FROM {documents}",
        "DROP TABLE IF EXISTS {documents}",
        "ALTER TABLE {documents} ADD COLUMN mine TEXT",
        "CREATE TABLE {documents}_too (id TEXT)",
        "CREATE TABLE IF NOT EXISTS mine (id TEXT REFERENCES {documents} (id))",
    ],
)
async def test_dulys_own_tables_are_read_only(database: str, statement: str) -> None:
    documents, jobs = own_table(database, "documents"), own_table(database, "scheduled_functions")
    quoted = ".".join(f'"{part}"' for part in documents.split("."))
    written = statement.format(documents=documents, jobs=jobs, quoted=quoted)

    async def body(ctx: duly.MutationCtx) -> Any:
        await ctx.db.insert(notes, {"n": 1})
        for _ in range(2):
            with pytest.raises(SQLError, match="are duly's own"):
                await ctx.sql(written)
        await ctx.sql(f"CREATE TABLE copies AS SELECT id, body FROM {documents}")
        await ctx.sql(f"INSERT INTO copies SELECT d.id, d.body FROM accounts JOIN {documents} AS d ON d.id <> name")
        return await ctx.sql("SELECT count(*) AS n FROM copies")

    assert await in_a_mutation(database, body) == [{"n": 3}]


async def test_a_deferred_constraint_holds_at_once(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> Any:
        await ctx.sql(
            "CREATE TABLE cards (name TEXT REFERENCES accounts (name) DEFERRABLE INITIALLY DEFERRED, number TEXT)"
        )
        with pytest.raises(SQLError, match=r"(?i)foreign key"):
            await ctx.sql("INSERT INTO cards VALUES ('nobody', '1')")
        await ctx.sql("INSERT INTO cards VALUES ('Ann', '2')")
        return await ctx.sql("SELECT * FROM cards")

    assert await in_a_mutation(database, body) == [{"name": "Ann", "number": "2"}]


# Limits, time and order.


async def test_T4_rows_count_as_read_and_each_call_as_a_write(database: str) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n"

    async def body(ctx: duly.MutationCtx) -> None:
        ctx._scope.usage.writes = 15_998
        await ctx.sql("UPDATE accounts SET cents = 1")
        assert len(await ctx.sql(numbers)) == 20_000
        with pytest.raises(LimitError, match="writes in one"):
            await ctx.sql("UPDATE accounts SET cents = 2")
        ctx._scope.usage.writes = 0
        with pytest.raises(LimitError, match="documents read"):
            await ctx.sql(numbers)

    await in_a_mutation(database, body)


async def test_T3_calls_may_be_gathered_and_are_no_waiting(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> Any:
        await asyncio.gather(
            *[ctx.sql("UPDATE accounts SET cents = cents + $1", number) for number in range(50)],
            *[ctx.db.insert(notes, {"n": number}) for number in range(50)],
            *[ctx.run_mutation(transfer, cents=1) for _ in range(20)],
        )
        failed = await asyncio.gather(
            *[ctx.sql("INSERT INTO accounts VALUES ($1, 0)", name) for name in ("Carl", "Ann", "Dan", "Bob")],
            *[ctx.db.insert(notes, {"n": number}) for number in range(50)],
            return_exceptions=True,
        )
        return len([result for result in failed if isinstance(result, SQLError)])

    app = app_on(database)
    app._parts = Parts(strict=True)
    async with app:
        await app.mutation(set_up)
        assert await app.mutation(perform, stage.body(body)) == 2
        total = sum(range(50))
        assert await app.mutation(balances) == {"Ann": 980 + total, "Bob": 20 + total, "Carl": 0, "Dan": 0}
        assert len(await app.query(all_notes)) == 120


async def awaited(ctx: duly.MutationCtx) -> None:
    await ctx.sql("SELECT pg_sleep(20)")


async def gathered(ctx: duly.MutationCtx) -> None:
    await asyncio.gather(*[ctx.sql("SELECT pg_sleep(20)") for _ in range(3)])


async def shielded(ctx: duly.MutationCtx) -> None:
    await asyncio.shield(asyncio.ensure_future(ctx.sql("SELECT pg_sleep(20)")))


async def left_behind(ctx: duly.MutationCtx) -> None:
    stage.seen.append(asyncio.ensure_future(ctx.sql("SELECT pg_sleep(20)")))
    await asyncio.sleep(0)


async def insisting(ctx: duly.MutationCtx) -> None:
    for _ in range(2):
        with contextlib.suppress(LimitError):
            await ctx.sql("SELECT pg_sleep(20)")


@pytest.mark.parametrize("body", [awaited, gathered, shielded, left_behind, insisting])
async def test_T3_a_statement_that_outlasts_the_mutation_ends_with_it(
    postgresql_url: str, body: Callable[[duly.MutationCtx], Awaitable[None]]
) -> None:
    async def mate(ctx: duly.MutationCtx) -> str:
        await ctx.sql("INSERT INTO accounts VALUES ('Eve', 7)")
        return "done"

    async with duly.App(__name__, database=postgresql_url, mutation_timeout=timedelta(seconds=1)) as app:
        await app.mutation(set_up)
        job = await app.scheduler.run_after(timedelta(seconds=0.5), transfer, cents=100)
        began = time.monotonic()
        results = await asyncio.gather(
            app.mutation(perform, stage.body(body)), app.mutation(perform, stage.body(mate)), return_exceptions=True
        )
        assert time.monotonic() - began < LOADED_S
        assert isinstance(results[0], LimitError)
        assert results[1] == "done"
        assert (await has_finished(lambda: app.query(job_of, job)))["state"]["kind"] == "success"
        assert await app.mutation(balances) == {"Ann": 900, "Bob": 100, "Eve": 7}
        await asyncio.gather(*stage.seen, return_exceptions=True)


async def test_sql_that_is_called_beside_a_nested_mutation_is_no_part_of_it(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> Any:
        async def give_and_fail(ctx: duly.MutationCtx) -> None:
            await ctx.sql("UPDATE accounts SET cents = 7")
            await asyncio.sleep(0)
            raise AppError("no")

        nested = asyncio.ensure_future(ctx.run_mutation(perform, stage.body(give_and_fail)))
        await asyncio.sleep(0)
        await ctx.sql("UPDATE accounts SET cents = 5 WHERE name = 'Bob'")
        with pytest.raises(AppError):
            await nested
        return await ctx.run_mutation(balances)

    assert await in_a_mutation(database, body) == {"Ann": 1_000, "Bob": 5}


async def test_the_ctx_of_a_mutation_that_has_ended_runs_no_sql(database: str) -> None:
    async def body(ctx: duly.MutationCtx) -> None:
        stage.seen.append(ctx)

    await in_a_mutation(database, body)
    with pytest.raises(DulyError, match="after the function had returned"):
        await stage.seen[0].sql("SELECT 1")


async def test_who_looks_for_sql_elsewhere_is_told_where_it_is(database: str) -> None:
    async def in_query(ctx: Any) -> None:
        with pytest.raises(AttributeError, match="it runs in the transaction of a mutation: make this one"):
            await ctx.sql("SELECT 1")

    async def in_action(ctx: Any) -> None:
        with pytest.raises(AttributeError, match=r"call one with ctx\.run_mutation"):
            await ctx.sql("SELECT 1")

    async with app_on(database).client() as app:
        await app.query(look, stage.body(in_query))
        await app.action(act, stage.body(in_action))


async def test_it_works_in_tests_with_a_clock_of_their_own() -> None:
    async with duly.testing.run(app_on("sqlite:///unused.db")) as t:
        await t.mutation(set_up)
        await t.scheduler.run_after(timedelta(days=1), transfer, cents=100)
        await t.advance(timedelta(days=1))
        assert await t.mutation(balances) == {"Ann": 900, "Bob": 100}
