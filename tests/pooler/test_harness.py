"""The harness's own promises: a wire client that speaks the protocol, and a fake that PostgreSQL's clients accept."""

from __future__ import annotations

import psycopg
import pytest
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.pooler.tls_front import TlsFront
from tests.pooler.wire import WireClient, bind, describe, execute, parse, query, sync
from tests.postgres.certificates import Certificates
from tests.postgres.server import PASSWORDS, PostgresServer


@pytest.mark.parametrize("user", ["alice", "bob", "carol", "trusty"])
def test_the_wire_client_answers_every_authentication_request(postgres: PostgresServer, user: str) -> None:
    with WireClient(postgres.port).log_in(user, "app", PASSWORDS[user], application_name="wire") as client:
        assert client.parameters["application_name"] == "wire"
        assert client.pid > 0
        assert client.ask("SELECT current_user") == [[user.encode()]]


def test_a_conversation_in_the_extended_protocol(postgres: PostgresServer) -> None:
    with WireClient(postgres.port).log_in("trusty", "app") as client:
        client.say(parse("s", "SELECT $1::text"), bind("s", ["x"]), describe("", "P"), execute(), sync())
        row = client.expect("12TDCZ")[3]
        assert row.values == [b"x"]
        client.say(query("SELECT broken"))
        client.expect_error("42703", "broken")
        client.expect("Z")


def test_libpq_takes_the_fake_for_a_server() -> None:
    with FakePostgres() as fake, psycopg.connect(f"host=127.0.0.1 port={fake.port} user=u dbname=d") as connection:
        assert connection.execute("SELECT 1").fetchone() == ("1",)
        assert fake.sessions[0].startup["user"] == "u"


def test_a_script_that_fails_fails_the_test() -> None:
    def script(session: Session) -> None:
        session.accept_login()
        session.expect("P")

    def talk() -> None:
        with FakePostgres(script) as fake, WireClient(fake.port).log_in("u", "d") as client:
            client.say(query("SELECT 1"))
            client.expect_closed()

    with pytest.raises(AssertionError, match="expected P"):
        talk()


def test_the_tls_front_encrypts_for_a_server_without_tls(postgres: PostgresServer, certificates: Certificates) -> None:
    pair = certificates.server
    with TlsFront(postgres.port, pair.certificate, pair.key) as front:
        options = f"sslmode=verify-full sslrootcert={certificates.ca} host=localhost hostaddr=127.0.0.1"
        with psycopg.connect(f"{options} port={front.port} user=trusty dbname=app") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert connection.info.get_parameters()["sslmode"] == "verify-full"
        with psycopg.connect(f"host=127.0.0.1 port={front.port} user=trusty dbname=app sslmode=disable") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert (front.encrypted, front.plain) == (1, 1)
