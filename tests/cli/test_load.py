"""Naming an app, and every way in which that can go wrong."""

import pytest

from tests.cli.commands import Duly, Result


def assert_clear(result: Result) -> None:
    """One error, and none of duly's own frames."""
    assert result.err.startswith("error: "), result
    assert result.out == ""
    assert "duly/cli" not in result.err
    assert "duly/_call" not in result.err
    assert "frozen importlib" not in result.err


@pytest.mark.parametrize("reference", ["shop:app", "shop", "shop/__init__.py", "./shop:app", "shop/__init__.py:app"])
def test_an_app_is_named_by_module_or_by_file(shop: Duly, reference: str) -> None:
    result = shop("functions", reference)
    assert result.code == 0, result
    assert "orders:create_order       mutation           items, [note]\n" in result.out
    assert "emails:send_confirmation  internal action    order_id\n" in result.out


@pytest.mark.parametrize("reference", ["jobs", "jobs.py", "jobs:app", "jobs.py:app"])
def test_an_app_of_one_file_has_its_name_as_prefix(shop: Duly, reference: str) -> None:
    result = shop("run", reference, "jobs:works")
    assert (result.code, result.out) == (0, "null\n"), result


def test_the_version_is_told(duly: Duly) -> None:
    result = duly("--version")
    assert result.code == 0
    assert result.out.startswith("duly ")


def test_a_missing_module_is_named_with_where_it_was_looked_up(shop: Duly) -> None:
    result = shop("worker", "shpo:app")
    assert result.code == 2
    assert_clear(result)
    assert "there is no module 'shpo'" in result.err
    assert str(shop.folder.resolve()) in result.err
    assert "did you mean shop?" in result.err


def test_a_missing_submodule_is_told_from_a_missing_package(shop: Duly) -> None:
    result = shop("jobs", "shop.order:app")
    assert result.code == 2
    assert_clear(result)
    assert "there is no module 'shop.order'" in result.err
    assert "did you mean orders?" in result.err


def test_a_missing_file_is_named(shop: Duly) -> None:
    result = shop("jobs", "shop/order.py")
    assert result.code == 2
    assert_clear(result)
    assert "there is no file shop/order.py" in result.err
    assert "did you mean orders.py?" in result.err


def test_a_syntax_error_is_shown_with_its_line_and_a_caret(shop: Duly) -> None:
    shop.write("shop/broken.py", "import duly\n\n\nasync def create(ctx)\n    pass\n")
    result = shop("run", "shop:app", "orders:odd_values")
    assert result.code == 1
    assert_clear(result)
    assert "shop/broken.py, line 4: expected ':'" in result.err
    code, caret = [line for line in result.err.splitlines() if "│" in line]
    assert "4 │ async def create(ctx)" in code
    assert caret.index("^") == code.index("(ctx)") + len("(ctx)")


def test_what_importing_raises_is_shown_with_the_users_frames_only(shop: Duly) -> None:
    shop.write("shop/broken.py", "def read():\n    return {}['key']\n\n\nread()\n")
    result = shop("worker", "shop")
    assert result.code == 1
    assert_clear(result)
    assert "importing 'shop' failed" in result.err
    assert "KeyError: 'key'" in result.err
    assert 'File "shop/broken.py", line 2, in read' in result.err
    assert result.err.count("File ") == 2


def test_a_package_that_their_module_misses_is_told_from_the_module(shop: Duly) -> None:
    shop.write("shop/broken.py", "import not_installed_anywhere\n")
    result = shop("worker", "shop")
    assert result.code == 1
    assert_clear(result)
    assert "ModuleNotFoundError: No module named 'not_installed_anywhere'" in result.err
    assert 'File "shop/broken.py", line 1' in result.err


def test_a_function_that_duly_refuses_is_explained_without_a_traceback(shop: Duly) -> None:
    shop.write("shop/broken.py", "import duly\n\n\n@duly.query\nasync def q(ctx, *numbers: int) -> None: ...\n")
    result = shop("worker", "shop")
    assert result.code == 1
    assert_clear(result)
    assert "the app in 'shop' can't be used" in result.err
    assert "broken:q" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("shop:application", "has no attribute 'application'", "shop:app"),
        ("shop:duly", "shop:duly is no duly.App but of type 'module'", "shop:app"),
        ("shop.emails", "has no attribute 'app'", "app = duly.App(__name__)"),
        (":app", "':app' names no app", "module:attribute"),
        ("shop:not-a-name", "names no app", "module:attribute"),
        ("..shop", "is no module name", ""),
    ],
)
def test_what_is_no_app_is_said_to_be_none(shop: Duly, reference: str, message: str, hint: str) -> None:
    result = shop("jobs", reference)
    assert result.code == 2, result
    assert_clear(result)
    assert message in result.err
    assert hint in result.err


def test_the_database_option_overrides_the_apps(shop: Duly) -> None:
    result = shop("run", "shop", "orders:odd_values", "--database", "sqlite:///other.db")
    assert result.code == 0, result
    assert (shop.folder / "other.db").exists()
    assert not (shop.folder / "shop.db").exists()


def test_a_database_url_that_is_none_is_a_usage_error(shop: Duly) -> None:
    result = shop("jobs", "shop", "--database", "mysql://localhost/shop")
    assert result.code == 2
    assert_clear(result)
    assert "mysql://localhost/shop" in result.err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("shop.db", "sqlite:///shop.db"),
        ("/var/lib/shop.db", "sqlite:////var/lib/shop.db"),
        ("sqlite://shop.db", "sqlite:///shop.db"),
        (":memory:", "sqlite:///:memory:"),
    ],
)
def test_a_file_name_in_place_of_a_database_url_is_answered_with_the_url(shop: Duly, given: str, meant: str) -> None:
    result = shop("jobs", "shop", "--database", given)
    assert result.code == 2
    assert_clear(result)
    assert f"the database URL {given!r} is not understood; did you mean {meant}?\n" in result.err


@pytest.mark.parametrize("given", ["host=db dbname=shop", "sqlite:///", "mysql:shop", "/"])
def test_what_is_no_file_name_either_is_answered_with_the_forms_there_are(shop: Duly, given: str) -> None:
    result = shop("jobs", "shop", "--database", given)
    assert result.code == 2
    assert_clear(result)
    assert "did you mean" not in result.err
    assert "it is of the form sqlite:///shop.db (a file)" in result.err


@pytest.mark.parametrize("command", [["jobs", "shop"], ["worker", "shop"], ["run", "shop", "orders:odd_values"]])
def test_a_database_that_is_none_is_one_clear_error(shop: Duly, command: list[str]) -> None:
    shop.write("shop.db", "This is a text, and no database at all. " * 100)
    result = shop(*command)
    assert result.code == 1
    assert_clear(result)
    assert "is not a duly database" in result.err
    assert "Traceback" not in result.err
