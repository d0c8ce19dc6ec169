"""The network that fails on request, between psycopg and a real server."""

import select
import socket
import struct
import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.pq.abc import PGconn

from tests.proxy import Proxy

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE numbers (number integer)")
    with Proxy(postgresql_url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[psycopg.Connection]:
    connection = psycopg.connect(proxy.url())
    try:
        yield connection
    finally:
        connection.close()


def numbers(url: str) -> list[int]:
    """What is there, once every other connection has ended: nobody writes any more."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


def insert(connection: psycopg.Connection, number: int) -> None:
    connection.execute("INSERT INTO numbers VALUES (%s)", (number,))


def read_to_the_end(connection: PGconn) -> None:
    while True:
        connection.flush()
        assert select.select([connection.socket], [], [], 30)[0], "neither an answer nor an end"
        connection.consume_input()


# --- nothing wrong --------------------------------------------------------------------------------------------------


def test_everything_passes_both_ways(client: psycopg.Connection) -> None:
    large = "x" * 3_000_000
    assert client.execute("SELECT %s::text", (large,)).fetchone() == (large,)


def test_the_end_of_a_connection_passes(proxy: Proxy, client: psycopg.Connection, postgresql_url: str) -> None:
    pid = client.info.backend_pid
    client.close()
    deadline = time.monotonic() + 30
    with psycopg.connect(postgresql_url, autocommit=True) as direct:
        while direct.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
            assert time.monotonic() < deadline


# --- at a marker ----------------------------------------------------------------------------------------------------


def test_the_answer_of_a_commit_is_lost(proxy: Proxy, client: psycopg.Connection, postgresql_url: str) -> None:
    insert(client, 1)
    lost = proxy.lose_answer_to(b"COMMIT")
    with pytest.raises(psycopg.OperationalError):
        client.commit()
    assert lost.hits == 1
    assert lost.happened.is_set()
    assert numbers(postgresql_url) == [1]
    with psycopg.connect(proxy.url()) as again:
        insert(again, 2)
    assert numbers(postgresql_url) == [1, 2], "once was asked for"
    assert lost.hits == 1


def test_the_answer_of_a_commit_in_a_pipeline_is_lost(
    proxy: Proxy, client: psycopg.Connection, postgresql_url: str
) -> None:
    lost = proxy.lose_answer_to(b"COMMIT")
    pipeline = client.pgconn
    pipeline.enter_pipeline_mode()
    for statement in (b"BEGIN", b"INSERT INTO numbers VALUES (1)", b"SELECT pg_sleep(0.1)", b"COMMIT"):
        pipeline.send_query_params(statement, None)
        pipeline.pipeline_sync()
    # The answers to the first two are there while the transaction still goes on.
    with pytest.raises(psycopg.OperationalError):
        read_to_the_end(pipeline)
    assert lost.hits == 1
    assert numbers(postgresql_url) == [1]


def test_the_answer_of_a_commit_that_fails_is_lost(
    proxy: Proxy, client: psycopg.Connection, postgresql_url: str
) -> None:
    client.execute("ALTER TABLE numbers ADD UNIQUE (number) DEFERRABLE INITIALLY DEFERRED")
    insert(client, 1)
    client.commit()
    insert(client, 1)
    lost = proxy.lose_answer_to(b"COMMIT")
    with pytest.raises(psycopg.OperationalError):
        client.commit()
    assert lost.hits == 1
    assert numbers(postgresql_url) == [1]


def test_a_commit_never_arrives(proxy: Proxy, client: psycopg.Connection, postgresql_url: str) -> None:
    insert(client, 1)
    fault = proxy.cut_before(b"COMMIT")
    with pytest.raises(psycopg.OperationalError):
        client.commit()
    assert fault.hits == 1
    assert numbers(postgresql_url) == []


def test_nobody_knows_whether_a_commit_arrives(proxy: Proxy, client: psycopg.Connection, postgresql_url: str) -> None:
    insert(client, 1)
    fault = proxy.cut_after(b"COMMIT")
    with pytest.raises(psycopg.OperationalError):
        client.commit()
    assert fault.hits == 1
    assert numbers(postgresql_url) in ([], [1])


def test_a_marker_in_what_the_server_sends(proxy: Proxy, client: psycopg.Connection) -> None:
    fault = proxy.cut_before(b"beware", sender="server")
    assert client.execute("SELECT 'be' || 'ware' = %s", ("beware",)).fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 'be' || 'ware'")
    assert fault.hits == 1


def test_a_marker_in_two_pieces(proxy: Proxy) -> None:
    fault = proxy.cut_before(SSL_REQUEST)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(SSL_REQUEST[:5])
        raw.sendall(SSL_REQUEST[5:])
        with pytest.raises(ConnectionResetError):
            raw.recv(1)
    assert fault.hits == 1


# --- all connections ------------------------------------------------------------------------------------------------


def test_cut_resets_and_refuses_until_it_heals(proxy: Proxy, client: psycopg.Connection, postgresql_url: str) -> None:
    insert(client, 1)
    port = proxy.port
    for _ in range(2):
        proxy.cut()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=30)
    with pytest.raises(psycopg.OperationalError):
        client.commit()
    proxy.heal()
    assert proxy.port == port
    with psycopg.connect(proxy.url()) as again:
        insert(again, 2)
    assert numbers(postgresql_url) == [2]


def test_reset_welcomes_new_connections(proxy: Proxy, client: psycopg.Connection) -> None:
    proxy.reset()
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    with psycopg.connect(proxy.url()) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)


def test_a_stalled_connection_goes_on_when_it_heals(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2) as raw:
        proxy.stall()
        raw.sendall(SSL_REQUEST)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        raw.settimeout(30)
        proxy.heal()
        assert raw.recv(1) in (b"N", b"S")


def test_delay_is_added_both_ways_and_to_each_byte_once(proxy: Proxy, client: psycopg.Connection) -> None:
    proxy.delay(0.5)
    began = time.monotonic()
    # More than a hundred chunks.
    client.execute("SELECT repeat('x', 10000000)")
    assert 1 <= time.monotonic() - began < 30
    proxy.heal()
    began = time.monotonic()
    client.execute("SELECT 1")
    assert time.monotonic() - began < 1


def test_it_ends_with_its_block(postgresql_url: str) -> None:
    with Proxy(postgresql_url) as proxy:
        client = psycopg.connect(proxy.url())
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=30)


def test_a_server_that_is_not_there_resets(postgresql_url: str) -> None:
    with Proxy(postgresql_url) as inner:
        nowhere = inner.url()
    with Proxy(nowhere) as proxy, pytest.raises(psycopg.OperationalError):
        psycopg.connect(proxy.url())
