"""What clients see of an app, as JSON schemas: the arguments and results of its public functions, its documents.

TypeScript and OpenAPI are both written from these. For some of what clients see JSON Schema has no word; there a schema
says how it looks in JSON, and has `x-duly-type` beside it:

| x-duly-type | is |
| --- | --- |
| id | the id of a document, of one of the tables in `x-duly-tables` |
| document | what a function returns of a document, of one of the tables in `x-duly-tables` |
| page | a `duly.Page` |
| paginationOptions | the parameter `paginationOpts` of a query |
| int64, bytes | what JavaScript has as a bigint and as an ArrayBuffer |
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import CoreSchema, core_schema
from typing_extensions import override

from duly._call.query import Page
from duly._call.registry import Function, Registry
from duly._ground.ids import ID_DOCUMENT
from duly._ground.values import Int64
from duly._model.job import SYSTEM_TABLE, ScheduledFunction
from duly._model.signature import adapter_of
from duly._model.typed_dicts import annotated_class
from duly.errors import SchemaError

__all__ = ["FunctionSchemas", "JsonSchema", "Schemas", "doc_of", "name_in", "schemas_of"]

JsonSchema = dict[str, Any]
_Key = tuple[str, str]

_REF = "#/components/schemas/{model}"
_ID = {"type": "string", "pattern": "^[0-9a-hjkmnp-tv-z]{32}$", "x-duly-type": "id"}
# What JSON Schema says of an encoding is a remark, so a pattern says it, too.
_BASE64 = {
    "type": "string",
    "contentEncoding": "base64",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}
_BASE64_OF_8_BYTES = _BASE64 | {"pattern": "^[A-Za-z0-9+/]{10}[AEIMQUYcgkosw048]=$"}
_DECIMAL = {"type": "string", "format": "decimal", "pattern": r"^-?[0-9]+(\.[0-9]+)?([Ee][-+]?[0-9]{1,4})?$"}
# Pydantic writes days as years (of 365 days) and days, which to format "duration" may not stand side by side.
_DURATION = {
    "type": "string",
    "pattern": r"^-?P([0-9]+Y)?([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]+)?S)?)?$",
}
# Up to here a number of JavaScript's is exact, and so is one that travels as one.
_INT_MAX = 1 << 53
_NULL = {"type": "null"}
# The parameter that the hooks for paginated queries fill.
_PAGINATION = "paginationOpts"


class FunctionSchemas(NamedTuple):
    """A function, and the schemas of its arguments (an object) and of its result."""

    function: Function
    arguments: JsonSchema
    result: JsonSchema


class Schemas(NamedTuple):
    """The public functions by path, the documents by table, and the named types that both refer to."""

    functions: dict[str, FunctionSchemas]
    documents: dict[str, JsonSchema]
    definitions: dict[str, JsonSchema]


def schemas_of(registry: Registry) -> Schemas:
    """What clients see of an app, in the order of the names.

    Raises:
        SchemaError: The type of a table's documents can't be handled.
    """
    functions = {path: function for path, function in sorted(registry.functions.items()) if function.public}
    tables = {name: table.document for name, table in sorted(registry.tables.items()) if table.document is not None}
    tables[SYSTEM_TABLE] = ScheduledFunction
    references, found = _Border(tables).generate_definitions([*_wanted(functions, tables)])
    definitions: dict[str, JsonSchema] = {name: _without_examples(found[name]) for name in sorted(found)}
    # The dicts that stand around arguments, results and documents are nobody's types.
    around = {key: definitions.pop(name_in(schema)) for (key, _), schema in references.items()}
    for (kind, _), schema in around.items():
        schema.pop("title", None)
        if kind == "arguments" and _PAGINATION in schema.get("properties", {}):
            schema["properties"][_PAGINATION]["x-duly-type"] = "paginationOptions"

    def within(kind: str, name: str) -> JsonSchema:
        schema: JsonSchema = around[kind, name]["properties"]["value"] if (kind, name) in around else {}
        return schema

    return Schemas(
        {
            path: FunctionSchemas(function, around["arguments", path], within("result", path))
            for path, function in functions.items()
        },
        {name: within("document", name) for name in tables},
        definitions,
    )


def _wanted(
    functions: Mapping[str, Function], tables: Mapping[str, Any]
) -> Iterator[tuple[_Key, JsonSchemaMode, CoreSchema]]:
    for path, function in functions.items():
        yield ("arguments", path), "validation", function.signature.schema
        if function.signature.returned_schema is not None:
            yield ("result", path), "serialization", function.signature.returned_schema
    for name, document in tables.items():
        # Like what functions return: a document is seen nowhere else.
        try:
            adapter = adapter_of(f"{name} document", {"value": document}, "allow")
        except TypeError as error:
            raise SchemaError(str(error)) from error
        yield ("document", name), "serialization", adapter.core_schema


class _Border(GenerateJsonSchema):
    """Pydantic's JSON schemas, of values as they look where duly meets its clients."""

    # A default is told by what may be left out; a client need not know more.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 (so it is in pydantic)

    def __init__(self, tables: Mapping[str, Any]) -> None:
        super().__init__(by_alias=True, ref_template=_REF)
        self._tables = tables

    def _tables_of(self, document: Any) -> list[str]:
        return [name for name, known in self._tables.items() if known is document]

    @override
    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchema:
        written = super().typed_dict_schema(schema)
        tables = self._tables_of(annotated_class(schema.get("cls")))
        if self.mode == "validation" or not tables:
            return written
        system = {"_id": _ID | {"x-duly-tables": tables}, "_creationTime": {"type": "number"}}
        written["properties"] = system | written.get("properties", {})
        written["required"] = [*system, *written.get("required", [])]
        return written | {"x-duly-type": "document", "x-duly-tables": tables}

    @override
    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchema:
        written = super().dataclass_schema(schema)
        if schema["cls"] is not Page:
            return written
        properties = {
            "page": written["properties"]["page"],
            "isDone": {"type": "boolean"},
            "continueCursor": {"type": "string"},
            "splitCursor": {"anyOf": [{"type": "string"}, _NULL]},
            "pageStatus": {"anyOf": [{"enum": ["SplitRecommended", "SplitRequired"]}, _NULL]},
        }
        required = ["page", "isDone", "continueCursor"]
        return {"type": "object", "properties": properties, "required": required, "x-duly-type": "page"}

    @override
    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchema:
        if schema["function"]["function"] is Int64:
            return self._encoded("$integer", _BASE64_OF_8_BYTES, {"type": "string", "pattern": "^-?[0-9]+$"}) | {
                "x-duly-type": "int64"
            }
        metadata = schema.get("metadata", {})
        if ID_DOCUMENT in metadata:
            return _ID | {"x-duly-tables": self._tables_of(metadata[ID_DOCUMENT])}
        return super().function_after_schema(schema)

    @override
    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchema:
        return self._encoded("$bytes", _BASE64, _BASE64) | {"x-duly-type": "bytes"}

    def _encoded(self, key: str, escaped: JsonSchema, plain: JsonSchema) -> JsonSchema:
        """What has an escape in arguments, and a plain form in results."""
        if self.mode == "serialization":
            return plain
        return {"type": "object", "properties": {key: escaped}, "required": [key], "additionalProperties": False}

    @override
    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchema:
        # A number is taken, too, but it may have lost digits before it is sent.
        return dict(_DECIMAL)

    @override
    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchema:
        if self.mode == "validation":
            return super().timedelta_schema(schema)
        return dict(_DURATION)

    @override
    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchema:
        written = super().int_schema(schema)
        least = {} if "exclusiveMinimum" in written else {"minimum": -_INT_MAX}
        most = {} if "exclusiveMaximum" in written else {"maximum": _INT_MAX}
        return least | most | written

    @override
    def field_is_required(
        self, field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField, total: bool
    ) -> bool:
        # What has a default may be left out by those who call; it is always there in what they get.
        given = self.mode == "serialization" and field["type"] != "typed-dict-field"
        return given or super().field_is_required(field, total)

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    @override
    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchema:
        return {}


def name_in(reference: JsonSchema) -> str:
    """The name of the definition that a schema refers to."""
    return str(reference["$ref"]).rpartition("/")[2]


def doc_of(function: Function) -> str:
    """A function's docstring, without examples in Python."""
    return _without_example(inspect.getdoc(function.call) or "")


def _without_examples(schema: JsonSchema) -> JsonSchema:
    return schema | ({"description": _without_example(schema["description"])} if "description" in schema else {})


def _without_example(doc: str) -> str:
    return doc.partition("\n\nExample:\n")[0]
