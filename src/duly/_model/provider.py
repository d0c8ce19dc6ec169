"""Whose tokens an app takes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

__all__ = ["JWTProvider", "is_safe_url"]

# Those with a public key. With a shared secret whoever checks a token could make one.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JWTProvider:
    """An issuer of tokens whose word an app takes for who calls: JSON Web Tokens, as of OpenID Connect.

    Args:
        issuer: The `iss` of its tokens, letter by letter: a slash at the end counts.
        audience: The `aud` of its tokens, or one of them: that they are meant for this app.
        jwks_url: Where its public keys are. Default: what `<issuer>/.well-known/openid-configuration` says.
        key: Its public key instead: PEM, or a JWK or a set of them as JSON.
        algorithms: How its tokens may be signed; default RS256 and ES256. Only algorithms with a public key.
        leeway: How far clocks may be apart; default 5 seconds.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or can't be.

    Example:
        google = duly.JWTProvider(issuer="https://accounts.google.com", audience="1234.apps.googleusercontent.com")
        our_own = duly.JWTProvider(
            issuer="https://id.example.com", audience="shop", jwks_url="https://id.example.com/keys.json"
        )
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    key: str | None = None
    algorithms: Sequence[str] = ("RS256", "ES256")
    leeway: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        _check_text("issuer", self.issuer)
        _check_text("audience", self.audience)
        if isinstance(self.algorithms, str) or not all(isinstance(name, str) for name in self.algorithms):
            raise TypeError(f"algorithms is a list such as ['RS256'], not {self.algorithms!r}")
        object.__setattr__(self, "algorithms", tuple(self.algorithms))
        unknown = [name for name in self.algorithms if name not in _ALGORITHMS]
        if unknown or not self.algorithms:
            raise ValueError(f"algorithms are some of {', '.join(_ALGORITHMS)}, not {unknown or 'none'}")
        if not isinstance(self.leeway, timedelta):
            raise TypeError(f"leeway is a timedelta, not {self.leeway!r}")
        if not timedelta(0) <= self.leeway <= timedelta(minutes=5):
            raise ValueError(f"leeway is between zero and five minutes, not {self.leeway}")
        self._check_keys()

    def _check_keys(self) -> None:
        if self.key is not None:
            if self.jwks_url is not None:
                raise ValueError("give the key or the jwks_url, not both")
            _check_text("key", self.key)
            _check_public(self.key)
        elif self.jwks_url is not None:
            _check_text("jwks_url", self.jwks_url)
            if not is_safe_url(self.jwks_url):
                raise ValueError(f"jwks_url is an https URL (http on this machine only), not {self.jwks_url!r}")
        elif not is_safe_url(self.issuer):
            raise ValueError(
                f"the issuer {self.issuer!r} is no https URL, so its keys can't be found there; give jwks_url or key"
            )


def is_safe_url(url: str) -> bool:
    """Whether nobody on the way can exchange the keys that are read there."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    host = parts.hostname
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))


def _check_text(name: str, value: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {value!r}")
    if not value.strip():
        raise ValueError(f"{name} is empty")


def _check_public(key: str) -> None:
    """That it looks like a public key; whether it is one shows when it is read. Never repeats the key itself."""
    is_secret = "PRIVATE KEY" in key
    if not key.lstrip().startswith("-----BEGIN "):
        try:
            document: Any = json.loads(key)
        except ValueError:
            raise ValueError("key is PEM (-----BEGIN PUBLIC KEY-----), or JSON with a JWK or a set of them") from None
        keys = document.get("keys", [document]) if isinstance(document, dict) else None
        if not isinstance(keys, list) or not all(isinstance(one, dict) and "kty" in one for one in keys):
            raise ValueError("the JSON in key is neither a JWK nor a set of them")
        is_secret = any("d" in one or one["kty"] == "oct" for one in keys)
    if is_secret:
        raise ValueError("key is a secret one; give the public key, which is all that checking takes")
