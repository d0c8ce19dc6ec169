"""The OpenAPI document."""

import json
from collections.abc import Iterator
from typing import Any

from duly.codegen import openapi
from tests.codegen.every import app

DOCUMENT = openapi(app)


def everything(part: Any) -> Iterator[Any]:
    yield part
    for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from everything(child)


def body(path: str) -> Any:
    return DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def result(path: str) -> Any:
    answer = DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    return answer["oneOf"][0]["properties"]["value"]


def schema(name: str) -> Any:
    return DOCUMENT["components"]["schemas"][name]


def test_each_public_function_has_a_path_and_no_other() -> None:
    functions = {path.removeprefix("/api/run/") for path in DOCUMENT["paths"] if path.startswith("/api/run/")}
    expected = {path.replace(":", "/") for path, function in app._registry.functions.items() if function.public}
    assert functions == expected
    assert "admin/users/remove" in functions
    assert "forget" not in json.dumps(DOCUMENT)


def test_every_reference_leads_to_something() -> None:
    references = [part["$ref"] for part in everything(DOCUMENT) if isinstance(part, dict) and "$ref" in part]
    assert references
    for reference in references:
        found: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_operations_have_ids_of_their_own_and_answers() -> None:
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert all({"200", "default"} <= operation["responses"].keys() for operation in operations)


def test_arguments_and_results_have_schemas() -> None:
    arguments = body("/api/run/values/defaults")["properties"]["args"]
    assert arguments["required"] == ["required"]
    assert arguments["properties"]["nullable"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert result("/api/run/values/defaults") == {"type": "null"}
    assert DOCUMENT["paths"]["/api/run/orders/create"]["post"]["summary"] == "Places an order."


def test_what_json_lacks_is_escaped_in_arguments_and_plain_in_results() -> None:
    given, returned = schema("Everything-Input")["properties"], schema("Everything-Output")["properties"]
    assert given["data"]["required"] == ["$bytes"]
    assert given["big"]["required"] == ["$integer"]
    assert (returned["data"]["type"], returned["big"]["type"]) == ("string", "string")


def test_a_document_is_returned_with_its_id_and_a_page_as_clients_know_it() -> None:
    assert schema("Order-Output")["required"][:2] == ["_id", "_creationTime"]
    assert "_id" not in schema("Order-Input")["properties"]
    assert schema("Page_Order_")["required"] == ["page", "isDone", "continueCursor"]
