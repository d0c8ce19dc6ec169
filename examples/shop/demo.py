"""`make demo`: the shop at work, killed in the middle, and what became of every promise. It checks what it says."""

import asyncio
import contextlib
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import textwrap
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar

import duly
from examples.shop import app, orders, reports
from examples.shop.smtp import serve

T = TypeVar("T")

Ids = list[duly.Id[duly.ScheduledFunction]]

APP = "examples.shop:app"
COLOURS = sys.stdout.isatty() and "NO_COLOR" not in os.environ
WIDTH = min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else 100
BOLD, DIM, RED, GREEN = 1, 2, 31, 32

STAMPS = 5
DUE_AFTER_MS = 2_000
PATIENCE_S = 20.0


class BrokenPromiseError(Exception):
    """What the demo says, and is not so."""


class Story:
    """Prints the demo, and holds what it plays with."""

    def __init__(self, folder: Path) -> None:
        self.report = folder / "report.txt"
        self.smtp_port = free_port()
        self.environment = os.environ | {
            "DULY_DATABASE_URL": f"sqlite:///{folder / 'shop.db'}",
            "SHOP_SMTP": f"127.0.0.1:{self.smtp_port}",
            "COLUMNS": str(WIDTH - 3),
        }
        if COLOURS:
            self.environment["FORCE_COLOR"] = "1"
        self.mails: list[tuple[float, EmailMessage]] = []
        self.restarted_ms = 0.0
        self._worker_log = folder / "worker.log"
        self._step = 0

    def step(self, text: str) -> None:
        self._step += 1
        print(f"\n{paint(BOLD, f'{self._step}. {text}')}", flush=True)

    def say(self, text: str) -> None:
        print(f"   {text}".rstrip(), flush=True)

    def quote(self, *paragraphs: str) -> None:
        for paragraph in paragraphs:
            for line in textwrap.wrap(paragraph, WIDTH - 7):
                self.say(f"  {paint(DIM, '│')} {line}")

    def prove(self, promise: bool, text: str) -> None:
        """Says it only if it is so."""
        if not promise:
            raise BrokenPromiseError(text)
        self.say(f"{paint(GREEN, '✓')} {text}")

    def receive(self, message: EmailMessage) -> None:
        self.mails.append((time.perf_counter(), message))

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[Process]:
        """`duly worker`, a process of its own, at work until the block ends."""
        with self._worker_log.open("wb") as log:
            async with self._duly("worker", stderr=log.fileno()) as process:
                assert process.stdout is not None
                if not await within_patience(process.stdout.readline(), "the worker has started"):
                    await process.wait()
                    raise BrokenPromiseError(f"the worker has started\n{self._worker_log.read_text()}")
                self.say(paint(DIM, f"$ duly worker {APP}   (pid {process.pid})"))
                yield process

    async def show_jobs(self) -> None:
        """The real command, as anybody would type it."""
        async with self._duly("jobs", stderr=PIPE) as process:
            table, errors = await within_patience(process.communicate(), "duly jobs has ended")
        if process.returncode:
            raise BrokenPromiseError(f"duly jobs has a table to show\n{errors.decode()}")
        self.say("")
        self.say(paint(DIM, f"$ duly jobs {APP}"))
        for line in table.decode().rstrip().splitlines():
            self.say(line)

    @contextlib.asynccontextmanager
    async def _duly(self, command: str, *, stderr: int) -> AsyncIterator[Process]:
        """A command of duly, which does not outlive the block."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "duly.cli", command, APP),
            env=self.environment,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=stderr,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


# --- the story ------------------------------------------------------------------------------------------------------


async def tell(story: Story) -> None:
    async with story.worker() as worker:
        story.step("An order is placed. Its mail is scheduled in the same transaction.")
        order_id = await place(story)

        story.step("An order that fails leaves nothing: no order, no job, no mail.")
        await fail(story)

        story.step("The order is paid. That cancels the reminder.")
        await pay(story, order_id)

        story.step("The worker is killed. Five stamps are due soon, a report is being written.")
        ids = await kill(story, worker, order_id)

    story.step("The worker is started again.")
    story.restarted_ms = time.time() * 1_000
    async with story.worker() as worker:
        await resume(story, order_id, ids)

        story.step("The worker is asked to stop, with SIGTERM.")
        await stop(story, worker)


async def place(story: Story) -> duly.Id[orders.Order]:
    order_id = await app.mutation(orders.create_order, email="ada@example.com", items=["tea", "a pot"])
    committed = time.perf_counter()
    story.say(f"create_order has committed: {order_id}")

    async def mail() -> tuple[float, EmailMessage] | None:
        return story.mails[0] if story.mails else None

    arrived, message = await until(mail, "the confirmation mail has arrived")
    later_ms = max(arrived - committed, 0) * 1_000
    story.prove(message["To"] == "ada@example.com", f"{later_ms:.0f} ms later the mail has arrived:")
    story.quote(f"To: {message['To']}", f"Subject: {message['Subject']}", message.get_content().strip())
    return order_id


async def fail(story: Story) -> None:
    async def what_there_is() -> tuple[int, int, int]:
        return len(await app.query(orders.list_orders)), len(await app.query(orders.list_jobs)), len(story.mails)

    before = await what_there_is()
    try:
        await app.mutation(orders.create_order, email="bob@example.com", items=["tea", "unobtainium"])
    except duly.AppError as error:
        story.say(f"create_order has inserted, scheduled, and raised AppError: {error.data['code']}")
    else:
        raise BrokenPromiseError("create_order raises for what is sold out")
    story.prove(before == await what_there_is() == (1, 3, 1), "there are 1 order, 3 jobs and 1 mail, as before")


async def pay(story: Story, order_id: duly.Id[orders.Order]) -> None:
    await app.mutation(orders.pay_order, order_id=order_id)
    order = await app.query(orders.get_order, order_id=order_id)
    canceled = await jobs_of("emails:send_reminder", "canceled")
    paid = order is not None and order["status"] == "paid"
    story.prove(paid and len(canceled) == 1, "the order is paid and emails:send_reminder is canceled: one commit")


async def kill(story: Story, worker: Process, order_id: duly.Id[orders.Order]) -> Ids:
    await app.scheduler.run_after(0, reports.write_report, file=str(story.report), seconds=60)

    async def begun() -> bool:
        return story.report.exists()

    await until(begun, "the report has begun")
    due = time.time() * 1_000 + DUE_AFTER_MS
    ids = [await app.scheduler.run_at(due, orders.stamp_order, order_id=order_id) for _ in range(STAMPS)]
    worker.kill()
    await worker.wait()
    story.say(paint(DIM, f"$ kill -9 {worker.pid}"))
    pending = await jobs_of("orders:stamp_order", "pending")
    running = await jobs_of("reports:write_report", "inProgress")
    story.prove(
        len(pending) == STAMPS and len(running) == 1, f"{len(pending)} stamps are pending, 1 report is in progress"
    )
    await story.show_jobs()
    return ids


async def resume(story: Story, order_id: duly.Id[orders.Order], ids: Ids) -> None:
    up_ms = time.time() * 1_000

    async def interrupted() -> list[duly.ScheduledFunction] | None:
        return await jobs_of("reports:write_report", "failed") or None

    (report,) = await until(interrupted, "the interrupted report is failed")
    failed_ms = report.get("completedTime", math.inf)
    error = report["state"].get("error", "").partition("\n")[0]
    story.prove(
        failed_ms - up_ms < 1_000 and error.startswith("interrupted"),
        f"{failed_ms - story.restarted_ms:.0f} ms after its start the report is failed, and says why:",
    )
    story.quote(error)

    async def stamped() -> list[duly.ScheduledFunction] | None:
        jobs = await jobs_of("orders:stamp_order", "success")
        return jobs if len(jobs) == STAMPS else None

    jobs = await until(stamped, "all stamps have succeeded")
    in_time = all(job.get("completedTime", 0) >= job["scheduledTime"] for job in jobs)
    story.prove(in_time, "every stamp that was pending has run, and none before it was due")
    stamps = [stamp["stamped_by"] for stamp in await app.query(orders.list_stamps, order_id=order_id)]
    once = len(stamps) == STAMPS and set(stamps) == set(ids)
    story.prove(once, f"exactly once: {STAMPS} jobs, and each of them once in the ledger")
    begun = story.report.read_text().splitlines()
    story.prove(len(begun) == 1, "at most once: the report was begun once, and is not begun again")


async def stop(story: Story, worker: Process) -> None:
    worker.send_signal(signal.SIGTERM)
    code = await within_patience(worker.wait(), "the worker has stopped")
    running = [job for job in await app.query(orders.list_jobs) if job["state"]["kind"] == "inProgress"]
    story.prove(code == 0 and not running, "it has stopped by itself, and left nothing in progress")
    story.prove(len(story.mails) == 1, "one mail was sent in all, and this is what is in the table:")
    await story.show_jobs()


async def jobs_of(path: str, kind: str) -> list[duly.ScheduledFunction]:
    jobs = await app.query(orders.list_jobs)
    return [job for job in jobs if job["name"] == path and job["state"]["kind"] == kind]


# --- how it is told -------------------------------------------------------------------------------------------------


async def until(look: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Waits for what must come true, and not for ever."""

    async def seen() -> T:
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.01)

    return await within_patience(seen(), what)


async def within_patience(waiting: Awaitable[T], what: str) -> T:
    try:
        return await asyncio.wait_for(waiting, PATIENCE_S)
    except TimeoutError:
        raise BrokenPromiseError(f"{what} (waited {PATIENCE_S:.0f} s for it)") from None


def paint(code: int, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if COLOURS else text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def main() -> int:
    task = asyncio.current_task()
    assert task is not None
    # As for Ctrl-C: the worker is ended too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="duly-demo-") as folder:
        story = Story(Path(folder))
        os.environ.update(story.environment)
        server = serve(story.receive, "127.0.0.1", story.smtp_port)
        print(f"A shop on a SQLite file, a mail server on 127.0.0.1:{story.smtp_port}, and a worker:\n", flush=True)
        try:
            async with app.client():
                await tell(story)
        except BrokenPromiseError as broken:
            print(f"\n{paint(RED, 'A promise was broken.')} This is not so: {broken}", file=sys.stderr)
            return 1
        finally:
            server.stop()
    print(f"\n{paint(BOLD, 'Every promise was kept.')} How: docs/guarantees.md. The code: examples/shop.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
    except asyncio.CancelledError:
        sys.exit(143)
