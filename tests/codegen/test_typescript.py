"""The files for TypeScript clients: what they say, and that TypeScript agrees."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import duly
from duly.codegen import typescript
from duly.codegen._types import Types
from examples.shop import app as shop
from tests.clients.packages import NODE, packages
from tests.codegen.every import app

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
PAGE = HERE.parent.parent / "docs" / "clients.md"


def test_the_files_are_these() -> None:
    """After a change that is meant: duly codegen tests.codegen.every --typescript tests/codegen/golden"""
    assert typescript(app) == {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()}


def compile_with(files: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Lets TypeScript check a client of these files, by their paths."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copy(HERE / "tsconfig.json", folder)
    modules = packages() / "node_modules"
    (folder / "node_modules").symlink_to(modules)
    tsc: list[str | Path] = [NODE, modules / "typescript" / "bin" / "tsc", "--project", folder]
    return subprocess.run(tsc, capture_output=True, text=True, check=False)


def generated(app: duly.App) -> dict[str, str]:
    return {f"convex/_generated/{name}": text for name, text in typescript(app).items()}


def test_typescript_accepts_good_calls_and_refuses_wrong_ones(tmp_path: Path) -> None:
    client = (HERE / "client.ts").read_text(encoding="utf-8")
    done = compile_with({**generated(app), "src/client.ts": client}, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_typescript_accepts_the_clients_that_the_page_shows(tmp_path: Path) -> None:
    shown = re.findall(r"^```(tsx?)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [language for language, _ in shown] == ["tsx", "ts"]
    clients = {f"src/in_{language}.{language}": text for language, text in shown}
    done = compile_with({**generated(shop), **clients}, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_typescript_accepts_types_with_odd_names_and_types_that_hold_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "case",
        "default",
        "delete",
        "enum",
        "export",
        "function",
        "interface",
        "let",
        "new",
        "this",
        "type",
        "void",
    ]
    lines = [
        "from typing import TypedDict, Union",
        "from typing_extensions import TypeAliasType",
        "from pydantic import RootModel",
        "import duly",
        "app = duly.App(__name__)",
        "Json = TypeAliasType('Json', 'Union[dict[str, Json], list[Json], str, None]')",
        "class Tree(RootModel[dict[str, 'Tree']]): pass",
        *(f"{word} = TypedDict('{word}', {{'a': int}})" for word in words),
        "@duly.query",
        "async def held(ctx: duly.QueryCtx, json: Json, tree: Tree) -> dict[str, Json]: ...",
        "@duly.query",
        f"async def odd(ctx: duly.QueryCtx, {', '.join(f'{word}_: {word}' for word in words)}): ...",
    ]
    (tmp_path / "strange.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    client = """\
import { type FunctionArgs } from "convex/server";
import { api } from "../convex/_generated/api.js";
export const held: FunctionArgs<typeof api.strange.held> = { json: { a: [{ b: null }] }, tree: { a: { b: {} } } };
// @ts-expect-error a number is none
export const wrong: FunctionArgs<typeof api.strange.held> = { json: { a: [{ b: 1 }] }, tree: {} };
// @ts-expect-error a text is no tree
export const worse: FunctionArgs<typeof api.strange.held> = { json: null, tree: { a: { b: "c" } } };
"""
    done = compile_with({**generated(duly.App("strange")), "src/client.ts": client}, tmp_path / "client")
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_public_functions_are_named() -> None:
    text = "".join(typescript(app).values())
    assert "remove" in text
    assert "forget" not in text


def test_a_table_whose_type_can_not_be_handled_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.py").write_text(
        "from typing import TypedDict\nimport duly\n\n"
        "class Odd(TypedDict):\n    what: memoryview\n\nodds = duly.Table('odds', Odd)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(duly.errors.SchemaError, match="'odds'"):
        typescript(duly.App("odd"))


def test_an_app_without_functions_has_an_empty_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow.py").write_text('import duly\n\napp = duly.App(__name__)\nnotes = duly.Table("notes")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    files = typescript(duly.App("hollow"))
    assert "export declare const api: {};" in files["api.d.ts"]
    assert "dataModel" not in files["api.d.ts"]


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({}, "any"),
        ({"type": "object"}, "Record<string, any>"),
        ({"type": "object", "additionalProperties": True}, "Record<string, any>"),
        ({"type": "object", "additionalProperties": False}, "Record<string, never>"),
        ({"type": "object", "patternProperties": {"^a": {"type": "string"}}}, "Record<string, string>"),
        ({"type": "object", "properties": {"a-b": {"type": "null"}}}, '{ "a-b"?: null }'),
        ({"type": "array"}, "Array<any>"),
        ({"type": "array", "minItems": 0, "maxItems": 0}, "[]"),
        ({"type": "array", "prefixItems": [{"type": "string"}], "minItems": 1}, "[string]"),
        ({"type": "array", "prefixItems": [{"anyOf": [{"const": 1}, {"const": 2}]}]}, "[(1 | 2)?]"),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}, "minItems": 1},
         "[string, ...Array<null>]"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "number"),
        ({"enum": ["é", 'a"b', None, False]}, '"é" | "a\\"b" | null | false'),
        ({"x-duly-type": "id", "x-duly-tables": [], "type": "string"}, "string"),
    ],
)  # fmt: skip
def test_a_schema_is_written_as_a_type(schema: dict[str, Any], written: str) -> None:
    assert Types({}).of(schema) == written


def test_what_holds_a_type_that_differs_in_arguments_differs_too() -> None:
    def named(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": []}

    definitions = {
        "Inner-Input": named(a={"type": "string"}),
        "Inner-Output": named(a={"type": "integer"}),
        "InnerInput": named(taken={"type": "null"}),
        "Outer-Input": named(inner={"$ref": "#/components/schemas/Inner-Input"}),
        "Outer-Output": named(inner={"$ref": "#/components/schemas/Inner-Output"}),
        "Same-Input": named(a={"type": "string"}),
        "Same-Output": named(a={"type": "string"}),
        "Record": named(),
    }
    types = Types(definitions)
    names = {name: types.of({"$ref": f"#/components/schemas/{name}"}) for name in definitions}
    assert names == {
        "Inner-Input": "InnerInput_",
        "Inner-Output": "Inner",
        "InnerInput": "InnerInput",
        "Outer-Input": "OuterInput",
        "Outer-Output": "Outer",
        "Same-Input": "Same",
        "Same-Output": "Same",
        "Record": "Record_",
    }
    assert [name for name, _, _ in types.named()] == sorted(set(names.values()))
