"""The files that TypeScript clients of Convex import: `api` and the types of its functions and documents."""

from typing import Any

from duly._app import App
from duly._call.registry import Registry
from duly.codegen._schemas import FunctionSchemas, Schemas, doc_of, name_in, schemas_of
from duly.codegen._types import Member, Types, generic_type, object_type, tsdoc

__all__ = ["typescript"]

_HEADER = """\
/* eslint-disable */
/**
 * Written by `duly codegen` from the app {app!r}. Run it again rather than edit this.
 */

"""

_API_JS = """\
import { anyApi } from "convex/server";

export const api = anyApi;
"""

_DATA_MODEL = """\
import type {{ GenericId }} from "convex/values";

/** The name of a table. */
export type TableNames = keyof Documents;

/** The id of a document, to be passed where a function takes one of this table. */
export type Id<TableName extends TableNames> = GenericId<TableName>;

/** A document of a table, as functions return it. */
export type Doc<TableName extends TableNames> = Documents[TableName];

type Documents = {documents};
"""


_ANY_DOCUMENT = '{{ _id: Id<"{table}">; _creationTime: number; [field: string]: any }}'
_API_DOC = "/** The public functions, to be passed to `useQuery`, `client.mutation` and the like. */\n"
# Under which a function stands in the tree of modules: the name of nothing else.
_FUNCTION = ""
# What the package has.
_CONVEX = {"PaginationOptions", "PaginationResult"}


def typescript(app: App) -> dict[str, str]:
    """The files that TypeScript clients of an app import, as they import Convex's `_generated/api`.

    They hold the app's public functions with the types of their arguments and results, and the types of its documents.
    The same app gives the same text.

    Args:
        app: The app. Its database is not opened.

    Returns:
        The texts by their file names: `api.js`, `api.d.ts` and `dataModel.d.ts`.

    Raises:
        TypeError: A function's parameters or annotations can't be handled.
        SchemaError: Two tables share a name, or the type of a table's documents can't be handled.

    Example:
        from duly.codegen import typescript

        assert "create_order: FunctionReference<" in typescript(app)["api.d.ts"]
    """
    app._registry.load()
    schemas = schemas_of(app._registry)
    types = Types(schemas.definitions)
    files = {
        "api.d.ts": _api(schemas, types),
        "api.js": _API_JS,
        "dataModel.d.ts": _data_model(app._registry, schemas, types),
    }
    header = _HEADER.format(app=app.name)
    return {name: header + text for name, text in files.items()}


def _api(schemas: Schemas, types: Types) -> str:
    root: dict[str, Any] = {}
    for path, function in schemas.functions.items():
        module, _, name = path.rpartition(":")
        node = root
        for step in [*module.split("/"), name]:
            node = node.setdefault(step, {})
        node[_FUNCTION] = function
    text = f"{_API_DOC}export declare const api: {_node(root, types)};\n"
    own = sorted(types.used - _CONVEX)
    return (
        f'import type {{ {", ".join(["FunctionReference", *sorted(types.used & _CONVEX)])} }} from "convex/server";\n'
        + (f'import type {{ {", ".join(own)} }} from "./dataModel.js";\n' if own else "")
        + f"\n{text}"
    )


def _node(node: dict[str, Any], types: Types) -> str:
    """The type of a module, of a function, or of both at once: `admin:users` beside `admin/users:remove`."""
    members = [
        Member(name, _node(child, types), doc=doc_of(child[_FUNCTION].function) if _FUNCTION in child else "")
        for name, child in sorted(node.items())
        if name != _FUNCTION
    ]
    written = [_reference(node[_FUNCTION], types)] if _FUNCTION in node else []
    if members or not written:
        written.append(object_type(members))
    return " & ".join(written)


def _reference(schemas: FunctionSchemas, types: Types) -> str:
    kind = schemas.function.kind
    return generic_type(
        "FunctionReference", [f'"{kind}"', '"public"', types.of(schemas.arguments), types.of(schemas.result)]
    )


def _data_model(registry: Registry, schemas: Schemas, types: Types) -> str:
    documents = [
        Member(name, _ANY_DOCUMENT.format(table=name)) for name in registry.tables if name not in schemas.documents
    ]
    for name, schema in schemas.documents.items():
        definition = schemas.definitions[name_in(schema)]
        properties = definition["properties"]
        # Of this table alone, also where several share a type.
        own_id = {"_id": properties["_id"] | {"x-duly-tables": [name]}}
        type = types.of(definition | {"properties": properties | own_id})
        documents.append(Member(name, type, doc=definition.get("description", "")))
    text = _DATA_MODEL.format(documents=object_type(sorted(documents)))
    return text + "".join(f"\n{tsdoc(doc)}export type {name} = {type};\n" for name, type, doc in types.named())
