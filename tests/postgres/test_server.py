"""The fixtures themselves: a test harness that lies makes every other test lie."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from tests.postgres.fixtures import TlsPostgres
from tests.postgres.server import PASSWORDS, PostgresServer

from pgweir_operator.cli import embedded


@pytest.mark.parametrize("user", ["postgres", "alice", "bob", "carol", "trusty"])
def test_every_prepared_user_logs_in_over_tcp(postgres: PostgresServer, user: str) -> None:
    with psycopg.connect(postgres.connection_string(user)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (user,)


def test_a_wrong_password_is_refused_in_postgresqls_words(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "alice"'):
        psycopg.connect(postgres.connection_string("alice", "wrong"))


def test_passwords_are_stored_as_the_users_say(postgres: PostgresServer) -> None:
    stored = dict(postgres.execute("SELECT rolname, left(rolpassword, 5) FROM pg_authid WHERE rolpassword <> ''"))
    assert stored["alice"] == "SCRAM"
    assert stored["bob"].startswith("md5")


def test_the_lookup_user_finds_passwords_but_no_expired_ones(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.connection_string("pooler_auth", dbname="postgres")) as connection:
        lookup = "SELECT count(*) FROM pgweir.user_search(%s)"
        assert connection.execute(lookup, ["alice"]).fetchone() == (1,)
        assert connection.execute(lookup, ["expired"]).fetchone() == (0,)


def test_every_installed_version_starts_and_survives_a_restart(any_postgres: PostgresServer) -> None:
    any_postgres.execute("CREATE TABLE kept AS SELECT 1 AS one", "app")
    any_postgres.restart()
    assert any_postgres.execute("SELECT one FROM kept", "app") == [(1,)]


def test_a_killed_server_comes_back_with_its_data_on_the_same_port(fresh_postgres: PostgresServer) -> None:
    fresh_postgres.execute("CREATE TABLE kept AS SELECT 1 AS one", "app")
    port = fresh_postgres.port
    with psycopg.connect(fresh_postgres.connection_string()) as connection:
        fresh_postgres.kill9()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    fresh_postgres.start()
    assert fresh_postgres.port == port
    assert fresh_postgres.execute("SELECT one FROM kept", "app") == [(1,)]


def test_a_paused_server_answers_only_after_resume(fresh_postgres: PostgresServer) -> None:
    with psycopg.connect(fresh_postgres.connection_string()) as connection:
        fresh_postgres.pause()
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(fresh_postgres.connection_string(connect_timeout=2))
        fresh_postgres.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_settings_and_hba_are_taken_from_the_test(make_postgres: Callable[..., PostgresServer]) -> None:
    server = make_postgres(settings={"max_connections": "7"})
    server.start()
    assert server.execute("SHOW max_connections") == [("7",)]
    server.set(hba=("local all all trust", "host all all 127.0.0.1/32 reject"))
    server.restart()
    with pytest.raises(psycopg.OperationalError, match="rejects"):
        psycopg.connect(server.connection_string())


def test_a_further_server_is_a_copy_and_needs_no_initdb(
    make_postgres: Callable[..., PostgresServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_postgres()  # what is copied is made for the first
    monkeypatch.setattr(embedded, "initdb", lambda *_: pytest.fail("seconds of work for a test that wants a server"))
    server = make_postgres()
    server.start()
    assert server.execute("SELECT 1") == [(1,)]


def test_the_tls_server_proves_its_name_and_asks_for_the_lookup_users_certificate(postgres_tls: TlsPostgres) -> None:
    verified = {"sslmode": "verify-full", "sslrootcert": str(postgres_tls.ca_file), "host": "localhost"}
    pair = postgres_tls.certificates.client_pooler_auth
    certificate = {"sslcert": str(pair.certificate), "sslkey": str(pair.key)}
    string = postgres_tls.server.connection_string("pooler_auth", dbname="postgres", **verified, **certificate)
    with psycopg.connect(string, hostaddr="127.0.0.1") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("pooler_auth",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_tls.server.connection_string("alice", sslmode="disable"))


def test_no_password_is_missing() -> None:
    assert {"postgres", "alice", "bob", "carol", "trusty", "pooler_auth"} <= PASSWORDS.keys()
