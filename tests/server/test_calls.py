"""Calls by path, apart from how they come in."""

import doctest
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import duly
from duly.server import calls, values
from duly.server.calls import BadPathError, Caller, CallError, Calls, Success, canonical_path
from duly.testing.faults import StoreView


@pytest.mark.parametrize("module", [calls, values])
def test_a_session_shown_in_a_docstring_goes_as_shown(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


@given(st.text() | st.from_regex(r"[a-z./:_]{0,9}:[a-z_.]{0,3}"))
def test_a_path_has_one_form(text: str) -> None:
    try:
        path = canonical_path(text)
    except BadPathError:
        return
    assert canonical_path(path) == path
    assert canonical_path(path.replace(":", ".js:")) == path


@pytest.mark.parametrize("length", [64, 65])
def test_a_step_of_a_path_has_64_characters_at_most(length: int) -> None:
    for path in (f"app:{'a' * length}", f"{'a' * length}:list", f"{'a' * length}/app:list"):
        if length == 64:
            assert canonical_path(path) == path
        else:
            with pytest.raises(BadPathError):
                canonical_path(path)


async def test_only_an_admin_calls_internal_functions(app: duly.App) -> None:
    async with app.client():
        run = Calls(app._running)
        with pytest.raises(CallError, match="Could not find public function"):
            run.prepare("query", "app:hidden", {}, Caller())
        admin = Caller(is_admin=True)
        hidden = run.prepare(None, "app:hidden", {}, admin)
        assert await run.run(hidden, admin) == Success('"hidden"')


async def test_each_run_gets_arguments_of_its_own(app: duly.App) -> None:
    async with app.client():
        run = Calls(app._running)
        sent: dict[str, Any] = {"value": [1]}
        prepared = run.prepare("query", "app:echo", sent, Caller())
        first, second = prepared.arguments(), prepared.arguments()
        first["value"].append("changed")
        assert second == {"value": [1.0]}
        assert prepared.arguments() == {"value": [1.0]}


async def test_T1_a_mutation_that_is_run_again_gets_its_arguments_anew(app: duly.App) -> None:
    class TwiceStore(StoreView):
        """Runs each transaction twice, and commits the second."""

        async def transact(self, body: Any, /, *, claims: bool = False) -> Any:
            async def twice(tx: Any) -> Any:
                before = tx.savepoint()
                await body(tx)
                await tx.rollback(before)
                return await body(tx)

            return await self._store.transact(twice, claims=claims)

    async with app.client():
        assert app._runner is not None
        app._runner.environment.store = TwiceStore(app._runner.environment.store)
        run = Calls(app._running)
        prepared = run.prepare("mutation", "app:write_all", {"texts": ["tea", "salt"]}, Caller())
        assert await run.run(prepared, Caller()) == Success("2.0")
        read = run.prepare("query", "app:texts", {}, Caller())
        assert await run.run(read, Caller()) == Success('["tea","salt"]')


async def test_a_failure_has_an_id_of_its_own(app: duly.App) -> None:
    async with app.client():
        run = Calls(app._running, dev=True)
        one, two = (run.failure(CallError("no"), "app:echo") for _ in range(2))
        assert one != two
        assert one.message.endswith("] Server Error\nno")
        assert (one.data, run.failure(duly.AppError(None), "app:echo").data) == (None, "null")
