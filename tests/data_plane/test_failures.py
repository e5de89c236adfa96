"""What goes wrong outside: PostgreSQL dies, clients talk noise or not at all. Nobody else may notice."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable

import psycopg
import pytest
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.pooler.process import PoolerProcess, Traffic, eventually
from tests.pooler.wire import WireClient, message, query, startup
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]


def test_idle_clients_survive_the_death_of_postgresql(make_pooler: MakePooler, fresh_postgres: PostgresServer) -> None:
    pooler = make_pooler(server_port=fresh_postgres.port, server_login_retry=0.3)
    clients = [pooler.wire() for _ in range(10)]
    for client in clients:
        client.ask("SELECT 1")
    fresh_postgres.kill9()
    time.sleep(0.5)
    fresh_postgres.start()
    for client in clients:
        assert client.ask("SELECT 1") == [[b"1"]]
        client.close()


def test_a_client_in_a_transaction_is_told_when_postgresql_dies(
    make_pooler: MakePooler, fresh_postgres: PostgresServer
) -> None:
    pooler = make_pooler(server_port=fresh_postgres.port, server_login_retry=0.3)
    with pooler.wire() as inside, pooler.wire() as running:
        inside.ask("BEGIN")
        running.say(query("SELECT pg_sleep(30)"))
        eventually(lambda: pooler.pool()["sv_active"] == 2)
        fresh_postgres.kill9()
        for client in (inside, running):
            errors = [item.fields for item in client.until_closed() if item.type == "E"]
            assert errors, "closed without a word"
            assert errors[-1]["C"] in {"08006", "57P01", "57P02"}, errors
    fresh_postgres.start()
    with pooler.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_terminated_backend_reaches_its_client_with_postgresqls_words(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    pooler = make_pooler()
    with pooler.wire() as client:
        ((backend,),) = client.ask("SELECT pg_backend_pid()")
        client.say(query("SELECT pg_sleep(30)"))
        eventually(lambda: pooler.pool()["sv_active"] == 1)
        assert backend is not None
        postgres.execute(f"SELECT pg_terminate_backend({backend.decode()})")
        errors = [item.fields for item in client.until_closed() if item.type == "E"]
        assert "57P01" in {fields["C"] for fields in errors}


def test_traffic_goes_on_after_a_restart_of_postgresql(make_pooler: MakePooler, fresh_postgres: PostgresServer) -> None:
    """Pause, restart, resume: nobody loses anything."""
    pooler = make_pooler(server_port=fresh_postgres.port, server_login_retry=0.3)
    with Traffic(pooler, clients=6) as traffic:
        pooler.console("PAUSE")
        fresh_postgres.restart()
        pooler.console("RESUME")
        traffic.wait_for_more(50)
    assert traffic.errors == []


def test_a_frozen_postgresql_does_not_freeze_the_pooler(
    make_pooler: MakePooler, fresh_postgres: PostgresServer
) -> None:
    pooler = make_pooler(server_port=fresh_postgres.port)
    with pooler.wire() as client:
        client.ask("SELECT 1")
        fresh_postgres.pause()
        try:
            client.say(query("SELECT 2"))
            client.expect_silence()
            assert pooler.console("SHOW POOLS")
        finally:
            fresh_postgres.resume()
        client.expect("TDCZ")


@pytest.mark.parametrize("seed", range(4))
def test_noise_at_the_port_harms_nobody(make_pooler: MakePooler, seed: int) -> None:
    pooler = make_pooler(client_login_timeout=2)
    dice = random.Random(seed)
    with Traffic(pooler, clients=2) as traffic:
        for _ in range(50):
            with WireClient(pooler.port, timeout=30) as client:
                try:
                    client.say(dice.randbytes(dice.randint(1, 2000)))
                except OSError:
                    pass
        traffic.wait_for_more()
    assert traffic.errors == []
    assert pooler.is_running


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\x04",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff\0\x03\0\0",
        b"\0\0\0\x08\0\x02\0\0",
        startup(user="alice", database="app")[:-1] + b"x",
    ],
    ids=["http", "tls", "length-4", "length-0", "length-negative", "protocol-2", "no-terminator"],
)
def test_a_wrong_first_packet_ends_the_connection(make_pooler: MakePooler, noise: bytes) -> None:
    pooler = make_pooler(client_login_timeout=2)
    with socket.create_connection(("127.0.0.1", pooler.port), timeout=15) as client:
        client.sendall(noise)
        try:
            while client.recv(1000):
                pass
        except ConnectionResetError:
            pass
    pooler.connect().close()


@pytest.mark.parametrize(
    "noise",
    [message("!"), b"Q\0\0\0\x03", b"Q\xff\xff\xff\xff", message("p", b"again\0"), b"\0" * 20],
    ids=["unknown-type", "short-length", "negative-length", "password-again", "zeroes"],
)
def test_noise_after_login_ends_that_connection_alone(make_pooler: MakePooler, noise: bytes) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client:
        client.ask("SELECT 1")
        client.say(noise)
        assert not {item.type for item in client.until_closed()} - {"E", "N"}
    with pooler.connect() as other:
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_a_message_larger_than_allowed_is_refused(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_packet_size=10_000)
    with pooler.wire() as client:
        client.say(query("SELECT '" + "x" * 20_000 + "'"))
        client.until_closed()
    pooler.connect().close()


def test_clients_that_say_nothing_or_half_a_packet_hold_up_nobody(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_client_conn=200)
    silent = [WireClient(pooler.port) for _ in range(20)]
    for number, client in enumerate(silent[10:]):
        client.say(startup(user="alice", database="app")[: number + 1])
    with pooler.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    for client in silent:
        client.close()


def test_a_thousand_bare_connections_leave_nothing_behind(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_client_conn=2000)
    before = open_files(pooler)
    with Traffic(pooler, clients=2) as traffic:
        for _ in range(1000):
            socket.create_connection(("127.0.0.1", pooler.port), timeout=15).close()
        traffic.wait_for_more()
    assert traffic.errors == []
    eventually(lambda: open_files(pooler) <= before + 10)


def test_a_server_that_talks_noise_is_dropped_and_its_client_told(make_pooler: MakePooler) -> None:
    def script(session: Session) -> None:
        session.accept_login()
        if session.number == 0:
            session.hear()
            session.say(b"\x01\x02\x03\x04\x05 noise")
            session.until_closed()
        session.serve()

    with FakePostgres(script) as fake:
        pooler = make_pooler(server_port=fake.port, default_pool_size=1)
        with pooler.wire() as client:
            client.say(query("SELECT 1"))
            assert "E" in {item.type for item in client.until_closed()}
        with pooler.wire() as other:
            assert other.ask("SELECT 1") == [[b"1"]]


def test_a_server_that_hangs_up_in_the_middle_of_a_row_ends_its_client_alone(make_pooler: MakePooler) -> None:
    def script(session: Session) -> None:
        session.accept_login()
        if session.number == 0:
            session.hear()
            session.say(b"D\0\0\x10\0\0\x01half a row")
            return
        session.serve()

    with FakePostgres(script) as fake:
        pooler = make_pooler(server_port=fake.port, default_pool_size=1)
        with pooler.wire() as client:
            client.say(query("SELECT 1"))
            with pytest.raises((AssertionError, OSError)):
                client.until("Z")
        with pooler.wire() as other:
            assert other.ask("SELECT 1") == [[b"1"]]


def test_nothing_listens_where_the_server_should_be(make_pooler: MakePooler) -> None:
    pooler = make_pooler(server_port=1, query_wait_timeout=2)
    with pytest.raises(psycopg.OperationalError):
        pooler.connect()
    assert pooler.is_running


def open_files(pooler: PoolerProcess) -> int:
    return len(os.listdir(f"/proc/{pooler.pid}/fd"))
