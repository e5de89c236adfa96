"""TLS towards clients and towards servers, in all its modes, and what must not get through."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.tls_front import TlsFront
from tests.pooler.wire import WireClient, cancel_packet, query, ssl_request, startup
from tests.postgres.certificates import Certificates, Pair
from tests.postgres.fixtures import TlsPostgres
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]


def client_tls(pair: Pair, mode: str, ca: object = None) -> dict[str, Any]:
    more = {} if ca is None else {"client_tls_ca_file": ca}
    return {
        "client_tls_sslmode": mode,
        "client_tls_cert_file": pair.certificate,
        "client_tls_key_file": pair.key,
        **more,
    }


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_a_client_that_verifies_everything_gets_in(
    make_pooler: MakePooler, certificates: Certificates, mode: str
) -> None:
    pooler = make_pooler(**client_tls(certificates.server, mode))
    verified: dict[str, Any] = {
        "sslmode": "verify-full",
        "sslrootcert": certificates.ca,
        "host": "localhost",
        "hostaddr": "127.0.0.1",
    }
    with pooler.connect(**verified) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT repeat('x', 3000000)").fetchone() == ("x" * 3_000_000,)


def test_a_client_that_trusts_another_authority_or_name_refuses_the_pooler(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(**client_tls(certificates.server, "require"))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        pooler.connect(sslmode="verify-ca", sslrootcert=certificates.other_ca)
    elsewhere = make_pooler(**client_tls(certificates.wrong_name, "require"))
    with pytest.raises(psycopg.OperationalError, match="does not match"):
        elsewhere.connect(sslmode="verify-full", sslrootcert=certificates.ca)


def test_clear_text_is_refused_where_tls_is_required_and_taken_where_it_is_preferred(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    with pytest.raises(psycopg.OperationalError, match="SSL required"):
        make_pooler(**client_tls(certificates.server, "require")).connect(sslmode="disable")
    make_pooler(**client_tls(certificates.server, "prefer")).connect(sslmode="disable").close()


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_a_client_must_show_a_certificate_of_our_authority(
    make_pooler: MakePooler, certificates: Certificates, mode: str
) -> None:
    pooler = make_pooler(**client_tls(certificates.server, mode, certificates.ca))
    good, bad = certificates.client_alice, certificates.client_stranger
    pooler.connect(sslmode="require", sslcert=good.certificate, sslkey=good.key).close()
    with pytest.raises(psycopg.OperationalError):
        pooler.connect(sslmode="require", sslcert=bad.certificate, sslkey=bad.key)
    with pytest.raises(psycopg.OperationalError):
        pooler.connect(sslmode="require")


def test_a_certificate_is_a_login_where_asked(make_pooler: MakePooler, certificates: Certificates) -> None:
    pooler = make_pooler(auth_type="cert", **client_tls(certificates.server, "verify-full", certificates.ca))
    pair = certificates.client_alice
    shown: dict[str, Any] = {"sslmode": "require", "sslcert": pair.certificate, "sslkey": pair.key}
    pooler.connect("alice", **shown).close()
    with pytest.raises(psycopg.OperationalError):
        pooler.connect("bob", **shown)


def test_direct_tls(make_pooler: MakePooler, certificates: Certificates) -> None:
    pooler = make_pooler(**client_tls(certificates.server, "require"))
    with pooler.connect(sslmode="require", sslnegotiation="direct") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_bytes_slipped_in_behind_the_ssl_request_are_refused(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(**client_tls(certificates.server, "prefer"))
    with WireClient(pooler.port) as client:
        client.say(ssl_request(), startup(user="alice", database="app"))
        left = b""
        try:
            while data := client.socket.recv(1000):
                left += data
        except ConnectionResetError:
            pass
        assert b"unencrypted data" in left
        assert b"Z" not in left[-6:]


def test_a_handshake_that_is_noise_harms_nobody(make_pooler: MakePooler, certificates: Certificates) -> None:
    # PgBouncer 1.18 keeps the broken connection, in silence, until client_login_timeout.
    pooler = make_pooler(**client_tls(certificates.server, "require"))
    with WireClient(pooler.port) as client:
        client.say(ssl_request())
        assert client.read(1) == b"S"
        client.say(b"this is no ClientHello" * 10)
        try:
            while client.socket.recv(1000):
                pass
        except ConnectionResetError:
            pass
    pooler.connect(sslmode="require").close()


def test_cancel_over_tls_and_a_pipeline_over_tls(make_pooler: MakePooler, certificates: Certificates) -> None:
    pooler = make_pooler(default_pool_size=1, **client_tls(certificates.server, "require"))
    with pooler.connect(sslmode="require") as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", [n]) for n in range(50)]
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(50)]
    with WireClient(pooler.port) as client:
        client.start_tls()
        client.log_in("alice", "app", SECRETS["alice"])
        client.say(query("SELECT generate_series(1, 100000)"))
        assert sum(1 for item in client.until("Z") if item.type == "D") == 100_000


def test_a_tls_client_that_vanishes_does_not_keep_its_server(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(default_pool_size=1, **client_tls(certificates.server, "require"))
    client = WireClient(pooler.port)
    client.start_tls()
    client.log_in("alice", "app", SECRETS["alice"])
    client.ask("BEGIN")
    client.socket.shutdown(socket.SHUT_RDWR)
    client.close()
    with pooler.connect(sslmode="require") as other:
        assert other.execute("SELECT 1").fetchone() == (1,)


# -- towards servers ------------------------------------------------------------------------------------------------


@pytest.fixture
def front(postgres: PostgresServer, certificates: Certificates) -> Iterator[TlsFront]:
    with TlsFront(
        postgres.port, certificates.server.certificate, certificates.server.key, certificates.ca
    ) as tls_front:
        yield tls_front


LOCALHOST = {"*": "host=localhost port={port}"}


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_every_server_mode_with_a_server_that_speaks_tls(
    make_pooler: MakePooler, front: TlsFront, certificates: Certificates, mode: str
) -> None:
    pooler = make_pooler(
        server_port=front.port, databases=LOCALHOST, server_tls_sslmode=mode, server_tls_ca_file=certificates.ca
    )
    with pooler.connect() as connection:
        assert connection.execute("SELECT repeat('x', 3000000)").fetchone() == ("x" * 3_000_000,)
        tls = {row["tls"] != "" for row in pooler.console("SHOW SERVERS") if row["database"] == "app"}
    assert tls == {mode != "disable"}
    assert (front.encrypted > 0, front.plain > 0) == (mode != "disable", mode == "disable")


@pytest.mark.parametrize("mode", ["allow", "prefer"])
def test_a_server_without_tls_is_fine_where_it_is_optional(make_pooler: MakePooler, mode: str) -> None:
    with make_pooler(server_tls_sslmode=mode).connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_a_server_without_tls_is_refused_where_it_is_required(
    make_pooler: MakePooler, certificates: Certificates, mode: str, wheel_postgres_port: int
) -> None:
    pooler = make_pooler(
        server_port=wheel_postgres_port, server_tls_sslmode=mode, server_tls_ca_file=certificates.ca,
        query_wait_timeout=2,
    )  # fmt: skip
    with pytest.raises(psycopg.OperationalError):
        pooler.connect()
    pooler.wait_for_log("server refused SSL")


@pytest.fixture
def wheel_postgres_port(make_postgres: Callable[..., PostgresServer]) -> int:
    """A PostgreSQL with ssl = off, whatever it was built with."""
    server = make_postgres()
    server.start()
    return server.port


@pytest.mark.parametrize(
    ("shown", "trusted", "mode"),
    [
        ("stranger", "ca", "verify-ca"),
        ("stranger", "ca", "verify-full"),
        ("server", "other_ca", "verify-ca"),
        ("wrong_name", "ca", "verify-full"),
        ("expired", "ca", "verify-ca"),
    ],
)
def test_a_server_that_cannot_prove_itself_gets_no_password(
    make_pooler: MakePooler, postgres: PostgresServer, certificates: Certificates, shown: str, trusted: str, mode: str
) -> None:
    pair = getattr(certificates, shown)
    with TlsFront(postgres.port, pair.certificate, pair.key) as front:
        pooler = make_pooler(
            server_port=front.port, databases=LOCALHOST, server_tls_sslmode=mode,
            server_tls_ca_file=getattr(certificates, trusted), query_wait_timeout=2,
        )  # fmt: skip
        with pytest.raises(psycopg.OperationalError):
            pooler.connect()
        assert front.plain == 0
        assert pooler.is_running


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_tls_begins_with_the_first_byte_where_the_negotiation_is_direct(
    make_pooler: MakePooler, front: TlsFront, certificates: Certificates, negotiation: str
) -> None:
    pooler = make_pooler(
        server_port=front.port, databases=LOCALHOST, server_tls_sslmode="verify-full",
        server_tls_ca_file=certificates.ca, server_tls_sslnegotiation=negotiation,
    )  # fmt: skip
    with pooler.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert front.encrypted > 0
    assert front.direct == (front.encrypted if negotiation == "direct" else 0)
    assert front.plain == 0


@pytest.mark.parametrize("mode", ["prefer", "verify-full"])
def test_a_cancel_takes_the_same_way_through_tls_as_its_query(
    make_pooler: MakePooler, front: TlsFront, certificates: Certificates, mode: str
) -> None:
    pooler = make_pooler(
        server_port=front.port, databases=LOCALHOST, server_tls_sslmode=mode, server_tls_ca_file=certificates.ca
    )
    with pooler.wire() as client:
        client.say(query("SELECT pg_sleep(30)"))
        eventually(lambda: pooler.pool()["sv_active"] == 1)
        before = front.encrypted
        with WireClient(pooler.port) as canceller:
            canceller.say(cancel_packet(client.cancel_key))
            canceller.expect_closed()
        assert client.until("E")[-1].fields["C"] == "57014"
    assert (front.encrypted, front.plain) == (before + 1, 0)


@pytest.mark.parametrize("answer", [b"Sinjected", b"Ninjected", b"E"])
def test_a_server_that_says_more_than_one_byte_before_tls_gets_no_login(make_pooler: MakePooler, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        impostor.settimeout(15)
        pooler = make_pooler(server_port=impostor.getsockname()[1], server_tls_sslmode="prefer", auth_type="trust")
        with WireClient(pooler.port) as client:
            client.say(startup(user="alice", database="app"))
            connection, _ = impostor.accept()
            with connection:
                connection.settimeout(15)
                assert connection.recv(100) == ssl_request()
                connection.sendall(answer)
                assert connection.recv(100) == b""
        pooler.wait_for_log("unexpected answer to SSLRequest")


def test_verify_ca_does_not_ask_for_the_name_and_require_for_nothing(
    make_pooler: MakePooler, postgres: PostgresServer, certificates: Certificates
) -> None:
    for pair, mode in ((certificates.wrong_name, "verify-ca"), (certificates.stranger, "require")):
        with TlsFront(postgres.port, pair.certificate, pair.key) as front:
            more = {"server_tls_ca_file": certificates.ca} if mode != "require" else {}
            pooler = make_pooler(server_port=front.port, databases=LOCALHOST, server_tls_sslmode=mode, **more)
            pooler.connect().close()


def test_the_pooler_shows_its_certificate_to_the_server(
    make_pooler: MakePooler, front: TlsFront, certificates: Certificates
) -> None:
    pair = certificates.client_pooler_auth
    pooler = make_pooler(
        server_port=front.port, databases=LOCALHOST, server_tls_sslmode="verify-full",
        server_tls_ca_file=certificates.ca, server_tls_cert_file=pair.certificate, server_tls_key_file=pair.key,
    )  # fmt: skip
    pooler.connect().close()
    assert "pooler_auth" in front.peer_certificates


def test_a_real_postgresql_takes_the_certificate_for_the_lookup_user(
    make_pooler: MakePooler, postgres_tls: TlsPostgres, certificates: Certificates
) -> None:
    """The way a cluster is set up: certificate for auth_user, SCRAM pass-through for everybody else."""
    pair = certificates.client_pooler_auth
    pooler = make_pooler(
        server_port=postgres_tls.port, userlist={"admin": SECRETS["admin"]},
        databases={"*": "host=localhost port={port} auth_dbname=postgres"},
        auth_user="pooler_auth", auth_query="SELECT usename, passwd FROM pgweir.user_search($1)",
        server_tls_sslmode="verify-full", server_tls_ca_file=certificates.ca,
        server_tls_cert_file=pair.certificate, server_tls_key_file=pair.key,
    )  # fmt: skip
    with pooler.connect() as connection:
        row = connection.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
        assert row == (True, "TLSv1.3")


def test_a_new_certificate_is_shown_after_reload_and_old_sessions_live(
    make_pooler: MakePooler, certificates: Certificates
) -> None:
    pooler = make_pooler(**client_tls(certificates.server, "require"))
    with pooler.connect(sslmode="require") as old:
        before = shown_certificate(pooler)
        pooler.reload(**client_tls(certificates.wrong_name, "require"))
        assert shown_certificate(pooler) != before
        assert old.execute("SELECT 1").fetchone() == (1,)


def shown_certificate(pooler: PoolerProcess) -> bytes:
    with WireClient(pooler.port) as client:
        client.start_tls()
        assert isinstance(client.socket, ssl.SSLSocket)
        return client.socket.getpeercert(binary_form=True) or b""
