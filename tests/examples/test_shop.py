"""The example shop keeps working, and the demo tells the truth."""

import asyncio
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest

import duly
from examples.shop import emails, orders, reports
from examples.shop.demo import free_port
from examples.shop.smtp import serve
from tests.support import eventually

ROOT = Path(__file__).parent.parent.parent
SMTP = [sys.executable, "-m", "examples.shop.smtp"]
DEMO = [sys.executable, "-m", "examples.shop.demo"]


@pytest.fixture
def shop(database: str) -> duly.App:
    return duly.App("examples.shop", database=database)


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EmailMessage]]:
    received: list[EmailMessage] = []
    port = free_port()
    server = serve(received.append, "127.0.0.1", port)
    monkeypatch.setenv("SHOP_SMTP", f"127.0.0.1:{port}")
    yield received
    server.stop()


# --- the functions --------------------------------------------------------------------------------------------------


async def test_an_order_is_confirmed_by_mail(shop: duly.App, mails: list[EmailMessage]) -> None:
    async with shop:
        await shop.mutation(orders.create_order, email="ada@example.com", items=["tea", "a pot"])

        async def arrived() -> bool:
            return bool(mails)

        await eventually(arrived)
    assert mails[0]["To"] == "ada@example.com"
    assert mails[0].get_content().strip() == "We are packing: tea, a pot. In all 27.50."


@pytest.mark.parametrize(
    ("items", "code"), [([], "nothing_ordered"), (["tea", "unobtainium"], "sold_out")], ids=["empty", "sold_out"]
)
async def test_S4_an_order_that_fails_leaves_neither_order_nor_job_nor_mail(
    shop: duly.App, mails: list[EmailMessage], items: list[str], code: str
) -> None:
    async with shop:
        with pytest.raises(duly.AppError) as raised:
            await shop.mutation(orders.create_order, email="bob@example.com", items=items)
        assert raised.value.data["code"] == code
        assert await shop.query(orders.list_orders) == []
        assert await shop.query(orders.list_jobs) == []
        # What was scheduled first would have been sent first.
        await shop.mutation(orders.create_order, email="ada@example.com", items=["tea"])

        async def confirmed() -> bool:
            return any(job["state"]["kind"] == "success" for job in await shop.query(orders.list_jobs))

        await eventually(confirmed)
    assert [mail["To"] for mail in mails] == ["ada@example.com"]


async def test_paying_cancels_the_reminder(shop: duly.App) -> None:
    async with shop.client():
        order_id = await shop.mutation(orders.create_order, email="ada@example.com", items=["tea"])
        await shop.mutation(orders.pay_order, order_id=order_id)
        states = {job["name"]: job["state"]["kind"] for job in await shop.query(orders.list_jobs)}
        assert states == {
            "emails:send_confirmation": "pending",
            "emails:send_reminder": "canceled",
            "orders:archive_order": "pending",
        }
        assert len(await shop.query(orders.list_orders, status="paid")) == 1
        assert await shop.query(orders.list_orders, status="open") == []


async def test_paying_twice_is_fine_and_what_is_gone_can_not_be_changed(shop: duly.App) -> None:
    async with shop.client():
        order_id = await shop.mutation(orders.create_order, email="ada@example.com", items=["tea"])
        await shop.mutation(orders.pay_order, order_id=order_id)
        await shop.mutation(orders.pay_order, order_id=order_id)
        # Well-formed, and the id of an order of another shop.
        async with duly.App("examples.shop", database="sqlite:///:memory:").client() as other:
            elsewhere = await other.mutation(orders.create_order, email="ada@example.com", items=["tea"])
        for change in (orders.pay_order, orders.cancel_order):
            with pytest.raises(duly.AppError) as raised:
                await shop.mutation(change, order_id=elsewhere)
            assert raised.value.data == {"code": "no_such_order"}
        assert await shop.query(orders.list_jobs_of, order_id=elsewhere) == []


async def test_canceling_cancels_what_is_still_to_happen(shop: duly.App) -> None:
    async with shop.client():
        order_id = await shop.mutation(orders.create_order, email="ada@example.com", items=["tea"])
        other_id = await shop.mutation(orders.create_order, email="bob@example.com", items=["tea"])
        await shop.mutation(orders.cancel_order, order_id=order_id)
        for id, kind in ((order_id, "canceled"), (other_id, "pending")):
            states = [job["state"]["kind"] for job in await shop.query(orders.list_jobs_of, order_id=id)]
            assert states == [kind] * 3
        for change in (orders.pay_order, orders.cancel_order):
            with pytest.raises(duly.AppError) as raised:
                await shop.mutation(change, order_id=order_id)
            assert raised.value.data == {"code": "canceled"}


async def test_what_has_happened_stays_when_an_order_is_canceled(shop: duly.App, mails: list[EmailMessage]) -> None:
    async with shop:
        order_id = await shop.mutation(orders.create_order, email="ada@example.com", items=["tea"])

        async def states() -> list[str]:
            return [job["state"]["kind"] for job in await shop.query(orders.list_jobs_of, order_id=order_id)]

        async def confirmed() -> bool:
            return await states() == ["success", "pending", "pending"]

        await eventually(confirmed)
        await shop.mutation(orders.cancel_order, order_id=order_id)
        assert await states() == ["success", "canceled", "canceled"]
    assert len(mails) == 1


async def test_only_who_has_not_paid_is_reminded(shop: duly.App, mails: list[EmailMessage]) -> None:
    async with shop.client():
        for email in ("ada@example.com", "bob@example.com"):
            order_id = await shop.mutation(orders.create_order, email=email, items=["tea"])
            if email.startswith("ada"):
                await shop.mutation(orders.pay_order, order_id=order_id)
            await shop.action(emails.send_reminder, order_id=order_id)
    assert [(mail["To"], mail["Subject"]) for mail in mails] == [("bob@example.com", "Your order is waiting for you")]


async def test_an_order_is_archived_and_a_report_written(shop: duly.App, tmp_path: Path) -> None:
    async with shop.client():
        order_id = await shop.mutation(orders.create_order, email="ada@example.com", items=["tea"])
        await shop.mutation(orders.archive_order, order_id=order_id)
        assert len(await shop.query(orders.list_orders, status="archived")) == 1
        await shop.action(reports.write_report, file=str(tmp_path / "report.txt"), seconds=0)
    lines = (tmp_path / "report.txt").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["begun", "ended"]


# --- the mail server ------------------------------------------------------------------------------------------------


async def test_the_mail_server_prints_what_it_gets_and_ends_on_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SMTP", f"127.0.0.1:{free_port()}")
    server = await asyncio.create_subprocess_exec(*SMTP, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert (await server.stdout.readline()).startswith(b"listening on 127.0.0.1:")
        await emails.send("ada@example.com", "Hello", "A line.")
        server.send_signal(signal.SIGINT)
        printed = await server.stdout.read()
        assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
    assert [line.split() for line in printed.decode().splitlines() if line] == [
        ["To:", "ada@example.com"],
        ["Subject:", "Hello"],
        ["A", "line."],
    ]
    with pytest.raises(aiosmtplib.SMTPConnectError):
        await emails.send("ada@example.com", "Hello", "Nobody is there.")


@pytest.mark.usefixtures("mails")
def test_the_mail_server_says_when_its_port_is_taken() -> None:
    done = subprocess.run(SMTP, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("can't listen on 127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1


# --- the demo -------------------------------------------------------------------------------------------------------


def test_the_demo_keeps_every_promise() -> None:
    done = subprocess.run(DEMO, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert "\x1b" not in done.stdout, "colours are for terminals"
    assert max(map(len, done.stdout.splitlines())) <= 100
    said = [
        r"ms later the mail has arrived",
        r"raised AppError: sold_out",
        r"1 order, 3 jobs and 1 mail, as before",
        r"emails:send_reminder is canceled",
        r"kill -9 \d+",
        r"orders:stamp_order +· pending",
        r"reports:write_report +▶ inProgress",
        r"interrupted: the worker stopped",
        r"none before it was due",
        r"exactly once",
        r"at most once",
        r"it has stopped by itself",
        r"orders:stamp_order +✓ success",
        r"reports:write_report +✗ failed",
        r"emails:send_reminder +– canceled",
        r"Every promise was kept",
    ]
    assert re.search(".*".join(said), done.stdout, re.DOTALL), done.stdout


@pytest.mark.parametrize(
    ("file", "line", "instead", "promise"),
    [
        (
            "orders.py",
            'await ctx.scheduler.cancel(order["reminder_id"], missing_ok=True)',
            "pass",
            "emails:send_reminder is canceled",
        ),
        (
            "orders.py",
            "    await ctx.db.insert(stamps",
            "    for _ in 'ab': await ctx.db.insert(stamps",
            "exactly once",
        ),
    ],
    ids=["reminder", "stamps"],
)
def test_the_demo_says_which_promise_a_shop_breaks(
    tmp_path: Path, file: str, line: str, instead: str, promise: str
) -> None:
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", "node_modules")
    )
    broken = tmp_path / "examples" / "shop" / file
    source = broken.read_text()
    assert source.count(line) == 1
    broken.write_text(source.replace(line, instead))
    done = subprocess.run(DEMO, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "A promise was broken" in done.stderr
    assert promise in done.stderr
    assert "Every promise was kept" not in done.stdout
    assert_ended(done.stdout)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl_c", "sigterm"])
def test_the_demo_ends_its_worker_when_it_is_interrupted(number: signal.Signals, code: int) -> None:
    with subprocess.Popen(DEMO, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            said = ""
            while "(pid" not in said:
                line = demo.stdout.readline()
                assert line, said
                said += line
            demo.send_signal(number)
            rest, errors = demo.communicate(timeout=60)
        finally:
            demo.kill()
    assert (demo.returncode, errors) == (code, ""), said + rest
    assert "Every promise was kept" not in rest
    assert_ended(said + rest)


def assert_ended(said: str) -> None:
    """None of the workers that the demo has spoken of is left."""
    workers = re.findall(r"\(pid (\d+)\)", said)
    assert workers
    for worker in workers:
        command = Path("/proc", worker, "cmdline")
        assert not (command.exists() and b"examples.shop:app" in command.read_bytes()), f"worker {worker} lives on"
