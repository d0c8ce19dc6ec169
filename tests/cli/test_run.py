"""`duly run`: the call, its result, and its errors."""

import json

import pytest

from tests.cli.commands import Duly


def test_run_prints_the_result_as_json(shop: Duly) -> None:
    created = shop("run", "shop:app", "orders:create_order", '{"items": ["tea"]}')
    assert created.code == 0, created
    order_id = created.json
    found = shop("run", "shop:app", "orders:get_order", json.dumps({"order_id": order_id}))
    assert found.json["_id"] == order_id
    assert found.json["items"] == ["tea"]


def test_run_converts_arguments_and_results_by_their_annotations(shop: Duly) -> None:
    arguments = {"lines": [{"item": "tea", "count": 2}, {"item": "cup", "count": 1}], "at": "2026-05-11T14:03:07Z"}
    result = shop("run", "shop", "orders:count_lines", json.dumps(arguments))
    assert result.json["count"] == 3
    assert result.json["at"].startswith("2026-05-11T14:03:07")
    assert result.json["lines"][0] == {"item": "tea", "count": 2}


def test_run_writes_what_json_lacks_as_it_is_stored(shop: Duly) -> None:
    result = shop("run", "shop", "orders:odd_values")
    assert result.json == {
        "bytes": {"$bytes": "aGk="},
        "nan": {"$float": "NaN"},
        "tuple": [1, 2],
        "big": 2**70,
        "text": "tea ☕",
    }


def test_run_reads_what_it_writes_and_from_stdin(shop: Duly) -> None:
    result = shop("run", "shop", "orders:echo", "-", stdin='{"value": {"raw": {"$bytes": "aGk="}}}')
    assert result.json == {"raw": {"$bytes": "aGk="}}


def test_run_says_when_a_result_is_no_json(shop: Duly) -> None:
    result = shop("run", "shop", "orders:no_json")
    assert (result.code, result.out) == (1, "")
    assert "orders:no_json ran, but what it returned is no JSON" in result.err
    assert "Traceback" not in result.err


def test_run_shows_what_the_function_raised_with_the_users_frames_only(shop: Duly) -> None:
    result = shop("run", "shop", "orders:create_order", '{"items": []}')
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: orders:create_order failed\n")
    assert "ValueError: an order needs items" in result.err
    assert 'File "shop/orders.py", line' in result.err
    assert result.err.count("File ") == 1


def test_run_calls_actions(shop: Duly) -> None:
    result = shop("run", "shop", "orders:fail", '{"why": "no such order"}')
    assert result.code == 1
    assert "LookupError: no such order" in result.err


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("orders:creat_order", "did you mean orders:create_order"),
        ("create_order", "orders:create_order"),
        ("zzz", "its functions are: "),
    ],
)
def test_run_names_the_nearest_functions(shop: Duly, path: str, hint: str) -> None:
    result = shop("run", "shop", path)
    assert (result.code, result.out) == (2, "")
    assert f"there is no function '{path}' in this app" in result.err
    assert hint in result.err


def test_run_says_that_an_app_has_no_functions(duly: Duly) -> None:
    duly.write("bare.py", "import duly\n\napp = duly.App(__name__)\n")
    result = duly("run", "bare", "bare:nothing")
    assert result.code == 2
    assert "it has no functions at all" in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"items": [tea]}', "line 1, column 12"),
        ('{\n  "items": ["tea"\n}', "line 3, column"),
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ('["tea"]', "the arguments are a JSON object, not a list"),
        ('"tea"', "not a string"),
        ("3", "not a number"),
        ("null", "not null"),
        ('{"items": {"$float": "NaNaN"}}', "can't be read"),
    ],
)
def test_run_says_what_is_wrong_with_the_json(shop: Duly, text: str, message: str) -> None:
    result = shop("run", "shop", "orders:create_order", "-", stdin=text)
    assert (result.code, result.out) == (2, ""), result
    assert message in result.err
    assert "Traceback" not in result.err


def test_run_points_at_the_place_in_the_json(shop: Duly) -> None:
    text = '{"items": ["' + "x" * 200 + '", tea]}'
    result = shop("run", "shop", "orders:create_order", text)
    lines = result.err.splitlines()
    caret = next(line for line in lines if line.strip() == "^")
    code = lines[lines.index(caret) - 1]
    assert code[caret.index("^") :].startswith("tea")


def test_run_lists_every_argument_that_does_not_validate(shop: Duly) -> None:
    result = shop("run", "shop", "orders:create_order", '{"items": 3, "price": 1}')
    assert (result.code, result.out) == (2, "")
    assert "the arguments don't fit orders:create_order" in result.err
    assert "\n  items: input should be a valid " in result.err
    assert "\n  price: is not expected\n" in result.err
    assert "orders:create_order takes items, [note]" in result.err


def test_run_says_which_argument_is_missing(shop: Duly) -> None:
    result = shop("run", "shop", "orders:create_order")
    assert result.code == 2
    assert "items: is missing" in result.err
