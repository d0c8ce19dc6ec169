"""`docs/guarantees.md` promises nothing that no test proves."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")

RULES = [
    *(f"S{number}" for number in range(1, 12)),
    *(f"M{number}" for number in range(1, 4)),
    *(f"{letter}{number}" for letter in "ACT" for number in range(1, 5)),
]

CITATION = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def names_in(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    }


def test_every_test_that_the_page_names_exists() -> None:
    cited = CITATION.findall(PAGE)
    assert cited
    missing = [f"{path}::{test}" for path, test in cited if not is_there(ROOT / path, test)]
    assert not missing


def is_there(file: Path, test: str) -> bool:
    return file.is_file() and test in names_in(file)


def test_every_test_that_the_page_names_is_named_as_a_citation() -> None:
    assert len(re.findall(r"\w+\.py::", PAGE)) == len(CITATION.findall(PAGE))


def test_every_rule_is_on_the_page_with_a_test_named_after_it() -> None:
    paragraphs = PAGE.split("\n\n")
    for rule in RULES:
        (paragraph,) = [text for text in paragraphs if text.startswith(f"**{rule}** ")]
        assert any(test.startswith(f"test_{rule}_") for _, test in CITATION.findall(paragraph)), rule


def test_every_rule_has_a_test_named_after_it() -> None:
    names = {test for file in (ROOT / "tests").rglob("test_*.py") for test in names_in(file)}
    assert not [rule for rule in RULES if not any(name.startswith(f"test_{rule}_") for name in names)]


def test_every_promise_and_every_row_of_the_failure_matrix_names_a_test() -> None:
    promises, _, rest = PAGE.partition("## Scheduling\n")[2].partition("## If the process dies here\n")
    matrix = rest.partition("## What is not guaranteed\n")[0]
    assert matrix
    paragraphs = [text for text in promises.split("\n\n") if text.strip() and not text.strip().startswith("## ")]
    rows = [
        line for line in matrix.splitlines() if line.startswith("| ") and not re.match(r"\| (?:---|here|this)", line)
    ]
    assert len(rows) > 15
    assert not [text for text in (*paragraphs, *rows) if not CITATION.search(text)]
