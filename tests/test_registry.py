"""How an app finds its functions and tables: in a package or one file, by reference and by path."""

import asyncio
import importlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import duly
from duly._call.registry import Registry
from duly._model.function import path_of
from duly.errors import AppNotOpenError, DulyError, FunctionNotFoundError, SchemaError, StoreError

MEMORY = "sqlite:///:memory:"


@duly.query
async def here(ctx: duly.QueryCtx) -> str:
    return "here"


class Code:
    """Writes modules into a folder that Python imports from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("import duly\n" + textwrap.dedent(text), "utf-8")
        importlib.invalidate_caches()


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Code]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield Code(tmp_path)
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def function(name: str, result: object = None) -> str:
    """The text of a query that returns `result`."""
    return f"\n@duly.query\nasync def {name}(ctx: duly.QueryCtx) -> object:\n    return {result!r}\n"


async def paths_of(name: str) -> list[str]:
    app = duly.App(name, database=MEMORY)
    async with app.client():
        return sorted(app._registry.functions)


# --- a package ------------------------------------------------------------------------------------------------------


async def test_a_package_and_all_its_modules_are_looked_through(code: Code) -> None:
    code.write(
        {
            "shop/__init__.py": function("front"),
            "shop/orders.py": function("create") + function("pay"),
            "shop/admin/__init__.py": function("overview"),
            "shop/admin/users.py": function("remove"),
            "shop/admin/deep/__init__.py": "",
            "shop/admin/deep/er.py": function("dig"),
            "shop/__main__.py": "raise SystemExit('this is a program')",
            "shop/data.txt": "no code",
        }
    )
    assert await paths_of("shop") == [
        "admin/deep/er:dig",
        "admin/users:remove",
        "admin:overview",
        "orders:create",
        "orders:pay",
        "shop:front",
    ]
    async with duly.App("shop", database=MEMORY).client() as app:
        assert await app.query("admin/users:remove") is None
        assert await app.query(duly.api.admin.users.remove) is None
        assert await app.query(duly.internal.shop.front) is None


async def test_a_package_within_a_package_is_an_app_by_itself(code: Code) -> None:
    code.write(
        {
            "outer/__init__.py": function("no"),
            "outer/inner/__init__.py": function("a"),
            "outer/inner/m.py": function("b"),
        }
    )
    assert await paths_of("outer.inner") == ["inner:a", "m:b"]


async def test_a_function_counts_where_it_is_defined_under_its_own_name(code: Code) -> None:
    code.write(
        {
            "names/__init__.py": "from names.one import first\nfrom names.two import again",
            "names/one.py": function("first") + "alias = first\n",
            "names/two.py": "from names.one import first as renamed\n" + function("again"),
        }
    )
    assert await paths_of("names") == ["one:first", "two:again"]


async def test_two_functions_of_one_path_are_refused(code: Code) -> None:
    code.write(
        {
            "twice/__init__.py": function("same"),
            "twice/twice.py": function("same"),
            "factory.py": """
                def make():
                    @duly.query
                    async def made(ctx: duly.QueryCtx) -> None: ...
                    return made
                one, two = make(), make()
            """,
        }
    )
    with pytest.raises(TypeError, match="two functions have the path 'twice:same'"):
        await paths_of("twice")
    with pytest.raises(TypeError, match="two functions have the path 'factory:made'"):
        await paths_of("factory")


async def test_two_tables_of_one_name_are_refused(code: Code) -> None:
    code.write(
        {
            "tables/__init__.py": "notes = duly.Table('notes')",
            "tables/other.py": "notes = duly.Table('notes')",
            "shared/__init__.py": "notes = duly.Table('notes')\nalso = notes",
            "shared/other.py": "from shared import notes",
        }
    )
    with pytest.raises(SchemaError, match="two tables have the name 'notes'"):
        await paths_of("tables")
    assert await paths_of("shared") == []


async def test_what_importing_a_module_raises_is_raised(code: Code) -> None:
    code.write(
        {
            "broken/__init__.py": "",
            "broken/fine.py": function("fine"),
            "broken/wrong.py": "1 / 0",
            "missing/__init__.py": "",
            "missing/sub/__init__.py": "import no_such_module_anywhere",
            "typo/__init__.py": "",
            "typo/bad.py": "def (",
        }
    )
    with pytest.raises(ZeroDivisionError):
        await paths_of("broken")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        await paths_of("missing")
    with pytest.raises(SyntaxError):
        await paths_of("typo")
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        await paths_of("nowhere_at_all")


async def test_an_app_that_failed_to_load_can_be_opened_once_the_code_is_right(code: Code) -> None:
    code.write({"mended/__init__.py": function("one"), "mended/late.py": "1 / 0"})
    app = duly.App("mended", database=MEMORY)
    with pytest.raises(ZeroDivisionError):
        async with app.client():
            pass
    code.write({"mended/late.py": function("two_of_them")})
    async with app.client():
        assert sorted(app._registry.functions) == ["late:two_of_them", "mended:one"]


async def test_several_apps_over_one_package_just_work(code: Code) -> None:
    code.write({"common/__init__.py": function("a", 1), "common/m.py": function("b", 2)})
    async with duly.App("common", database=MEMORY).client() as one, duly.App("common", database=MEMORY).client() as two:
        for app in (one, two):
            assert await app.query("common:a") == 1
            assert await app.query("m:b") == 2
    async with one.client(), duly.App("common.m", database=MEMORY).client() as part:
        assert await one.query("m:b") == 2
        assert await part.query("m:b") == 2
        with pytest.raises(FunctionNotFoundError):
            await part.query("common:a")


# --- one file -------------------------------------------------------------------------------------------------------

HELLO = """
import asyncio
import duly

@duly.query
async def greet(ctx: duly.QueryCtx, name: str) -> str:
    return f"Hello {name}"

@duly.mutation
async def soon(ctx: duly.MutationCtx) -> str:
    return await ctx.scheduler.run_after(60_000, later)

@duly.internal_mutation
async def later(ctx: duly.MutationCtx) -> None: ...

@duly.query
async def name_of(ctx: duly.QueryCtx, id: str) -> str:
    return (await ctx.db.system.get(id))["name"]

app = duly.App(__name__, database="sqlite:///:memory:")

async def main() -> None:
    async with app.client():
        print(__name__, sorted(app._registry.functions))
        print(await app.query(greet, "Ann"), await app.query("hello:greet", name="Bob"))
        print(await app.query(name_of, await app.mutation(soon)))

if __name__ == "__main__":
    asyncio.run(main())
"""

EXPECTED = "['hello:greet', 'hello:later', 'hello:name_of', 'hello:soon']\nHello Ann Hello Bob\nhello:later\n"


@pytest.mark.parametrize("arguments", [["hello.py"], ["-m", "hello"], ["-m", "folder.hello"], ["folder/hello.py"]])
def test_one_file_has_the_same_paths_run_as_a_program(tmp_path: Path, arguments: list[str]) -> None:
    for folder in (tmp_path, tmp_path / "folder"):
        folder.mkdir(exist_ok=True)
        (folder / "hello.py").write_text(HELLO, "utf-8")
    assert run_python(arguments, tmp_path) == "__main__ " + EXPECTED


def test_one_file_has_the_same_paths_imported(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(HELLO, "utf-8")
    assert run_python(["-c", "import asyncio, hello; asyncio.run(hello.main())"], tmp_path) == "hello " + EXPECTED


def run_python(arguments: list[str], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DULY_", "COV"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- looking up -----------------------------------------------------------------------------------------------------


async def test_a_function_is_named_by_itself_by_its_path_or_lazily() -> None:
    async with duly.App(__name__, database=MEMORY).client() as app:
        lazy = duly.internal.test_registry.here
        for name in (here, "test_registry:here", lazy, duly.api.test_registry.here):
            assert await app.query(name) == "here"
        assert repr(lazy) == "duly.internal.test_registry.here"
        assert repr(here).endswith("test_registry:here>")


async def test_a_path_that_is_not_there_is_told_with_the_nearest() -> None:
    async with duly.App(__name__, database=MEMORY).client() as app:
        with pytest.raises(FunctionNotFoundError, match="did you mean test_registry:here") as caught:
            await app.query("test_registry:hera")
        assert caught.value.path == "test_registry:hera"
        assert caught.value.nearest == ("test_registry:here",)
        with pytest.raises(FunctionNotFoundError, match="'module:function'") as caught:
            await app.query("zzz")
        assert caught.value.nearest == ()
        with pytest.raises(FunctionNotFoundError, match="other/part:here"):
            await app.query(duly.api.other.part.here)


async def test_what_names_no_function_is_a_type_error() -> None:
    async with duly.App(__name__, database=MEMORY).client() as app:

        async def plain(ctx: duly.QueryCtx) -> None: ...

        wrong: list[Any] = [7, None, plain, print, duly.Table("x")]
        for target in wrong:
            with pytest.raises(TypeError, match=r"decorate it with @duly\.mutation"):
                await app.query(target)
        with pytest.raises(TypeError, match="names no function"):
            await app.query(duly.api.alone)


async def test_a_function_that_is_no_part_of_the_app_is_told_why(code: Code) -> None:
    @duly.query
    async def local(ctx: duly.QueryCtx) -> None: ...

    code.write({"elsewhere.py": function("stranger")})
    stranger = importlib.import_module("elsewhere").stranger
    async with duly.App(__name__, database=MEMORY).client() as app:
        with pytest.raises(FunctionNotFoundError, match="at the top level of its module"):
            await app.query(local)
        with pytest.raises(FunctionNotFoundError, match="this function is in 'elsewhere'"):
            await app.query(stranger)


def test_calling_a_reference_says_what_to_do_instead() -> None:
    reference: Any = here
    with pytest.raises(TypeError, match=r"await ctx\.run_query\(here, …\)"):
        reference()
    lazy: Any = duly.internal.orders.create
    with pytest.raises(TypeError, match="pass it to run_after"):
        lazy()


def test_a_lazy_reference_is_no_source_of_other_attributes() -> None:
    assert not hasattr(duly.internal.orders, "__len__")
    assert not hasattr(duly.api, "__wrapped_by_nobody__")


# --- what can be a function -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("()", "takes no ctx"),
        ("(ctx, *args: int)", r"parameter \*args: int can't be passed by name"),
        ("(ctx, **kwargs: int)", r"parameter \*\*kwargs: int can't be passed by name"),
        ("(ctx, a: int, /)", "parameter a: int can't be passed by name"),
        ("(ctx, a: 'NoSuchType')", "'NoSuchType' is not known at run time"),
        ("(ctx) -> 'NoSuchType'", "'NoSuchType' is not known at run time"),
        ("(ctx, a: object.__class__.__mro__)", "can't be validated"),
        ("(ctx, a: Opaque)", "Unable to generate pydantic-core schema"),
        ("(ctx) -> list[Opaque]", "Unable to generate pydantic-core schema"),
    ],
)
async def test_a_function_that_can_not_be_called_by_name_is_refused(code: Code, signature: str, message: str) -> None:
    name = f"odd_{abs(hash(signature))}"
    code.write({f"{name}.py": f"class Opaque: ...\n@duly.mutation\nasync def f{signature}: ...\n"})
    with pytest.raises(TypeError, match=message) as caught:
        await paths_of(name)
    assert f"{name}:f" in str(caught.value)


async def test_annotations_may_be_text(code: Code) -> None:
    code.write(
        {
            "later.py": """
                from typing import TypedDict

                @duly.query
                async def f(ctx: "duly.QueryCtx", order: "Order", count: "int" = 1) -> "list[Order]":
                    return [order] * count

                class Order(TypedDict):
                    items: "list[str]"
            """
        }
    )
    async with duly.App("later", database=MEMORY).client() as app:
        assert await app.query("later:f", {"items": ["tea"]}, count="2") == [{"items": ["tea"]}] * 2


def test_decorators_take_the_functions_that_fit() -> None:
    def plain(ctx: Any) -> None: ...

    async def generator(ctx: Any) -> Any:
        yield 1

    decorators: dict[str, Any] = {
        "query": duly.query,
        "mutation": duly.mutation,
        "internal_query": duly.internal_query,
        "internal_mutation": duly.internal_mutation,
    }
    for decorate in decorators.values():
        for wrong in (plain, generator):
            with pytest.raises(TypeError, match="must be 'async def'"):
                decorate(wrong)
    decorators |= {"action": duly.action, "internal_action": duly.internal_action}
    nothings: list[Any] = [7, "f", print, here, object]
    for decorate in decorators.values():
        for wrong in nothings:
            with pytest.raises(TypeError, match="goes on a function"):
                decorate(wrong)
    with pytest.raises(TypeError, match="must be 'async def'"):
        decorators["action"](generator)
    assert duly.action(plain).handler.is_async is False


@pytest.mark.parametrize(
    ("timeout", "error"), [(5, TypeError), ("5", TypeError), (timedelta(0), ValueError), (timedelta(-1), ValueError)]
)
def test_the_timeout_of_an_action_is_a_positive_timedelta(timeout: Any, error: type[Exception]) -> None:
    for decorate in (duly.action, duly.internal_action):
        with pytest.raises(error, match="timeout"):
            decorate(timeout=timeout)


def test_a_decorated_function_keeps_its_name_and_docstring() -> None:
    @duly.action(timeout=timedelta(seconds=3))
    async def documented(ctx: duly.ActionCtx) -> None:
        """What it does."""

    assert documented.name == "documented"
    assert documented.__doc__ == "What it does."
    assert documented.handler.timeout == timedelta(seconds=3)


# --- the app --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"concurrent_actions": 0}, ValueError),
        ({"concurrent_actions": -1}, ValueError),
        ({"concurrent_actions": True}, TypeError),
        ({"concurrent_actions": 1.5}, TypeError),
        ({"concurrent_actions": "64"}, TypeError),
        *(
            ({name: value}, error)
            for name in ("retention", "action_timeout", "mutation_timeout", "lease", "drain")
            for value, error in (
                (5, TypeError),
                (None, TypeError),
                ("7 days", TypeError),
                (timedelta(seconds=-1), ValueError),
                (timedelta(0), ValueError),
            )
            if (name, value) != ("drain", timedelta(0))  # not to wait at all is fine
        ),
        ({"database": 7}, TypeError),
        ({"database": Path("shop.db")}, TypeError),
        ({"colour": "red"}, TypeError),
    ],
    ids=str,
)
def test_an_option_that_will_not_do_is_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        duly.App(__name__, **options)


def test_options_that_will_do_are_taken() -> None:
    second = timedelta(seconds=1)
    duly.App(
        __name__,
        retention=second,
        concurrent_actions=1,
        action_timeout=second,
        mutation_timeout=second,
        lease=second,
        drain=timedelta(0),
    )


@pytest.mark.parametrize("name", [None, 7, sys, b"shop"])
def test_the_name_of_an_app_is_text(name: Any) -> None:
    with pytest.raises(TypeError, match="__name__"):
        duly.App(name)


def test_the_database_is_given_or_of_the_environment_or_a_file_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DULY_DATABASE_URL", raising=False)
    app = duly.App(__name__)
    assert app.database == "sqlite:///duly.db"
    monkeypatch.setenv("DULY_DATABASE_URL", "sqlite:///other.db")
    assert app.database == "sqlite:///other.db"
    assert duly.App(__name__, database="sqlite:///mine.db").database == "sqlite:///mine.db"
    assert repr(app) == f"<duly.App {__name__!r} on sqlite:///other.db>"


@pytest.mark.parametrize(
    "url",
    ["shop.db", "sqlite:shop.db", "sqlite://shop.db", "sqlite:///", "mysql://host/db", " "],
)
async def test_a_database_url_of_another_form_is_refused_with_the_forms_there_are(url: str) -> None:
    with pytest.raises(StoreError, match=r"sqlite:///shop\.db"):
        async with duly.App(__name__, database=url).client():
            pass


async def test_an_app_that_is_not_open_says_so() -> None:
    app = duly.App(__name__, database=MEMORY)
    for _ in range(2):
        with pytest.raises(AppNotOpenError):
            await app.query(here)
        with pytest.raises(AppNotOpenError):
            await app.mutation("x:y")
        with pytest.raises(AppNotOpenError):
            await app.action("x:y")
        with pytest.raises(AppNotOpenError):
            await app.scheduler.run_after(0, "x:y")
        async with app:
            assert await app.query(here) == "here"


async def test_an_app_is_opened_once_at_a_time() -> None:
    app = duly.App(__name__, database=MEMORY)
    async with app:
        for opening in (app, app.client()):
            with pytest.raises(DulyError, match="is open already"):
                async with opening:
                    pass
        assert await app.query(here) == "here", "and it is not closed by that"
    async with app.client():
        assert await app.query(here) == "here"


def test_an_app_may_be_opened_in_one_event_loop_after_another(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)

    async def once() -> object:
        async with app:
            return await app.query(here)

    assert [asyncio.run(once()) for _ in range(2)] == ["here", "here"]


def test_the_public_interface_is_what_the_design_names() -> None:
    names: list[str] = [
        *("query", "mutation", "action", "internal_query", "internal_mutation", "internal_action"),
        *(
            "QueryCtx",
            "MutationCtx",
            "ActionCtx",
            "SyncActionCtx",
            "FunctionReference",
            "Scheduler",
            "ScheduledFunction",
        ),
        *("App", "Table", "Id", "Int64", "Page", "UNSET", "id_of", "created_at", "gt", "gte", "lt", "lte"),
        *("api", "internal", "errors", "AppError", "DulyError"),
    ]
    assert set(names) <= set(duly.__all__)
    errors = [getattr(duly.errors, name) for name in duly.errors.__all__]
    assert all(issubclass(error, DulyError) for error in errors)


def test_a_lazy_reference_may_name_a_module_or_function_called_path() -> None:
    internal: Any = duly.internal
    assert path_of(internal.files.path) == "files:path"
    assert path_of(internal.path.name) == "path:name"
    assert path_of(internal.admin.handler.module) == "admin/handler:module"
    with pytest.raises(TypeError, match="names no function"):
        path_of(internal.emails)


async def test_what_is_often_looked_for_in_the_wrong_place_is_explained() -> None:
    """The common mistakes of the first hour: an AttributeError that says what to do instead."""
    app = duly.App(__name__, database=MEMORY)
    async with app.client():
        for function, hint in (
            (wrongly_schedules, "a query only reads; schedule"),
            (wrongly_writes, "make it a"),
        ):
            with pytest.raises(AttributeError, match=hint):
                await app.query(function)
        with pytest.raises(AttributeError, match=r"read with ctx\.run_query"):
            await app.action(wrongly_reads)
        with pytest.raises(TypeError, match=r"async for.*collect\(\)"):
            await app.query(wrongly_iterates)
    with pytest.raises(SchemaError, match=r"are a list: \['status'\]"):
        duly.Table("t", indexes={"by_status": "status"})


@duly.query
async def wrongly_schedules(ctx: Any) -> None:
    await ctx.scheduler.run_after(0, wrongly_reads)


@duly.query
async def wrongly_writes(ctx: Any) -> None:
    await ctx.db.insert("t", {})


@duly.action
async def wrongly_reads(ctx: Any) -> None:
    await ctx.db.get("x")


@duly.query
async def wrongly_iterates(ctx: Any) -> None:
    for _ in ctx.db.query("t"):
        pass


def test_threads_load_an_app_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    collect = Registry._collect

    def slowly(registry: Registry) -> None:
        time.sleep(0.05)
        collect(registry)
        loaded.append("loaded")

    monkeypatch.setattr(Registry, "_collect", slowly)
    registry = Registry(__name__)
    threads = [threading.Thread(target=registry.load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["loaded"]
    assert "test_registry:here" in registry.functions
