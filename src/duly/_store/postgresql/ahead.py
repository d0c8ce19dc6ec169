"""Documents that are read before the transaction begins which rests on them.

Read within it, a document locks the page of the primary key and soon the page of the table that it stands on, against
whoever writes its neighbours: groups of jobs that share nothing but pages lose against each other. Read ahead, it locks
nothing; the transaction sees at its start, or as it writes, whether the document is still the version that was read. So
it also is as short as its writes, however long the mutations take.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from duly._store.postgresql.wire import Statement

__all__ = ["Ahead"]

_CHECKED = ("documents_check", "document_replace_ahead")

_ID = re.compile(r'"([0-9a-hjkmnp-tv-z]{32})"')
_EXPECTED_MAX = 1_000


class Ahead:
    """Documents that were read ahead, as long as it is not known whether they are still so.

    Args:
        sql: The statements.
    """

    def __init__(self, sql: Mapping[str, str]) -> None:
        self._sql = sql
        # What is likely to be read, and goes along with the next document that is.
        self._expected: set[str] = set()
        self._bodies: dict[str, str] = {}
        # By id: where its row is, and which transaction wrote it. A place alone may be used again.
        self._versions: dict[str, tuple[str, str]] = {}
        # What somebody has seen, and the transaction rests on.
        self._seen: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._bodies)

    def expect(self, arguments: str) -> None:
        """A job's arguments tell what it will read first."""
        if len(self._expected) < _EXPECTED_MAX:
            self._expected.update(_ID.findall(arguments))

    def ids_with(self, id: str, known: Collection[str]) -> list[str]:
        """A document that is to be read, and those that are expected."""
        expected, self._expected = self._expected, set()
        return [id, *(other for other in expected if other != id and other not in known)]

    def question(self, ids: list[str]) -> Statement:
        return Statement(self._sql["documents_ahead"], (ids,), "documents_ahead")

    def learn(self, rows: Sequence[Any]) -> None:
        """An answer to `question`."""
        for id, body, place, version in rows:
            if id not in self._bodies:
                self._bodies[id] = body
                self._versions[id] = (place, version)

    def get(self, id: str) -> str | None:
        body = self._bodies.get(id)
        if body is not None:
            self._seen.add(id)
        return body

    def take(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Of documents to be replaced, those that the statement which writes them has to check, with their versions."""
        # Once: the row that is written now will be elsewhere.
        taken = [(*row, *self._versions.pop(row[0])) for row in rows if row[0] in self._versions]
        for row in taken:
            self._seen.discard(row[0])
            del self._bodies[row[0]]
        return taken

    def check(self) -> tuple[list[tuple[str, str, str]], dict[str, str | None]]:
        """What the transaction has to check first, for those that it has not written by then, each with its version;
        and the bodies that it may rely on from then on."""
        seen = [(id, *self._versions[id]) for id in self._seen]
        bodies: dict[str, str | None] = {id: self._bodies[id] for id in self._seen}
        self._bodies, self._versions, self._seen = {}, {}, set()
        return seen, bodies

    def checks_again(self, queue: Sequence[Statement]) -> list[tuple[Statement, int]]:
        """What in a queue rests on what was read ahead, as questions, with how many rows each finds if it holds."""
        columns = [statement.parameters for statement in queue if statement.name in _CHECKED and statement.parameters]
        return [
            (Statement(self._sql["documents_check"], (ids, *rest[-2:]), "documents_check"), len(ids))
            for ids, *rest in columns
        ]
