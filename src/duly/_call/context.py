"""What a function gets as its first parameter."""

import random
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, Protocol, TypeVar, overload

from duly._call.database import DatabaseReader, DatabaseWriter
from duly._call.registry import Target
from duly._call.scheduler import Scheduler, SyncScheduler
from duly._call.scope import CallChain, Environment, Scope, expected
from duly._call.sql import run_sql
from duly._ground.clock import datetime_of
from duly._ground.ids import Id
from duly._model.function import FunctionReference
from duly._model.identity import Identity
from duly._model.job import ScheduledFunction

__all__ = ["ActionCtx", "Auth", "Calls", "MutationCtx", "QueryCtx", "SyncActionCtx"]

P = ParamSpec("P")
R = TypeVar("R")


class Calls(Protocol):
    """How contexts call other functions; the runner does it."""

    async def query_within(
        self, scope: Scope, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any: ...
    async def mutation_within(
        self, scope: Scope, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any: ...
    async def query(self, chain: CallChain, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...
    async def mutation(
        self, chain: CallChain, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any: ...
    async def action(self, chain: CallChain, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


class Auth:
    """`ctx.auth`: who calls.

    Example:
        who = await ctx.auth.identity()
    """

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    async def identity(self) -> Identity | None:
        """Who calls, or None if nobody says so.

        It is who called the outermost function: what that runs in turn runs for the same caller. Always None in a
        scheduled function and in whatever it runs, whoever scheduled it (rule S11): hand on as an argument what it
        needs to know. None as well where your own Python code calls.

        Example:
            who = await ctx.auth.identity()
            name = "somebody" if who is None else who.name
        """
        return self._identity


class _Ctx:
    """What every context has."""

    _random: random.Random | None = None

    def __init__(self, environment: Environment, chain: CallChain) -> None:
        self._environment = environment
        self._chain = chain

    # What is often looked for and not there, and why: beyond what the type checker says.
    _missing: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            hint = self._missing.get(name)
            message = f"{type(self).__name__} has no {name!r}"
            raise AttributeError(f"{message}: {hint}" if hint else message, name=name, obj=self)

    @property
    def random(self) -> random.Random:
        """A generator of this run's own, seeded afresh."""
        if self._random is None:
            self._random = self._environment.entropy.generator()
        return self._random

    @property
    def scheduled_function_id(self) -> Id[ScheduledFunction] | None:
        """The id of the scheduled function at the root of this call chain; None if it did not begin with one."""
        return self._chain.job_id

    @property
    def auth(self) -> Auth:
        """Who calls; see `Auth.identity`."""
        return Auth(self._chain.identity)


_NO_DB = "an action has no transaction of its own; read with ctx.run_query(…), write with ctx.run_mutation(…)"
_NO_SQL = "it runs in the transaction of a mutation: "
_MISSING_IN_ACTIONS = {"db": _NO_DB, "sql": f"{_NO_SQL}call one with ctx.run_mutation(…)"}


class QueryCtx(_Ctx):
    """The context of a query: one consistent snapshot of the database.

    Example:
        @duly.query
        async def get_order(ctx: duly.QueryCtx, order_id: duly.Id[Order]) -> Order | None:
            return await ctx.db.get(order_id)
    """

    _missing: ClassVar[Mapping[str, str]] = {
        "scheduler": "a query only reads; schedule from a mutation or an action",
        "run_mutation": "a query only reads; make it a mutation",
        "sql": f"{_NO_SQL}make this one",
        "run_action": "only an action runs an action; schedule it in a mutation: ctx.scheduler.run_after(0, …)",
    }

    def __init__(self, scope: Scope, calls: Calls) -> None:
        # As the base does; one is made for each run.
        self._environment = scope.environment
        self._chain = scope.chain
        self._scope = scope
        self._calls = calls

    @property
    def db(self) -> DatabaseReader:
        """The documents: see `DatabaseReader`."""
        return DatabaseReader(self._scope)

    @property
    def now(self) -> datetime:
        """An aware UTC datetime, frozen at the start of the run."""
        return datetime_of(self._scope.now_ms)

    @overload
    async def run_query(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_query(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @expected
    async def run_query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs another query on the same snapshot.

        Example:
            order = await ctx.run_query(get_order, order_id=order_id)
        """
        return await self._calls.query_within(self._scope, function, args, kwargs)


class MutationCtx(QueryCtx):
    """The context of a mutation: one serializable transaction.

    Example:
        @duly.mutation
        async def pay(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
            await ctx.db.patch(order_id, {"status": "paid"})
            await ctx.scheduler.run_after(0, send_receipt, order_id=order_id)
    """

    _db: DatabaseWriter | None = None
    _scheduler: Scheduler | None = None

    @property
    def db(self) -> DatabaseWriter:
        """The documents, and writing them: see `DatabaseWriter`."""
        if self._db is None:
            self._db = DatabaseWriter(self._scope)
        return self._db

    @property
    def scheduler(self) -> Scheduler:
        """Schedules within this transaction: see `Scheduler`."""
        if self._scheduler is None:
            self._scheduler = Scheduler(self._environment, self._chain, self._scope)
        return self._scheduler

    @expected
    async def sql(self, statement: str, /, *parameters: Any) -> list[dict[str, Any]]:
        """Runs a SQL statement on your own tables, beside duly's in the same database, in this very transaction: what
        it changes commits with the mutation, or not at all.

        Args:
            statement: One statement, in the language of the database: SQLite's or PostgreSQL's. `$1`, `$2` and so on
                stand for the parameters; never format a value into it.
            parameters: None, bool, int, float, str, bytes, or what is stored as one of them in a document: a datetime,
                for instance, as text in UTC.

        Returns:
            Its rows, as dicts by column name; none for a statement without rows. `RETURNING` tells what was changed.
            Values are the database's: SQLite has neither bool nor datetime.

        Raises:
            SQLError: The database refuses it, or it does not belong here: `COMMIT` and the like, several statements,
                writing duly's tables. It alone is undone, so you may catch this and go on. Constraints are checked at
                once, deferred ones, too.
            TypeError: The number of parameters is wrong, or the type of one.
            LimitError: More rows than a transaction may read; each call counts as a write as well.

        Example:
            await ctx.sql("CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
            await ctx.sql("INSERT INTO accounts VALUES ($1, $2), ($3, $4)", "Ann", 1000, "Bob", 0)
            rows = await ctx.sql(
                "UPDATE accounts SET cents = cents - $1 WHERE name = $2 AND cents >= $1 RETURNING cents", 250, "Ann"
            )
            if not rows:
                raise duly.AppError({"code": "not_enough_money"})
            print(rows[0]["cents"])
        """
        return await run_sql(self._scope, statement, parameters)

    @overload
    async def run_mutation(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_mutation(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @expected
    async def run_mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs another mutation inside this one, all or nothing: if it raises, and the error is caught here, none of
        what it wrote or scheduled remains. What remains commits with this mutation.

        Example:
            try:
                await ctx.run_mutation(reserve_stock, item="tea")
            except OutOfStock:
                await ctx.db.patch(order_id, {"status": "waiting"})
        """
        return await self._calls.mutation_within(self._scope, function, args, kwargs)


class ActionCtx(_Ctx):
    """The context of an action: no transaction of its own; each call through it is one, committed when it returns.

    Example:
        @duly.internal_action
        async def charge(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None:
            order = await ctx.run_query(get_order, order_id=order_id)
            if order is not None:
                receipt = await bank.charge(order["card"], order["total"])
                await ctx.run_mutation(record_payment, order_id=order_id, receipt=receipt)
    """

    _missing: ClassVar[Mapping[str, str]] = _MISSING_IN_ACTIONS

    def __init__(self, environment: Environment, chain: CallChain, calls: Calls, scheduler: Scheduler) -> None:
        super().__init__(environment, chain)
        self._calls = calls
        self.scheduler = scheduler

    @property
    def now(self) -> datetime:
        """The clock: an aware UTC datetime."""
        return datetime_of(self._environment.clock.now_ms())

    @overload
    async def run_query(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_query(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def run_query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs a query on a snapshot of its own.

        Example:
            order = await ctx.run_query(get_order, order_id=order_id)
        """
        return await self._calls.query(self._chain, function, args, kwargs)

    @overload
    async def run_mutation(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_mutation(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def run_mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs a mutation in a transaction of its own; durable when it returns, whatever becomes of the action.

        Example:
            await ctx.run_mutation(record_payment, order_id=order_id, receipt=receipt)
        """
        return await self._calls.mutation(self._chain, function, args, kwargs)

    @overload
    async def run_action(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_action(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def run_action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs another action as part of this one. To have it run by itself, schedule it.

        Example:
            await ctx.run_action(resize, image_id=image_id)
        """
        return await self._calls.action(self._chain, function, args, kwargs)


class SyncActionCtx(_Ctx):
    """The context of a plain `def` action, which runs in a thread: as `ActionCtx`, with methods that block.

    Example:
        @duly.internal_action
        def export(ctx: duly.SyncActionCtx, order_id: duly.Id[Order]) -> None:
            order = ctx.run_query(get_order, order_id=order_id)
            with open("orders.txt", "a") as file:
                file.write(f"{order}\\n")
    """

    _missing: ClassVar[Mapping[str, str]] = _MISSING_IN_ACTIONS

    def __init__(self, ctx: ActionCtx, block: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        super().__init__(ctx._environment, ctx._chain)
        self._ctx = ctx
        self._block = block
        self.scheduler = SyncScheduler(ctx.scheduler, block)

    @property
    def now(self) -> datetime:
        """The clock: an aware UTC datetime."""
        return self._ctx.now

    @overload
    def run_query(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run_query(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def run_query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As `ActionCtx.run_query`, blocking.

        Example:
            order = ctx.run_query(get_order, order_id=order_id)
        """
        return self._block(self._ctx.run_query(function, *args, **kwargs))

    @overload
    def run_mutation(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run_mutation(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def run_mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As `ActionCtx.run_mutation`, blocking.

        Example:
            ctx.run_mutation(archive_order, order_id=order_id)
        """
        return self._block(self._ctx.run_mutation(function, *args, **kwargs))

    @overload
    def run_action(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run_action(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def run_action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As `ActionCtx.run_action`, blocking.

        Example:
            ctx.run_action(send_confirmation, order_id=order_id)
        """
        return self._block(self._ctx.run_action(function, *args, **kwargs))

    @property
    def auth(self) -> "SyncAuth":  # type: ignore[override]
        """Who calls; see `Auth.identity`."""
        return SyncAuth(self._chain.identity)


class SyncAuth:
    """`ctx.auth` of a plain `def` action.

    Example:
        who = ctx.auth.identity()
    """

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    def identity(self) -> Identity | None:
        """As `Auth.identity`.

        Example:
            who = ctx.auth.identity()
        """
        return self._identity
