"""The HTTP API of an app as an OpenAPI document."""

import json
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from duly._app import App
from duly.codegen._schemas import FunctionSchemas, JsonSchema, doc_of, schemas_of

__all__ = ["openapi"]

_SCHEMAS = "#/components/schemas"


def openapi(app: App) -> dict[str, Any]:
    """The OpenAPI 3.1 document of an app's HTTP API.

    Each public function has a path of its own, `/api/run/orders/create_order`, with the schemas of its arguments and
    its result. The endpoints that take a function's path in the body are there too.

    Args:
        app: The app. Its database is not opened.

    Returns:
        The document, to be written as JSON.

    Raises:
        TypeError: A function's parameters or annotations can't be handled.
        SchemaError: Two tables share a name, or the type of a table's documents can't be handled.

    Example:
        from duly.codegen import openapi

        assert "/api/query" in openapi(app)["paths"]
    """
    app._registry.load()
    schemas = schemas_of(app._registry)
    # What is the same for every app.
    document: dict[str, Any] = json.loads(files("duly.codegen").joinpath("openapi.json").read_text(encoding="utf-8"))
    document["info"] |= {"title": app.name, "version": version("duly")}
    operations = {_route(path): {"post": _operation(path, function)} for path, function in schemas.functions.items()}
    document["paths"] = operations | document["paths"]
    document["components"]["schemas"] |= schemas.definitions
    return document


def _route(path: str) -> str:
    return f"/api/run/{path.replace(':', '/')}"


def _operation(path: str, schemas: FunctionSchemas) -> dict[str, Any]:
    doc = doc_of(schemas.function)
    body = {
        "type": "object",
        "properties": {"args": schemas.arguments, "format": {"const": "json"}},
        "required": ["args"],
    }
    success = {
        "type": "object",
        "properties": {
            "status": {"const": "success"},
            "value": schemas.result,
            "logLines": {"$ref": f"{_SCHEMAS}/duly.LogLines"},
        },
        "required": ["status", "value"],
    }
    return {
        "operationId": path.replace("/", ".").replace(":", "."),
        "tags": [path.partition(":")[0]],
        **({"summary": doc.partition("\n")[0], "description": doc} if doc else {}),
        "x-duly-kind": schemas.function.kind,
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {
            "200": {
                "description": "What it returned, or how it failed.",
                "content": _json({"oneOf": [success, {"$ref": f"{_SCHEMAS}/duly.Error"}]}),
            },
            "default": {"$ref": "#/components/responses/Failure"},
        },
    }


def _json(schema: JsonSchema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
