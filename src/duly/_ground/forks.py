"""What a child made by fork must let go of, because it is its parent's.

A lock on a file belongs to every process that inherited the open file: else a worker that is killed seems to live, and
to hold the file, for as long as a child of one of its actions does. And chance that was drawn beforehand must not be
used twice.
"""

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_children"]

T = TypeVar("T")


def in_children(owner: T, let_go: Callable[[T], object]) -> None:
    """Calls `let_go(owner)` in each child that this process forks while the owner lives."""
    reference = weakref.ref(owner)

    def after_fork() -> None:
        if (found := reference()) is not None:
            let_go(found)

    os.register_at_fork(after_in_child=after_fork)
