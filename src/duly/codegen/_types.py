"""TypeScript types for JSON schemas."""

import json
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from duly.codegen._schemas import JsonSchema, name_in

__all__ = ["Member", "Types", "generic_type", "object_type", "tsdoc"]

_LINE_MAX = 80
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_SIMPLE = {
    "null": "null",
    "boolean": "boolean",
    "integer": "number",
    "number": "number",
    "string": "string",
}
# What a type may not be called: names and words of TypeScript's, and those that the files have anyway.
_TAKEN = frozenset([
    "await", "break", "case", "catch", "class", "const", "continue", "debugger", "default", "delete", "do", "else",
    "enum", "export", "extends", "false", "finally", "for", "function", "if", "implements", "import", "in",
    "instanceof", "interface", "let", "new", "package", "private", "protected", "public", "return", "static", "super",
    "switch", "this", "throw", "true", "try", "typeof", "var", "while", "with", "yield",
    "any", "bigint", "boolean", "never", "null", "number", "object", "string", "symbol", "undefined", "unknown", "void",
    "Array", "ArrayBuffer", "Record", "GenericId", "FunctionReference", "PaginationOptions", "PaginationResult",
    "TableNames", "Documents", "Doc", "Id",
])  # fmt: skip


class Member(NamedTuple):
    """A property of an object type."""

    name: str
    type: str
    optional: bool = False
    doc: str = ""

    def __str__(self) -> str:
        name = self.name if _IDENTIFIER.fullmatch(self.name) else _literal(self.name)
        return f"{tsdoc(self.doc)}{name}{'?' if self.optional else ''}: {self.type}"


def object_type(members: list[Member]) -> str:
    """An object type, on one line if it is short."""
    flat = f"{{ {'; '.join(map(str, members))} }}" if members else "{}"
    if _fits(flat):
        return flat
    return "{\n" + textwrap.indent("".join(f"{member};\n" for member in members), "  ") + "}"


def generic_type(name: str, arguments: list[str]) -> str:
    """A type with arguments, on one line if it is short."""
    flat = f"{name}<{', '.join(arguments)}>"
    if _fits(flat):
        return flat
    return f"{name}<\n" + textwrap.indent(",\n".join(arguments), "  ") + "\n>"


def tsdoc(text: str) -> str:
    """A text as a comment on lines of its own; nothing for no text."""
    lines = text.replace("*/", "*\\/").splitlines()
    if len(lines) > 1:
        return "/**\n" + "".join(f" * {line}".rstrip() + "\n" for line in lines) + " */\n"
    return f"/** {lines[0]} */\n" if lines else ""


class Types:
    """Writes types, and knows the names of those that have one.

    A type that is the same in arguments and results has one name. Of one that differs the form in arguments has a name
    of its own: `LineInput`.

    Args:
        definitions: The schemas of named types.

    `used` holds the names that have been written so far, of types that are not TypeScript's own.
    """

    def __init__(self, definitions: Mapping[str, JsonSchema]) -> None:
        self._definitions = definitions
        bases: dict[str, str] = {}
        for base in map(_base, definitions):
            bases[base] = bases.get(base) or _free(re.sub(r"\W", "_", base), bases.values())
        self._names = {name: bases[_base(name)] for name in definitions}
        pairs = {
            name: f"{_base(name)}-Output"
            for name in definitions
            if name.endswith("-Input") and "x-duly-type" not in definitions[f"{_base(name)}-Output"]
        }
        self.used: set[str] = set()
        # To call one apart may make apart what holds it.
        while apart := [name for name, other in pairs.items() if self._body(name) != self._body(other)]:
            for name in apart:
                del pairs[name]
                self._names[name] = _free(self._names[name] + "Input", self._names.values())
        self.used.clear()

    def named(self) -> list[tuple[str, str, str]]:
        """Name, type and description of each type that has been referred to, in the order of the names."""
        named: dict[str, tuple[str, str, str]] = {}
        own = {name: schema for name, schema in self._definitions.items() if "x-duly-type" not in schema}
        while missing := [name for name in own if self._names[name] in self.used - named.keys()]:
            for definition in missing:
                name, doc = self._names[definition], own[definition].get("description", "")
                named[name] = (name, self._body(definition), doc)
        return sorted(named.values())

    def _body(self, name: str) -> str:
        return self.of(self._definitions[name])

    def of(self, schema: JsonSchema) -> str:
        """The type of the values of a schema."""
        match schema:
            case {"x-duly-type": "id", "x-duly-tables": [_, *_] as tables}:
                return _union(f"{self._use('Id')}<{_literal(table)}>" for table in tables)
            case {"x-duly-type": "int64"}:
                return "bigint"
            case {"x-duly-type": "bytes"}:
                return "ArrayBuffer"
            case {"x-duly-type": "paginationOptions"}:
                return self._use("PaginationOptions")
            case {"$ref": _}:
                return self._of_named(name_in(schema))
            case {"const": value}:
                return _literal(value)
            case {"enum": values}:
                return _union(map(_literal, values))
            case {"anyOf": parts} | {"oneOf": parts}:
                return _union(map(self.of, parts))
            case {"type": "array"}:
                return self._array(schema)
            case {"type": "object"}:
                return self._object(schema)
            case _:
                return _SIMPLE.get(schema.get("type", ""), "any")

    def _of_named(self, name: str) -> str:
        match self._definitions[name]:
            case {"x-duly-type": "document", "x-duly-tables": tables}:
                return _union(f"{self._use('Doc')}<{_literal(table)}>" for table in tables)
            case {"x-duly-type": "page", "properties": {"page": {"items": item}}}:
                return f"{self._use('PaginationResult')}<{self.of(item)}>"
            case _:
                return self._use(self._names[name])

    def _use(self, name: str) -> str:
        self.used.add(name)
        return name

    def _array(self, schema: JsonSchema) -> str:
        rest = self.of(schema.get("items", {}))
        if "prefixItems" not in schema:
            return "[]" if schema.get("maxItems") == 0 else f"Array<{rest}>"
        items = [self.of(item) for item in schema["prefixItems"]]
        required = schema.get("minItems", 0)
        items[required:] = [f"({item})?" if "|" in item else f"{item}?" for item in items[required:]]
        if "items" in schema:
            items.append(f"...Array<{rest}>")
        return f"[{', '.join(items)}]"

    def _object(self, schema: JsonSchema) -> str:
        if properties := schema.get("properties"):
            required = schema.get("required", ())
            return object_type(
                [
                    Member(name, self.of(value), name not in required, value.get("description", ""))
                    for name, value in properties.items()
                ]
            )
        if patterns := schema.get("patternProperties"):
            return self._record(list(patterns.values()))
        others = schema.get("additionalProperties", True)
        return self._record([others]) if isinstance(others, dict) else f"Record<string, {'any' if others else 'never'}>"

    def _record(self, values: list[JsonSchema]) -> str:
        type = _union(map(self.of, values))
        # A named type may hold itself in an index signature, and not in what is passed to a generic type.
        return f"{{ [key: string]: {type} }}" if _refers(values) else f"Record<string, {type}>"


def _refers(part: Any) -> bool:
    """Whether a part of a schema refers to a named type."""
    if isinstance(part, dict):
        return "$ref" in part or any(map(_refers, part.values()))
    return isinstance(part, list) and any(map(_refers, part))


def _fits(text: str) -> bool:
    return len(text) <= _LINE_MAX and "\n" not in text


def _base(name: str) -> str:
    """The name of a definition without what pydantic adds to tell arguments from results."""
    return name.removesuffix("-Input").removesuffix("-Output")


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _union(types: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(types))


def _free(name: str, taken: Collection[str]) -> str:
    while name in _TAKEN or name in taken:
        name += "_"
    return name
