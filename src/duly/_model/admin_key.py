"""Admin keys: who has one may call every function, and act as anybody. Only their hashes are stored."""

import hashlib
import hmac
import re
from collections.abc import Iterable

from duly._ground.entropy import Entropy

__all__ = ["hash_admin_key", "is_admin_key", "make_admin_key"]

_BYTES = 32
_KEY = re.compile(r"duly_admin_[0-9a-f]{64}")


def make_admin_key(entropy: Entropy) -> str:
    """A new key, to be shown to whoever asked for it, and never again."""
    return f"duly_admin_{entropy.token(_BYTES).hex()}"


def hash_admin_key(key: str) -> str:
    """What is stored of a key, and names it. No salt and no stretching: it is too random to be guessed."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_admin_key(text: str, hashes: Iterable[str]) -> bool:
    """Whether it is one of the keys with these hashes, in a time that does not tell how nearly it is."""
    if _KEY.fullmatch(text) is None:
        return False
    hashed = hash_admin_key(text)
    # All of them, so that the time does not tell which.
    matches = [hmac.compare_digest(hashed, one) for one in hashes]
    return any(matches)
