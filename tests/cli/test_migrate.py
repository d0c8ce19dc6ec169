"""`duly migrate`, and what is said where it is needed."""

import psycopg
import pytest

from tests import postgres
from tests.cli.commands import Duly


@pytest.fixture
def empty_url(postgresql_server: str, worker_id: str) -> str:
    """The URL of a database that duly has never seen."""
    return postgres.create_database(postgresql_server, f"migrate_{worker_id}")


def test_a_database_is_migrated_once(shop: Duly, empty_url: str) -> None:
    first = shop("migrate", "shop", "--database", empty_url)
    assert first.code == 0, first.err
    assert "is migrated: schema version 0 → " in first.out
    again = shop("migrate", "shop", "--database", empty_url)
    assert again.code == 0
    assert "is up to date: schema version " in again.out


def test_without_its_schema_every_command_says_what_to_do(shop: Duly, empty_url: str) -> None:
    for command in (["worker", "shop"], ["jobs", "shop"], ["check", "shop"]):
        refused = shop(*command, "--database", empty_url)
        assert refused.code != 0
        assert "has no schema of duly's yet; run: duly migrate shop --database URL\n" in refused.err, refused


def test_what_is_said_to_be_run_names_the_app_as_it_was_typed(shop: Duly, empty_url: str) -> None:
    text = (shop.folder / "jobs.py").read_text().replace("sqlite:///jobs.db", empty_url)
    shop.write("jobs.py", text)
    refused = shop("jobs", "jobs.py")
    assert "; run: duly migrate jobs.py\n" in refused.err, refused
    assert shop("migrate", "jobs.py").code == 0


def test_a_schema_of_a_later_release_is_refused_and_of_the_next_is_not(shop: Duly, empty_url: str) -> None:
    assert shop("migrate", "shop", "--database", empty_url).code == 0
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("UPDATE duly.schema_version SET version = version + 1")
        assert shop("jobs", "shop", "--database", empty_url).code == 0
        connection.execute("UPDATE duly.schema_version SET version = version + 1")
    refused = shop("jobs", "shop", "--database", empty_url)
    assert refused.code != 0
    assert "upgrade duly here" in refused.err


def test_a_schema_has_the_name_that_the_url_gives(shop: Duly, empty_url: str) -> None:
    assert shop("migrate", "shop", "--database", f"{empty_url}?schema=mine").code == 0
    with psycopg.connect(empty_url) as connection:
        found = connection.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'scheduled_functions'"
        ).fetchall()
    assert found == [("mine",)]
    assert shop("jobs", "shop", "--database", f"{empty_url}?schema=mine").code == 0
    refused = shop("jobs", "shop", "--database", f"{empty_url}?schema=Robert'); DROP")
    assert refused.code != 0
    assert "is no name for duly's PostgreSQL schema" in refused.err


def test_a_server_that_is_not_there_is_said_to_be(shop: Duly) -> None:
    refused = shop("migrate", "shop", "--database", f"postgresql://nobody:secret@127.0.0.1:{postgres.free_port()}/none")
    assert refused.code != 0
    assert "can't be reached" in refused.err
    assert "secret" not in refused.err
