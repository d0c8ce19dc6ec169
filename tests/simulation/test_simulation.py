"""A few hundred seeds on every run of the tests, and that a seed is all there is to a simulation."""

import subprocess
import sys

import pytest

from tests import postgres
from tests.docs.readme import ROOT, environment
from tests.simulation import simulate as simulating
from tests.simulation.mutants import MUTANTS
from tests.simulation.simulate import Broken, simulate

SEEDS = 320
CHUNK = 20
POSTGRESQL_SEEDS, POSTGRESQL_CHUNK = 40, 5


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept(first: int) -> None:
    for seed in range(first, first + CHUNK):
        simulate(seed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, POSTGRESQL_SEEDS, POSTGRESQL_CHUNK))
def test_every_promise_is_kept_on_postgresql(first: int, postgresql_database: str) -> None:
    for seed in range(first, first + POSTGRESQL_CHUNK):
        postgres.empty(postgresql_database)
        simulate(seed, postgresql_database)


@pytest.mark.parametrize("seed", [3, 7, 228])
def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    first, second = simulate(seed), simulate(seed)
    assert first.history == second.history
    assert len(first.history) > 10
    # In another process, with other hashes of strings, too.
    code = f"from tests.simulation.simulate import simulate; print(simulate({seed}).fingerprint)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == first.fingerprint, done.stderr


def test_different_seeds_give_different_histories() -> None:
    assert len({simulate(seed).fingerprint for seed in range(10)}) == 10


def test_what_is_broken_is_told_with_its_history_and_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulating, "_unfinished", lambda _: iter(["planted"]))
    with pytest.raises(
        Broken, match=r"(?s)seed 3: Broken: planted\n.*replay it: python -m tests\.simulation\.simulate 3$"
    ):
        simulate(3)


def test_every_mutant_still_fits_the_source() -> None:
    """`make mutants` runs them; here it is only seen that they can be planted."""
    assert len(MUTANTS) >= 12
    for mutant in MUTANTS:
        for file, old, _ in mutant.edits:
            text = (ROOT / "src" / "duly" / file).read_text(encoding="utf-8")
            assert old in text, f"{mutant.name!r}: {file} has changed; bring the mutant up to date"
