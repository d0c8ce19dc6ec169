"""Exactly once and at most once, under SIGKILL, SIGSTOP and blocked event loops."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

import duly
from tests.kill import victim
from tests.kill.processes import Victim, victims
from tests.kill.scenarios import actions_under_kills, mutations_under_kills
from tests.support import LOADED_S, eventually


@pytest.mark.timeout(300)
async def test_M1_two_thousand_mutations_take_effect_exactly_once_under_twenty_kills(lasting_database: str) -> None:
    report = await mutations_under_kills(lasting_database, jobs=2_000, kills=22, seed=1)
    assert report.kills >= 20, "the work was done before the kills were"


async def test_A1_actions_start_at_most_once_under_kills(lasting_database: str, tmp_path: Path) -> None:
    report = await actions_under_kills(lasting_database, tmp_path, jobs=150, kills=8, seed=1)
    assert report.interrupted > 0, "no kill came while an action was running"


async def test_T2_what_was_acknowledged_is_there_after_a_kill(lasting_database: str) -> None:
    app = victim.make_app(lasting_database)
    with victims() as started:
        for kill_after in (1, 40, 200):
            client = Victim("client", lasting_database)
            started.append(client)
            for _ in range(kill_after):
                assert client.read_line()
            printed = client.kill().split()
            async with app.client():
                value, entries = await victim.totals(app)
            assert value == len(entries)
            last = int(printed[-1]) if printed else kill_after - 1
            assert set(range(last + 1)) <= set(entries)


async def test_A3_a_restart_settles_interrupted_actions_within_a_second(lasting_database: str, tmp_path: Path) -> None:
    app = victim.make_app(lasting_database)
    async with app.client():
        with victims() as started:
            started.append(Victim("worker", lasting_database).wait_ready())
            job_id = await app.scheduler.run_after(0, victim.append, file=str(tmp_path / "f"), number=1, work_s=60)
            await until_written(tmp_path / "f")
            started[-1].kill()
            started.append(Victim("worker", lasting_database).wait_ready())
            restarted = time.monotonic()
            job = await until_state(app, job_id, "failed")
            # On a file it is seen at once that the process is gone; elsewhere its lease has to run out, a second.
            assert time.monotonic() - restarted < (1 if lasting_database.startswith("sqlite") else 1 + 2) + LOADED_S
            assert job["state"].get("error", "").startswith("interrupted")
            started[-1].stop()
    assert (tmp_path / "f").read_text() == "1\n"


async def test_A3_another_worker_settles_what_a_killed_one_left(lasting_database: str, tmp_path: Path) -> None:
    app = victim.make_app(lasting_database)
    async with app.client():
        with victims() as started:
            first = Victim("worker", lasting_database).wait_ready()
            started.append(first)
            job_id = await app.scheduler.run_after(0, victim.append, file=str(tmp_path / "f"), number=1, work_s=60)
            await until_state(app, job_id, "inProgress")
            started.append(Victim("worker", lasting_database).wait_ready())
            killed = time.monotonic()
            first.kill()
            await until_state(app, job_id, "failed")
            assert time.monotonic() - killed < 1 + LOADED_S, "the lease is a second"
            started[-1].stop()


async def test_A3_blocking_code_does_not_make_a_live_worker_look_dead(lasting_database: str, tmp_path: Path) -> None:
    app = victim.make_app(lasting_database)
    file = tmp_path / "f"
    async with app.client():
        with victims() as started:
            started.extend(Victim("worker", lasting_database, "4").wait_ready() for _ in range(2))
            # Longer than the lease, which is long enough for a machine that stands still for a moment.
            job_id = await app.scheduler.run_after(0, victim.block, file=str(file), seconds=6)

            await until_written(file)
            seen: set[str] = set()

            async def ended() -> bool:
                state = (await read_job(app, job_id))["state"]["kind"]
                if "ended" in file.read_text():
                    return True
                seen.add(state)
                return False

            await eventually(ended)
            assert seen == {"inProgress"}
            await until_state(app, job_id, "success")
            for worker in started:
                worker.stop()


async def test_A3_a_stopped_worker_loses_its_actions_and_can_record_nothing_later(
    lasting_database: str, tmp_path: Path
) -> None:
    app = victim.make_app(lasting_database)
    file = tmp_path / "f"
    async with app.client():
        with victims() as started:
            frozen = Victim("worker", lasting_database).wait_ready()
            started.append(frozen)
            job_id = await app.scheduler.run_after(0, victim.append, file=str(file), number=1, work_s=0.5)
            await until_written(file)
            frozen.signal(signal.SIGSTOP)
            stopped = time.monotonic()
            started.append(Victim("worker", lasting_database).wait_ready())
            settled = await until_state(app, job_id, "failed")
            assert time.monotonic() - stopped < 1 + 2 + LOADED_S, "the lease is a second"
            frozen.signal(signal.SIGCONT)
            for number in range(20):
                later = await app.scheduler.run_after(0, victim.bump, number=number)
                await until_state(app, later, "success")
            # Each drains: the action has ended, and its outcome was written, or dropped, before the process ends.
            for worker in started:
                worker.stop()
            assert await read_job(app, job_id) == settled
    assert file.read_text() == "1\n"


async def test_A4_sigterm_at_random_moments_loses_nothing(lasting_database: str, tmp_path: Path) -> None:
    app = victim.make_app(lasting_database)
    file = tmp_path / "f"
    async with app.client():
        await app.mutation(victim.schedule_bumps, first=0, last=400, work_s=0.001)
        await app.mutation(victim.schedule_appends, file=str(file), count=60, work_s=0.05)
        with victims() as started:
            for pause in (0.0, 0.05, 0.11):
                started.append(Victim("worker", lasting_database).wait_ready())
                await asyncio.sleep(pause)
                _, complaints = started[-1].stop()
                assert not complaints
                assert all(job["state"]["kind"] != "inProgress" for job in await victim.jobs(app))
            started.append(Victim("worker", lasting_database).wait_ready())

            async def finished() -> bool:
                return all(job["state"]["kind"] == "success" for job in await victim.jobs(app))

            await eventually(finished)
            started[-1].stop()
        value, entries = await victim.totals(app)
    assert value == 400
    assert sorted(entries) == list(range(400))
    assert sorted(int(line) for line in file.read_text().splitlines()) == list(range(60))


async def test_A3_children_of_a_killed_worker_hold_nothing_up(file_database: str, tmp_path: Path) -> None:
    """They inherited its open files, and with them its locks, had they not let go."""
    app = victim.make_app(file_database)
    file = tmp_path / "child"
    async with app.client():
        job_id = await app.scheduler.run_after(0, victim.fork, file=str(file))
        with victims() as started:
            first = Victim("worker", file_database, "60").wait_ready()
            started.append(first)
            await until_written(file)
            child = int(file.read_text())
            try:
                # Killed while it holds the lock that all writers queue for.
                begun = tmp_path / "begun"
                blocking = await app.scheduler.run_after(0, victim.bump, number=1, work_s=1.5, file=str(begun))
                await until_written(begun)
                assert (await read_job(app, blocking))["state"]["kind"] == "pending"
                first.process.kill()
                first.process.wait()
                second = Victim("worker", file_database, "60")
                started.append(second)
                await asyncio.wait_for(asyncio.to_thread(second.wait_ready), 10)
                restarted = time.monotonic()
                await until_state(app, job_id, "failed")
                assert time.monotonic() - restarted < 1 + 1.5 + LOADED_S, (
                    "a second, and what the blocking mutation took again"
                )
                os.kill(child, 0)  # it lives, or the test would show nothing
            finally:
                os.kill(child, signal.SIGKILL)
            await until_state(app, blocking, "success")
            second.stop()


async def until_written(file: Path) -> None:
    async def written() -> bool:
        return file.exists() and file.read_text().endswith("\n")

    await eventually(written)


async def read_job(app: duly.App, id: "duly.Id[duly.ScheduledFunction]") -> duly.ScheduledFunction:
    job = await app.query(victim.job, id=id)
    assert job is not None
    return job


async def until_state(app: duly.App, id: "duly.Id[duly.ScheduledFunction]", kind: str) -> duly.ScheduledFunction:
    async def there() -> duly.ScheduledFunction | None:
        job = await read_job(app, id)
        return job if job["state"]["kind"] == kind else None

    found = await eventually(there)
    assert found is not None
    return found
