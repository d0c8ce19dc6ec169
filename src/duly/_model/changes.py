"""What transactions read and what they wrote, so far that one can tell whether a result still holds.

A query read documents and jobs by id, and ranges of indexes. A commit wrote documents and jobs, and entries of indexes
came or went. A result is touched by a commit that wrote what it read, or put something into a range that it looked at.
"""

import base64
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

__all__ = ["CREATED", "JOBS", "Changes", "Range", "Reads", "Spot", "jobs_of_state"]

CREATED = -1
"""The index of all documents, by creation."""
JOBS = -2
"""The index of all jobs, by the order of scheduling."""
_STATES = {"pending": -3, "inProgress": -4, "success": -5, "failed": -6, "canceled": -7}
# More than a person would watch change; whoever reads so much looks at everything again.
_CHANGES_MAX = 5_000


def jobs_of_state(state: str) -> int:
    """The index of all jobs of a state, by the order of scheduling."""
    return _STATES[state]


Spot = tuple[bytes, str]
"""A place in an index: a key, and the id of what has it."""


Range = tuple[int, Spot, Spot]
"""What lies between two spots of an index, both exclusive."""


class Reads:
    """What a query read."""

    __slots__ = ("ids", "ranges")

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.ranges: list[Range] = []

    def touched_by(self, changes: "Changes") -> bool:
        """Whether a result that rests on this may be another after these changes."""
        if changes.everything or not self.ids.isdisjoint(changes.ids):
            return True
        return any(
            after < spot < before for index, after, before in self.ranges for spot in changes.entries.get(index, ())
        )


class Changes:
    """What commits wrote. `everything` stands for more than is worth telling, or for what nobody knows any more."""

    __slots__ = ("entries", "everything", "ids")

    def __init__(self, *, everything: bool = False) -> None:
        self.ids: set[str] = set()
        self.entries: dict[int, set[Spot]] = {}
        self.everything = everything

    def __bool__(self) -> bool:
        return self.everything or bool(self.ids) or bool(self.entries)

    def add_ids(self, ids: Iterable[str]) -> None:
        self.ids.update(ids)

    def add_entry(self, index: int, key: bytes, id: str) -> None:
        self.entries.setdefault(index, set()).add((key, id))

    def update(self, other: "Changes") -> None:
        self.everything = self.everything or other.everything
        self.ids |= other.ids
        for index, spots in other.entries.items():
            self.entries.setdefault(index, set()).update(spots)

    def dump(self) -> str:
        """As JSON text."""
        if self.everything or len(self.ids) + sum(map(len, self.entries.values())) > _CHANGES_MAX:
            return "null"
        return orjson.dumps({"ids": sorted(self.ids), "entries": list(self._rows())}).decode()

    def _rows(self) -> Iterator[tuple[int, str, str]]:
        for index, spots in self.entries.items():
            for key, id in spots:
                yield index, base64.b64encode(key).decode(), id

    @classmethod
    def load(cls, text: str) -> "Changes":
        data: Any = orjson.loads(text)
        changes = cls(everything=data is None)
        if data is not None:
            changes.ids.update(data["ids"])
            for index, key, id in data["entries"]:
                changes.add_entry(index, base64.b64decode(key), id)
        return changes
