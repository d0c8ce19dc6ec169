"""`duly admin-key`: making, listing and revoking the keys of administrators."""

import hashlib
import re

from tests.cli.commands import Duly


def test_a_key_is_shown_once_and_kept_as_a_hash(shop: Duly) -> None:
    made = shop("admin-key", "jobs", "--label", "the robot")
    assert made.code == 0, made.err
    assert re.fullmatch(r"duly_admin_[0-9a-f]{64}\n", made.out)
    key = made.out.strip()
    id = hashlib.sha256(key.encode()).hexdigest()[:12]
    assert f"--revoke {id}" in made.err
    assert key not in made.err
    listed = shop("admin-key", "jobs", "--list")
    assert re.search(rf"^{id} .* the robot$", listed.out, re.MULTILINE)
    assert all(key[11:].encode() not in file.read_bytes() for file in shop.folder.glob("*.db*"))


def test_a_key_is_revoked_by_the_start_of_its_id_or_by_itself(shop: Duly) -> None:
    first, second = (shop("admin-key", "jobs", "--label", label).out.strip() for label in ("first", "second"))
    id = hashlib.sha256(first.encode()).hexdigest()
    revoked = shop("admin-key", "jobs", "--revoke", id[:8])
    assert (revoked.code, revoked.out) == (0, f"revoked {id[:12]} (first)\n")
    assert "first" not in shop("admin-key", "jobs", "--list").out
    assert shop("admin-key", "jobs", "--revoke", second).code == 0
    assert shop("admin-key", "jobs", "--list").out == "no admin keys\n"


def test_revoking_names_one_key(shop: Duly) -> None:
    ids: list[str] = []
    while len({id[0] for id in ids}) == len(ids):  # until two begin alike
        key = shop("admin-key", "jobs").out.strip()
        ids.append(hashlib.sha256(key.encode()).hexdigest())
    twice = ids[-1][0]
    for prefix, code, says in (
        (twice, 2, "more than one id begins with"),
        ("", 1, "there is no such admin key"),
        ("x", 1, "there is no such admin key"),
    ):
        refused = shop("admin-key", "jobs", "--revoke", prefix)
        assert (refused.code, says in refused.err) == (code, True), refused.err
    assert shop("admin-key", "jobs", "--list").out.count("\n") == 1 + len(ids)


def test_what_does_not_go_together_is_refused(shop: Duly) -> None:
    for options in (["--list", "--revoke", "a"], ["--list", "--label", "x"], ["--label", "two\nlines"]):
        refused = shop("admin-key", "jobs", *options)
        assert refused.code == 2
        assert "error: " in refused.err
    # Whoever only looks does not make a database.
    assert shop("admin-key", "jobs", "--list").code != 0
    assert not list(shop.folder.glob("*.db"))
