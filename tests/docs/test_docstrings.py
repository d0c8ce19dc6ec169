"""Every example in a public docstring runs, in the shop of `prelude.py`."""

import ast
import doctest
import importlib
import inspect
import itertools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

import duly
from duly._call.context import SyncAuth
from duly._call.database import SystemReader
from duly._model.function import FunctionReference
from duly.codegen import openapi, typescript
from tests.support import eventually

HERE = Path(__file__).parent

# Public by what they are attributes of.
BESIDE_ALL: dict[str, object] = {
    "SystemReader": SystemReader,
    "SyncAuth": SyncAuth,
    "openapi": openapi,
    "typescript": typescript,
}

# The context in which an example of a class runs that is not simply one of a mutation.
KINDS = {
    "QueryCtx": "query",
    "DatabaseReader": "query",
    "SystemReader": "query",
    "Query": "query",
    "Page": "query",
    "ActionCtx": "action",
    "SyncActionCtx": "sync",
    "SyncScheduler": "sync",
    "SyncAuth": "sync",
    "enlist": "app",
    "openapi": "app",
    "typescript": "app",
}

WRAPPERS = {
    "query": "@duly.query\nasync def example(ctx: duly.QueryCtx) -> None:\n",
    "mutation": "@duly.mutation\nasync def example(ctx: duly.MutationCtx) -> None:\n",
    "action": "@duly.action\nasync def example(ctx: duly.ActionCtx) -> None:\n",
    "sync": "@duly.action\ndef example(ctx: duly.SyncActionCtx) -> None:\n",
    "app": "async def example() -> None:\n",
}

# Errors that no example can bring about by itself; that of each of the others must.
NOT_BROUGHT_ABOUT = {"ConflictError", "StoreUnavailableError", "MutationWaitError", "DulyError"}

EMAILS = """
import duly
from shop import Order

@duly.internal_action
async def send_confirmation(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None: ...
"""

REPORTS = """
import duly
from shop import Order, orders

@duly.query
async def open_orders(ctx: duly.QueryCtx) -> list[Order]:
    return await ctx.db.query(orders).collect()
"""


@dataclass(frozen=True)
class Example:
    name: str
    module: str
    code: str

    @property
    def owner(self) -> str:
        return self.name.removeprefix("errors.").partition(".")[0]

    @property
    def is_whole(self) -> bool:
        """Whether it is top-level code, rather than lines from the inside of a function."""
        return any(line.startswith(("@", "def ", "async def ", "app = ")) for line in self.code.splitlines())

    @property
    def kind(self) -> str:
        return "app" if "app." in self.code and "ctx." not in self.code else KINDS.get(self.owner, "mutation")


def public_docstrings() -> Iterator[tuple[str, str, str]]:
    """Name, module and docstring of all that a user can name."""
    named: dict[str, object] = {name: getattr(duly, name) for name in duly.__all__}
    named |= {f"errors.{name}": getattr(duly.errors, name) for name in duly.errors.__all__}
    for name, value in (named | BESIDE_ALL).items():
        module = str(getattr(value, "__module__", "") or "duly")
        yield name, module, beside(name) or inspect.cleandoc(value.__doc__ or "")
        for method, member in vars(value).items() if inspect.isclass(value) else ():
            documented = isinstance(member, property) and "Example:" in (member.__doc__ or "")
            if documented or (inspect.isroutine(member) and not method.startswith("_")):
                yield f"{name}.{method}", module, inspect.cleandoc(member.__doc__ or "")


def beside(name: str) -> str:
    """The string below an assignment, which is where values are documented."""
    for file in ("_call/database.py", "_call/lazy.py"):
        body = ast.parse((Path(duly.__file__).parent / file).read_text()).body
        for statement, below in itertools.pairwise(body):
            match statement, below:
                case ast.Assign(targets=[ast.Name(id=found)]), ast.Expr(value=ast.Constant(value=str(doc))):
                    if found == name:
                        return inspect.cleandoc(doc)
                case _:
                    pass
    return ""


def examples() -> Iterator[Example]:
    for name, module, doc in public_docstrings():
        *_, after = doc.partition("Example:\n")
        lines = after.splitlines()
        end = next((at for at, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
        code = textwrap.dedent("\n".join(lines[:end])).strip()
        if code:
            yield Example(name, module, code)


EXAMPLES = list(examples())


def test_every_public_name_has_an_example() -> None:
    shown = {example.name for example in EXAMPLES}
    assert not [name for name, _, _ in public_docstrings() if name not in shown]


@pytest.mark.parametrize("example", [pytest.param(one, id=one.name) for one in EXAMPLES if one.code.startswith(">>>")])
def test_a_session_shown_in_a_docstring_goes_as_shown(example: Example) -> None:
    names = dict(vars(sys.modules[example.module]))
    session = doctest.DocTestParser().get_doctest(example.code + "\n", names, example.name, None, 0)
    results = doctest.DocTestRunner(verbose=False).run(session)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(
    "example", [pytest.param(one, id=one.name) for one in EXAMPLES if not one.code.startswith(">>>")]
)
async def test_an_example_in_a_docstring_runs(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    raised = watch(monkeypatch, example) if example.name.startswith("errors.") else None
    shop = imported(example, tmp_path, monkeypatch)
    try:
        if example.name == "enlist":
            await run_on_postgresql(example, shop, request.getfixturevalue("postgresql_url"))
        else:
            await run(example, shop)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]
    if raised is not None and example.owner not in NOT_BROUGHT_ABOUT:
        assert raised, "the example shows how the error is caught, and it is not raised"


def test_every_example_passes_mypy_strict(tmp_path: Path) -> None:
    for example in EXAMPLES:
        if not example.code.startswith(">>>"):
            (tmp_path / f"{example.name.replace('.', '_')}.py").write_text(module_text(example))
    # Examples show anew what the prelude has.
    mypy = [sys.executable, "-m", "mypy", "--strict", "--disable-error-code=no-redef", "--cache-dir=cache", "."]
    done = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def module_text(example: Example) -> str:
    """The shop with the example in it."""
    prelude = (HERE / "prelude.py").read_text()
    wrapper = "" if example.is_whole else WRAPPERS[example.kind]
    code = example.code if example.is_whole else textwrap.indent(example.code, "    ")
    return f"{prelude}\n\n# The example.\n\n\n{wrapper}{code}\n"


def watch(monkeypatch: pytest.MonkeyPatch, example: Example) -> list[object]:
    """Lists the errors that are made of the class the example is about."""
    made: list[object] = []
    cls: type[BaseException] = getattr(duly.errors, example.owner)
    original = cls.__init__

    def init(self: BaseException, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(cls, "__init__", init)
    return made


def imported(example: Example, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """That shop, freshly imported."""
    package = folder / "shop"
    package.mkdir()
    (package / "__init__.py").write_text(module_text(example))
    (package / "emails.py").write_text(EMAILS)
    (package / "reports.py").write_text(REPORTS)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("shop")


async def run(example: Example, shop: ModuleType) -> None:
    if example.is_whole and hasattr(shop, "main"):
        await shop.main()
        return
    if "async with app" in example.code:
        await shop.example()
        return
    async with shop.app as app:
        await stage(app, shop, example.code)
        if not example.is_whole:
            await (shop.example() if example.kind == "app" else call(app, shop.example, {}))
            return
        defined = [
            node.name
            for node in ast.parse(example.code).body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        assert defined
        arguments = shop.ARGUMENTS | {"order_id": shop.order_id}
        for name in defined:
            await call(app, getattr(shop, name), arguments)


async def run_on_postgresql(example: Example, shop: ModuleType, url: str) -> None:
    """With a connection of the user's."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE invoices (item text)")
        vars(shop).update(app=duly.App("shop", database=url), connection=connection)
        await run(example, shop)


async def call(app: duly.App, function: FunctionReference[..., Any], known: dict[str, Any]) -> None:
    parameters = list(inspect.signature(function.__wrapped__).parameters)[1:]
    arguments = {name: known[name] for name in parameters}
    kind = {"query": app.query, "mutation": app.mutation, "action": app.action}[function.handler.kind]
    await kind(function, **arguments)


async def stage(app: duly.App, shop: ModuleType, code: str) -> None:
    """Makes the ids and documents that examples name."""
    vars(shop).update(await app.mutation(shop.stage))
    shop.order = await app.query(shop.get_order, order_id=shop.order_id)  # type: ignore[attr-defined]
    if "deleted_id" in code:
        with pytest.raises(duly.AppError) as failure:
            await app.mutation(shop.schedule_and_fail)
        shop.deleted_id = failure.value.data  # type: ignore[attr-defined]
    if "finished_id" in code:
        finished_id = await app.scheduler.run_after(0, shop.nothing)

        async def finished() -> bool:
            return bool(await app.query(shop.state_of, job_id=finished_id) == "success")

        await eventually(finished)
        shop.finished_id = finished_id  # type: ignore[attr-defined]
