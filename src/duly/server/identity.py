"""Whether a token is good, and of whom it speaks. The only place that knows PyJWT."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any

import jwt

from duly._ground.clock import Clock
from duly._model.identity import Identity, identity_of_claims
from duly._model.provider import JWTProvider
from duly.server.jwks import FetchedKeys, Jwk, KeySet, KeysUnavailableError, fetch_json

__all__ = ["IdentityError", "TokenVerifier", "Verified"]

_LENGTH_MAX = 32_768
# Clients fetch a new token ten seconds before the old one ends: with one that lives no longer they do nothing else.
_LIFE_MIN_S = 10


class IdentityError(Exception):
    """It could not be established who calls.

    Args:
        code: `InvalidAuthHeader`, `NoAuthProvider`, `Unauthenticated`, `BadAdminKey` or `AuthProviderUnavailable`.
        message: For a person.
        status: The HTTP status: 401, or 503 for what may go well another time.
    """

    def __init__(self, code: str, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Verified:
    """Of whom a token speaks, and until when (ms since the epoch) it may be used; leeway included."""

    identity: Identity
    expires_at_ms: float


class TokenVerifier:
    """Verifies tokens.

    Args:
        providers: Whose tokens are taken; without any, none is.
        clock: What times of tokens are compared with.
        fetch: Reads JSON from a URL, blocking.

    Raises:
        ValueError: A provider's key can't be read.
    """

    def __init__(
        self, providers: Sequence[JWTProvider], clock: Clock, fetch: Callable[[str], Any] = fetch_json
    ) -> None:
        self._clock = clock
        self._providers = [
            (one, FetchedKeys(one, clock, fetch) if one.key is None else _given_keys(one, one.key)) for one in providers
        ]

    async def verify(self, token: str) -> Verified:
        """Verifies a token: signature, issuer, audience and times.

        Args:
            token: A JSON Web Token.

        Raises:
            IdentityError: It is not good, or it can't be told at the moment.
        """
        header, claims = _unverified(token)
        provider, keys = self._provider_of(claims)
        algorithm: Any = header.get("alg")
        if algorithm not in provider.algorithms:
            raise _refused(f"it is signed with {algorithm!r}, not {' or '.join(provider.algorithms)}")
        try:
            key = await keys.find(header.get("kid"), algorithm)
        except KeysUnavailableError as error:
            raise IdentityError("AuthProviderUnavailable", str(error), 503) from None
        if key is None:
            raise _refused(f"its issuer has no such key: {header.get('kid')!r} for {algorithm}")
        claims = _verified(token, key, algorithm, provider)
        return Verified(identity_of_claims(claims), self._end_of(claims, provider))

    def _provider_of(self, claims: Mapping[str, Any]) -> tuple[JWTProvider, FetchedKeys | KeySet]:
        issuer, audience = claims.get("iss"), claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        for provider, keys in self._providers:
            if provider.issuer == issuer and provider.audience in audiences:
                return provider, keys
        raise IdentityError(
            "NoAuthProvider", f"this app takes no tokens of issuer {issuer!r} for audience {audience!r}"
        )

    def _end_of(self, claims: Mapping[str, Any], provider: JWTProvider) -> float:
        """Until when it is good, if it is now."""
        now_s = self._clock.now_ms() / 1_000
        leeway_s = provider.leeway.total_seconds()
        expires = _seconds(claims, "exp")
        assert expires is not None
        issued, not_before = _seconds(claims, "iat"), _seconds(claims, "nbf")
        if now_s >= expires + leeway_s:
            raise _refused("it has expired")
        for begins in (issued, not_before):
            if begins is not None and now_s < begins - leeway_s:
                raise _refused("it is not valid yet")
        if issued is not None and expires - issued <= _LIFE_MIN_S:
            raise _refused(f"it lives {_LIFE_MIN_S} seconds or less, so that clients would do nothing but renew it")
        return (expires + leeway_s) * 1_000


def _given_keys(provider: JWTProvider, text: str) -> KeySet:
    try:
        if text.lstrip().startswith("-----BEGIN "):
            return KeySet([_jwk_of_pem(text, provider.algorithms)])
        document = json.loads(text)
        keys = document.get("keys", [document])
        for key in keys:
            jwt.PyJWK(key)
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        raise ValueError(f"the key of {provider.issuer} can't be read: {error}") from None
    return KeySet(keys)


def _jwk_of_pem(pem: str, algorithms: Sequence[str]) -> Jwk:
    for name in algorithms:
        algorithm = jwt.get_algorithm_by_name(name)
        with suppress(jwt.InvalidKeyError, TypeError):
            jwk: Jwk = algorithm.to_jwk(algorithm.prepare_key(pem), as_dict=True)
            return jwk
    raise ValueError(f"it is no public key in PEM for {' or '.join(algorithms)}")


def _unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims as somebody wrote them: good for nothing but choosing the key."""
    if len(token) > _LENGTH_MAX:
        raise IdentityError("InvalidAuthHeader", f"the token is longer than {_LENGTH_MAX:,} characters")
    try:
        read = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise IdentityError("InvalidAuthHeader", "that is no JSON Web Token") from None
    return read["header"], read["payload"]


def _verified(token: str, key: Jwk, algorithm: str, provider: JWTProvider) -> Mapping[str, Any]:
    """The claims, now that they are known to be the issuer's; their times are not checked, which takes the clock."""
    try:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            jwt.PyJWK(dict(key), algorithm),
            algorithms=[algorithm],
            audience=provider.audience,
            issuer=provider.issuer,
            options={
                "require": ["aud", "exp", "iss", "sub"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "enforce_minimum_key_length": True,
            },
        )
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        raise _refused(str(error)) from None
    if not isinstance(claims["sub"], str) or not claims["sub"]:
        raise _refused("its subject is no text")
    return claims


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value)):
        raise _refused(f"its {name} is no time")
    return value


def _refused(why: str) -> IdentityError:
    return IdentityError("Unauthenticated", f"the token is refused: {why}")
