"""What the options of an app may be."""

from collections.abc import Sequence
from datetime import timedelta

from duly._model.provider import JWTProvider

__all__ = ["distinct", "positive"]


def positive(name: str, value: timedelta, *, zero: bool = False) -> timedelta:
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} is a timedelta, not {value!r}")
    if value < timedelta(0) or (value == timedelta(0) and not zero):
        raise ValueError(f"{name} must be greater than zero, not {value}")
    return value


def distinct(providers: Sequence[JWTProvider]) -> tuple[JWTProvider, ...]:
    for provider in providers:
        if not isinstance(provider, JWTProvider):
            raise TypeError(f"identity_providers are duly.JWTProvider, not {provider!r}")
    names = [(provider.issuer, provider.audience) for provider in providers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two identity_providers are of issuer {name[0]!r} for audience {name[1]!r}")
    return tuple(providers)
