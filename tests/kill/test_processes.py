"""Several processes on one file."""

import time
from pathlib import Path

from tests.kill import victim
from tests.kill.processes import Victim, victims
from tests.kill.scenarios import processes_on_one_file
from tests.kill.test_kill import until_state


async def test_four_processes_lose_nothing_and_do_nothing_twice(lasting_database: str, tmp_path: Path) -> None:
    report = await processes_on_one_file(lasting_database, tmp_path, processes=4, seconds=4)
    assert report.jobs > 50  # all of them change one document


async def test_S8_an_idle_worker_in_another_process_notices_at_once(lasting_database: str) -> None:
    app = victim.make_app(lasting_database)
    async with app.client():
        with victims() as started:
            started.append(Victim("worker", lasting_database).wait_ready())
            waits = []
            for number in range(10):
                scheduled = time.monotonic()
                job_id = await app.scheduler.run_after(0, victim.bump, number=number)
                await until_state(app, job_id, "success")
                waits.append(time.monotonic() - scheduled)
            started[-1].stop()
    assert sorted(waits)[5] < 0.5, waits
