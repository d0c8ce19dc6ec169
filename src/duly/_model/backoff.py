"""How long to wait after a failure: full jitter under a doubling cap (rule M3)."""

from dataclasses import dataclass

__all__ = ["CONFLICT", "FAULT", "OUTAGE", "Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    initial_ms: float
    maximum_ms: float

    def delay_ms(self, failures: int, uniform: float) -> float:
        """The wait after the given number of failures in a row, of which there is at least one.

        Args:
            failures: 1 after the first.
            uniform: Chance, in [0, 1). Full jitter: whoever failed together does not come back together.
        """
        assert failures >= 1
        # Beyond 2^60 the cap has long been reached; the bound keeps the float finite.
        return uniform * min(self.initial_ms * 2.0 ** min(failures - 1, 60), self.maximum_ms)


CONFLICT = Backoff(100, 60_000)
"""Lost against another transaction: retried in place."""

FAULT = Backoff(500, 2 * 60 * 60 * 1_000)
"""The store failed while a job ran: persisted with the job."""

OUTAGE = Backoff(100, 5_000)
"""The store can't even be asked. Kept short, because nothing else will tell that it is back."""
