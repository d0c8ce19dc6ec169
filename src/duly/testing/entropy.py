"""Chance that comes out the same for the same seed."""

import random

__all__ = ["SeededEntropy"]


class SeededEntropy:
    """An `Entropy` for tests. Its ids are as unique as any, and alike in each run.

    Args:
        seed: Any int.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size: int, /) -> bytes:
        return self._random.randbytes(size)

    def uniform(self) -> float:
        return self._random.random()

    def generator(self) -> random.Random:
        return random.Random(self._random.getrandbits(64))
