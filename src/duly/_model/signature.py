"""The typed border of a function: its arguments and its return value, checked and converted by pydantic."""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, cast

import typing_extensions
from pydantic import BaseModel, ConfigDict, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from duly._ground import values
from duly._ground.ids import ID_DOCUMENT
from duly._model.typed_dicts import teach_typed_dicts
from duly.errors import ArgumentError, InvalidValueError, ReturnValueError

__all__ = [
    "PLAIN_SCHEMAS",
    "SCHEMA_NOTES",
    "Signature",
    "TagsByType",
    "adapter_of",
    "describe_problems",
    "is_stored_as_validated",
    "json_key",
    "storable",
]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

_SECRETS = (Secret, SecretStr, SecretBytes)

# Up to here a JavaScript number is exact.
_NUMBER_MAX = 1 << 53

TagsByType = Mapping[Any, frozenset[str]]

PLAIN_SCHEMAS = frozenset([
    "typed-dict", "typed-dict-field", "str", "int", "float", "bool", "none", "bytes", "list", "dict", "literal",
    "nullable", "union", "definitions", "definition-ref",
])  # fmt: skip
"""The pydantic schemas whose validated values are values that can be stored."""

SCHEMA_NOTES = frozenset(["metadata", "serialization", "config", "cls"])
"""What is in a pydantic schema without being a schema."""


class Signature:
    """What a function takes after its `ctx`, and what it returns.

    Args:
        path: For messages.
        handler: The user's function.

    Raises:
        TypeError: The function can't be called by name: it takes `*args`, or an annotation is unknown to pydantic.
    """

    def __init__(self, path: str, handler: Callable[..., Any]) -> None:
        self.path = path
        parameters = list(inspect.signature(handler).parameters.values())
        if not parameters:
            raise TypeError(f"{path!r} takes no ctx; its first parameter must be one")
        self.parameters = parameters[1:]
        for parameter in self.parameters:
            if parameter.kind not in _NAMED:
                raise TypeError(
                    f"{path!r}: parameter {parameter} can't be passed by name; arguments are stored by name"
                )
        self._positional = [p.name for p in self.parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        try:
            hints = typing.get_type_hints(handler, include_extras=True)
        except NameError as error:
            raise TypeError(
                f"{path!r}: the annotation {error.name!r} is not known at run time; import it outside TYPE_CHECKING"
            ) from error
        fields: dict[str, Any] = {}
        for parameter in self.parameters:
            hint = hints.get(parameter.name, Any)
            optional = parameter.default is not inspect.Parameter.empty
            fields[parameter.name] = typing_extensions.NotRequired[hint] if optional else hint
        self._arguments = adapter_of(f"{path} arguments", fields)
        self._validate = self._arguments.validator.validate_python
        self._validate_json = self._arguments.validator.validate_json
        self._stored_as_validated = is_stored_as_validated(self._arguments.core_schema)
        returned = hints.get("return", Any)
        self._returns_none = returned is type(None)
        # A document that was read carries `_id` and `_creationTime` beside the fields of its type, and may be returned.
        self._returned = None if returned is Any else adapter_of(f"{path} return value", {"value": returned}, "allow")
        schema = self.returned_schema
        self._shown_as_validated = schema is None or (is_stored_as_validated(schema) and not _has_aliases(schema))

    @property
    def schema(self) -> Any:
        """The pydantic schema of the arguments."""
        return self._arguments.core_schema

    @property
    def returned_schema(self) -> Any:
        """The pydantic schema of a dict whose `value` is the return value; None if that is not annotated."""
        return None if self._returned is None else self._returned.core_schema

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any], tags: TagsByType) -> dict[str, Any]:
        """The validated arguments by name. Raises `ArgumentError`."""
        if args:
            kwargs = self._name_positional(args, kwargs)
        try:
            # By name also where a parameter has an alias: it is a Python call.
            arguments: dict[str, Any] = self._validate(kwargs, context=tags, by_alias=True, by_name=True)
        except ValidationError as error:
            raise ArgumentError(self.path, describe_problems(error)) from None
        return arguments

    def _name_positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) > len(self._positional):
            raise ArgumentError(self.path, [f"too many: it takes {len(self._positional)} by position, not {len(args)}"])
        named = dict(zip(self._positional, args, strict=False))
        if kwargs and (twice := named.keys() & kwargs.keys()):
            raise ArgumentError(self.path, [f"{min(twice)}: was given twice, by position and by name"])
        return named | kwargs

    def store(self, args: tuple[Any, ...], kwargs: dict[str, Any], tags: TagsByType) -> str:
        """The stored form of a call's arguments. Raises `ArgumentError` for what does not fit or can't be stored."""
        text = self.dump(self.bind(args, kwargs, tags))
        if not self._stored_as_validated:
            self._check_readable(text, tags)
        return text

    def dump(self, arguments: dict[str, Any]) -> str:
        """The stored form of validated arguments. Raises `ArgumentError` for what can't be stored."""
        try:
            dumped = arguments if self._stored_as_validated else self._dump_values(arguments)
            try:
                return values.encode(dumped, storable)
            except InvalidValueError:
                return values.encode(_with_json_keys(dumped), storable)
        except InvalidValueError as error:
            raise ArgumentError(self.path, [str(error)]) from error
        except (PydanticSerializationError, UnicodeError) as error:
            which = [name for name, value in arguments.items() if not _is_storable(value)]
            raise ArgumentError(
                self.path, [f"{', '.join(which) or 'they'}: can't be stored as JSON: {error}"]
            ) from error

    def _dump_values(self, arguments: dict[str, Any]) -> Any:
        # Round trip: without computed fields, and so that what was parsed is parsed again.
        return _dump(self._arguments, arguments, by_alias=False, round_trip=True)

    def _check_readable(self, text: str, tags: TagsByType) -> None:
        """Raises `ArgumentError` for stored arguments that `load` could not read: of a dataclass with an `InitVar`."""
        try:
            self.load(text, tags)
        except ArgumentError as error:
            problems = [f"they can't be read back once stored: {problem}" for problem in error.problems]
            raise ArgumentError(self.path, problems) from None

    def load(self, text: str, tags: TagsByType) -> dict[str, Any]:
        """The arguments that `dump` stored, as the types that the code now annotates. Raises `ArgumentError`."""
        try:
            # Fields were stored under their own names; aliases are for the world outside.
            if self._stored_as_validated:
                # Decoded they are what they were. JSON would leave it open whether a string stands for bytes.
                arguments: dict[str, Any] = self._validate(
                    values.decode(text), context=tags, by_alias=True, by_name=True
                )
                return arguments
            if '{"$' in text:
                # Strict types would refuse a datetime that is a string: only JSON may hold it so, and this is decoded.
                decoded = values.decode(text)
                loaded = self._arguments.validate_python(
                    decoded, context=tags, strict=False, by_alias=True, by_name=True
                )
            else:
                # Exact for strict types: pydantic knows that it reads JSON.
                loaded = self._validate_json(text, context=tags, by_alias=True, by_name=True)
            return cast("dict[str, Any]", loaded)
        except ValidationError as error:
            raise ArgumentError(self.path, describe_problems(error)) from None

    def receive(self, arguments: dict[str, Any], tags: TagsByType) -> dict[str, Any]:
        """The arguments that a client sent, as values, converted to their annotations. Raises `ArgumentError`."""
        try:
            # Strict types would refuse a datetime that is a string, and an int that JavaScript has no other number for.
            received: dict[str, Any] = self._arguments.validate_python(
                arguments, context=tags, strict=False, by_alias=True, by_name=True
            )
        except ValidationError as error:
            raise ArgumentError(self.path, describe_problems(error, _as_written)) from None
        return received

    def check_return(self, value: Any, tags: TagsByType) -> Any:
        """The return value, converted to its annotation. Raises `ReturnValueError`."""
        if value is None and self._returns_none:
            return None
        if inspect.iscoroutine(value):
            value.close()
            raise ReturnValueError(
                self.path, ["it is a coroutine that nobody awaits: a decorator in between made it a plain function"]
            )
        if self._returned is None:
            return value
        try:
            # By name also where a field has an alias, as for arguments.
            return self._returned.validate_python({"value": value}, context=tags, by_alias=True, by_name=True)["value"]
        except ValidationError as error:
            problems = [
                problem.removeprefix("value").removeprefix(".").removeprefix(": ")
                for problem in describe_problems(error)
            ]
            raise ReturnValueError(self.path, problems) from None

    def show_return(self, value: Any) -> Any:
        """A checked return value as clients see it: as its annotation is serialized, under aliases where it has some.

        Raises:
            ReturnValueError: Its serializer fails.
        """
        if self._returned is None or self._shown_as_validated:
            return value
        try:
            return _dump(self._returned, {"value": value}, by_alias=True, round_trip=False)["value"]
        except (PydanticSerializationError, UnicodeError) as error:
            raise ReturnValueError(self.path, [f"it can't be written as JSON: {error}"]) from error


def adapter_of(name: str, fields: dict[str, Any], extra: Literal["forbid", "allow"] = "forbid") -> TypeAdapter[Any]:
    """A validator of dicts with these fields. TypedDicts within it treat unknown keys as `extra` says, too.

    Raises:
        TypeError: Pydantic can't handle an annotation.
    """
    for hint in fields.values():
        teach_typed_dicts(hint)
    make_typed_dict: Any = typing_extensions.TypedDict  # the functional form, with names known at run time only
    try:
        shape = make_typed_dict(name.replace(" ", "_"), fields)
        shape.__pydantic_config__ = ConfigDict(extra=extra)
        return TypeAdapter(shape)
    except (PydanticUserError, NameError, TypeError) as error:  # TypeError: an annotation that is no type at all
        message = str(error).splitlines()[0]
        raise TypeError(
            f"the {name.partition(' ')[2]} of {name.partition(' ')[0]!r} can't be validated: {message}"
        ) from error


def is_stored_as_validated(schema: Any) -> bool:
    """Whether what fits a schema is made of values, or ids, and no serializer has a say in how it is stored."""
    if isinstance(schema, (list, tuple)):
        return all(is_stored_as_validated(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    kind = schema.get("type")
    if not isinstance(kind, str):  # fields by name
        return all(is_stored_as_validated(part) for part in schema.values())
    if "serialization" in schema:
        return False
    if kind not in PLAIN_SCHEMAS:
        return ID_DOCUMENT in schema.get("metadata", ())
    return all(is_stored_as_validated(part) for name, part in schema.items() if name not in SCHEMA_NOTES)


def _has_aliases(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "serialization_alias" in schema or any(_has_aliases(part) for part in schema.values())
    return isinstance(schema, (list, tuple)) and any(_has_aliases(part) for part in schema)


def storable(value: Any) -> Any:
    """What to store for what is no value. A set item by item: each may need an escape of its own."""
    if isinstance(value, _SECRETS):
        # Pydantic writes asterisks, and the function would take them for the secret.
        raise ValueError("it is not shown to anyone, so not written down either; pass the id or name of where it is")
    if isinstance(value, datetime):
        return _sortable(value)
    return list(value) if isinstance(value, (set, frozenset)) else to_jsonable_python(value)


def json_key(name: Any) -> str:
    """The key of a dict as pydantic writes it in JSON: of a `dict[int, str]` and the like."""
    return name if isinstance(name, str) else next(iter(to_jsonable_python({name: None})))


def _dump(adapter: TypeAdapter[Any], value: Any, *, by_alias: bool, round_trip: bool) -> Any:
    # In Python mode bytes and special floats stay what they are; they have escapes of our own.
    dumped = _exhaust(adapter.dump_python(value, by_alias=by_alias, round_trip=round_trip, warnings="error"))
    try:
        to_jsonable_python(dumped, bytes_mode="base64", inf_nan_mode="constants")
    except PydanticSerializationError:
        # A type with a serializer for JSON only.
        return adapter.dump_python(value, mode="json", by_alias=by_alias, round_trip=round_trip)
    return dumped


def _sortable(moment: datetime) -> str:
    """In UTC and of one width, so that an index orders moments by time, whatever their offsets and fractions."""
    if moment.utcoffset() is None:
        return moment.isoformat(timespec="microseconds")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _exhaust(value: Any) -> Any:
    """The same with lists for what can be read but once: `Iterable[int]` arrives as an iterator."""
    if type(value) is dict:
        return {name: _exhaust(item) for name, item in value.items()}
    if type(value) is list or isinstance(value, Iterator):
        return [_exhaust(item) for item in value]
    return value


def _with_json_keys(value: Any) -> Any:
    """The same with the keys of dicts as pydantic writes them in JSON: `dict[int, str]` and the like."""
    if isinstance(value, dict):
        return {json_key(name): _with_json_keys(item) for name, item in value.items()}
    return [_with_json_keys(item) for item in value] if isinstance(value, (list, tuple)) else value


def describe_problems(error: ValidationError, given: Callable[[Any], Any] = lambda value: value) -> list[str]:
    """One line for each problem: where it is, what is wrong, what was given.

    Args:
        error: What pydantic says.
        given: From a value to what whoever gave it knows it as.
    """
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        where = ""
        for step in problem["loc"]:
            where += f"[{step}]" if isinstance(step, int) else f".{step}" if where else str(step)
        if problem["type"] == "extra_forbidden":
            problems.append(f"{where}: is not expected")
        elif problem["type"] == "missing":
            problems.append(f"{where}: is missing")
        elif problem["type"] == "value_error":
            problems.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")  # says itself what was given
        else:
            message = problem["msg"]
            problems.append(f"{where}: {message[:1].lower()}{message[1:]}, not {_short(given(problem['input']))}")
    return problems


def _is_storable(value: Any) -> bool:
    """Whether it can be stored without what its annotation says of it."""
    try:
        values.encode(_with_json_keys({"value": value}), storable)
    except (InvalidValueError, PydanticSerializationError, UnicodeError):
        return False
    return True


def _as_written(value: Any) -> Any:
    """What a client wrote as 5: all its numbers arrive as floats."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _NUMBER_MAX:
        return int(value)
    if isinstance(value, dict):
        return {name: _as_written(item) for name, item in value.items()}
    return [_as_written(item) for item in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, BaseModel) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
