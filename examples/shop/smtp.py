"""A local mail server that prints what it gets: `python -m examples.shop.smtp` listens where the shop sends."""

import email
import email.policy
import signal
import sys
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller

from examples.shop.emails import mail_server


class Postbox:
    """Takes every mail, and hands it on."""

    def __init__(self, receive: Callable[[EmailMessage], None]) -> None:
        self._receive = receive

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self._receive(message)
        return "250 OK"


def serve(receive: Callable[[EmailMessage], None], host: str, port: int) -> Controller:
    """Starts the server in a thread; `stop()` ends it."""
    controller = Controller(Postbox(receive), hostname=host, port=port)
    controller.start()
    return controller


def show(message: EmailMessage) -> None:
    print(f"\n  To:      {message['To']}\n  Subject: {message['Subject']}\n", flush=True)
    for line in message.get_content().strip().splitlines():
        print(f"  {line}", flush=True)


def main() -> None:
    host, port = mail_server()
    # Blocked before there is a second thread, so that no thread but this one gets them, by sigwait.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        server = serve(show, host, port)
    except OSError as error:
        sys.exit(f"can't listen on {host}:{port}: {error.strerror}; set SHOP_SMTP to another host:port, for all")
    print(f"listening on {host}:{port}; Ctrl-C ends it", flush=True)
    signal.sigwait(ends)
    server.stop()


if __name__ == "__main__":
    main()
