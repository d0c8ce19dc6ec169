"""`duly jobs`, `duly show` and `duly cancel`."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.commands import Duly
from tests.cli.project import SHOP


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose worker has run some functions: one works, one breaks, two are still to come."""
    duly = Duly(tmp_path_factory.mktemp("past"))
    for name, text in SHOP.items():
        duly.write(name, text)
    try:
        for path in ("jobs:works", "jobs:breaks"):
            assert duly("run", "jobs", "jobs:schedule", f'{{"path": "{path}"}}').code == 0
        worker = duly.start("worker", "jobs")
        worker.until("jobs:breaks failed: ValueError: this one always breaks")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
        later = '{"path": "jobs:works", "count": 2, "delay_ms": 604800000}'
        assert duly("run", "jobs", "jobs:schedule", later).code == 0
    finally:
        duly.end()
    return duly.folder


@pytest.fixture
def with_jobs(past: Path, tmp_path: Path) -> Duly:
    """The command in a copy of that project."""
    return Duly(Path(shutil.copytree(past, tmp_path / "project")))


def test_jobs_lists_newest_first_with_reasons(with_jobs: Duly) -> None:
    result = with_jobs("jobs", "jobs", columns=80)
    assert result.code == 0, result
    header, *rows = result.out.splitlines()
    assert header.split() == ["id", "function", "state", "scheduled", "for", "attempts"]
    assert [row.split()[1:4] for row in rows[:3]] == [
        ["jobs:works", "·", "pending"],
        ["jobs:works", "·", "pending"],
        ["jobs:breaks", "✗", "failed"],
    ]
    assert "in 7 days · " in rows[0]
    assert rows[3].strip() == "└ ValueError: this one always breaks"
    assert rows[4].split()[1:4] == ["jobs:works", "✓", "success"]
    assert rows[-1] == "4 scheduled functions"
    assert max(map(len, [header, *rows])) <= 80


def test_jobs_shows_whole_ids_where_there_is_room(with_jobs: Duly) -> None:
    newest = with_jobs("jobs", "jobs", "--json").json_lines[0]["_id"]
    assert newest in with_jobs("jobs", "jobs", columns=120).out
    narrow = with_jobs("jobs", "jobs", columns=80).out
    assert newest not in narrow
    assert newest[-8:] in narrow


def test_jobs_writes_a_line_of_json_for_each(with_jobs: Duly) -> None:
    documents = with_jobs("jobs", "jobs", "--json").json_lines
    assert [document["state"]["kind"] for document in documents] == ["pending", "pending", "failed", "success"]
    failed = documents[2]
    assert failed["name"] == "jobs:breaks"
    assert failed["args"] == [{}]
    assert failed["attempts"] == 1
    assert failed["state"]["error"].startswith("ValueError: this one always breaks\n")


def test_jobs_filters_by_state_and_name_up_to_a_limit(with_jobs: Duly) -> None:
    def names(*options: str) -> list[str]:
        return [document["name"] for document in with_jobs("jobs", "jobs", "--json", *options).json_lines]

    assert names("--state", "failed") == ["jobs:breaks"]
    assert names("--state", "PENDING") == ["jobs:works"] * 2
    assert names("--name", "jobs:br") == ["jobs:breaks"]
    assert names("--name", "jobs:", "--limit", "3") == ["jobs:works", "jobs:works", "jobs:breaks"]
    assert names("--state", "success", "--name", "jobs:breaks") == []
    assert names("--state", "inProgress") == []
    assert "there are more: --limit" in with_jobs("jobs", "jobs", "--limit", "2").out


def test_jobs_says_when_there_are_none(shop: Duly) -> None:
    missing = shop("jobs", "jobs")
    assert missing.code == 1
    assert "error: there is no database" in missing.err
    assert not list(shop.folder.glob("*.db*")), "who only looks makes none"
    shop.write("jobs.db", "")
    assert shop("jobs", "jobs").out == "no scheduled functions\n"
    assert shop("jobs", "jobs", "--state", "failed").out == "none: no scheduled function matches\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--state", "done"], "'done' is no state; they are: pending, inProgress, success, failed, canceled"),
        (["--json", "--watch"], "--json and --watch don't go together"),
        (["--limit", "0"], "--limit"),
        (["--limit", "many"], "--limit"),
    ],
)
def test_jobs_refuses_options_that_make_no_sense(shop: Duly, options: list[str], message: str) -> None:
    result = shop("jobs", "jobs", *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_jobs_watches_until_it_is_interrupted(shop: Duly) -> None:
    shop.write("jobs.db", "")
    watch = shop.start("jobs", "jobs", "--watch")
    watch.until("no scheduled functions")
    assert shop("run", "jobs", "jobs:schedule", '{"path": "jobs:works"}').code == 0
    assert "jobs:works" in watch.until("pending")
    watch.signal(signal.SIGINT)
    assert watch.ended() == 0, watch.lines


def test_show_tells_everything_of_a_job_by_the_end_of_its_id(with_jobs: Duly) -> None:
    (document,) = with_jobs("jobs", "jobs", "--state", "failed", "--json").json_lines
    result = with_jobs("show", "jobs", document["_id"][-8:])
    assert result.code == 0, result
    assert result.out.startswith("jobs:breaks  ✗ failed\n")
    for fact in (document["_id"], "kind           mutation", "attempts       1", "scheduled for  20", ", took "):
        assert fact in result.out
    assert "    ValueError: this one always breaks\n    for a reason of two lines\n" in result.out
    assert "jobs.py" in result.out
    assert with_jobs("show", "jobs", document["_id"], "--json").json == document


def test_show_and_cancel_say_when_there_is_no_such_job(with_jobs: Duly) -> None:
    (document,) = with_jobs("jobs", "jobs", "--state", "failed", "--json").json_lines
    order_id = with_jobs("run", "shop", "orders:create_order", '{"items": ["tea"]}').json
    for command in ("show", "cancel"):
        missing = with_jobs(command, "shop", document["_id"])
        assert (missing.code, missing.out) == (1, "")
        assert f"there is no scheduled function {document['_id']}" in missing.err
        last = "1" if document["_id"].endswith("0") else "0"
        mistyped = with_jobs(command, "jobs", document["_id"][:-1] + last)
        assert mistyped.code == 2, mistyped
        assert "mistyped" in mistyped.err
        other = with_jobs(command, "shop", order_id)
        assert other.code == 2
        assert "is the id of a document" in other.err


def test_cancel_cancels_what_is_pending_and_says_so(with_jobs: Duly) -> None:
    first, second = with_jobs("jobs", "jobs", "--state", "pending", "--json").json_lines
    canceled = with_jobs("cancel", "jobs", first["_id"])
    assert (canceled.code, canceled.out) == (0, f"jobs:works ({first['_id']}) canceled\n")
    again = with_jobs("cancel", "jobs", first["_id"])
    assert (again.code, again.out) == (0, f"jobs:works ({first['_id']}) was canceled already\n")
    by_its_end = with_jobs("cancel", "jobs", second["_id"][-8:])
    assert by_its_end.code == 0
    assert with_jobs("jobs", "jobs", "--state", "pending", "--json").out == ""


def test_cancel_of_what_has_finished_fails_unless_that_is_fine(with_jobs: Duly) -> None:
    (document,) = with_jobs("jobs", "jobs", "--state", "success", "--json").json_lines
    refused = with_jobs("cancel", "jobs", document["_id"])
    assert (refused.code, refused.out) == (1, "")
    assert "has already finished (success)" in refused.err
    assert "--missing-ok" in refused.err
    fine = with_jobs("cancel", "jobs", document["_id"], "--missing-ok")
    assert fine.code == 0, fine
    assert "nothing to cancel" in fine.out
    with_jobs.write("shop.db", "")
    missing = with_jobs("cancel", "shop", document["_id"], "--missing-ok")
    assert missing.code == 0, missing
