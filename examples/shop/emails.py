"""E-mails: real ones, over SMTP, so they are actions."""

import os
from email.message import EmailMessage

import aiosmtplib

import duly
from examples.shop.orders import Order, get_order


@duly.internal_action
async def send_confirmation(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None:
    order = await ctx.run_query(get_order, order_id=order_id)
    if order is not None:
        text = f"We are packing: {', '.join(order['items'])}. In all {order['total_cents'] / 100:.2f}."
        await send(order["email"], "Thank you for your order", text)


@duly.internal_action
async def send_reminder(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None:
    order = await ctx.run_query(get_order, order_id=order_id)
    if order is not None and order["status"] == "open":
        await send(order["email"], "Your order is waiting for you", "Please pay it, and we send it at once.")


async def send(to: str, subject: str, text: str) -> None:
    """Sends one mail."""
    host, port = mail_server()
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", to, subject
    message.set_content(text)
    await aiosmtplib.send(message, hostname=host, port=port, start_tls=False, timeout=10)


def mail_server() -> tuple[str, int]:
    """$SHOP_SMTP, `host:port`; default 127.0.0.1:8025."""
    host, _, port = os.environ.get("SHOP_SMTP", "127.0.0.1:8025").rpartition(":")
    return host, int(port)
