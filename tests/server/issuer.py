"""An issuer of tokens: real keys, and a real HTTP server that publishes them."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["AUDIENCE", "EC_KEY", "NOW_MS", "NOW_S", "OTHER_KEY", "RSA_KEY", "Issuer", "jwk", "pem", "serve", "token"]

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())

AUDIENCE = "shop"
NOW_S = 1_800_000_000
NOW_MS = NOW_S * 1_000.0


def pem(key: PrivateKey) -> str:
    """Its public half, as operators paste it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(key: PrivateKey, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """Its public half, as issuers publish it."""
    name = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    public: dict[str, Any] = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return public | ({} if kid is None else {"kid": kid}) | more


class Issuer:
    """What is served: JSON by path, and how often each was asked for.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, Any] = {
            "/.well-known/openid-configuration": {"issuer": url, "jwks_uri": f"{url}/keys"},
            "/keys": {"keys": [jwk(RSA_KEY, "first")]},
        }
        self.asked: list[str] = []

    def publish(self, *keys: Mapping[str, Any]) -> None:
        self.pages["/keys"] = {"keys": keys}

    @property
    def fetches(self) -> int:
        """How often the keys were asked for."""
        return self.asked.count("/keys")


@contextmanager
def serve() -> Iterator[Issuer]:
    """Serves an issuer on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            page = issuer.pages.get(self.path)
            if isinstance(page, str):
                self.send_response(302)
                self.send_header("Location", page)
                self.end_headers()
                return
            body = page if isinstance(page, bytes) else json.dumps(page).encode()
            self.send_response(200 if page is not None else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def token(
    issuer: str,
    claims: Mapping[str, Any] | None = None,
    *,
    key: PrivateKey = RSA_KEY,
    algorithm: str = "RS256",
    kid: str | None = None,
    headers: Mapping[str, Any] | None = None,
) -> str:
    """A token that is good for an hour, but for the claims that are given; one given as None is left out."""
    usual = {"iss": issuer, "aud": AUDIENCE, "sub": "ann", "iat": NOW_S, "exp": NOW_S + 3_600}
    payload = {name: value for name, value in (usual | dict(claims or {})).items() if value is not None}
    named = {} if kid is None else {"kid": kid}
    return jwt.encode(payload, key, algorithm, headers=named | dict(headers or {}))
