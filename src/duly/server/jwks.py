"""The public keys of an issuer: fetched, kept for a while, and looked for again when a token names another."""

import asyncio
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from duly._call.threads import in_thread
from duly._ground.clock import Clock
from duly._model.provider import JWTProvider, is_safe_url

__all__ = ["FetchedKeys", "Jwk", "KeySet", "KeysUnavailableError", "fetch_json"]

_log = logging.getLogger("duly")

Jwk = Mapping[str, Any]

# For so long keys are taken as they are.
_FRESH_S = 600.0
# For so long they are still good if the issuer can't be reached: after that, one that was withdrawn might be accepted.
_USABLE_S = 3_600.0
# Tokens may name keys that do not exist: not each of them makes a request.
_BETWEEN_FETCHES_S = 30.0
_AFTER_A_FAILURE_S = 2.0
_TIMEOUT_S = 5.0
_BYTES_MAX = 1 << 20

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class KeysUnavailableError(Exception):
    """The keys can't be had at the moment, so nobody knows whether a token is good."""


class KeySet:
    """Public keys.

    Args:
        keys: JWKs; those of other kinds are left alone.
    """

    def __init__(self, keys: Sequence[Any] = ()) -> None:
        self._keys: list[Jwk] = [key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig"]

    async def find(self, key_id: str | None, algorithm: str) -> Jwk | None:
        """The key that a token was signed with, by its id and algorithm; None if there is none, or no telling which."""
        found = [
            key
            for key in self._keys
            if key.get("kty") == _KEY_TYPES[algorithm[:2]]
            and key.get("alg", algorithm) == algorithm
            and (key_id is None or key.get("kid", key_id) == key_id)
        ]
        return found[0] if len(found) == 1 else None


class FetchedKeys:
    """The keys that an issuer publishes.

    Args:
        provider: Whose; without a `jwks_url` it says itself where they are.
        clock: For their age.
        fetch: Reads JSON from a URL; in a thread.
    """

    def __init__(self, provider: JWTProvider, clock: Clock, fetch: Callable[[str], Any]) -> None:
        self._provider = provider
        self._clock = clock
        self._fetch = fetch
        self._keys = KeySet()
        self._fetched_at = -math.inf
        self._next_fetch_at = -math.inf
        self._failed = False
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str | None, algorithm: str) -> Jwk | None:
        """As `KeySet.find`.

        Raises:
            KeysUnavailableError: It may be among those that can't be fetched at the moment.
        """
        found = await self._keys.find(key_id, algorithm)
        # While one call fetches, the others go on with what there is.
        if found is not None and (self._age_s() <= _FRESH_S or self._fetching.locked()):
            return found
        async with self._fetching:
            if self._clock.monotonic() >= self._next_fetch_at:
                await self._refresh()
        found = await self._keys.find(key_id, algorithm)
        if found is None and self._failed:
            raise KeysUnavailableError(f"the keys of {self._provider.issuer} can't be fetched at the moment")
        return found

    def _age_s(self) -> float:
        return self._clock.monotonic() - self._fetched_at

    async def _refresh(self) -> None:
        # Beforehand: whoever gives up waiting does not make the next one fetch at once.
        self._next_fetch_at = self._clock.monotonic() + _BETWEEN_FETCHES_S
        try:
            self._keys = await in_thread("fetching keys", self._download)
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            _log.warning("the keys of %s can't be fetched: %s", self._provider.issuer, error)
            self._failed = True
            self._next_fetch_at = self._clock.monotonic() + _AFTER_A_FAILURE_S
            if self._age_s() > _USABLE_S:
                self._keys = KeySet()
        else:
            self._failed = False
            self._fetched_at = self._clock.monotonic()

    def _download(self) -> KeySet:
        document = self._fetch(self._provider.jwks_url or self._discover())
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list):
            raise ValueError("what is there is no set of keys")
        return KeySet(keys)

    def _discover(self) -> str:
        issuer = self._provider.issuer
        document = self._fetch(issuer.removesuffix("/") + "/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != issuer:
            raise ValueError("its configuration is not that of this issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not is_safe_url(url):
            raise ValueError(f"its configuration names no https URL for the keys, but {url!r}")
        return url


def fetch_json(url: str) -> Any:
    """Reads JSON from a URL, blocking.

    Raises:
        OSError, HTTPException, ValueError, RecursionError: It can't be had, or is not JSON.
    """
    # Some hosts refuse what calls itself Python's library.
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "duly"})
    try:
        response = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()  # it is the response as well
        raise
    with response:
        if not is_safe_url(response.url):
            raise ValueError(f"it redirects to {response.url!r}, which is no https URL")
        body = response.read(_BYTES_MAX + 1)
    if len(body) > _BYTES_MAX:
        raise ValueError(f"it is longer than {_BYTES_MAX:,} bytes")
    return json.loads(body)
