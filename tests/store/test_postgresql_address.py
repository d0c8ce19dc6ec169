"""What database URLs of PostgreSQL say."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from duly._store.postgresql.address import Address
from duly.errors import StoreError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://ann:p%40ss@db.example.com:5433/shop", {"host": "db.example.com", "port": "5433"}),
        ("postgresql://db1,db2:5433/shop?target_session_attrs=read-write", {"host": "db1,db2", "port": ",5433"}),
        ("postgresql:///shop?host=/run/postgresql", {"host": "/run/postgresql"}),
        ("postgresql://[::1]:5433/shop", {"host": "::1", "port": "5433"}),
        ("postgres://db/shop?schema=a&options=-c%20jit%3Doff&pool=9", {"options": "-c jit=off"}),
        ("postgresql://db/shop?application_name=a+b", {"application_name": "a+b"}),
    ],
)
def test_libpq_gets_the_url_as_it_was_written(url: str, expected: dict[str, str]) -> None:
    told = conninfo_to_dict(Address.parse(url).conninfo)
    assert told | expected == told
    assert told["dbname"] == "shop"
    assert not {"schema", "pool"} & told.keys()


def test_a_url_tells_the_schema_and_the_size_of_the_pool() -> None:
    address = Address.parse("postgresql://ann:secret@db1,db2/shop?schema=office&pool=20")
    assert (address.schema, address.pool) == ("office", 20)
    assert address.where == "postgresql://db1,db2/shop"
    assert (Address.parse("postgresql://db/shop").schema, Address.parse("postgresql://db/shop").pool) == ("duly", 8)


@pytest.mark.parametrize("url", ["postgresql://ann:p#ss@db/shop", "postgresql://ann:p?ss@db/shop?pool=9"])
def test_a_password_whose_signs_end_the_url_is_refused_with_how_to_write_them(url: str) -> None:
    with pytest.raises(StoreError, match="%23"):
        Address.parse(url)


def test_listening_can_be_switched_off() -> None:
    assert Address.parse("postgresql://db/shop").listen
    assert not Address.parse("postgresql://db/shop?listen=no").listen
    with pytest.raises(StoreError, match="'yes' or 'no'"):
        Address.parse("postgresql://db/shop?listen=never")


@pytest.mark.parametrize("option", ["schema=", "schema=a-b", "schema=pg_a", "pool=4", "pool=many", "pool=", "schema=A"])
def test_an_option_that_makes_no_sense_is_refused(option: str) -> None:
    with pytest.raises(StoreError, match=r"in the database URL is no"):
        Address.parse(f"postgresql://db/shop?{option}")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("scheme=other", "an unknown parameter 'scheme'; did you mean schema=?"),
        ("Pool=9", "an unknown parameter 'Pool'; did you mean pool=?"),
        ("schema=a&ssl_mode=require", "an unknown parameter 'ssl_mode'; did you mean sslmode=?"),
        ("x%3Dy=1", "an unknown parameter 'x=y'; duly's own are schema, pool, listen; the others are libpq's"),
    ],
)
def test_an_unknown_option_is_named_with_the_one_that_was_meant(option: str, said: str) -> None:
    with pytest.raises(StoreError) as caught:
        Address.parse(f"postgresql://ann:secret@db/shop?{option}")
    assert str(caught.value) == f"the database URL has {said}"


@pytest.mark.parametrize("option", ["sslmode=require", "ssl=true", "conn%65ct_timeout=3", "keepalives_idle=5"])
def test_whatever_libpq_takes_is_known(option: str) -> None:
    assert Address.parse(f"postgresql://db/shop?{option}").conninfo.endswith(option)
