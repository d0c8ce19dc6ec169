"""Waking other processes on the same file: a datagram to each after a commit that made work.

A datagram is a hint that may get lost, so it carries nothing but the topics to look at; beside it every process that
has peers compares `PRAGMA data_version`, a counter in shared memory, a few times a second. A process that is alone
does neither.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import apsw

from duly._ground.clock import Clock
from duly._store.port import TOPICS, Topic
from duly._store.signal import Signal
from duly._store.sqlite.connection import connect
from duly._store.sqlite.shared import Shared
from duly._store.sqlite.transaction import SQLiteTransaction
from duly.errors import StoreError

__all__ = ["Mailbox", "Peers"]

_GLANCE_S = 0.1

_LETTERS: dict[Topic, bytes] = {topic: topic[0].encode() for topic in TOPICS}
_UNIX_PATH_MAX = 100


class Mailbox:
    """Receives wake-ups for one worker, and sends them to others by their address."""

    def __init__(self, path: Path, received: Callable[[Topic], None]) -> None:
        self._received = received
        self._socket, self.address = _bind(path)
        self._socket.setblocking(False)
        self._path = path
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        letters = set[int]()
        with contextlib.suppress(OSError):
            while message := self._socket.recv(16):
                letters.update(message)
        for topic, letter in _LETTERS.items():
            if letter[0] in letters:
                self._received(topic)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    @staticmethod
    def send(folder: Path, addresses: Iterable[str], topics: Iterable[Topic]) -> None:
        """Tells each address. One that is gone, or full and so awake already, is passed over."""
        message = b"".join(_LETTERS[topic] for topic in topics)
        for address in addresses:
            scheme, _, rest = address.partition(":")
            family = socket.AF_UNIX if scheme == "unix" else socket.AF_INET
            target = str(folder / rest) if scheme == "unix" else ("127.0.0.1", int(rest))
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message, target)


def _bind(path: Path) -> tuple[socket.socket, str]:
    # A socket file beside the database reaches processes in other containers on the same volume, too. Where its path
    # is too long for one, loopback serves: a forged datagram could make us look for work, and nothing else.
    if len(os.fsencode(path)) <= _UNIX_PATH_MAX:
        box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            box.bind(str(path))
            return box, f"unix:{path.name}"
        box.close()
    box = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    box.bind(("127.0.0.1", 0))
    return box, f"udp:{box.getsockname()[1]}"


class Peers:
    """Other processes on the same file, as this one knows them: whom to tell of a commit, and who follows.

    Args:
        shared: The store's.
        signal: What this process's own sleepers wait for.
        clock: The door to time.
        received: Told of what others say.
    """

    def __init__(self, shared: Shared, signal: Signal, clock: Clock, received: Callable[[Topic], None]) -> None:
        self._shared = shared
        self._signal = signal
        self._clock = clock
        self._received = received
        self._mailbox: Mailbox | None = None
        self._glances: asyncio.Task[None] | None = None
        # Where to tell workers and followers, by their ids.
        self.addresses: dict[str, str] = {}
        # Those who follow what is committed, here and elsewhere, and until when (ms).
        self.followers: dict[str, float] = {}

    def open_mailbox(self, owner: str) -> str:
        """Its address. There is one for each process, whatever it does."""
        if self._mailbox is None:
            self._shared.folder.mkdir(exist_ok=True)
            self._mailbox = Mailbox(self._shared.folder / f"{owner}.sock", self._received)
        return self._mailbox.address

    def close(self) -> None:
        if self._mailbox is not None:
            self._mailbox.close()
            self._mailbox = None

    def anybody_follows(self) -> bool:
        return max(self.followers.values(), default=0) > self._clock.now_ms()

    def meet(self, tx: SQLiteTransaction) -> None:
        """Looks who is there."""
        followers = tx.list_followers()
        self.followers = {id: until for id, _, until in followers}
        now = self._clock.now_ms()
        others = [*tx.list_workers(), *((id, address) for id, address, until in followers if until > now)]
        own = None if self._mailbox is None else self._mailbox.address
        addresses = {id: address for id, address in others if address != own}
        if addresses != self.addresses:
            self.addresses = addresses
            self._signal.notify("upkeep")
        if addresses and self._mailbox is not None and self._glances is None:
            self._glances = asyncio.get_running_loop().create_task(self._glance(), name="duly peer watch")

    def tell(self, made_work: dict[Topic, float | None]) -> None:
        """After a commit: wakes sleepers here and elsewhere."""
        for topic, due in made_work.items():
            self._signal.notify(topic, due)
        if made_work and self.addresses:
            Mailbox.send(self._shared.folder, self.addresses.values(), made_work)

    async def _glance(self) -> None:
        """The net under lost datagrams, while there are others: has anybody committed? (1.8 µs, no disk.)

        Our own commits count, too: each connection has numbers of its own, so nothing tells them apart.
        """
        connection: apsw.Connection | None = None
        seen = None
        try:
            while self.addresses:
                with contextlib.suppress(apsw.Error, StoreError):  # whoever looks for work will say what is wrong
                    connection = connection or connect(self._shared.path)
                    version = connection.execute("PRAGMA data_version").fetchall()[0][0]
                    if version != seen:
                        self._signal.notify("mutation")
                        self._signal.notify("action")
                        self._signal.notify("change")
                    seen = version
                await self._clock.sleep(_GLANCE_S)
        finally:
            if connection is not None:
                connection.close()
            self._glances = None

    async def stop_watching(self) -> None:
        if self._glances is not None:
            self._glances.cancel()
            await asyncio.gather(self._glances, return_exceptions=True)
            self._glances = None
