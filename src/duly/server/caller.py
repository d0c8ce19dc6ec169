"""Who calls, by what a client shows: a token, an admin key, or nothing."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duly._ground.clock import Clock
from duly._model.admin_key import is_admin_key
from duly._model.identity import Identity, identity_of_attributes
from duly._model.provider import JWTProvider
from duly._store.port import Store
from duly.server.identity import IdentityError, TokenVerifier

__all__ = ["Authenticator", "Caller"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: nobody in particular; with an identity, a user; an admin, who with an identity acts as that user.

    Args:
        identity: What functions see as `ctx.auth.identity()`.
        is_admin: Whether every function may be called, internal ones too.
        expires_at_ms: When the token ends, in ms since the epoch; leeway included.
    """

    identity: Identity | None = None
    is_admin: bool = False
    expires_at_ms: float = math.inf


class Authenticator:
    """Establishes who calls, over HTTP and over WebSockets alike.

    Args:
        providers: Whose tokens are taken.
        clock: What times of tokens are compared with.
        store: Where admin keys are, once it is open.

    Raises:
        ValueError: A provider's key can't be read.
    """

    def __init__(self, providers: Sequence[JWTProvider], clock: Clock, store: Callable[[], Store]) -> None:
        self._tokens = TokenVerifier(providers, clock)
        self._store = store

    async def from_header(self, authorization: str | None) -> Caller:
        """Who sends an HTTP request with this `Authorization` header: `Bearer <token>`, `Convex <admin key>`, or
        `Convex <admin key>:<base64 of a JSON object>` for an admin who acts as a user.

        Raises:
            IdentityError: It is no good; nobody is taken for anonymous who shows something that does not hold.
        """
        if authorization is None:
            return Caller()
        scheme, _, credentials = authorization.strip().partition(" ")
        match scheme.lower():
            case "bearer":
                return await self.user(credentials.strip())
            case "convex":
                key, _, encoded = _without_prefix(credentials.strip()).partition(":")
                return await self.admin(key, _decoded(encoded) if encoded else None)
            case _:
                raise IdentityError("InvalidAuthHeader", "the Authorization header is 'Bearer …' or 'Convex …'")

    async def from_message(self, message: Mapping[str, Any]) -> Caller:
        """Who sends this `Authenticate` message over a WebSocket.

        Raises:
            IdentityError: As for a header.
        """
        value = message.get("value")
        match message.get("tokenType"):
            case "None":
                return Caller()
            case "User" if isinstance(value, str):
                return await self.user(value)
            case "Admin" if isinstance(value, str):
                # The two families of clients spell it differently.
                return await self.admin(value, message.get("impersonating") or message.get("acting_as"))
            case _:
                raise IdentityError("InvalidAuthHeader", "that is neither a user's token nor an admin key")

    async def user(self, token: str) -> Caller:
        """Who has this token.

        Raises:
            IdentityError: It is not good, or it can't be told at the moment.
        """
        verified = await self._tokens.verify(token)
        return Caller(verified.identity, expires_at_ms=verified.expires_at_ms)

    async def admin(self, key: str, acting_as: Any = None) -> Caller:
        """The admin who has this key. Looked up each time: a key that was revoked is of no use at once.

        Args:
            key: An admin key.
            acting_as: The attributes of a user, in camel case, if it acts as one.

        Raises:
            IdentityError: It is no admin key, or the user has no issuer or subject.
        """
        keys = await self._store().read(lambda tx: tx.list_admin_keys())
        if not is_admin_key(_without_prefix(key), [hash for hash, _, _ in keys]):
            raise IdentityError("BadAdminKey", "that is no admin key of this app; 'duly admin-key' makes one")
        try:
            return Caller(None if acting_as is None else identity_of_attributes(acting_as), is_admin=True)
        except (AttributeError, ValueError):
            raise _not_a_user() from None


def _without_prefix(key: str) -> str:
    """Clients may put a name of the deployment in front, and a bar."""
    return key.rpartition("|")[2]


def _decoded(encoded: str) -> Any:
    try:
        return json.loads(base64.b64decode(encoded, validate=True))
    except (ValueError, RecursionError):
        raise _not_a_user() from None


def _not_a_user() -> IdentityError:
    return IdentityError("InvalidAuthHeader", "whom the admin acts as is a JSON object with an issuer and a subject")
