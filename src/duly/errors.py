"""Every exception a user of duly can catch.

All derive from `DulyError`. The facts are fields, and the message says what to do next. A wrong Python type is a
`TypeError`, as everywhere in Python; no database driver's error ever crosses the store's border.

Example:
    try:
        await app.scheduler.cancel(job_id)
    except duly.errors.AlreadyFinishedError as error:
        print("too late:", error.state)
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AlreadyFinishedError",
    "AppError",
    "AppNotOpenError",
    "ArgumentError",
    "ConflictError",
    "DocumentNotFoundError",
    "DulyError",
    "FunctionKindError",
    "FunctionNotFoundError",
    "IndexNotFoundError",
    "InvalidIdError",
    "InvalidTimeError",
    "InvalidValueError",
    "LimitError",
    "MutationWaitError",
    "NotSchedulableError",
    "NotUniqueError",
    "ReturnValueError",
    "SQLError",
    "ScheduledFunctionNotFoundError",
    "SchemaError",
    "StoreError",
    "StoreUnavailableError",
]


class DulyError(Exception):
    """The base of every error that duly raises.

    Example:
        try:
            order_id = await app.mutation(create_order, items=["tea"])
        except duly.DulyError as error:
            print(f"no order: {error}")
    """


class AppError(DulyError):
    """Raised *by your functions* to hand data to their caller.

    Args:
        data: Any duly value: None, bool, int, float, str, bytes, list or dict.

    Example:
        >>> try:
        ...     raise AppError({"code": "sold_out", "item": "tea"})
        ... except AppError as error:
        ...     error.data["code"]
        'sold_out'
    """

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.data = data


class AppNotOpenError(DulyError):
    """The app was called before it was opened, or after it was closed.

    Example:
        try:
            await duly.App("shop").query(get_order, order_id=order_id)
        except duly.errors.AppNotOpenError as error:
            print(error)
    """

    def __init__(self) -> None:
        super().__init__("the app is not open; call it inside 'async with app:' or 'async with app.client():'")


# Functions and their arguments.


class FunctionNotFoundError(DulyError):
    """No function of the app has this path. `nearest` lists the paths that look most like it.

    Example:
        try:
            await app.query("shop:get_ordr", order_id=order_id)
        except duly.errors.FunctionNotFoundError as error:
            print(error.path, "is not", error.nearest)
    """

    def __init__(self, path: str, nearest: Sequence[str] = (), hint: str | None = None) -> None:
        self.path = path
        self.nearest = tuple(nearest)
        if hint is None and nearest:
            hint = f"did you mean {' or '.join(nearest)}?"
        elif hint is None:
            hint = "a path is 'module:function', such as 'orders:create_order'"
        super().__init__(f"there is no function {path!r} in this app; {hint}")


class FunctionKindError(DulyError, TypeError):
    """A function was called as another kind than it is: a mutation as a query, say.

    Example:
        try:
            await app.mutation("shop:get_order", order_id=order_id)
        except duly.errors.FunctionKindError as error:
            print(error.path, "is a", error.kind)
    """

    def __init__(self, path: str, kind: str, message: str) -> None:
        self.path = path
        self.kind = kind
        super().__init__(message)


class NotSchedulableError(DulyError):
    """The function can't be scheduled because it is a query (rule S3).

    Example:
        try:
            await app.scheduler.run_after(0, get_order, order_id=order_id)
        except duly.errors.NotSchedulableError as error:
            print(error.path, "is a", error.kind)
    """

    def __init__(self, path: str, kind: str) -> None:
        self.path = path
        self.kind = kind
        super().__init__(f"{path!r} is a {kind} and can't be scheduled; only mutations and actions can (rule S3)")


class _ProblemsError(DulyError):
    _what: str

    def __init__(self, path: str, problems: Sequence[str]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__(f"{self._what} {path!r}: {'; '.join(self.problems)}")


class ArgumentError(_ProblemsError):
    """Arguments that don't fit the function's annotations. `problems` holds one line for each, field first.

    Example:
        try:
            await app.mutation("shop:create_order", items="tea")
        except duly.errors.ArgumentError as error:
            print(error.problems)
    """

    _what = "the arguments don't fit"


class ReturnValueError(_ProblemsError):
    """A function returned what its annotation does not allow. `problems` holds one line for each.

    Example:
        try:
            await app.query(broken_count)
        except duly.errors.ReturnValueError as error:
            print(error.problems)
    """

    _what = "the return value of"


class MutationWaitError(DulyError):
    """A mutation waited for something other than its own database calls (rule T3).

    `where` is the line that waits, as `file:line`. Outside `duly dev` and `duly.testing` this is only a warning.

    Example:
        try:
            await app.mutation(create_order, items=["tea"])
        except duly.errors.MutationWaitError as error:
            print(error.where)
    """

    def __init__(self, path: str, where: str, message: str | None = None) -> None:
        self.path = path
        self.where = where
        super().__init__(
            message
            or f"{path!r} waits at {where} for something other than its database calls, and holds up every other "
            "mutation meanwhile; move that work to an action (rule T3)"
        )


# Scheduling.


class InvalidTimeError(DulyError, ValueError):
    """A delay or a point in time that can't be scheduled for (rules S1 and S2).

    Example:
        try:
            await app.scheduler.run_after(-1, archive_order, order_id=order_id)
        except duly.errors.InvalidTimeError as error:
            print(error)
    """


class AlreadyFinishedError(DulyError):
    """The scheduled function can't be cancelled any more (rules C3 and C4). `state` is its state's kind.

    Example:
        try:
            await app.scheduler.cancel(finished_id)
        except duly.errors.AlreadyFinishedError as error:
            print(error.id, "is", error.state)
    """

    def __init__(self, id: str, state: str, message: str | None = None) -> None:
        self.id = id
        self.state = state
        super().__init__(
            message
            or f"the scheduled function {id} has already finished ({state}) and can't be cancelled; "
            "pass missing_ok=True if that is fine"
        )


class ScheduledFunctionNotFoundError(DulyError):
    """There is no such scheduled function: there never was, or it was deleted after its retention time.

    Example:
        try:
            await app.scheduler.cancel(deleted_id)
        except duly.errors.ScheduledFunctionNotFoundError as error:
            print(error.id)
    """

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(
            f"there is no scheduled function {id}: it never existed, or it finished long enough ago to have been "
            "deleted; pass missing_ok=True if that is fine"
        )


class LimitError(DulyError):
    """A limit was exceeded (rules S9, T3, T4). `limit` names it; `actual` and `maximum` are in the unit it names.

    Example:
        try:
            await app.mutation(create_order, items=["tea" * 1_000_000])
        except duly.errors.LimitError as error:
            print(error.limit, error.actual, error.maximum)
    """

    def __init__(self, limit: str, actual: float, maximum: float, hint: str = "", message: str | None = None) -> None:
        self.limit = limit
        self.actual = actual
        self.maximum = maximum
        message = message or f"{limit}: {actual:,} is more than the limit of {maximum:,}"
        super().__init__(f"{message}; {hint}" if hint else message)


# Documents.


class InvalidIdError(DulyError):
    """Not an id at all, or the id of another table than the one asked for.

    Example:
        try:
            await app.scheduler.cancel("my job")
        except duly.errors.InvalidIdError as error:
            print(error.id)
    """

    def __init__(self, id: object, reason: str) -> None:
        self.id = id
        super().__init__(f"{id!r} {reason}")


class DocumentNotFoundError(DulyError):
    """There is no document with this id to change.

    Example:
        try:
            await app.mutation(archive_order, order_id=deleted_order_id)
        except duly.errors.DocumentNotFoundError as error:
            print(error.id)
    """

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(f"there is no document {id}: it was deleted, or never inserted")


class InvalidValueError(DulyError):
    """A value that can't be stored. `where` is the way to it, such as `items[0].price`.

    Example:
        try:
            await ctx.db.insert("notes", {"text": "tea", "tags": {"green"}, "$odd": 1})
        except duly.errors.InvalidValueError as error:
            print(error.where, error)
    """

    def __init__(self, message: str, where: str = "") -> None:
        self.where = where
        super().__init__(f"{where}: {message}" if where else message)


class SchemaError(DulyError):
    """A document that does not fit its table's type, or a table or index that is declared wrongly.

    Example:
        try:
            await ctx.db.insert("orders", {"items": "tea"})
        except duly.errors.SchemaError as error:
            print(error)
    """


class IndexNotFoundError(DulyError):
    """The table has no such index. `indexes` are the names it has.

    Example:
        try:
            await ctx.db.query(orders).with_index("by_color", color="red").collect()
        except duly.errors.IndexNotFoundError as error:
            print(error.table, error.index, error.indexes)
    """

    def __init__(self, table: str, index: str, indexes: Sequence[str]) -> None:
        self.table = table
        self.index = index
        self.indexes = tuple(indexes)
        known = ", ".join(self.indexes) or "none"
        super().__init__(f"table {table!r} has no index {index!r}; declared are: {known}")


class NotUniqueError(DulyError):
    """`unique()` found more than one document.

    Example:
        try:
            await ctx.db.query(orders).unique()
        except duly.errors.NotUniqueError as error:
            print(error)
    """

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(f"more than one document of table {table!r} matches; use first() or collect() if that is fine")


class SQLError(DulyError):
    """`ctx.sql` was given a statement that can't be, or that the database refused. What it did is undone, and nothing
    else: a mutation may catch this and go on.

    `sqlstate` is PostgreSQL's code, such as "23505", or SQLite's, such as "SQLITE_CONSTRAINT_UNIQUE"; None if the
    database was not asked. `message` is what the database says.

    Example:
        await ctx.sql("CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
        try:
            for _ in range(2):
                await ctx.sql("INSERT INTO accounts VALUES ($1, $2)", "Ann", 100)
        except duly.errors.SQLError as error:
            print(error.sqlstate, error.message)
    """

    def __init__(self, message: str, sqlstate: str | None = None, hint: str = "") -> None:
        self.message = message
        self.sqlstate = sqlstate
        super().__init__(f"{message}; {hint}" if hint else message)


# The store.


class ConflictError(DulyError):
    """A transaction lost against others every time it was retried (rule T1). Trying again later may work.

    Example:
        try:
            await app.mutation(create_order, items=["tea"])
        except duly.errors.ConflictError:
            print("again later")
    """


class StoreError(DulyError):
    """The store can't be used: not a database, of a newer version, read-only, damaged. Retrying does not help.

    Example:
        try:
            async with duly.App("shop", database="sqlite:///no_such_folder/shop.db"):
                pass
        except duly.errors.StoreError as error:
            print(error)
    """


class StoreUnavailableError(StoreError):
    """The store can't be used at the moment: its disk is full, or another program holds it. Retrying may help.

    Example:
        try:
            await app.mutation(create_order, items=["tea"])
        except duly.errors.StoreUnavailableError:
            print("again later")
    """
