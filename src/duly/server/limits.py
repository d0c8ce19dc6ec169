"""What clients may take."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take.

    Args:
        connections: How many at once in this process.
        queries: How many one connection may be subscribed to.
        mutations: How many mutations of one connection may wait.
        actions: How many actions of one connection may run.
    """

    connections: int
    queries: int
    mutations: int = 1_000
    actions: int = 1_000
