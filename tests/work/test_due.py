"""What a worker tells of a job that it can't run."""

import duly
from duly._app import Parts
from duly._model.event import Event
from tests.store.rows import new_job
from tests.support import eventually

app = duly.App(__name__, database="sqlite:///:memory:")


async def test_S3_a_job_whose_function_is_gone_is_told_of_where_it_is_noticed() -> None:
    """In the terminal of `duly dev` and `duly worker`, not only in the table."""
    events: list[Event] = []
    app._parts = Parts(observer=events.append)
    async with app:
        assert app._store is not None
        job = new_job("gone:away", due=1.0)
        await app._store.transact(lambda tx: tx.insert_job(job))

        async def told() -> bool:
            return bool(events)

        await eventually(told)
        assert [(event.kind, event.path, event.job_id) for event in events] == [("parked", "gone:away", job.id)]
        assert events[0].detail is not None
        assert "deploy code that has it" in events[0].detail
