"""The one door to chance. Everything above takes an `Entropy`; ruff bans the rest."""

import os
import random
from typing import Protocol

__all__ = ["Entropy", "SystemEntropy"]


class Entropy(Protocol):
    """Bytes nobody can guess, a number for jitter, and generators for functions to use."""

    def token(self, size: int, /) -> bytes:
        """`size` unpredictable bytes."""
        ...

    def uniform(self) -> float:
        """A number in [0, 1), for backoff."""
        ...

    def generator(self) -> random.Random:
        """A freshly seeded generator: what a function sees as `ctx.random`."""
        ...


class SystemEntropy:
    """The machine's source of randomness."""

    token = staticmethod(os.urandom)

    def uniform(self) -> float:
        return random.random()

    def generator(self) -> random.Random:
        return random.Random(self.token(16))
