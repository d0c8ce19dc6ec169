"""`docs/identity.md`: its code runs as it stands, with an issuer of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")

# The app's own issuer, as the page has it: a token that it signs is taken.
SIGNED = """
import asyncio
import sys

import duly
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from duly._ground.clock import SystemClock
from duly.server.identity import TokenVerifier
from sign_in import token_for

private = ec.generate_private_key(ec.SECP256R1())
public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
provider = duly.JWTProvider(issuer="https://id.example.com", audience="shop", key=public)
token = token_for("ann", "Ann", private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
print(asyncio.run(TokenVerifier([provider], SystemClock()).verify(token)).identity.name)
"""


def test_the_page_on_identity_works_as_it_stands(tmp_path: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None
        (tmp_path / name[1]).write_text(block, encoding="utf-8")
    (tmp_path / "signed.py").write_text(SIGNED, encoding="utf-8")
    assert "1 passed" in ran(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert ran(tmp_path, "signed.py") == "Ann\n"


def test_the_page_on_identity_names_every_code_of_a_refusal() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "duly" / "server").glob("*.py"))
    assert named == set(re.findall(r'IdentityError\(\s*"(\w+)"', source))


def ran(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"SHOP_ISSUER": "https://id.example.com"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
