"""Who calls a function: what a verified token says of its bearer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

__all__ = ["Identity", "identity_of_attributes", "identity_of_claims"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who calls: what `ctx.auth.identity()` gives. Compare `token_identifier`, which is unique, rather than an e-mail
    address, which its owner may change, and others may claim.

    Args:
        issuer: Who vouches for it, as a URL.
        subject: Whom the issuer means: the same for the same user always.
        name, given_name, family_name, nickname, preferred_username: What the user is called.
        profile_url, picture_url, website_url: Where more is to be seen.
        email, email_verified, phone_number, phone_number_verified: How to reach the user.
        gender, birthday, timezone, language, address: As the issuer puts them.
        updated_at: When the issuer last changed any of it, in UTC.
        claims: What else the token says (roles, an organisation …), by the names that it uses.

    Example:
        who = await ctx.auth.identity()
        is_cook = who is not None and who.claims.get("role") == "cook"
    """

    issuer: str
    subject: str
    name: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    nickname: str | None = None
    preferred_username: str | None = None
    profile_url: str | None = None
    picture_url: str | None = None
    website_url: str | None = None
    email: str | None = None
    email_verified: bool | None = None
    gender: str | None = None
    birthday: str | None = None
    timezone: str | None = None
    language: str | None = None
    phone_number: str | None = None
    phone_number_verified: bool | None = None
    address: str | None = None
    updated_at: datetime | None = None
    # Equal identities have equal hashes all the same; claims may hold lists, which have none.
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def token_identifier(self) -> str:
        """Issuer and subject in one: unique among all users of all issuers, for an index or a key.

        Example:
            who = await ctx.auth.identity()
            if who is not None:
                await ctx.db.insert("visits", {"user": who.token_identifier})
        """
        return f"{self.issuer}|{self.subject}"


_NAMES = frozenset(one.name for one in fields(Identity)) - {"claims"}
_FLAGS = {"email_verified", "phone_number_verified"}

# OpenID Connect's names, where they are others.
_CLAIMS = {name: name for name in _NAMES - {"issuer", "subject"}} | {
    "iss": "issuer",
    "sub": "subject",
    "profile": "profile_url",
    "picture": "picture_url",
    "website": "website_url",
    "birthdate": "birthday",
    "zoneinfo": "timezone",
    "locale": "language",
}
# They speak of the token and not of its bearer: whoever gets a fresh token is who they were.
_OF_THE_TOKEN = {"exp", "iat", "nbf", "jti"}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


_ATTRIBUTES = {_camel(name): name for name in _NAMES}


def identity_of_claims(claims: Mapping[str, Any]) -> Identity:
    """The identity that a token's claims state; `iss` and `sub` have been checked."""
    return _identity({name: value for name, value in claims.items() if name not in _OF_THE_TOKEN}, _CLAIMS)


def identity_of_attributes(attributes: Mapping[str, Any]) -> Identity:
    """The identity that JavaScript clients spell in camel case, as whom an admin acts.

    Raises:
        ValueError: It lacks an issuer or a subject.
    """
    for name in ("issuer", "subject"):
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise ValueError(f"an identity has a {name}, a string")
    # It follows from the two.
    return _identity({name: value for name, value in attributes.items() if name != "tokenIdentifier"}, _ATTRIBUTES)


def _identity(values: Mapping[str, Any], names: Mapping[str, str]) -> Identity:
    """What is no attribute, or not of its type, remains among the claims as it is."""
    attributes: dict[str, Any] = {}
    claims: dict[str, Any] = {}
    for name, value in values.items():
        attribute = names.get(name)
        converted = _converted(attribute, value) if attribute is not None else None
        if attribute is not None and converted is not None:
            attributes[attribute] = converted
        elif value is not None:
            claims[name] = value
    return Identity(**attributes, claims=claims)


def _converted(attribute: str, value: Any) -> str | bool | datetime | None:
    if attribute in _FLAGS:
        return value if isinstance(value, bool) else None
    if attribute == "updated_at":
        return _moment(value)
    if attribute == "address" and isinstance(value, dict):
        value = value.get("formatted")
    return value if isinstance(value, str) else None


def _moment(value: Any) -> datetime | None:
    """Seconds since the epoch, as the standard has it, or ISO 8601, as some issuers do."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return None if isinstance(value, bool) else datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, TypeError, ValueError):
        return None
