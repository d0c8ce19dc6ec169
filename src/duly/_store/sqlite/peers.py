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

from duly._store.port import TOPICS, Topic

__all__ = ["Mailbox"]

_LETTERS = {topic: topic[0].encode() for topic in TOPICS}
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
