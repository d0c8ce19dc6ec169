"""Tokens: whose are taken, and every reason for which one is not."""

import asyncio
import base64
import hashlib
import hmac
import json
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import duly
from duly.server.identity import IdentityError, TokenVerifier, Verified
from tests.server.issuer import (
    AUDIENCE,
    EC_KEY,
    NOW_MS,
    NOW_S,
    OTHER_KEY,
    RSA_KEY,
    Issuer,
    jwk,
    pem,
    serve,
    token,
)
from tests.support import ManualClock

ISSUER = "https://id.example.com/"
LEEWAY_S = 5


def short(value: object) -> str:
    """The id of a parameter."""
    return ascii(value)[:20]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with serve() as running:
        yield running


def provider(key: str | None = None, **options: Any) -> duly.JWTProvider:
    given: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "key": key or pem(RSA_KEY)}
    return duly.JWTProvider(**(given | options))


def published(issuer: Issuer, **options: Any) -> duly.JWTProvider:
    """One whose keys are found by its issuer."""
    return duly.JWTProvider(issuer=issuer.url, audience=AUDIENCE, **options)


async def verify(text: str, *providers: duly.JWTProvider, clock: ManualClock | None = None) -> Verified:
    return await TokenVerifier(providers or [provider()], clock or ManualClock(NOW_MS)).verify(text)


async def taken(text: str, *providers: duly.JWTProvider, clock: ManualClock | None = None) -> bool:
    return (await verify(text, *providers, clock=clock)).identity.subject == "ann"


async def refusal(text: str, *providers: duly.JWTProvider, clock: ManualClock | None = None) -> str:
    """The code of the refusal, which must be there."""
    with pytest.raises(IdentityError) as failure:
        await verify(text, *providers, clock=clock)
    assert failure.value.status == 401
    return failure.value.code


# What is taken.


async def test_a_token_tells_who_calls_and_until_when() -> None:
    claims = {
        "name": "Ann Lee",
        "given_name": "Ann",
        "picture": "https://example.com/ann.png",
        "birthdate": "2000-02-29",
        "zoneinfo": "Europe/Paris",
        "locale": "fr",
        "email": "ann@example.com",
        "email_verified": True,
        "address": {"formatted": "1 Rue de Rivoli, Paris"},
        "updated_at": 1_700_000_000,
        "org": {"id": 7, "roles": ["cook"]},
    }
    verified = await verify(token(ISSUER, {"jti": "1", "nbf": NOW_S} | claims))
    assert verified.expires_at_ms == (NOW_S + 3_600 + LEEWAY_S) * 1_000
    identity = verified.identity
    assert identity == duly.Identity(
        issuer=ISSUER,
        subject="ann",
        name="Ann Lee",
        given_name="Ann",
        picture_url="https://example.com/ann.png",
        birthday="2000-02-29",
        timezone="Europe/Paris",
        language="fr",
        email="ann@example.com",
        email_verified=True,
        address="1 Rue de Rivoli, Paris",
        updated_at=datetime.fromtimestamp(1_700_000_000, UTC),
        claims={"aud": AUDIENCE, "org": {"id": 7, "roles": ["cook"]}},
    )
    assert identity.token_identifier == f"{ISSUER}|ann"


async def test_a_claim_of_another_type_than_its_attribute_is_kept_among_the_claims() -> None:
    odd = {"email_verified": "true", "name": 7, "updated_at": "yesterday", "address": {"city": "Paris"}, "phone": None}
    identity = (await verify(token(ISSUER, odd))).identity
    assert identity.email_verified is None
    assert dict(identity.claims) == {"aud": AUDIENCE} | {name: value for name, value in odd.items() if value}


@pytest.mark.parametrize("written", [1_700_000_000, "2023-11-14T22:13:20Z", "2023-11-14T22:13:20"])
async def test_issuers_write_in_two_ways_when_an_identity_was_updated(written: object) -> None:
    identity = (await verify(token(ISSUER, {"updated_at": written}))).identity
    assert identity.updated_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


async def test_a_fresh_token_speaks_of_the_same_identity() -> None:
    first = (await verify(token(ISSUER, {"jti": "1", "roles": ["cook"]}))).identity
    second = (await verify(token(ISSUER, {"jti": "2", "roles": ["cook"], "iat": NOW_S - 60}))).identity
    assert first == second
    assert hash(first) == hash(second)
    assert first != (await verify(token(ISSUER, {"roles": []}))).identity
    assert asdict(first)["claims"]["roles"] == ["cook"]


@pytest.mark.parametrize(
    ("key", "given", "algorithm"),
    [
        (RSA_KEY, pem(RSA_KEY), "RS256"),
        (EC_KEY, pem(EC_KEY), "ES256"),
        (RSA_KEY, json.dumps(jwk(RSA_KEY)), "RS256"),
        (RSA_KEY, json.dumps({"keys": [jwk(OTHER_KEY, "other"), jwk(RSA_KEY, "this")]}), "RS256"),
        (EC_KEY, json.dumps({"keys": [jwk(RSA_KEY), jwk(EC_KEY)]}), "ES256"),
    ],
    ids=["rsa-pem", "ec-pem", "jwk", "jwks", "jwks-by-type"],
)
async def test_a_provider_may_be_given_its_key(key: Any, given: str, algorithm: str) -> None:
    text = token(ISSUER, key=key, algorithm=algorithm, kid="this")
    assert await taken(text, provider(given))


async def test_a_token_may_be_for_several_audiences() -> None:
    assert await taken(token(ISSUER, {"aud": ["other", AUDIENCE]}))


async def test_the_provider_is_chosen_by_issuer_and_audience() -> None:
    providers = [provider(audience="web"), provider(pem(OTHER_KEY), issuer="https://other.example.com"), provider()]
    assert (await verify(token(ISSUER), *providers)).identity.issuer == ISSUER
    text = token("https://other.example.com", key=OTHER_KEY)
    assert (await verify(text, *providers)).identity.issuer == "https://other.example.com"
    assert await refusal(token("https://other.example.com"), *providers) == "Unauthenticated"


# What is refused.


async def test_without_providers_no_token_is_taken() -> None:
    with pytest.raises(IdentityError) as failure:
        await TokenVerifier([], ManualClock(NOW_MS)).verify(token(ISSUER))
    assert failure.value.code == "NoAuthProvider"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://id.example.com"},
        {"iss": ISSUER + "/"},
        {"iss": [ISSUER]},
        {"aud": "other"},
        {"aud": []},
        {"aud": [["shop"]]},
        {"aud": {"shop": True}},
        {"aud": None},
    ],
    ids=str,
)
async def test_another_issuer_or_audience_is_nobody_known(claims: dict[str, Any]) -> None:
    # PyJWT would not write an issuer that is a list.
    assert await refusal(signed({"iss": ISSUER, "aud": AUDIENCE} | claims)) == "NoAuthProvider"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": math.nan},
        {"exp": math.inf},
        {"iat": "today"},
        {"nbf": [1]},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
    ],
    ids=str,
)
async def test_a_token_lacks_what_it_must_say_or_says_it_wrongly(claims: dict[str, Any]) -> None:
    assert await refusal(signed(claims)) == "Unauthenticated"


@pytest.mark.parametrize("late_s", [0, LEEWAY_S - 0.001])
async def test_a_token_that_has_just_expired_is_good_within_the_leeway(late_s: float) -> None:
    clock = ManualClock(NOW_MS + (3_600 + late_s) * 1_000)
    verified = await verify(token(ISSUER), clock=clock)
    assert verified.expires_at_ms > clock.now_ms()


@pytest.mark.parametrize("late_s", [LEEWAY_S, 1e9])
async def test_a_token_that_has_expired_is_refused(late_s: float) -> None:
    clock = ManualClock(NOW_MS + (3_600 + late_s) * 1_000)
    assert await refusal(token(ISSUER), clock=clock) == "Unauthenticated"


@pytest.mark.parametrize("claim", ["iat", "nbf"])
async def test_a_token_is_not_valid_before_its_time_but_for_the_leeway(claim: str) -> None:
    assert await taken(token(ISSUER, {claim: NOW_S + LEEWAY_S}))
    assert await refusal(token(ISSUER, {claim: NOW_S + LEEWAY_S + 1})) == "Unauthenticated"


async def test_a_token_that_lives_ten_seconds_is_refused_as_clients_would_renew_it_without_end() -> None:
    assert await refusal(token(ISSUER, {"exp": NOW_S + 10})) == "Unauthenticated"
    assert await taken(token(ISSUER, {"exp": NOW_S + 11}))
    # What is left of a longer life does not matter.
    assert await taken(token(ISSUER, {"iat": NOW_S - 60, "exp": NOW_S + 1}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a.b.c",
        "é.è.ê",
        "\ud800.b.c",
        "." * 5_000,
        "x" * 40_000,
        token(ISSUER)[:-4] + "!!!!",
        token(ISSUER).rpartition(".")[0],
    ],
    ids=short,
)
async def test_garbage_is_no_token(text: str) -> None:
    assert await refusal(text) == "InvalidAuthHeader"


@pytest.mark.parametrize("payload", [b"[]", b"7", b"\xff", b'{"a":' + b"[" * 20_000, b'{"exp":' + b"9" * 5_000 + b"}"])
async def test_a_payload_that_is_no_object_is_no_token(payload: bytes) -> None:
    header = encoded(b'{"alg":"RS256"}')
    assert await refusal(f"{header}.{encoded(payload)}.{encoded(b'x')}") == "InvalidAuthHeader"


async def test_a_signature_by_another_key_is_refused() -> None:
    assert await refusal(token(ISSUER, key=OTHER_KEY)) == "Unauthenticated"


async def test_claims_that_were_changed_are_refused() -> None:
    header, payload, signature = token(ISSUER).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed = encoded(json.dumps(claims | {"sub": "bob"}).encode())
    assert await refusal(f"{header}.{changed}.{signature}") == "Unauthenticated"


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS512", "", None, 7, ["RS256"]], ids=repr)
async def test_an_algorithm_that_is_not_the_providers_is_refused(algorithm: Any) -> None:
    header = encoded(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    _, payload, signature = token(ISSUER).split(".")
    for ending in (signature, ""):
        assert await refusal(f"{header}.{payload}.{ending}") in ("Unauthenticated", "InvalidAuthHeader")


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    header = encoded(b'{"alg":"HS256","typ":"JWT"}')
    _, payload, _ = token(ISSUER).split(".")
    signature = hmac.digest(pem(RSA_KEY).encode(), f"{header}.{payload}".encode(), hashlib.sha256)
    assert await refusal(f"{header}.{payload}.{encoded(signature)}") == "Unauthenticated"


async def test_a_key_that_a_token_brings_along_is_not_looked_at() -> None:
    headers = {"jwk": jwk(OTHER_KEY), "jku": "http://127.0.0.1:1/keys", "kid": "mine"}
    assert await refusal(token(ISSUER, key=OTHER_KEY, headers=headers)) == "Unauthenticated"


async def test_what_a_token_calls_critical_must_be_understood() -> None:
    text = jwt.encode({"iss": ISSUER, "aud": AUDIENCE}, RSA_KEY, "RS256")
    header = encoded(b'{"alg":"RS256","crit":["x"],"x":1}')
    assert await refusal(header + text[text.index(".") :]) == "InvalidAuthHeader"


async def test_a_short_rsa_key_is_refused() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        text = token(ISSUER, key=weak)
    assert await refusal(text, provider(pem(weak))) == "Unauthenticated"


async def test_a_curve_that_is_not_the_algorithms_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    text = token(ISSUER, key=other, algorithm="ES384")
    assert await refusal(text, provider(json.dumps(jwk(other)), algorithms=["ES256"])) == "Unauthenticated"


# Keys that are fetched.


async def test_keys_are_found_by_the_issuer_and_fetched_once(issuer: Issuer, clock: ManualClock) -> None:
    verifier = TokenVerifier([published(issuer)], clock)
    text = token(issuer.url, kid="first")
    assert issuer.asked == []
    verified = await asyncio.gather(*(verifier.verify(text) for _ in range(20)))
    assert {one.identity.subject for one in verified} == {"ann"}
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_keys_are_fetched_where_a_provider_says(issuer: Issuer, clock: ManualClock) -> None:
    issuer.pages["/elsewhere"] = issuer.pages.pop("/keys")
    there = duly.JWTProvider(issuer=ISSUER, audience=AUDIENCE, jwks_url=f"{issuer.url}/elsewhere")
    assert await taken(token(ISSUER, kid="first"), there, clock=clock)
    assert issuer.asked == ["/elsewhere"]


async def test_keys_are_fetched_again_after_ten_minutes(issuer: Issuer, clock: ManualClock) -> None:
    verifier = TokenVerifier([published(issuer)], clock)
    text = token(issuer.url, kid="first")
    for seconds, fetches in ((0, 1), (600, 1), (1, 2), (600, 2)):
        await clock.advance(seconds)
        assert await takes(verifier, text)
        assert issuer.fetches == fetches


async def test_a_new_key_of_the_issuer_is_fetched_when_a_token_names_it(issuer: Issuer, clock: ManualClock) -> None:
    verifier = TokenVerifier([published(issuer)], clock)
    assert await takes(verifier, token(issuer.url, kid="first"))
    await clock.advance(60)
    issuer.publish(jwk(OTHER_KEY, "second"), jwk(EC_KEY, "third"))
    assert await takes(verifier, token(issuer.url, key=OTHER_KEY, kid="second"))
    assert await takes(verifier, token(issuer.url, key=EC_KEY, algorithm="ES256", kid="third"))
    assert issuer.fetches == 2
    # What it withdrew is no good any more.
    assert await code_of(verifier, token(issuer.url, kid="first")) == "Unauthenticated"


async def test_forged_key_ids_do_not_make_the_server_fetch_without_end(issuer: Issuer, clock: ManualClock) -> None:
    verifier = TokenVerifier([published(issuer)], clock)
    forged = [token(issuer.url, key=OTHER_KEY, kid=f"forged {number}") for number in range(20)]
    good = token(issuer.url, kid="first")
    for after_s, fetches in ((0, 1), (29, 1), (1, 2)):
        await clock.advance(after_s)
        codes = await asyncio.gather(*(code_of(verifier, text) for text in forged))
        assert set(codes) == {"Unauthenticated"}
        assert await takes(verifier, good)
        assert issuer.fetches == fetches


async def test_a_token_without_a_key_id_is_taken_if_there_is_one_key_only(issuer: Issuer, clock: ManualClock) -> None:
    verifier = TokenVerifier([published(issuer)], clock)
    assert await takes(verifier, token(issuer.url))
    await clock.advance(601)
    issuer.publish(jwk(RSA_KEY, "first"), jwk(OTHER_KEY, "second"))
    assert await code_of(verifier, token(issuer.url)) == "Unauthenticated"


async def test_keys_for_something_else_are_not_taken(issuer: Issuer, clock: ManualClock) -> None:
    secret = {"kty": "oct", "kid": "first", "k": encoded(b"x" * 32)}
    issuer.publish(jwk(RSA_KEY, "first", use="enc"), jwk(RSA_KEY, "first", alg="RS512"), secret, {"kty": "RSA"})
    verifier = TokenVerifier([published(issuer)], clock)
    assert await code_of(verifier, token(issuer.url, kid="first")) == "Unauthenticated"


@pytest.mark.parametrize(
    "broken", [{"kty": "RSA"}, {"kty": "RSA", "n": 7, "e": []}, {"kty": "RSA", "n": "", "e": "AQAB"}]
)
async def test_a_key_that_is_none_verifies_nothing(issuer: Issuer, clock: ManualClock, broken: dict[str, Any]) -> None:
    issuer.publish(broken | {"kid": "first"})
    verifier = TokenVerifier([published(issuer)], clock)
    assert await code_of(verifier, token(issuer.url, kid="first")) == "Unauthenticated"


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/keys", None),
        ("/keys", b"no JSON"),
        ("/keys", b"[" * 100_000),
        ("/keys", b" " * (1 << 20) + b"{}"),
        ("/keys", []),
        ("/keys", {"keys": {}}),
        ("/keys", "http://example.invalid:1/keys"),
        ("/.well-known/openid-configuration", None),
        ("/.well-known/openid-configuration", {"issuer": "https://other.example.com", "jwks_uri": "https://x/"}),
        ("/.well-known/openid-configuration", "file:///etc/passwd"),
    ],
    ids=short,
)
async def test_keys_that_cannot_be_had_are_a_trouble_of_the_server_and_not_of_the_token(
    issuer: Issuer, clock: ManualClock, path: str, page: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = issuer.pages[path]
    issuer.pages[path] = page
    verifier = TokenVerifier([published(issuer)], clock)
    text = token(issuer.url, kid="first")
    for _ in range(3):
        with pytest.raises(IdentityError) as failure:
            await verifier.verify(text)
        assert (failure.value.code, failure.value.status) == ("AuthProviderUnavailable", 503)
    assert issuer.asked.count("/.well-known/openid-configuration") == 1
    assert "can't be fetched" in caplog.text
    issuer.pages[path] = good
    await clock.advance(2)
    assert await takes(verifier, text)


async def test_a_configuration_that_names_an_unsafe_place_is_not_followed(issuer: Issuer, clock: ManualClock) -> None:
    for url in ("http://example.com/keys", "file:///etc/passwd", "ftp://127.0.0.1/keys", None):
        issuer.pages["/.well-known/openid-configuration"] = {"issuer": issuer.url, "jwks_uri": url}
        verifier = TokenVerifier([published(issuer)], clock)
        assert await code_of(verifier, token(issuer.url)) == "AuthProviderUnavailable"


async def test_old_keys_are_used_for_an_hour_while_the_issuer_is_away(issuer: Issuer, clock: ManualClock) -> None:
    verifier = TokenVerifier([published(issuer)], clock)
    text = token(issuer.url, {"exp": NOW_S + 86_400}, kid="first")
    assert await takes(verifier, text)
    del issuer.pages["/keys"]
    await clock.advance(601)
    assert await takes(verifier, text)
    # It may be one that the issuer has since published: nobody knows.
    assert await code_of(verifier, token(issuer.url, kid="second")) == "AuthProviderUnavailable"
    await clock.advance(3_000)
    assert await code_of(verifier, text) == "AuthProviderUnavailable"


async def test_while_keys_are_fetched_again_others_go_on_with_what_there_is(clock: ManualClock) -> None:
    asked, answer = threading.Event(), threading.Event()
    answer.set()

    def fetch(url: str) -> Any:
        asked.set()
        answer.wait()
        return {"keys": [jwk(RSA_KEY, "first")]}

    there = duly.JWTProvider(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://id.example.com/keys")
    verifier = TokenVerifier([there], clock, fetch)
    text = token(ISSUER, kid="first")
    assert await takes(verifier, text)
    await clock.advance(601)
    asked.clear()
    answer.clear()
    first = asyncio.ensure_future(verifier.verify(text))
    await asyncio.to_thread(asked.wait)
    assert await takes(verifier, text)
    assert not first.done()
    answer.set()
    await first


# Providers that can't be.


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"issuer": ""}, ValueError, "issuer is empty"),
        ({"issuer": 7}, TypeError, "issuer is a str"),
        ({"audience": " "}, ValueError, "audience is empty"),
        ({"audience": ["shop"]}, TypeError, "audience is a str"),
        ({"issuer": "shop"}, ValueError, "give jwks_url or key"),
        ({"issuer": "http://id.example.com"}, ValueError, "no https URL"),
        ({"jwks_url": "http://id.example.com/keys"}, ValueError, "jwks_url is an https URL"),
        ({"jwks_url": "https://[/keys"}, ValueError, "jwks_url is an https URL"),
        ({"jwks_url": "https://id.example.com/keys", "key": pem(RSA_KEY)}, ValueError, "not both"),
        ({"key": "my key"}, ValueError, "key is PEM"),
        ({"key": "{}"}, ValueError, "neither a JWK nor a set"),
        ({"key": "-----BEGIN PRIVATE KEY-----"}, ValueError, "key is a secret one"),
        ({"key": '{"kty": "oct", "k": "eA"}'}, ValueError, "key is a secret one"),
        ({"key": json.dumps(jwk(RSA_KEY) | {"d": "eA"})}, ValueError, "key is a secret one"),
        ({"algorithms": "RS256"}, TypeError, "algorithms is a list"),
        ({"algorithms": []}, ValueError, "not none"),
        ({"algorithms": ["RS256", "HS256"]}, ValueError, "HS256"),
        ({"algorithms": ["none"]}, ValueError, "none"),
        ({"leeway": 5}, TypeError, "leeway is a timedelta"),
        ({"leeway": timedelta(seconds=-1)}, ValueError, "leeway is between"),
        ({"leeway": timedelta(hours=1)}, ValueError, "leeway is between"),
    ],
    ids=short,
)
def test_a_provider_that_cannot_be_says_why(options: dict[str, Any], error: type[Exception], says: str) -> None:
    given: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE}
    with pytest.raises(error, match=says):
        duly.JWTProvider(**(given | options))


@pytest.mark.parametrize(
    "key",
    ["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", '{"kty": "RSA"}', '{"kty": "x"}', pem(EC_KEY)],
    ids=["pem", "jwk", "kind", "algorithm"],
)
def test_a_key_that_cannot_be_read_is_told_before_anybody_calls(key: str) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        TokenVerifier([provider(key, algorithms=["RS256"])], ManualClock(NOW_MS))


def test_an_app_refuses_providers_that_are_not_or_are_twice() -> None:
    with pytest.raises(TypeError, match="JWTProvider"):
        duly.App(__name__, identity_providers=["https://id.example.com"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="two identity_providers"):
        duly.App(__name__, identity_providers=[provider(), provider(pem(OTHER_KEY))])


# How they are made.


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def signed(claims: dict[str, Any]) -> str:
    """A token that says what no library would write."""
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": NOW_S, "exp": NOW_S + 3_600}
    payload = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.api_jws.encode(json.dumps(payload).encode(), RSA_KEY, "RS256")


async def takes(verifier: TokenVerifier, text: str) -> bool:
    return (await verifier.verify(text)).identity.subject == "ann"


async def code_of(verifier: TokenVerifier, text: str) -> str:
    with pytest.raises(IdentityError) as failure:
        await verifier.verify(text)
    return failure.value.code
