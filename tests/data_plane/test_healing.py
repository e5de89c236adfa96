"""What changes behind the pooler's back, and that clients go on: passwords, hosts, names, room, machines."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.tls_front import TlsFront
from tests.pooler.wire import WireClient, cancel_packet, query
from tests.postgres.certificates import Certificates
from tests.postgres.fixtures import first_installation
from tests.postgres.server import PASSWORDS, PostgresServer

MakePooler = Callable[..., PoolerProcess]
AUTH_QUERY = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1"


def say_later(connection: psycopg.Connection[Any], sql: str) -> tuple[threading.Thread, list[object]]:
    """Run it in a thread; the list gets the value or the error."""
    heard: list[object] = []

    def run() -> None:
        try:
            row = connection.execute(sql).fetchone()
            heard.append(None if row is None else row[0])
        except psycopg.Error as error:
            heard.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, heard


# -- passwords ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def resalted(make_pooler: MakePooler, fresh_postgres: PostgresServer) -> tuple[PoolerProcess, PostgresServer]:
    """A pooler that knows alice by auth_query alone, so that her servers are opened with what her clients showed."""
    fresh_postgres.execute("ALTER ROLE pooler_auth SUPERUSER")
    pooler = make_pooler(
        server_port=fresh_postgres.port,
        auth_user="pooler_auth",
        auth_query=AUTH_QUERY,
        databases={"*": "host=127.0.0.1 port={port} auth_dbname=postgres"},
        userlist={"pooler_auth": SECRETS["pooler_auth"], "admin": SECRETS["admin"]},
    )
    return pooler, fresh_postgres


def salt_anew(server: PostgresServer) -> None:
    """What CloudNativePG does at each promotion: the same password, another salt, and the sessions gone."""
    server.execute(f"ALTER ROLE alice PASSWORD '{PASSWORDS['alice']}'")
    for pid in server.backends(usename="alice"):
        server.execute(f"SELECT pg_terminate_backend({pid})")


def test_after_a_new_salt_one_client_connects_again_and_the_others_wait_for_it(
    resalted: tuple[PoolerProcess, PostgresServer],
) -> None:
    pooler, server = resalted
    first, second = pooler.connect(autocommit=True), pooler.connect(autocommit=True)
    first.execute("SELECT 1")
    salt_anew(server)
    eventually(lambda: not server.backends(usename="alice"))
    first_thread, first_heard = say_later(first, "SELECT 2")
    eventually(lambda: bool(first_heard), "the first is asked to connect again")
    assert isinstance(first_heard[0], psycopg.errors.AdminShutdown)
    assert "please connect again" in str(first_heard[0])
    second_thread, second_heard = say_later(second, "SELECT 3")
    with pooler.connect() as again:
        assert again.execute("SELECT 4").fetchone() == (4,)
    second_thread.join(60)
    first_thread.join(60)
    assert second_heard == [3]
    assert pooler.log().count("server login failed: password authentication failed") <= 3, (
        "PostgreSQL is not asked again and again with a password that is known to be wrong"
    )
    first.close()
    second.close()


# -- hosts ------------------------------------------------------------------------------------------------------------------


def test_a_client_that_waits_for_a_dead_host_is_served_by_the_one_that_reload_names(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    # PgBouncer stays with the login that is under way at the old host until server_connect_timeout.
    def dead(session: Session) -> None:
        session.read_startup()
        session.until_closed()

    with FakePostgres() as fake:
        pooler = make_pooler(databases={"app": f"host=127.0.0.1 port={fake.port}"}, server_login_retry=15)
        with pooler.wire() as client:
            assert client.ask("SELECT 1") == [[b"1"]]
            fake.script = dead
            fake.sessions[0].socket.shutdown(socket.SHUT_RDWR)
            eventually(lambda: pooler.pool()["sv_idle"] == 0)
            client.say(query("SELECT 2"))
            eventually(lambda: len(fake.sessions) >= 2, "it tries the old host")
            pooler.databases = {"app": f"host=127.0.0.1 port={postgres.port}"}
            pooler.reload()
            assert client.until("Z")[1].values == [b"2"]
            eventually(lambda: pooler.pool()["sv_login"] == 0, "the login at the old host is given up")


def test_a_host_that_is_down_is_passed_over(make_pooler: MakePooler) -> None:
    # Nobody listens at the first two; the pause between attempts would be longer than this test.
    pooler = make_pooler(databases={"*": "host=127.0.0.3,127.0.0.2,127.0.0.1 port={port}"}, server_login_retry=60)
    with pooler.connect() as first, pooler.connect() as second:
        assert first.execute("SELECT 1").fetchone() == (1,)
        assert second.execute("SELECT 1").fetchone() == (1,)


def test_names_are_shown_with_their_addresses(make_pooler: MakePooler) -> None:
    pooler = make_pooler(databases={"*": "host=localhost port={port}"}, dns_max_ttl=30)
    with pooler.connect() as connection:
        connection.execute("SELECT 1")
        (row,) = pooler.console("SHOW DNS_HOSTS")
    assert row["hostname"] == "localhost"
    assert "127.0.0.1" in row["addrs"]
    assert 0 <= row["ttl"] <= 30
    assert {row["list"]: row["items"] for row in pooler.console("SHOW LISTS")}["dns_names"] == 1


# -- room -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_postgres(make_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """Room for a handful of sessions."""
    server = make_postgres(settings={"max_connections": "8", "superuser_reserved_connections": "3"})
    server.start()
    return server


def fill(server: PostgresServer) -> list[psycopg.Connection[Any]]:
    """Others take all the room there is."""
    taken: list[psycopg.Connection[Any]] = []
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            taken.append(psycopg.connect(server.connection_string("bob")))
    assert taken
    return taken


def test_when_others_fill_postgresql_clients_wait_for_room(
    make_pooler: MakePooler, small_postgres: PostgresServer
) -> None:
    hoarders = fill(small_postgres)
    pooler = make_pooler(server_port=small_postgres.port, query_wait_timeout=20)
    waiting = [threading.Thread(target=lambda: served.append(ask_once(pooler)), daemon=True) for _ in range(4)]
    served: list[object] = []
    for thread in waiting:
        thread.start()
    eventually(lambda: pooler.log_contains("53300"), "a login meets the limit")
    assert not served
    for hoarder in hoarders:
        hoarder.close()
    for thread in waiting:
        thread.join(60)
    assert served == [1] * 4


def test_when_there_is_no_room_until_the_deadline_clients_get_postgresqls_words(
    make_pooler: MakePooler, small_postgres: PostgresServer
) -> None:
    hoarders = fill(small_postgres)
    pooler = make_pooler(server_port=small_postgres.port, query_wait_timeout=2, server_login_retry=0.1)
    error = ask_once(pooler)
    assert isinstance(error, psycopg.OperationalError)
    assert "query_wait_timeout: " in str(error)
    assert "clients already" in str(error) or "reserved" in str(error)
    errors = {labels["sqlstate"]: value for labels, value in _login_errors(pooler)}
    assert errors["53300"] >= 2, "it was tried again meanwhile"
    for hoarder in hoarders:
        hoarder.close()


def ask_once(pooler: PoolerProcess) -> object:
    try:
        with pooler.connect() as connection:
            (value,) = connection.execute("SELECT 1").fetchone() or (None,)
            return value
    except psycopg.OperationalError as error:
        return error


def _login_errors(pooler: PoolerProcess) -> list[tuple[dict[str, str], float]]:
    return next(rows for name, rows in pooler.metrics().items() if name.endswith("server_login_errors_total"))


# -- sessions that PostgreSQL ends ------------------------------------------------------------------------------------------


@pytest.mark.skipif(first_installation().major < 14, reason="idle_session_timeout came with PostgreSQL 14")
def test_servers_that_postgresql_ends_for_their_idleness_are_never_handed_out(
    make_pooler: MakePooler, make_postgres: Callable[..., PostgresServer]
) -> None:
    server = make_postgres(settings={"idle_session_timeout": "500ms"})
    server.start()
    pooler = make_pooler(server_port=server.port)
    with pooler.connect(autocommit=True) as connection:
        for _ in range(2):
            # Only then is it asked: a query that meets the very moment of the end is lost, and nobody can help that.
            eventually(lambda: pooler.pool()["sv_idle"] == 0, "PostgreSQL closes it")
            assert connection.execute("SELECT 1").fetchone() == (1,)


# -- machines that vanish without a word ---------------------------------------------------------------------------------


def test_servers_that_stopped_answering_are_found_by_their_check_and_replaced(make_pooler: MakePooler) -> None:
    gone = threading.Event()

    def script(session: Session) -> None:
        session.accept_login()
        for heard in session.requests():
            if gone.is_set() and session.number == 0:
                continue  # its writes are swallowed
            session.reply(heard)

    with FakePostgres(script) as fake:
        pooler = make_pooler(
            server_port=fake.port, default_pool_size=1, server_check_delay=0.1, server_connect_timeout=1
        )
        with pooler.wire() as client:
            client.ask("SELECT 1")
            gone.set()
            time.sleep(0.6)
            assert client.ask("SELECT 1") == [[b"1"]]
        assert pooler.log_contains("server check failed")


# -- TLS from the first byte --------------------------------------------------------------------------------------------------


@pytest.fixture
def front(postgres: PostgresServer, certificates: Certificates) -> Iterator[TlsFront]:
    with TlsFront(postgres.port, certificates.server.certificate, certificates.server.key) as tls_front:
        yield tls_front


def direct(certificates: Certificates) -> dict[str, Any]:
    return {
        "server_tls_sslmode": "verify-full",
        "server_tls_ca_file": certificates.ca,
        "server_tls_sslnegotiation": "direct",
        "databases": {"*": "host=localhost port={port}"},
    }


def test_direct_tls_towards_servers_and_their_cancels(
    make_pooler: MakePooler, front: TlsFront, certificates: Certificates
) -> None:
    pooler = make_pooler(server_port=front.port, **direct(certificates))
    with pooler.wire() as client:
        client.say(query("SELECT pg_sleep(30)"))
        eventually(lambda: pooler.pool()["sv_active"] == 1)
        with WireClient(pooler.port) as canceller:
            canceller.say(cancel_packet(client.cancel_key))
            canceller.expect_closed()
        assert client.until("E")[-1].fields["C"] == "57014"
    assert front.direct == front.encrypted == 2
    assert front.plain == 0


def test_direct_tls_with_who_may_be_no_postgresql_is_refused(
    make_pooler: MakePooler, front: TlsFront, certificates: Certificates
) -> None:
    front.context.set_alpn_protocols(["http/1.1"])
    pooler = make_pooler(server_port=front.port, query_wait_timeout=1, **direct(certificates))
    with pytest.raises(psycopg.OperationalError):
        pooler.connect()
    pooler.wait_for_log("did not agree")
