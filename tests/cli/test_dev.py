"""`duly dev`: what it shows, and how it reloads."""

import os
import signal

from tests.cli.commands import Duly, Running

HELLO = """\
import duly

app = duly.App(__name__, database="sqlite:///hello.db")


@duly.mutation
async def greet(ctx: duly.MutationCtx) -> None:
    await ctx.scheduler.run_after(0, answer)
    await ctx.scheduler.run_after(3_600_000, answer)


@duly.action
async def answer(ctx: duly.ActionCtx) -> None:
    print("VERSION 1")
"""

BEGIN = """

@duly.mutation
async def begin(ctx: duly.MutationCtx) -> None:
    await ctx.scheduler.run_after(0, greet)
"""


def started(duly: Duly, *arguments: str) -> Running:
    running = duly.start("dev", *arguments)
    running.until("Ctrl-C stops")
    return running


def schedule(duly: Duly, path: str) -> None:
    assert duly("run", "jobs", "jobs:schedule", f'{{"path": "{path}"}}').code == 0


def test_dev_opens_with_the_app_its_database_and_its_functions(shop: Duly) -> None:
    dev = started(shop, "jobs")
    header = "\n".join(dev.lines)
    assert "jobs:app" in header
    assert "sqlite:///jobs.db" in header
    assert "jobs:waits" in header
    assert "action" in header


def test_dev_shows_what_is_scheduled_starts_ends_and_fails(duly: Duly) -> None:
    duly.write("hello.py", HELLO)
    dev = started(duly, "hello")
    assert duly("run", "hello", "hello:greet").code == 0  # another process, of whose commits dev hears all the same
    assert "hello:answer" in dev.until("+ scheduled")
    assert "hello:answer" in dev.until("▶ started")
    dev.until("VERSION 1")
    assert "hello:answer" in dev.until("✓ success")
    assert "hello:answer  in 1 h · " in dev.until("+ scheduled")
    dev.signal(signal.SIGTERM)
    assert dev.ended() == 0, dev.lines
    assert dev.lines[-1] == "stopped"


def test_dev_shows_what_a_scheduled_function_schedules(duly: Duly) -> None:
    duly.write("hello.py", HELLO + BEGIN)
    dev = started(duly, "hello")
    assert duly("run", "hello", "hello:begin").code == 0
    assert "hello:greet" in dev.until("✓ success")
    assert "hello:answer  now  " in dev.until("+ scheduled")
    assert "hello:answer  in 1 h · " in dev.until("+ scheduled")


def test_dev_shows_errors_with_the_users_frames(shop: Duly) -> None:
    dev = started(shop, "jobs")
    schedule(shop, "jobs:breaks")
    assert "jobs:breaks" in dev.until("✗ failed")
    dev.until("ValueError: this one always breaks")
    dev.until("in breaks")


def test_T3_a_mutation_that_waits_for_the_world_fails_in_dev(shop: Duly) -> None:
    dev = started(shop, "jobs")
    schedule(shop, "jobs:waits_for_the_world")
    dev.until("✗ failed")
    dev.until("MutationWaitError")


def test_dev_reloads_when_a_file_changes(duly: Duly) -> None:
    duly.write("hello.py", HELLO)
    dev = started(duly, "hello")
    duly.write("hello.py", HELLO.replace("VERSION 1", "VERSION 2"))
    dev.until("reloading: hello.py changed")
    dev.until("Ctrl-C stops")
    assert duly("run", "hello", "hello:greet").code == 0
    dev.until("VERSION 2")


def test_dev_shows_a_syntax_error_and_waits_for_the_next_change(duly: Duly) -> None:
    duly.write("hello.py", HELLO)
    dev = started(duly, "hello")
    duly.write("hello.py", HELLO + "def oops(:\n")
    dev.until("error: hello.py, line 15: ")
    dev.until("^")
    dev.until("waiting for a change")
    duly.write("hello.py", HELLO)
    dev.until("Ctrl-C stops")
    dev.signal(signal.SIGINT)
    assert dev.ended() == 0, dev.lines


def test_dev_stops_while_it_waits_for_a_change(duly: Duly) -> None:
    duly.write("hello.py", "oops(\n")
    dev = duly.start("dev", "hello")
    dev.until("waiting for a change")
    dev.signal(signal.SIGTERM)
    assert dev.ended() == 0, dev.lines


def test_dev_ends_at_once_when_there_is_no_such_app(duly: Duly) -> None:
    result = duly("dev", "nothing_here")
    assert result.code == 2
    assert "there is no module 'nothing_here'" in result.err


def test_A4_ctrl_c_lets_a_running_action_finish_though_the_app_hears_it_too(shop: Duly) -> None:
    dev = started(shop, "jobs")
    schedule(shop, "jobs:waits")
    dev.until("waiting")
    dev.press_ctrl_c()
    dev.until("stopping: takes nothing new and waits up to 30 s for a running action")
    (shop.folder / "go").touch()
    dev.until("✓ success")
    assert dev.ended() == 0, dev.lines


def test_A4_dev_stops_gracefully_and_at_once_when_asked_twice(shop: Duly) -> None:
    dev = started(shop, "jobs")
    schedule(shop, "jobs:waits")
    dev.until("waiting")
    dev.signal(signal.SIGINT)
    dev.until("stopping: takes nothing new and waits up to 30 s for a running action")
    dev.signal(signal.SIGINT)
    dev.until("stopped at once")
    assert dev.ended() == 128 + signal.SIGINT


def test_the_app_does_not_outlive_dev(shop: Duly) -> None:
    shop.write(
        "jobs.py", (shop.folder / "jobs.py").read_text() + "\nimport os\nPath('pid').write_text(str(os.getpid()))\n"
    )
    dev = started(shop, "jobs")
    child = int((shop.folder / "pid").read_text())
    assert child != dev.process.pid
    os.kill(dev.process.pid, signal.SIGKILL)
    # The pipe of its output is closed by the last of the two to end.
    dev.ended()
