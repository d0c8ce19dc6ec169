"""`make demo`: the shop at work, killed in the middle, and what became of every promise. It checks what it says."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar

import duly
from examples.shop import app, orders, reports
from examples.shop.smtp import serve

T = TypeVar("T")

COLOURS = sys.stdout.isatty()
APP = "examples.shop:app"
PATIENCE_S = 20.0
PENDING = 5


class BrokenPromiseError(Exception):
    """Something that the demo says did not come true."""


class Story:
    """Prints the demo, and holds what it plays with."""

    def __init__(self, folder: Path, smtp_port: int) -> None:
        self.folder = folder
        self.report = folder / "report.txt"
        self.environment = {
            **os.environ,
            "DULY_DATABASE_URL": f"sqlite:///{folder / 'shop.db'}",
            "SHOP_SMTP": f"127.0.0.1:{smtp_port}",
        }
        self.mails: list[tuple[float, EmailMessage]] = []
        self._step = 0

    def step(self, text: str) -> None:
        self._step += 1
        print(f"\n{paint(1, f'{self._step}. {text}')}")

    def say(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def prove(self, promise: bool, text: str) -> None:
        """Says it only if it is so."""
        if not promise:
            raise BrokenPromiseError(text)
        print(f"   {paint(32, '✓')} {text}", flush=True)

    def receive(self, message: EmailMessage) -> None:
        self.mails.append((time.perf_counter(), message))

    @contextlib.contextmanager
    def worker(self) -> Iterator[subprocess.Popen[str]]:
        """`duly worker`, a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "duly.cli", "worker", APP],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if process.poll() is not None or not line:
                raise BrokenPromiseError("the worker did not start; try: duly worker " + APP)
            self.say(paint(2, f"$ duly worker {APP}      (pid {process.pid})"))
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def show_jobs(self) -> None:
        """The real command, as anybody would type it."""
        self.say(paint(2, f"$ duly jobs {APP}"))
        command = [sys.executable, "-m", "duly.cli", "jobs", APP]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokenPromiseError(f"duly jobs failed: {done.stderr}")
        for line in done.stdout.rstrip().splitlines():
            print(f"   {line}")


def paint(code: int, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if COLOURS else text


async def until(look: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Waits for what must come true, and not for ever."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := await look():
            return found
        await asyncio.sleep(0.01)
    raise BrokenPromiseError(f"not within {PATIENCE_S:.0f} s: {what}")


async def jobs_of(path: str, kind: str) -> list[duly.ScheduledFunction]:
    return [j for j in await app.query(orders.list_jobs) if j["name"] == path and j["state"]["kind"] == kind]


async def tell(story: Story) -> None:
    with story.worker() as worker:
        story.step("An order is placed. Its mail is scheduled in the same transaction.")
        order_id = await place(story)

        story.step("An order that fails leaves nothing: no order, no mail, no job.")
        await fail(story)

        story.step("The order is paid. The reminder is cancelled with it.")
        await pay(story, order_id)

        story.step("The worker is killed with SIGKILL: five jobs are pending, and a report is being written.")
        due = await kill(story, worker, order_id)

    story.step("The worker is started again.")
    with story.worker() as worker:
        await resume(story, due)

        story.step("SIGTERM stops a worker gracefully. This is what is in the table now:")
        worker.send_signal(signal.SIGTERM)
        story.prove(worker.wait(PATIENCE_S) == 0, "the worker has stopped by itself")
    story.show_jobs()


async def place(story: Story) -> duly.Id[orders.Order]:
    order_id = await app.mutation(orders.create_order, email="ada@example.com", items=["tea", "a pot"])
    committed = time.perf_counter()
    story.say(f"create_order has committed: {order_id}")

    async def mail() -> tuple[float, EmailMessage] | None:
        return story.mails[0] if story.mails else None

    arrived, message = await until(mail, "the confirmation mail")
    text = message.get_content().strip()
    story.prove(message["To"] == "ada@example.com", f"{(arrived - committed) * 1_000:.0f} ms later a mail has arrived")
    story.say(f"  │ To: {message['To']}   Subject: {message['Subject']}")
    story.say(f"  │ {text}")
    return order_id


async def fail(story: Story) -> None:
    before = (await app.query(orders.list_orders), len(await app.query(orders.list_jobs)), len(story.mails))
    try:
        await app.mutation(orders.create_order, email="bob@example.com", items=["unobtainium"])
    except duly.AppError as error:
        story.say(f"create_order raised, after it had inserted and scheduled: AppError({error.data})")
    else:
        raise BrokenPromiseError("create_order was to fail")
    after = (await app.query(orders.list_orders), len(await app.query(orders.list_jobs)), len(story.mails))
    story.prove(before == after, f"still {len(after[0])} order, {after[1]} jobs, {after[2]} mail")


async def pay(story: Story, order_id: duly.Id[orders.Order]) -> None:
    await app.mutation(orders.pay_order, order_id=order_id)
    canceled = await jobs_of("emails:send_reminder", "canceled")
    story.prove(len(canceled) == 1, "emails:send_reminder is canceled, and the order is paid: one commit")


async def kill(story: Story, worker: subprocess.Popen[str], order_id: duly.Id[orders.Order]) -> float:
    await app.scheduler.run_after(0, reports.write_report, file=str(story.report), seconds=60)
    due = time.time() * 1_000 + 1_500
    for _ in range(PENDING):
        await app.scheduler.run_at(due, orders.stamp_order, order_id=order_id)

    async def begun() -> bool:
        return story.report.exists()

    await until(begun, "the report has begun")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    pending = await jobs_of("orders:stamp_order", "pending")
    running = await jobs_of("reports:write_report", "inProgress")
    story.say(paint(2, f"$ kill -9 {worker.pid}"))
    story.prove(
        len(pending) == PENDING and len(running) == 1, f"{len(pending)} jobs pending, {len(running)} action in progress"
    )
    return due


async def resume(story: Story, due: float) -> None:
    started = time.monotonic()

    async def interrupted() -> list[duly.ScheduledFunction] | None:
        return await jobs_of("reports:write_report", "failed") or None

    (report,) = await until(interrupted, "the interrupted report is failed")
    story.prove(
        time.monotonic() - started < 1, f"within {time.monotonic() - started:.2f} s the report is failed, and says why:"
    )
    story.say(f"  │ {report['state'].get('error', '').splitlines()[0]}")

    async def stamped() -> bool:
        return len(await jobs_of("orders:stamp_order", "success")) == PENDING

    await until(stamped, "all stamps")
    story.prove(time.time() * 1_000 >= due, "the pending mutations have run, and not before they were due")
    stamps = await app.query(orders.list_stamps)
    story.prove(len(stamps) == PENDING, f"exactly once: {len(stamps)} stamps in the ledger for {PENDING} jobs")
    lines = story.report.read_text().splitlines()
    story.prove(len(lines) == 1, "at most once: the report was begun one time, and is not repeated behind your back")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def main() -> int:
    with tempfile.TemporaryDirectory(prefix="duly-demo-") as name:
        story = Story(Path(name), free_port())
        host_port = story.environment["SHOP_SMTP"]
        os.environ.update(story.environment)
        server = serve(story.receive, int(host_port.rpartition(":")[2]))
        print(f"A shop on a SQLite file, a mail server on {host_port}, and a worker.")
        try:
            async with app.client():
                await tell(story)
        except BrokenPromiseError as broken:
            print(f"\n{paint(31, 'A promise was broken:')} {broken}", file=sys.stderr)
            return 1
        finally:
            server.stop()
    print(f"\n{paint(1, 'Every promise was kept.')} How: docs/guarantees.md. The code: examples/shop.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
