"""`ctx.db`: reading and writing documents within a scope."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Never, NoReturn, TypeVar, cast, overload

from pydantic_core import PydanticSerializationError

from duly._call.query import Query
from duly._call.registry import SYSTEM_TAG
from duly._call.scope import Scope, operation
from duly._ground import values
from duly._ground.clock import datetime_of
from duly._ground.ids import Id, PlainText, check_id, creation_time_of
from duly._model.job import SYSTEM_TABLE, ScheduledFunction, job_document
from duly._model.limits import DOCUMENT_BYTES_MAX
from duly._model.schema import Index, Table, index_key
from duly._model.signature import storable
from duly._store.port import Position, StoredIndex
from duly.errors import DocumentNotFoundError, InvalidIdError, InvalidValueError, LimitError, SchemaError

__all__ = ["UNSET", "DatabaseReader", "DatabaseWriter", "SystemReader", "Unset", "created_at", "id_of"]

D = TypeVar("D")

# Nothing is one, and nobody passes one. Beside it in a union, mypy takes `D` from the table or the id first and then
# checks the document against it; without it mypy can't see that a dict display is meant to be that TypedDict.
_Never = Callable[[D], Never]


class Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()
"""As a field's value in `patch`: removes the field.

Example:
    await ctx.db.patch(order_id, {"coupon": duly.UNSET})
"""


def id_of(document: D, /) -> Id[D]:
    """The id of a document that was read, typed by the document.

    Raises:
        InvalidIdError: It was not read from the database: it has no `_id`.

    Example:
        for order in await ctx.db.query(orders).collect():
            await ctx.db.delete(duly.id_of(order))
    """
    return Id(_system_field(document, "_id"))


def created_at(document: Any, /) -> datetime:
    """When a document was inserted: an aware UTC datetime, from its `_creationTime`.

    Raises:
        InvalidIdError: It was not read from the database.

    Example:
        age = ctx.now - duly.created_at(order)
    """
    return datetime_of(_system_field(document, "_creationTime"))


def _system_field(document: Any, field: str) -> Any:
    if not isinstance(document, Mapping) or field not in document:
        raise InvalidIdError(document, f"has no {field}: it was not read from the database")
    return document[field]


class _Documents:
    """The source of a query over a table."""

    def __init__(self, table: Table[Any]) -> None:
        self.table = table
        self.name = table.name
        self.tag = table.tag

    async def scan(
        self, scope: Scope, index: Index | None, after: Position, before: Position, descending: bool, limit: int
    ) -> list[tuple[Position, dict[str, Any]]]:
        number = await self._number(scope, index)
        entries = await scope.tx.scan(number, after, before, descending, limit)
        scope.usage.read(len(entries))
        return [(entry.position, _document(self.table, entry.position.id, entry.body)) for entry in entries]

    async def count(self, scope: Scope, index: Index | None, after: Position, before: Position) -> int:
        return await scope.tx.count(await self._number(scope, index), after, before)

    async def _number(self, scope: Scope, index: Index | None) -> int | None:
        if index is None:
            return None
        for stored in await scope.tx.stored_indexes(self.tag):
            if stored.spec == index:
                return stored.id
        raise SchemaError(f"index {index.name!r} of table {self.name!r} is not in the database; open the app again")


class _Jobs:
    """The source of a query over the scheduled functions."""

    name = SYSTEM_TABLE
    tag = SYSTEM_TAG
    table: Table[Any] = Table("scheduled_functions")

    async def scan(
        self, scope: Scope, _: Index | None, after: Position, before: Position, descending: bool, limit: int
    ) -> list[tuple[Position, dict[str, Any]]]:
        jobs = await scope.tx.scan_jobs(after.id, before.id, descending, limit)
        scope.usage.read(len(jobs))
        return [(Position(b"", job.id), job_document(job)) for job in jobs]

    async def count(self, scope: Scope, _: Index | None, after: Position, before: Position) -> int:
        return await scope.tx.count_jobs(after.id, before.id)


class SystemReader:
    """`ctx.db.system`: the scheduled functions, read only. See `ScheduledFunction` for their fields.

    Example:
        job = await ctx.db.system.get(job_id)
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @operation
    async def get(self, id: Id[ScheduledFunction] | str, /) -> ScheduledFunction | None:
        """A scheduled function by its id; None if there is none (any more).

        Raises:
            InvalidIdError: It is no id, or the id of a document.

        Example:
            job = await ctx.db.system.get(job_id)
        """
        if self._scope.enter():
            await self._scope.turn()
        if check_id(id) != SYSTEM_TAG:
            raise InvalidIdError(id, "is the id of a document, not of a scheduled function; use ctx.db.get")
        job = await self._scope.tx.get_job(id)
        self._scope.usage.read(1)
        return cast("ScheduledFunction", job_document(job)) if job else None

    def query(self, table: str, /) -> Query[ScheduledFunction]:
        """A query over the system table `_scheduled_functions`, by order of scheduling.

        Raises:
            SchemaError: There is no system table of that name.

        Example:
            jobs = await ctx.db.system.query("_scheduled_functions").order("desc").take(20)
        """
        if table != SYSTEM_TABLE:
            raise SchemaError(f"there is no system table {table!r}; there is {SYSTEM_TABLE!r}")
        return Query(self._scope, _Jobs())


class DatabaseReader:
    """`ctx.db` of a query: documents by id and by index.

    Example:
        order = await ctx.db.get(order_id)
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @property
    def system(self) -> SystemReader:
        """The scheduled functions: see `SystemReader`."""
        return SystemReader(self._scope)

    @overload
    async def get(self, id: Id[D], /) -> D | None: ...
    @overload
    async def get(self, id: PlainText, /) -> dict[str, Any] | None: ...
    @operation
    async def get(self, id: Any, /) -> Any:
        """A document by its id; None if there is none. It carries `_id` and `_creationTime`.

        Raises:
            InvalidIdError: It is no id, or that of a scheduled function.

        Example:
            order = await ctx.db.get(order_id)
        """
        table, body = await self._find(id)
        return _document(table, id, body) if body is not None else None

    async def _find(self, id: Any) -> tuple[Table[Any], str | None]:
        scope = self._scope
        if scope.enter():
            await scope.turn()
        tag = check_id(id)
        table = scope.environment.registry.known_table(tag) or await self._unknown_table(tag, id)
        body = await scope.tx.get_document(id)
        scope.usage.read(1)
        return table, body

    async def _unknown_table(self, tag: str, id: Any) -> Table[Any]:
        name = None if tag == SYSTEM_TAG else await self._scope.tx.table_name(tag)
        return self._scope.environment.registry.table_of(tag, id, name)

    @overload
    def query(self, table: Table[D], /) -> Query[D]: ...
    @overload
    def query(self, table: str, /) -> Query[dict[str, Any]]: ...
    def query(self, table: Any, /) -> Query[Any]:
        """A query over a table: by creation time, oldest first, until `with_index` and `order` say otherwise.

        Args:
            table: A `Table`, or the name of one.

        Example:
            latest = await ctx.db.query(orders).order("desc").take(10)
        """
        return Query(self._scope, _Documents(self._scope.environment.registry.table(table)))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            writes = name in ("insert", "patch", "replace", "delete")
            hint = ": a query only reads; make it a mutation" if writes else ""
            raise AttributeError(f"ctx.db has no {name!r} here{hint}", name=name, obj=self)


class DatabaseWriter(DatabaseReader):
    """`ctx.db` of a mutation. Everything it writes commits with the mutation, or not at all.

    Example:
        order_id = await ctx.db.insert(orders, {"items": ["tea"], "status": "open"})
    """

    @overload
    async def insert(self, table: Table[D], document: "D | _Never[D]", /) -> Id[D]: ...
    @overload
    async def insert(self, table: str, document: Mapping[str, Any], /) -> Id[dict[str, Any]]: ...
    @operation
    async def insert(self, table: Any, document: Any, /) -> Id[Any]:
        """Adds a document and returns its id.

        Args:
            table: A `Table`, or the name of one. A name that is not declared takes any document.
            document: Its fields, without `_id` and `_creationTime`.

        Raises:
            SchemaError: It does not fit the table's type.
            InvalidValueError: It holds what can't be stored.
            LimitError: It is larger than 1 MiB or deeper than 16 levels, or the transaction is past its limits.

        Example:
            order_id = await ctx.db.insert(orders, {"items": ["tea"], "status": "open"})
        """
        scope = self._scope
        if scope.enter():
            await scope.turn()
        declared = scope.environment.registry.table(table)
        body = _encode(declared, document)
        id = scope.environment.ids.make(declared.tag, scope.now_ms)
        scope.usage.write()
        await scope.tx.remember_table(declared.tag, declared.name)
        await scope.tx.insert_document(id, body)
        stored = await scope.tx.stored_indexes(declared.tag)
        if stored:
            fields = values.decode(body)
            for index in stored:
                await scope.tx.insert_entry(index.id, Position(index_key(index.spec, fields), id))
        return id

    @operation
    async def patch(self, id: Id[Any], fields: Mapping[str, Any], /) -> None:
        """Changes some fields of a document; the rest stay. A shallow merge: a dict replaces a dict.

        Args:
            id: The document's.
            fields: New values; `duly.UNSET` removes a field.

        Raises:
            DocumentNotFoundError: There is no such document.
            SchemaError, InvalidValueError, LimitError: As for `insert`.

        Example:
            await ctx.db.patch(order_id, {"status": "archived", "coupon": duly.UNSET})
        """
        table, before = await self._existing(id)
        if type(fields) is not dict and not isinstance(fields, Mapping):
            raise SchemaError(f"the fields to patch must be a dict, not {fields!r}")
        # Merged as the type sees it, so that a datetime beside the patched field is a datetime when it is checked.
        merged = table.load(values.decode(before)) | _without_system_fields(id, fields)
        merged = {name: value for name, value in merged.items() if value is not UNSET}
        await self._write(table, id, before, merged)

    @operation
    async def replace(self, id: Id[D], document: "D | _Never[D]", /) -> None:
        """Changes a document as a whole.

        Raises:
            DocumentNotFoundError: There is no such document.
            SchemaError, InvalidValueError, LimitError: As for `insert`.

        Example:
            order = await ctx.db.get(order_id)
            if order is not None:
                await ctx.db.replace(order_id, {**order, "status": "archived"})
        """
        table, before = await self._existing(id)
        if not isinstance(document, Mapping):
            raise SchemaError(f"a document of table {table.name!r} must be a dict, not {document!r}")
        await self._write(table, id, before, _without_system_fields(id, document))

    @operation
    async def delete(self, id: Id[Any], /) -> None:
        """Removes a document.

        Raises:
            DocumentNotFoundError: There is no such document.

        Example:
            await ctx.db.delete(order_id)
        """
        table, before = await self._existing(id)
        scope = self._scope
        scope.usage.write()
        stored = await scope.tx.stored_indexes(table.tag)
        if stored:
            fields = values.decode(before)
            for index in stored:
                await scope.tx.delete_entry(index.id, Position(index_key(index.spec, fields), id))
        await scope.tx.delete_document(id)

    async def _existing(self, id: Any) -> tuple[Table[Any], str]:
        table, body = await self._find(id)
        if body is None:
            raise DocumentNotFoundError(id)
        return table, body

    async def _write(self, table: Table[Any], id: str, before: str, document: Mapping[str, Any]) -> None:
        scope = self._scope
        after = _encode(table, document)
        scope.usage.write()
        await scope.tx.replace_document(id, after)
        stored = await scope.tx.stored_indexes(table.tag)
        if stored:
            await _move_entries(scope, stored, id, values.decode(before), values.decode(after))


async def _move_entries(scope: Scope, stored: Any, id: str, before: Any, after: Any) -> None:
    index: StoredIndex
    for index in stored:
        old, new = index_key(index.spec, before), index_key(index.spec, after)
        if old != new:
            await scope.tx.delete_entry(index.id, Position(old, id))
            await scope.tx.insert_entry(index.id, Position(new, id))


def _without_system_fields(id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was read may be written back as it is; changing the id or the creation time is refused."""
    rest = dict(fields)
    if "_id" in rest and rest.pop("_id") != id:
        raise InvalidValueError("can't be changed", "_id")
    if "_creationTime" in rest and rest.pop("_creationTime") != creation_time_of(id):
        raise InvalidValueError("can't be changed", "_creationTime")
    return rest


def _encode(table: Table[Any], document: Any) -> str:
    try:
        body = values.encode(table.dump(document), storable)
    except PydanticSerializationError as error:
        raise InvalidValueError(f"the document can't be stored: {error}") from error
    size = len(body.encode()) if not body.isascii() else len(body)
    if size > DOCUMENT_BYTES_MAX:
        raise LimitError("bytes of one document", size, DOCUMENT_BYTES_MAX, "split it, or keep large data elsewhere")
    return body


def _document(table: Table[Any], id: str, body: str) -> dict[str, Any]:
    fields = table.load(values.decode(body))
    return {"_id": id, "_creationTime": creation_time_of(id), **fields}
