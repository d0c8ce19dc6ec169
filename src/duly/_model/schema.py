"""Tables: their name, the type of their documents, their indexes."""

import re
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any, Generic, TypeVar, cast, overload

import typing_extensions
from pydantic import TypeAdapter, ValidationError

from duly._ground.ids import table_tag
from duly._ground.keys import ABSENT, encode_key
from duly._model.limits import INDEX_KEY_BYTES_MAX
from duly._model.signature import (
    PLAIN_SCHEMAS,
    SCHEMA_NOTES,
    adapter_of,
    describe_problems,
    is_stored_as_validated,
)
from duly.errors import LimitError, SchemaError

__all__ = ["Index", "Table", "index_key"]

DocumentT = TypeVar("DocumentT")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_RESERVED = {"by_id", "by_creation_time"}
# What reads back as it was written. A type made of these needs no validation when it is read.
_READ_AS_WRITTEN = PLAIN_SCHEMAS | {"any"}


class Index(typing.NamedTuple):
    """An ordered view of a table by these fields, then `_creationTime`, then `_id`."""

    name: str
    fields: tuple[str, ...]


class Table(Generic[DocumentT]):
    """A named collection of documents, with the type they must fit and the indexes to find them by.

    Args:
        name: Letters, digits and underscores, beginning with a letter; at most 64.
        document: A `TypedDict`. Documents are validated by it when written, and arrive as it says when read. Without
            it any document is taken.
        indexes: For each index its name and the fields it orders by. Fields of nested dicts are written `address.city`.
            Datetimes order by time: they are stored in UTC.

    Raises:
        SchemaError: A name, the type or an index is not as above.

    Example:
        >>> from typing import TypedDict
        >>> class Order(TypedDict):
        ...     items: list[str]
        ...     status: str
        >>> Table("orders", Order, indexes={"by_status": ["status"]})
        Table('orders')
    """

    @overload
    def __init__(
        self: "Table[dict[str, Any]]", name: str, /, *, indexes: Mapping[str, Sequence[str]] | None = None
    ) -> None: ...
    @overload
    def __init__(
        self, name: str, document: type[DocumentT], /, *, indexes: Mapping[str, Sequence[str]] | None = None
    ) -> None: ...
    def __init__(
        self, name: str, document: Any = None, /, *, indexes: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        if not _NAME.fullmatch(name):
            raise SchemaError(f"{name!r} is no name for a table; use letters, digits and '_', beginning with a letter")
        if document is not None and not typing_extensions.is_typeddict(document):
            raise SchemaError(f"the documents of table {name!r} must be a TypedDict, not {document!r}")
        for index_name, fields in (indexes or {}).items():
            if isinstance(fields, str):
                raise SchemaError(f"the fields of index {index_name!r} of table {name!r} are a list: [{fields!r}]")
        self.name = name
        self.tag = table_tag(name)
        self.document = document
        self.indexes = {index: Index(index, tuple(fields)) for index, fields in (indexes or {}).items()}
        for index in self.indexes.values():
            self._check_index(index)
        # The indexed fields that may hold a datetime: those must have a time zone, or their order would mean nothing.
        indexed = {field for index in self.indexes.values() for field in index.fields}
        self._moments = (
            [] if document is None else sorted(f for f in indexed if "." not in f and _is_moment(document, f))
        )
        self._adapter: TypeAdapter[Any] | None = None
        self._converts = False
        self._stored_as_validated = False

    def __repr__(self) -> str:
        return f"Table({self.name!r})"

    def _check_index(self, index: Index) -> None:
        if not _NAME.fullmatch(index.name) or index.name in _RESERVED:
            raise SchemaError(f"{index.name!r} is no name for an index of table {self.name!r}")
        if not index.fields:
            raise SchemaError(f"index {index.name!r} of table {self.name!r} has no fields")
        if len(set(index.fields)) != len(index.fields):
            raise SchemaError(f"index {index.name!r} of table {self.name!r} names a field twice")
        for field in index.fields:
            if not field or field.startswith(("_", "$")):
                raise SchemaError(f"index {index.name!r} of table {self.name!r} can't have the field {field!r}")
            if self.document is not None and field.partition(".")[0] not in self.document.__annotations__:
                raise SchemaError(
                    f"index {index.name!r} of table {self.name!r}: {self.document.__name__} has no field {field!r}"
                )
            unordered = _unordered(self.document, field) if self.document is not None else None
            if unordered is not None:
                raise SchemaError(
                    f"index {index.name!r} of table {self.name!r}: {field!r} is a {unordered.__name__}, which is "
                    "stored as text and would not order by its value; store a number, such as cents or milliseconds"
                )

    def dump(self, document: Any) -> Any:
        """The document as values to store, validated. Raises `SchemaError`.

        Example:
            >>> Table("notes").dump({"text": "buy tea"})
            {'text': 'buy tea'}
        """
        if type(document) is not dict and not isinstance(document, Mapping):
            raise SchemaError(f"a document of table {self.name!r} must be a dict, not {document!r}")
        if self.document is None:
            return document
        adapter = self._adapter or self._validator()
        try:
            validated = adapter.validator.validate_python({"document": document})
        except ValidationError as error:
            problems = "; ".join(_within(problem) for problem in describe_problems(error))
            raise SchemaError(f"the document does not fit table {self.name!r}: {problems}") from None
        if self._moments:
            self._check_moments(validated["document"])
        return (validated if self._stored_as_validated else adapter.dump_python(validated))["document"]

    def _check_moments(self, document: Mapping[str, Any]) -> None:
        for field in self._moments:
            moment = _field(document, field)
            if isinstance(moment, datetime) and moment.utcoffset() is None:
                raise SchemaError(
                    f"the document does not fit table {self.name!r}: {field}: {moment!r} has no time zone, and is "
                    "indexed by time; give it one: datetime(…, tzinfo=UTC), or datetime.now(UTC)"
                )

    def load(self, document: dict[str, Any]) -> dict[str, Any]:
        """The stored document as its type says: strings become datetimes again, and so on. Raises `SchemaError`.

        Example:
            >>> Table("notes").load({"text": "buy tea"})
            {'text': 'buy tea'}
        """
        if self.document is None:
            return document
        adapter = self._adapter or self._validator()
        if not self._converts:
            return document
        try:
            return cast("dict[str, Any]", adapter.validate_python({"document": document})["document"])
        except ValidationError as error:
            problems = "; ".join(_within(problem) for problem in describe_problems(error))
            raise SchemaError(
                f"a stored document does not fit table {self.name!r} as this code declares it: {problems}; "
                "let the type allow both, and change the documents with a mutation"
            ) from None

    def _validator(self) -> TypeAdapter[Any]:
        try:
            self._adapter = adapter_of(f"{self.name} document", {"document": self.document})
        except TypeError as error:
            raise SchemaError(str(error)) from error
        self._converts = not _is_plain(self._adapter.core_schema)
        self._stored_as_validated = is_stored_as_validated(self._adapter.core_schema)
        return self._adapter


def index_key(index: Index, document: Mapping[str, Any]) -> bytes:
    """The key under which an index finds a document of stored values. Raises `LimitError` if it is too long."""
    key = encode_key([_field(document, field) for field in index.fields])
    if len(key) > INDEX_KEY_BYTES_MAX:
        raise LimitError(
            f"bytes of the fields of index {index.name!r}",
            len(key),
            INDEX_KEY_BYTES_MAX,
            "index a shorter field or a hash",
        )
    return key


def _is_moment(document: Any, field: str) -> bool:
    return any(part is datetime for part in _parts_of(document, field))


def _unordered(document: Any, field: str) -> type | None:
    """The type in a field's annotation whose text does not order as its values do, if there is one."""
    for part in _parts_of(document, field):
        if part in (Decimal, timedelta, time):
            return cast("type", part)
    return None


def _parts_of(document: Any, field: str) -> list[Any]:
    """The types in a field's annotation."""
    try:
        parts = [typing.get_type_hints(document).get(field)]
    except NameError:
        return []  # told when the table is first used, with the name
    for part in parts:
        parts.extend(typing.get_args(part))
    return parts


def _field(document: Mapping[str, Any], field: str) -> Any:
    value: Any = document
    for step in field.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return ABSENT
        value = value[step]
    return value


def _within(problem: str) -> str:
    return problem.removeprefix("document").removeprefix(".")


def _is_plain(schema: Any) -> bool:
    if isinstance(schema, (list, tuple)):
        return all(_is_plain(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    kind = schema.get("type")
    if not isinstance(kind, str):  # fields by name
        return all(_is_plain(part) for part in schema.values())
    if kind not in _READ_AS_WRITTEN:
        return False
    return all(_is_plain(part) for name, part in schema.items() if name not in SCHEMA_NOTES)
