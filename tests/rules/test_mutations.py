"""Rules M1 to M3: a scheduled mutation takes effect exactly once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

import duly
from duly._app import Parts
from duly._ground.entropy import SystemEntropy
from duly._model.event import Event
from duly._store.port import Transaction
from duly._work.upkeep import Upkeep
from duly.errors import ConflictError, StoreUnavailableError
from tests.rules.deploy import deploy, running
from tests.rules.stage import Json, Stage, has_finished
from tests.support import FaultyStore, ManualClock, eventually

T = TypeVar("T")

stage = Stage()


@pytest.fixture(autouse=True)
def empty_stage() -> None:
    stage.clear()


@duly.mutation
async def perform(ctx: duly.MutationCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.mutation
async def enter(ctx: duly.MutationCtx, what: str) -> None:
    stage.seen.append(what)
    await ctx.db.insert("ledger", {"what": what})


@duly.mutation
async def returns_text(ctx: duly.MutationCtx) -> int:
    await ctx.db.insert("ledger", {"what": "before the bad return"})
    return cast("int", "no number")


@duly.query
async def job_of(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


@duly.query
async def ledger(ctx: duly.QueryCtx) -> list[Any]:
    return [entry["what"] for entry in await ctx.db.query("ledger").collect()]


@duly.query
async def success_and_ledger(ctx: duly.QueryCtx) -> tuple[int, int]:
    jobs = await ctx.db.system.query("_scheduled_functions").collect()
    return sum(job["state"]["kind"] == "success" for job in jobs), await ctx.db.query("ledger").count()


@duly.query
async def job_count(ctx: duly.QueryCtx) -> int:
    return await ctx.db.system.query("_scheduled_functions").count()


class HalfLuck(SystemEntropy):
    """Every backoff is half of what it may be."""

    def uniform(self) -> float:
        return 0.5


class CommitFaults(FaultyStore):
    """Fails the commits of those transactions in which a function of this module noted something.

    Before: nothing was committed. After: it was, and is reported as failed.
    """

    before: list[Exception]
    after: list[Exception]

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        ran = False

        async def contested(tx: Transaction) -> T:
            nonlocal ran
            noted = len(stage.seen)
            result = await body(tx)
            # Others may run beside it; what keeps house runs none.
            ran = tx.wrote and len(stage.seen) > noted and not isinstance(getattr(body, "__self__", None), Upkeep)
            if ran and self.before:
                raise self.before.pop(0)
            return result

        result = await super().transact(contested, claims=claims)
        if ran and self.after:
            raise self.after.pop(0)
        return result


def commit_faults(*, before: list[Exception] | None = None, after: list[Exception] | None = None) -> Any:
    def make(url: str, clock: Any) -> CommitFaults:
        store = CommitFaults(url, clock)
        store.before, store.after = before or [], after or []
        return store

    return make


class VerbFaults(FaultyStore):
    """Fails a verb of the transaction, as a disk would, while `faults` lasts. `sticky`: as engines do, it is noted."""

    verb = "insert_document"
    sticky: bool
    faults: list[Exception]

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        def failing(tx: Transaction) -> Awaitable[T]:
            return body(cast("Transaction", _FailingTransaction(tx, self)))

        return await super().transact(failing, claims=claims)


class _FailingTransaction:
    def __init__(self, tx: Transaction, store: VerbFaults) -> None:
        self._tx = tx
        self._store = store
        self._fault: Exception | None = None

    @property
    def fault(self) -> Exception | None:
        return self._fault or self._tx.fault

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._tx, name)
        if name != self._store.verb or not self._store.faults:
            return verb

        async def fail(*_: object) -> None:
            error = self._store.faults.pop(0)
            if self._store.sticky:
                self._fault = error
            raise error

        return fail


async def finished(app: duly.App, job_id: str, kind: str | None = None) -> Json:
    return await has_finished(lambda: app.query(job_of, job_id), kind)


# M1: effects and `success` are one commit.


async def test_M1_effects_and_success_come_together(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        job = await finished(app, job_id, "success")
        assert await app.query(ledger) == ["tea"]
        assert job["attempts"] == 1
        assert job["startedTime"] <= job["completedTime"]
        assert "error" not in job["state"]
        assert "nextAttemptTime" not in job


async def test_M1_no_snapshot_shows_one_without_the_other(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def schedule_many(ctx: duly.MutationCtx) -> None:
            for number in range(300):
                await ctx.scheduler.run_after(0, enter, str(number))

        await app.mutation(perform, schedule_many)

        async def all_done() -> bool:
            succeeded, entered = await app.query(success_and_ledger)
            assert succeeded == entered
            return succeeded == 300

        await eventually(all_done)


async def test_M1_from_inside_it_is_still_pending(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def look_at_myself(ctx: duly.MutationCtx) -> None:
            assert ctx.scheduled_function_id is not None
            job = await ctx.db.system.get(ctx.scheduled_function_id)
            assert job is not None
            stage.seen.append(job["state"])
            stage.seen.append("startedTime" in job)

        await finished(app, await app.scheduler.run_after(0, perform, look_at_myself), "success")
        assert stage.seen == [{"kind": "pending"}, False]


async def test_M1_from_outside_it_is_pending_while_it_runs(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app:

        @stage.body
        async def wait_at_the_gate(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "inside"})
            stage.seen.append("inside")
            await stage.gate("open").wait()

        # Later than now: due at once it could run in the very group that commits it, and its caller would wait for it.
        job_id = await app.scheduler.run_after(50, perform, wait_at_the_gate)
        await stage.has_seen(1)
        job = await app.query(job_of, job_id)
        assert job["state"] == {"kind": "pending"}
        assert await app.query(ledger) == []
        stage.gate("open").set()
        await finished(app, job_id, "success")
        assert await app.query(ledger) == ["inside"]


async def test_M1_no_event_says_that_it_is_in_progress(database: str) -> None:
    events: list[Event] = []
    app = duly.App(__name__, database=database)
    app._parts = Parts(observer=events.append)
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        await finished(app, job_id, "success")
    assert [event.kind for event in events if event.job_id == job_id] == ["scheduled", "success"]


@pytest.mark.parametrize("moment", ["first line", "last line"])
async def test_M1_a_crash_inside_leaves_neither(moment: str, file_database: str, tmp_path: Path) -> None:
    source = f"""
        import asyncio, os, signal
        import duly

        @duly.mutation
        async def enter(ctx: duly.MutationCtx, what: str) -> None:
            if {moment == "first line"}:
                os.kill(os.getpid(), signal.SIGKILL)
            await ctx.db.insert("ledger", {{"what": what}})
            os.kill(os.getpid(), signal.SIGKILL)

        app = duly.App(__name__, database={file_database!r})

        async def main():
            async with app.client():
                print(await app.scheduler.run_after(0, "jobs:enter", what="tea"), flush=True)
            async with app:
                await asyncio.Event().wait()

        asyncio.run(main())
    """
    with running(tmp_path, source) as process:
        job_id = await process.says()
        assert await process.ended() == -9
    app = duly.App(__name__, database=file_database)
    async with app.client():
        job = await app.query(job_of, job_id)
        assert job["state"] == {"kind": "pending"}
        assert job["attempts"] == 0
        assert await app.query(ledger) == []


async def test_M1_what_a_crash_left_pending_runs_after_the_restart(
    file_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"""
        import asyncio
        from datetime import timedelta
        import duly

        @duly.mutation
        async def enter(ctx: duly.MutationCtx, what: str) -> None:
            await ctx.db.insert("ledger", {{"what": what}})
            print("inside", flush=True)
            await asyncio.Event().wait()

        app = duly.App(__name__, database={file_database!r}, mutation_timeout=timedelta(minutes=9))

        async def main():
            async with app:
                print(await app.scheduler.run_after(50, "jobs:enter", what="tea"), flush=True)
                await asyncio.Event().wait()

        asyncio.run(main())
    """
    with running(tmp_path, source) as process:
        job_id = await process.says()
        assert await process.says() == "inside"
        process.kill()
    now = """
        import duly

        @duly.mutation
        async def enter(ctx: duly.MutationCtx, what: str) -> None:
            await ctx.db.insert("ledger", {"what": what})

        @duly.query
        async def job_and_ledger(ctx: duly.QueryCtx, id: str) -> object:
            entries = [entry["what"] for entry in await ctx.db.query("ledger").collect()]
            return [await ctx.db.system.get(id), entries]
    """
    app = duly.App(deploy(monkeypatch, "restarted.jobs", now), database=file_database)
    async with app:

        async def done() -> list[str] | None:
            job, entries = await app.query("jobs:job_and_ledger", job_id)
            return cast("list[str]", entries) if job["state"]["kind"] == "success" else None

        assert await eventually(done) == ["tea"]


async def test_M1_two_workers_on_one_file_run_each_job_once(file_database: str) -> None:
    one = duly.App(__name__, database=file_database)
    other = duly.App(__name__, database=file_database)
    async with one, other:
        ids = [await one.scheduler.run_after(0, enter, str(number)) for number in range(60)]
        for job_id in ids:
            assert (await finished(other, job_id, "success"))["attempts"] == 1
        assert sorted(await one.query(ledger), key=int) == [str(number) for number in range(60)]


# M2: what goes wrong rolls everything back, and is recorded.


async def test_M2_an_exception_rolls_back_documents_jobs_and_cancels(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:
        victim = await app.scheduler.run_after(timedelta(days=1), enter, "later")
        kept = await app.mutation(perform, stage.body(insert_kept))

        @stage.body
        async def write_and_fail(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "lost"})
            await ctx.db.patch(kept, {"what": "changed"})
            await ctx.scheduler.run_after(0, enter, "never")
            await ctx.scheduler.cancel(victim)
            raise ValueError("no such order")

        before = await app.query(job_count)
        job_id = await app.scheduler.run_after(0, perform, write_and_fail)
        await finished(app, job_id, "failed")
        assert await app.query(ledger) == ["kept"]
        assert (await app.query(job_of, victim))["state"] == {"kind": "pending"}
        assert await app.query(job_count) == before + 1


async def insert_kept(ctx: duly.MutationCtx) -> str:
    return await ctx.db.insert("ledger", {"what": "kept"})


async def test_M2_the_error_is_recorded_with_type_message_and_traceback(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        def inner() -> None:
            raise ValueError("no such order")

        @stage.body
        async def fail(ctx: duly.MutationCtx) -> None:
            inner()

        job = await finished(app, await app.scheduler.run_after(0, perform, fail), "failed")
    error = job["state"]["error"]
    first, _, rest = error.partition("\n")
    assert first == "ValueError: no such order"
    assert "Traceback (most recent call last):" in rest
    assert rest.index("in perform") < rest.index("in fail") < rest.index("in inner")
    assert Path(__file__).name in rest
    assert 'raise ValueError("no such order")' in rest


async def test_M2_the_traceback_holds_no_frame_of_duly(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def nest(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(perform, stage.body(fail_inside))

        job = await finished(app, await app.scheduler.run_after(0, perform, nest), "failed")
    error = job["state"]["error"]
    assert "in fail_inside" in error
    assert str(Path(duly.__file__).parent) not in error


async def fail_inside(ctx: duly.MutationCtx) -> None:
    raise ValueError("inside")


async def test_M2_a_package_whose_name_begins_like_ours_is_the_users(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "duly_shop.jobs"
    source = """
        import duly

        @duly.mutation
        async def fail(ctx: duly.MutationCtx) -> None:
            raise ValueError("in the shop")

        @duly.query
        async def job_of(ctx: duly.QueryCtx, id: str) -> object:
            return await ctx.db.system.get(id)
    """
    ours = Path(duly.__file__).parent
    theirs = str(ours.with_name("duly_shop") / "jobs.py")
    deploy(monkeypatch, module, source, __file__=theirs)
    app = duly.App(module, database=database)
    async with app:
        fail = app._registry.resolve("jobs:fail").call
        fail.__code__ = fail.__code__.replace(co_filename=theirs)
        job_id = await app.scheduler.run_after(0, "jobs:fail")
        job = await has_finished(lambda: app.query("jobs:job_of", job_id), "failed")
    assert theirs in job["state"]["error"]


async def test_M2_a_cause_is_recorded_too(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def fail(ctx: duly.MutationCtx) -> None:
            try:
                raise KeyError("stock")
            except KeyError as error:
                raise RuntimeError("can't reserve") from error

        job = await finished(app, await app.scheduler.run_after(0, perform, fail), "failed")
    assert job["state"]["error"].startswith("RuntimeError: can't reserve\n")
    assert "caused by KeyError: 'stock'" in job["state"]["error"]


class NoWordsError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class OddError(BaseException):
    """Not even an Exception."""


@pytest.mark.parametrize(
    ("error", "headline"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (asyncio.CancelledError(), "CancelledError"),
        (asyncio.CancelledError("stop"), "CancelledError: stop"),
        (GeneratorExit(), "RuntimeError: "),
        (StopIteration(1), "RuntimeError: "),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (OddError("odd"), "OddError: odd"),
        (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), "ExceptionGroup: two (2 sub-exceptions)"),
        (TimeoutError(), "TimeoutError"),
        (NoWordsError(), "NoWordsError: "),
        (ValueError("a lone \ud800 surrogate"), "ValueError: a lone \\ud800 surrogate"),
        (ValueError("nul \0 byte"), "ValueError: nul \\x00 byte"),
        (AssertionError(), "AssertionError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (MemoryError(), "MemoryError"),
        (duly.AppError({"code": "sold_out"}), "AppError: {'code': 'sold_out'}"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_M2_whatever_is_raised_fails_the_job_and_not_the_worker(
    error: BaseException, headline: str, database: str
) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def fail(ctx: duly.MutationCtx) -> None:
            stage.seen.append("ran")
            await ctx.db.insert("ledger", {"what": "lost"})
            raise error

        job = await finished(app, await app.scheduler.run_after(0, perform, fail), "failed")
        assert job["state"]["error"].startswith(headline)
        await finished(app, await app.scheduler.run_after(0, enter, "next"), "success")
        assert await app.query(ledger) == ["next"]
        assert stage.seen == ["ran", "next"]


async def test_M2_a_huge_message_is_shortened(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def fail(ctx: duly.MutationCtx) -> None:
            raise ValueError("x" * 5_000_000)

        job = await finished(app, await app.scheduler.run_after(0, perform, fail), "failed")
    assert len(job["state"]["error"]) < 20_000
    assert job["state"]["error"].startswith("ValueError: xxx")
    assert "characters left out" in job["state"]["error"]


async def test_M2_a_conflict_that_the_function_made_up_is_its_failure(database: str) -> None:
    async with duly.App(__name__, database=database) as app:

        @stage.body
        async def fail(ctx: duly.MutationCtx) -> None:
            raise ConflictError("not the store's")

        failed = await finished(app, await app.scheduler.run_after(0, perform, fail), "failed")
        assert failed["state"]["error"].startswith("ConflictError: not the store's")


async def test_M2_a_failed_mutation_is_not_retried(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock)
    async with app:

        @stage.body
        async def fail(ctx: duly.MutationCtx) -> None:
            stage.seen.append("ran")
            raise ValueError

        job_id = await app.scheduler.run_after(0, perform, fail)
        failed = await finished(app, job_id, "failed")
        await clock.advance(3 * 24 * 60 * 60)
        assert await app.query(job_of, job_id) == failed
    assert stage.seen == ["ran"]
    assert failed["attempts"] == 1
    assert failed["completedTime"] == clock.now_ms() - 3 * 24 * 60 * 60 * 1_000


async def test_M2_a_bad_return_value_rolls_back(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:
        job = await finished(app, await app.scheduler.run_after(0, returns_text), "failed")
        assert job["state"]["error"].startswith("ReturnValueError: the return value of 'test_mutations:returns_text'")
        assert await app.query(ledger) == []


async def test_M2_a_limit_rolls_back(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def too_large(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "small"})
            await ctx.db.insert("ledger", {"what": "x" * 1_100_000})

        job = await finished(app, await app.scheduler.run_after(0, perform, too_large), "failed")
        assert job["state"]["error"].startswith("LimitError: bytes of one document: 1,100,0")
        assert await app.query(ledger) == []


async def test_M2_a_limit_that_is_caught_fails_nothing(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def catch(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "small"})
            with pytest.raises(duly.errors.LimitError):
                await ctx.db.insert("ledger", {"what": "x" * 1_100_000})

        await finished(app, await app.scheduler.run_after(0, perform, catch), "success")
        assert await app.query(ledger) == ["small"]


async def test_M2_time_run_out_rolls_back(database: str) -> None:
    app = duly.App(__name__, database=database, mutation_timeout=timedelta(milliseconds=30))
    async with app:

        @stage.body
        async def never_end(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "lost"})
            await asyncio.Event().wait()

        job = await finished(app, await app.scheduler.run_after(0, perform, never_end), "failed")
        assert job["state"]["error"].startswith("LimitError: the mutation 'test_mutations:perform' may run for ")
        assert await app.query(ledger) == []


async def test_M2_arguments_that_no_longer_fit_fail_it(file_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import duly

        @duly.mutation
        async def enter(ctx: duly.MutationCtx, what: {type}) -> None:
            await ctx.db.insert("ledger", {{"what": what}})

        @duly.query
        async def job_of(ctx: duly.QueryCtx, id: str) -> object:
            return await ctx.db.system.get(id)
    """
    old = duly.App(deploy(monkeypatch, "m2old.jobs", source.format(type="str")), database=file_database)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:enter", what="tea")
    new = duly.App(deploy(monkeypatch, "m2new.jobs", source.format(type="int")), database=file_database)
    async with new:
        job = await has_finished(lambda: new.query("jobs:job_of", job_id), "failed")
    assert job["state"]["error"].startswith("ArgumentError: the arguments don't fit 'jobs:enter': what: ")


async def test_M2_one_failure_takes_none_of_its_group_along(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def fail(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "lost"})
            raise ValueError

        @stage.body
        async def schedule(ctx: duly.MutationCtx) -> list[str]:
            ids: list[str] = []
            for number in range(40):
                if number % 4 == 1:
                    ids.append(await ctx.scheduler.run_after(0, perform, fail))
                else:
                    ids.append(await ctx.scheduler.run_after(0, enter, str(number)))
            return ids

        ids = await app.mutation(perform, schedule)
        for number, job_id in enumerate(ids):
            await finished(app, job_id, "failed" if number % 4 == 1 else "success")
        assert await app.query(ledger) == [str(number) for number in range(40) if number % 4 != 1]


# M3: conflicts and faults of the store are transient.


async def test_M3_a_conflict_is_retried_in_place(database: str) -> None:
    conflicts: list[Exception] = [ConflictError("lost") for _ in range(12)]
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock, entropy=HalfLuck(), store=commit_faults(before=conflicts))
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        await stage.has_seen(1)
        for conflict in range(12):
            # In place: neither the attempt nor a next time is persisted.
            job = await app.query(job_of, job_id)
            assert job["state"] == {"kind": "pending"}
            assert job["attempts"] == 0
            assert await app.query(ledger) == []
            # 100 ms doubling to 60 s, full jitter: half of it here.
            wait_ms = min(100 * 2**conflict, 60_000) / 2
            began = clock.now_ms()
            await clock.advance((wait_ms - 5) / 1_000)
            assert len(stage.seen) == conflict + 1
            while len(stage.seen) < conflict + 2:
                assert clock.now_ms() - began < wait_ms + 25  # a look takes some turns
                await clock.advance(0.001)
        await finished(app, job_id, "success")
        assert await app.query(ledger) == ["tea"]


@pytest.mark.parametrize("sticky", [True, False], ids=["noted by the engine", "only raised"])
async def test_M3_a_fault_is_persisted_and_retried(sticky: bool, database: str) -> None:
    stores: list[VerbFaults] = []

    def make(url: str, clock: Any) -> VerbFaults:
        store = VerbFaults(url, clock)
        store.sticky = sticky
        # An engine that notes the fault loses the transaction: the job is tried alone before it is put off.
        store.faults = [StoreUnavailableError("the disk is away") for _ in range(7 if sticky else 4)]
        stores.append(store)
        return store

    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock, entropy=HalfLuck(), store=make)
    async with app:
        start = clock.now_ms()
        job_id = await app.scheduler.run_after(0, enter, "tea")
        for failures in range(1, 5):

            async def postponed(failures: int = failures) -> Json | None:
                job = cast("Json", await app.query(job_of, job_id))
                return job if job["attempts"] == failures else None

            job = await eventually(postponed)
            assert job is not None
            assert job["state"] == {"kind": "pending"}
            assert job["pendingReason"] == "StoreUnavailableError: the disk is away"
            assert job["scheduledTime"] == start
            assert job["nextAttemptTime"] == clock.now_ms() + 250 * 2 ** (failures - 1)
            assert await app.query(ledger) == []
            if failures == 4:
                stores[0].faults.clear()
            ran = len(stage.seen)
            await clock.advance((250 * 2 ** (failures - 1) - 1) / 1_000)
            assert len(stage.seen) == ran
            await clock.advance(0.001)
        job = await finished(app, job_id, "success")
        assert await app.query(ledger) == ["tea"]
        assert job["attempts"] == 5
        assert job["scheduledTime"] == start
        assert "pendingReason" not in job
        assert "nextAttemptTime" not in job


async def test_M3_faults_are_retried_for_ever_two_hours_apart_at_most(database: str) -> None:
    failures = 25
    faults: list[Exception] = [StoreUnavailableError("away") for _ in range(failures)]

    def make(url: str, clock: Any) -> VerbFaults:
        store = VerbFaults(url, clock)
        store.sticky, store.faults = False, faults
        return store

    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock, entropy=HalfLuck(), store=make)
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        for attempt in range(1, failures + 1):
            await stage.has_seen(attempt)

            async def postponed(attempt: int = attempt) -> Json | None:
                job = cast("Json", await app.query(job_of, job_id))
                return job if job["attempts"] == attempt else None

            job = await eventually(postponed)
            assert job is not None
            wait_ms = job["nextAttemptTime"] - clock.now_ms()
            assert wait_ms == min(500 * 2 ** (attempt - 1), 7_200_000) / 2
            await clock.advance(wait_ms / 1_000)
        await finished(app, job_id, "success")
        assert await app.query(ledger) == ["tea"]


async def test_M3_a_fault_that_the_function_swallows_is_a_fault_all_the_same(database: str) -> None:
    def make(url: str, clock: Any) -> VerbFaults:
        store = VerbFaults(url, clock)
        store.sticky, store.faults = True, [StoreUnavailableError("away"), StoreUnavailableError("away")]
        return store

    app = duly.App(__name__, database=database)
    app._parts = Parts(entropy=HalfLuck(), store=make)
    async with app:

        @stage.body
        async def swallow(ctx: duly.MutationCtx) -> None:
            for what in ("first", "second"):
                try:
                    await ctx.db.insert("ledger", {"what": what})
                except StoreUnavailableError:
                    stage.seen.append(what)

        await finished(app, await app.scheduler.run_after(0, perform, swallow), "success")
        assert stage.seen
        assert await app.query(ledger) == ["first", "second"]


async def test_M3_a_full_disk_puts_off_only_what_does_not_fit(embedded_database: str) -> None:
    app = duly.App(__name__, database=embedded_database)
    app._parts = Parts(entropy=HalfLuck())
    async with app:
        await app.mutation(enter, "before")
        writer = cast("Any", app._store)._writer
        pages = writer.execute("PRAGMA page_count").fetchall()[0][0]
        writer.execute(f"PRAGMA max_page_count = {pages + 30}")

        @stage.body
        async def large(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert("ledger", {"what": "x" * 1_000_000})

        large_id = await app.scheduler.run_after(0, perform, large)
        small_ids = [await app.scheduler.run_after(0, enter, str(number)) for number in range(5)]
        for job_id in small_ids:
            await finished(app, job_id, "success")

        async def postponed() -> Json | None:
            job = cast("Json", await app.query(job_of, large_id))
            return job if job["attempts"] else None

        job = await eventually(postponed)
        assert job is not None
        assert job["state"] == {"kind": "pending"}
        assert "the disk is full" in job["pendingReason"]
        assert job["nextAttemptTime"] > job["scheduledTime"]
        assert len(await app.query(ledger)) == 6

        writer.execute("PRAGMA max_page_count = 1000000")
        await finished(app, large_id, "success")
        assert len(await app.query(ledger)) == 7


async def test_M3_after_a_fault_nothing_more_is_written(embedded_database: str) -> None:
    app = duly.App(__name__, database=embedded_database)
    app._parts = Parts(entropy=HalfLuck())
    async with app:
        await app.mutation(enter, "before")
        writer = cast("Any", app._store)._writer
        pages = writer.execute("PRAGMA page_count").fetchall()[0][0]
        writer.execute(f"PRAGMA max_page_count = {pages + 30}")

        @stage.body
        async def swallow(ctx: duly.MutationCtx) -> None:
            with contextlib.suppress(StoreUnavailableError):
                await ctx.db.insert("ledger", {"what": "x" * 1_000_000})
            stage.seen.append("small")
            await ctx.db.insert("ledger", {"what": "small"})

        job_id = await app.scheduler.run_after(50, perform, swallow)

        async def postponed() -> bool:
            return bool((await app.query(job_of, job_id))["attempts"])

        await eventually(postponed)
        with pytest.raises(StoreUnavailableError, match="the disk is full"):
            await app.mutation(perform, swallow)
        assert await app.query(ledger) == ["before"]
        writer.execute("PRAGMA max_page_count = 1000000")
        await finished(app, job_id, "success")
        assert len(await app.query(ledger)) == 3


@pytest.mark.parametrize(
    "error", [ConflictError("lost"), StoreUnavailableError("away")], ids=["a conflict", "a store fault"]
)
async def test_M3_a_commit_that_is_reported_as_failed_takes_effect_once(error: Exception, database: str) -> None:
    app = duly.App(__name__, database=database)
    app._parts = Parts(entropy=HalfLuck(), store=commit_faults(after=[error, error]))
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        job = await finished(app, job_id, "success")
        assert job["attempts"] == 1
        await finished(app, await app.scheduler.run_after(0, enter, "next"), "success")
        await finished(app, await app.scheduler.run_after(0, enter, "last"), "success")
        assert await app.query(ledger) == ["tea", "next", "last"]
        assert await app.query(job_of, job_id) == job


async def test_M3_a_commit_that_fails_takes_no_effect_until_it_holds(database: str) -> None:
    faults: list[Exception] = [StoreUnavailableError("away") for _ in range(3)]
    app = duly.App(__name__, database=database)
    app._parts = Parts(entropy=HalfLuck(), store=commit_faults(before=faults))
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        await finished(app, job_id, "success")
        assert await app.query(ledger) == ["tea"]
        assert len(stage.seen) == 4


def test_M3_an_event_loop_that_is_shut_down_leaves_the_job_pending(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)

    @stage.body
    async def wait_for_ever(ctx: duly.MutationCtx) -> None:
        await ctx.db.insert("ledger", {"what": "lost"})
        stage.seen.append("inside")
        await asyncio.Event().wait()

    async def abandon() -> str:
        await app.__aenter__()
        job_id = await app.scheduler.run_after(50, perform, wait_for_ever)
        await stage.has_seen(1)
        return job_id  # asyncio.run cancels whatever still runs

    job_id = asyncio.run(abandon())
    # What would end with the process.
    cast("Any", app._executor)._keeper.close()
    store = cast("Any", app._store)
    store._peers._mailbox._socket.close()
    store._peers._mailbox = None
    store._disconnect()

    async def look() -> None:
        again = duly.App(__name__, database=file_database)
        async with again.client():
            job = await again.query(job_of, job_id)
            assert job["state"] == {"kind": "pending"}
            assert job["attempts"] == 0
            assert await again.query(ledger) == []

    asyncio.run(look())


async def test_M3_a_graceful_stop_leaves_what_has_not_begun_pending(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app:

        @stage.body
        async def wait_at_the_gate(ctx: duly.MutationCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()

        later_id = await app.scheduler.run_after(timedelta(days=1), enter, "later")
        running_id = await app.scheduler.run_after(50, perform, wait_at_the_gate)
        await stage.has_seen(1)
        stage.gate("open").set()
    again = duly.App(__name__, database=file_database)
    async with again.client():
        assert (await again.query(job_of, running_id))["state"]["kind"] == "success"
        later = await again.query(job_of, later_id)
        assert later["state"] == {"kind": "pending"}
        assert later["attempts"] == 0
