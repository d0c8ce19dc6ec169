"""Who calls, by what a client shows: headers, messages, tokens and admin keys."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

import duly
from duly._app import Parts
from duly._ground.entropy import SystemEntropy
from duly._model.admin_key import hash_admin_key, is_admin_key, make_admin_key
from duly._store.port import Store
from duly.server.caller import Authenticator, Caller
from duly.server.identity import IdentityError
from duly.testing.entropy import SeededEntropy
from tests.server.issuer import AUDIENCE, NOW_MS, NOW_S, RSA_KEY, pem, token
from tests.support import ManualClock

ISSUER = "https://id.example.com"
ANN = duly.Identity(issuer=ISSUER, subject="ann", claims={"aud": AUDIENCE})

# The same in every process that collects these tests.
KEY = make_admin_key(SeededEntropy(1))


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=ManualClock(NOW_MS))
    async with app.client():
        assert app._store is not None
        await app._store.transact(lambda tx: tx.insert_admin_key(hash_admin_key(KEY), "test", NOW_MS))
        yield app._store


@pytest.fixture
def authenticator(store: Store) -> Authenticator:
    provider = duly.JWTProvider(issuer=ISSUER, audience=AUDIENCE, key=pem(RSA_KEY))
    return Authenticator([provider], store.clock, lambda: store)


async def code_of(authenticator: Authenticator, shown: str | dict[str, Any]) -> str:
    asked = authenticator.from_header(shown) if isinstance(shown, str) else authenticator.from_message(shown)
    with pytest.raises(IdentityError) as failure:
        await asked
    assert failure.value.status == 401
    assert KEY not in failure.value.message
    return failure.value.code


def acting(attributes: object) -> str:
    return base64.b64encode(json.dumps(attributes).encode()).decode()


async def test_who_shows_nothing_is_anonymous(authenticator: Authenticator) -> None:
    assert await authenticator.from_header(None) == Caller()
    assert await authenticator.from_message({"type": "Authenticate", "tokenType": "None"}) == Caller()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_token_makes_a_user(authenticator: Authenticator, scheme: str) -> None:
    user = Caller(ANN, expires_at_ms=(NOW_S + 3_605) * 1_000)
    assert await authenticator.from_header(f"{scheme} {token(ISSUER)}") == user
    assert await authenticator.from_header(f" {scheme}  {token(ISSUER)} ") == user
    assert await authenticator.from_message({"tokenType": "User", "value": token(ISSUER)}) == user


@pytest.mark.parametrize("prefix", ["", "dev:shop|", "prod:a|b|"])
async def test_an_admin_key_makes_an_admin(authenticator: Authenticator, prefix: str) -> None:
    assert await authenticator.from_header(f"Convex {prefix}{KEY}") == Caller(is_admin=True)
    assert await authenticator.from_message({"tokenType": "Admin", "value": prefix + KEY}) == Caller(is_admin=True)


async def test_an_admin_may_act_as_a_user(authenticator: Authenticator) -> None:
    attributes = {
        "tokenIdentifier": "made up",
        "issuer": ISSUER,
        "subject": "ann",
        "givenName": "Ann",
        "emailVerified": True,
        "updatedAt": "2027-01-15T08:00:00Z",
        "role": "cook",
    }
    for caller in (
        await authenticator.from_header(f"Convex dev:shop|{KEY}:{acting(attributes)}"),
        await authenticator.from_message({"tokenType": "Admin", "value": KEY, "impersonating": attributes}),
        await authenticator.from_message({"tokenType": "Admin", "value": KEY, "acting_as": attributes}),
    ):
        assert caller.is_admin
        assert caller.identity is not None
        assert caller.identity.token_identifier == f"{ISSUER}|ann"
        assert caller.identity.given_name == "Ann"
        assert caller.identity.email_verified is True
        assert caller.identity.updated_at is not None
        assert caller.identity.claims == {"role": "cook"}


@pytest.mark.parametrize(
    "attributes",
    [{}, {"issuer": ISSUER}, {"issuer": ISSUER, "subject": ""}, {"issuer": 1, "subject": "ann"}, [], "ann", 7],
    ids=str,
)
async def test_an_admin_can_not_act_as_nobody(authenticator: Authenticator, attributes: Any) -> None:
    assert await code_of(authenticator, f"Convex {KEY}:{acting(attributes)}") == "InvalidAuthHeader"
    if attributes:
        message = {"tokenType": "Admin", "value": KEY, "impersonating": attributes}
        assert await code_of(authenticator, message) == "InvalidAuthHeader"


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        ("", "InvalidAuthHeader"),
        ("Bearer", "InvalidAuthHeader"),
        ("Basic YTpi", "InvalidAuthHeader"),
        (token(ISSUER), "InvalidAuthHeader"),
        ("Bearer x", "InvalidAuthHeader"),
        (f"Bearer {token('https://other.example.com')}", "NoAuthProvider"),
        (f"Bearer {token(ISSUER, {'exp': NOW_S - 60})}", "Unauthenticated"),
        (f"Bearer {KEY}", "InvalidAuthHeader"),
        ("Convex", "BadAdminKey"),
        (f"Convex {KEY[:-1]}", "BadAdminKey"),
        (f"Convex {KEY}0", "BadAdminKey"),
        (f"Convex {hash_admin_key(KEY)}", "BadAdminKey"),
        (f"Convex {make_admin_key(SeededEntropy(2))}", "BadAdminKey"),
        ("Convex \ud800", "BadAdminKey"),
        (f"Convex {KEY}:!", "InvalidAuthHeader"),
        (f"Convex {KEY}:{base64.b64encode(b'[' * 100_000).decode()}", "InvalidAuthHeader"),
        (f"Convex {token(ISSUER)}", "BadAdminKey"),
        ({"tokenType": "User"}, "InvalidAuthHeader"),
        ({"tokenType": "User", "value": 7}, "InvalidAuthHeader"),
        ({"tokenType": "Admin", "value": None}, "InvalidAuthHeader"),
        ({"tokenType": "Admin", "value": "x"}, "BadAdminKey"),
        ({"tokenType": "Root", "value": "x"}, "InvalidAuthHeader"),
        ({}, "InvalidAuthHeader"),
    ],
    ids=lambda value: ascii(value)[:24],
)
async def test_who_shows_what_does_not_hold_is_refused_and_not_anonymous(
    authenticator: Authenticator, shown: str | dict[str, Any], code: str
) -> None:
    assert await code_of(authenticator, shown) == code


async def test_an_admin_key_that_was_revoked_is_of_no_use_at_once(authenticator: Authenticator, store: Store) -> None:
    assert (await authenticator.admin(KEY)).is_admin
    assert await store.transact(lambda tx: tx.delete_admin_key(hash_admin_key(KEY)))
    assert await code_of(authenticator, f"Convex {KEY}") == "BadAdminKey"


def test_admin_keys_are_long_random_and_known_by_their_hashes() -> None:
    keys = {make_admin_key(SystemEntropy()) for _ in range(100)}
    assert len(keys) == 100
    hashes = [hash_admin_key(key) for key in keys]
    for key in keys:
        assert len(key) == len("duly_admin_") + 2 * 32
        assert not set(key) & set(":|")
        assert is_admin_key(key, hashes)
        assert not is_admin_key(key, [])
        assert not is_admin_key(key.upper(), hashes)
        assert not is_admin_key(hash_admin_key(key), hashes)
