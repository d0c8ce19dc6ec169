"""Moving a database: out of one store into a file of lines, and from there into another, whatever their engines.

    {"header":{"duly":"export","format":1}}
    {"table":{"tag":"…","name":"orders"}}
    {"index":{"tag":"…","name":"by_status","fields":["status"]}}
    {"document":{"id":"…","body":"…"}}      the body as it is stored, to the letter
    {"job":{"id":"…","state":"pending",…}}  every field of a `Job`
    {"end":{"sha256":"…","counts":{"table":1,…}}}

What is written is one snapshot. What is read in is one transaction: all of it, or nothing.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import orjson

from duly._ground import values
from duly._ground.ids import ID_HIGHEST, check_id
from duly._model.job import Job
from duly._model.schema import Index, index_key
from duly._store.port import Position, Store, Transaction
from duly.errors import InvalidIdError, StoreError

__all__ = ["KINDS", "Counts", "export_to", "import_from"]

Counts = dict[str, int]
"""How many lines of each kind there are."""

KINDS = ("table", "index", "document", "job")

_FORMAT = 1
# Read at a time: a document may have 1 MiB, the arguments of a job 4 MiB.
_DOCUMENTS = 50
_JOBS = 20
# Of the file: how much is kept back before the engine gets it.
_KEPT_BYTES = 4 * 1024 * 1024
_LOWEST, _HIGHEST = Position(b"", ""), Position(b"", ID_HIGHEST)


async def export_to(write: Callable[[bytes], object], store: Store) -> Counts:
    """Writes everything that a store holds, as of one moment, while others may go on writing to it."""
    writer = _Writer(write)

    async def body(tx: Transaction) -> None:
        writer.line("header", {"duly": "export", "format": _FORMAT})
        for tag, name in await tx.list_tables():
            writer.line("table", {"tag": tag, "name": name})
            for stored in await tx.stored_indexes(tag):
                writer.line("index", {"tag": tag, "name": stored.spec.name, "fields": stored.spec.fields})
        after = _LOWEST
        while entries := await tx.scan(None, after, _HIGHEST, descending=False, limit=_DOCUMENTS):
            for entry in entries:
                writer.line("document", {"id": entry.position.id, "body": entry.body})
            after = entries[-1].position
        last = ""
        while jobs := await tx.scan_jobs(last, ID_HIGHEST, descending=False, limit=_JOBS):
            for job in jobs:
                # SQLite has no booleans.
                writer.line("job", job._asdict() | {"parked": bool(job.parked)})
            last = jobs[-1].id
        writer.line("end", {"sha256": writer.hash.hexdigest(), "counts": writer.counts})

    await store.read(body)
    return writer.counts


async def import_from(file: BinaryIO, store: Store) -> Counts:
    """Puts what `export_to` wrote into a store that holds nothing yet, in one transaction.

    Raises:
        StoreError: The store is not empty, or the file is no export, is cut off or damaged. Nothing was imported.
    """

    async def body(tx: Transaction) -> Counts:
        await _check_empty(tx)
        file.seek(0)  # the store may run this again
        reader = _Reader(file)
        kept = 0
        for kind, content in reader:
            await _put(tx, kind, content)
            if reader.size - kept > _KEPT_BYTES:
                await tx.push()
                kept = reader.size
        return reader.counts

    return await store.transact(body)


async def _check_empty(tx: Transaction) -> None:
    for what, found in (
        ("documents", await tx.scan(None, _LOWEST, _HIGHEST, descending=False, limit=1)),
        ("scheduled functions", await tx.scan_jobs("", ID_HIGHEST, descending=False, limit=1)),
    ):
        if found:
            raise StoreError(f"the database is not empty, it holds {what}; import into a new one")


async def _put(tx: Transaction, kind: str, content: Any) -> None:
    if kind == "document":
        id, body = content
        await tx.insert_document(id, body)
        stored = await tx.stored_indexes(check_id(id))
        if stored:
            fields = values.decode(body)
            for index in stored:
                await tx.insert_entry(index.id, Position(index_key(index.spec, fields), id))
    elif kind == "job":
        await tx.insert_job(content)
    elif kind == "table":
        await tx.remember_table(*content)
    else:
        tag, index = content
        # The app may declare it, and then it is there.
        if index not in {stored.spec for stored in await tx.stored_indexes(tag)}:
            await tx.create_index(tag, index)


def _parse(kind: str, content: dict[str, Any]) -> Any:
    """What `_put` puts. Raises `KeyError`, `TypeError` or `InvalidIdError` for what it can't be."""
    if kind == "document":
        check_id(content["id"])
        return content["id"], content["body"]
    if kind == "job":
        check_id(content["id"])
        return Job(**content)._replace(parked=bool(content["parked"]))
    if kind == "table":
        return content["tag"], content["name"]
    return content["tag"], Index(content["name"], tuple(content["fields"]))


class _Writer:
    """Writes lines, and counts and hashes what it has written."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.hash = hashlib.sha256()
        self.counts: Counts = dict.fromkeys(KINDS, 0)

    def line(self, kind: str, content: dict[str, Any]) -> None:
        line = orjson.dumps({kind: content}, option=orjson.OPT_APPEND_NEWLINE)
        self._write(line)
        self.hash.update(line)
        if kind in self.counts:
            self.counts[kind] += 1


class _Reader:
    """Reads what `_Writer` wrote. Raises `StoreError` where it is anything else, in the end at the latest."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self._hash = hashlib.sha256()
        self._number = 0
        self.size = 0
        self.counts: Counts = dict.fromkeys(KINDS, 0)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        lines = iter(self._lines)
        self._check_header(next(lines, b""))
        for line in lines:
            kind, content = self._split(line)
            if kind == "end":
                if content != {"sha256": self._hash.hexdigest(), "counts": self.counts}:
                    raise StoreError("the file is damaged: it does not hold what was written; export again")
                if next(lines, b""):
                    raise StoreError(f"the file is damaged: it goes on after line {self._number}, its end")
                return
            if kind not in KINDS:
                raise self._damaged()
            try:
                parsed = _parse(kind, content)
            except (KeyError, TypeError, InvalidIdError):
                raise self._damaged() from None
            self._take(line)
            self.counts[kind] += 1
            yield kind, parsed
        raise StoreError(f"the file is cut off after line {self._number}; copy or export it again")

    def _check_header(self, line: bytes) -> None:
        try:
            kind, content = self._split(line)
        except StoreError:
            kind, content = "", {}
        if kind != "header" or content.get("duly") != "export":
            raise StoreError("the file is no export of duly's; make one with duly export")
        if content.get("format") != _FORMAT:
            raise StoreError(
                f"the file is of format {content.get('format')!r}, and this duly reads format {_FORMAT}; use the duly "
                "that wrote it, or a newer one"
            )
        self._take(line)

    def _split(self, line: bytes) -> tuple[str, dict[str, Any]]:
        self._number += 1
        try:
            ((kind, content),) = orjson.loads(line).items()
        except (ValueError, AttributeError):
            raise self._damaged() from None
        if not isinstance(content, dict):
            raise self._damaged()
        return kind, content

    def _take(self, line: bytes) -> None:
        self._hash.update(line)
        self.size += len(line)

    def _damaged(self) -> StoreError:
        return StoreError(f"the file is damaged: line {self._number} is not as it was written; copy or export it again")
