"""`duly worker`: it runs what is due, and stops as it is asked to (rule A4)."""

import json
import re
import signal
import time

import httpx
import pytest

from tests.cli.commands import DEADLINE_S, Duly


def schedule(duly: Duly, path: str) -> None:
    assert duly("run", "jobs", "jobs:schedule", f'{{"path": "{path}"}}').code == 0


def states(duly: Duly) -> dict[str, str]:
    documents = duly("jobs", "jobs", "--json").json_lines
    return {document["name"]: document["state"]["kind"] for document in documents}


def test_the_worker_says_who_and_where_it_is(shop: Duly) -> None:
    worker = shop.start("worker", "jobs.py")
    line = worker.until("worker ")
    assert re.fullmatch(
        rf"worker [0-9a-f]{{24}} runs jobs:app on sqlite:///jobs\.db \(pid {worker.process.pid}\)", line
    )


def test_its_log_may_be_json_and_its_metrics_on_a_port(shop: Duly) -> None:
    worker = shop.start("worker", "jobs", "--metrics-port", "0", "--log-format", "json")
    url = worker.until("shows metrics on").split()[-1]
    worker.until("worker ")
    schedule(shop, "jobs:breaks")
    line = json.loads(worker.until("job_id"))
    assert (line["level"], line["function"]) == ("WARNING", "jobs:breaks")
    assert "Traceback" in line["error"]
    assert line["job_id"] in shop("jobs", "jobs", "--json").out
    page = httpx.get(url).text
    assert 'duly_calls_total{caller="scheduled",function="jobs:breaks",kind="mutation",outcome="failed"} 1.0' in page
    assert "duly_worker_running 1.0" in page
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0, worker.lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_A4_a_signal_lets_a_running_action_finish_and_takes_nothing_new(shop: Duly, number: signal.Signals) -> None:
    worker = shop.start("worker", "jobs")
    worker.until("worker ")
    schedule(shop, "jobs:waits")
    worker.until("waiting")
    worker.signal(number)
    worker.until("stopping: takes nothing new and waits up to 30 s for a running action; a second signal stops at once")
    schedule(shop, "jobs:works")
    (shop.folder / "go").touch()
    worker.until("stopped")
    assert worker.ended() == 0
    assert states(shop) == {"jobs:waits": "success", "jobs:works": "pending"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_A4_a_second_signal_stops_at_once(shop: Duly, number: signal.Signals) -> None:
    worker = shop.start("worker", "jobs")
    worker.until("worker ")
    schedule(shop, "jobs:waits")
    worker.until("waiting")
    worker.signal(number)
    worker.until("stopping: ")
    worker.signal(number)
    worker.until("stopped at once")
    assert worker.ended() == 128 + number
    assert states(shop) == {"jobs:waits": "inProgress"}


def test_A4_a_second_signal_stops_even_a_function_that_holds_the_loop(shop: Duly) -> None:
    worker = shop.start("worker", "jobs")
    worker.until("worker ")
    schedule(shop, "jobs:holds_the_loop")
    worker.until("holding")
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    # Signals that come together count as one.
    while worker.process.poll() is None and time.monotonic() - began < DEADLINE_S:
        time.sleep(0.1)
        worker.signal(signal.SIGTERM)
    assert worker.ended() == 128 + signal.SIGTERM
    assert states(shop) == {"jobs:holds_the_loop": "pending"}


def test_A3_the_next_worker_reports_what_a_killed_one_left(shop: Duly) -> None:
    worker = shop.start("worker", "jobs")
    worker.until("worker ")
    schedule(shop, "jobs:waits")
    worker.until("waiting")
    worker.signal(signal.SIGKILL)
    worker.ended()
    shop.start("worker", "jobs").until("jobs:waits failed: interrupted: the worker stopped")


def test_the_worker_warns_of_a_mutation_that_waits_for_the_world(shop: Duly) -> None:
    worker = shop.start("worker", "jobs")
    worker.until("worker ")
    schedule(shop, "jobs:waits_for_the_world")
    assert "WARNING" in worker.until("for something other than its database calls")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert states(shop) == {"jobs:waits_for_the_world": "success"}
