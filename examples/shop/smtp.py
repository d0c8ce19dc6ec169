"""A local mail server that prints what it gets: `python -m examples.shop.smtp` listens on 127.0.0.1:8025."""

import email
import email.policy
import signal
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller


class Postbox:
    """Takes every mail, and hands it on."""

    def __init__(self, receive: Callable[[EmailMessage], None]) -> None:
        self._receive = receive

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self._receive(message)
        return "250 OK"


def serve(receive: Callable[[EmailMessage], None], port: int) -> Controller:
    """Starts the server in a thread; `stop()` ends it."""
    controller = Controller(Postbox(receive), hostname="127.0.0.1", port=port)
    controller.start()
    return controller


def show(message: EmailMessage) -> None:
    print(f"✉  to {message['To']}: {message['Subject']}\n   {message.get_content().strip()}", flush=True)


if __name__ == "__main__":
    server = serve(show, 8025)
    print("listening on 127.0.0.1:8025; Ctrl-C ends it", flush=True)
    signal.sigwait([signal.SIGINT, signal.SIGTERM])
    server.stop()
