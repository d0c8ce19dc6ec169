"""`duly check`: what is pending, and can't be run by this code."""

import sqlite3
from functools import reduce

import pytest

from tests.cli.commands import Duly

OLD = """\
import duly

app = duly.App(__name__, database="sqlite:///jobs.db")
notes = duly.Table("notes")


@duly.mutation
async def schedule(ctx: duly.MutationCtx, path: str, count: int = 1, delay_ms: float = 604_800_000) -> None:
    for number in range(count):
        await ctx.scheduler.run_after(delay_ms, path, number=number, text="x" * 2_000 if number == 1 else "")


@duly.mutation
async def note(ctx: duly.MutationCtx, number: int, text: str) -> None:
    pass


@duly.action
async def mail(ctx: duly.ActionCtx, number: int, text: str) -> None:
    pass


@duly.mutation
async def stays(ctx: duly.MutationCtx, number: int, text: str) -> None:
    pass
"""

GONE = """

@duly.action
async def gone(ctx: duly.ActionCtx, number: int, text: str) -> None:
    pass
"""

CHANGES = {
    "note(ctx: duly.MutationCtx, number: int,": "note(ctx: duly.MutationCtx, number: int, cups: int,",
    "@duly.action\nasync def mail(ctx: duly.ActionCtx": "@duly.query\nasync def mail(ctx: duly.QueryCtx",
    'notes = duly.Table("notes")': 'notes = duly.Table("notes", indexes={"by_n": ["n"]})',
}

NEW = reduce(lambda text, change: text.replace(*change), CHANGES.items(), OLD)


@pytest.fixture
def deployed(duly: Duly) -> Duly:
    """A project with a job of each function, one of which a later version lacks."""
    duly.write("jobs.py", OLD + GONE)
    for path in ("jobs:note", "jobs:mail", "jobs:gone", "jobs:stays"):
        assert duly("run", "jobs", "jobs:schedule", f'{{"path": "{path}", "count": 2}}').code == 0
    return duly


def test_check_is_content_when_this_code_can_run_all(deployed: Duly) -> None:
    result = deployed("check", "jobs")
    assert (result.code, result.out, result.err) == (0, "this code can run all 8 pending functions\n", "")


def test_check_lists_what_this_code_can_not_run_and_why(deployed: Duly) -> None:
    deployed.write("jobs.py", NEW)
    result = deployed("check", "jobs", columns=200)
    assert result.code == 1
    header, *lines = result.out.splitlines()
    assert header.split() == ["id", "function", "state", "scheduled", "for", "attempts"]
    rows, reasons = lines[0:12:2], [line.strip() for line in lines[1:12:2]]
    assert [row.split()[1] for row in rows] == ["jobs:gone"] * 2 + ["jobs:mail"] * 2 + ["jobs:note"] * 2
    assert reasons[0] == "└ this code has no such function"
    assert reasons[2].startswith("└ NotSchedulableError: 'jobs:mail' is a query and can't be scheduled")
    assert reasons[4].startswith("└ ArgumentError: the arguments don't fit 'jobs:note': cups: is missing")
    assert all("pending  in 7 days" in row for row in rows), rows
    assert lines[-1] == "6 of 8 pending functions can't be run by this code"
    ids = {document["_id"] for document in deployed("jobs", "jobs", "--json").json_lines}
    assert {row.split()[0] for row in rows} <= ids


def test_check_only_looks(deployed: Duly) -> None:
    """Neither the jobs change, nor are the indexes made that the new code declares."""

    def dump() -> list[str]:
        with sqlite3.connect(deployed.folder / "jobs.db") as connection:
            return list(connection.iterdump())

    deployed.write("jobs.py", NEW)
    before = dump()
    assert deployed("check", "jobs").code == 1
    assert dump() == before
    assert not list(deployed.folder.glob("*-workers"))


def test_check_prints_some_and_counts_the_rest(deployed: Duly) -> None:
    assert deployed("run", "jobs", "jobs:schedule", '{"path": "jobs:note", "count": 200}').code == 0
    deployed.write("jobs.py", NEW)
    result = deployed("check", "jobs")
    assert result.code == 1
    assert result.out.count("jobs:note") <= 2 * 50
    assert result.out.splitlines()[-1] == (
        "206 of 208 pending functions can't be run by this code; the newest 50 are shown, 156 more are not"
    )


def test_check_looks_at_pending_functions_only(deployed: Duly) -> None:
    for document in deployed("jobs", "jobs", "--json").json_lines:
        assert deployed("cancel", "jobs", document["_id"]).code == 0
    deployed.write("jobs.py", NEW)
    result = deployed("check", "jobs")
    assert (result.code, result.out) == (0, "nothing is pending\n")


def test_check_makes_no_database(duly: Duly) -> None:
    duly.write("jobs.py", OLD)
    missing = duly("check", "jobs")
    assert (missing.code, missing.out) == (1, "")
    assert "error: there is no database" in missing.err
    assert not list(duly.folder.glob("*.db*"))
