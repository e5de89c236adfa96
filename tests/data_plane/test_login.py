"""Who gets in, how, and what the others are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.wire import (
    WireClient,
    gssenc_request,
    message,
    password,
    ssl_request,
    startup,
    startup_packet,
)
from tests.postgres.server import AUTH_QUERY, PostgresServer

MakePooler = Callable[..., PoolerProcess]


def refusal(pooler: PoolerProcess, user: str, database: str, secret: str = "wrong") -> dict[str, str]:
    """What a client is told whose login fails."""
    with WireClient(pooler.port) as client:
        client.say(startup(user=user, database=database))
        return client.login_error(user, secret)


@pytest.mark.parametrize("auth_type", ["plain", "md5", "scram-sha-256"])
@pytest.mark.parametrize("user", ["alice", "bob", "carol"])
def test_libpq_logs_in_with_a_plain_secret_in_the_userlist(make_pooler: MakePooler, auth_type: str, user: str) -> None:
    pooler = make_pooler(auth_type=auth_type)
    with pooler.connect(user) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (user,)


def test_a_password_that_comes_in_pieces_is_a_password(make_pooler: MakePooler) -> None:
    """The proof is done with, and gone, when the last piece of it has been read. (Compiled, that once ended the process.)"""
    pooler = make_pooler(auth_type="plain")
    with WireClient(pooler.port) as first:
        first.log_in("alice", "app", SECRETS["alice"])  # a server is there: the next ones are greeted at once
        for _ in range(20):
            with WireClient(pooler.port) as client:
                client.say(startup(user="alice", database="app"))
                client.expect("R")
                said = password(SECRETS["alice"])
                client.say(said[:7])
                client.expect_silence(0.01)
                client.say(said[7:])
                client.until("Z")
    assert pooler.is_running, pooler.log_tail()


@pytest.mark.parametrize("auth_type", ["trust", "plain", "md5", "scram-sha-256"])
def test_asyncpg_logs_in(make_pooler: MakePooler, auth_type: str) -> None:
    pooler = make_pooler(auth_type=auth_type)

    async def ask() -> Any:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=pooler.port, user="alice", password=SECRETS["alice"], database="app",
            statement_cache_size=0,
        )  # fmt: skip
        try:
            return await connection.fetchval("SELECT current_user")
        finally:
            await connection.close()

    assert asyncio.run(ask()) == "alice"


def test_trust_asks_no_password_but_knows_its_users(make_pooler: MakePooler) -> None:
    pooler = make_pooler(auth_type="trust")
    with pooler.connect("alice", password="anything") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert refusal(pooler, "nobody_knows_me", "app")["S"] == "FATAL"


def test_a_verifier_copied_from_postgresql_lets_a_client_in_and_serves_the_server_login_too(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    """SCRAM pass-through: nobody here knows alice's password, and PostgreSQL asks for it all the same."""
    ((verifier,),) = postgres.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'")
    pooler = make_pooler(auth_type="scram-sha-256", userlist={"alice": verifier, "admin": SECRETS["admin"]})
    with pooler.connect() as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("alice",)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        pooler.connect(password="wrong")


def test_an_md5_hash_in_the_userlist_serves_both_sides(make_pooler: MakePooler, postgres: PostgresServer) -> None:
    ((hashed,),) = postgres.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'bob'")
    pooler = make_pooler(auth_type="md5", userlist={"bob": hashed, "admin": SECRETS["admin"]})
    with pooler.connect("bob") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("bob",)


def test_md5_switches_to_scram_where_the_secret_is_a_scram_verifier(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    ((verifier,),) = postgres.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'")
    pooler = make_pooler(auth_type="md5", userlist={"alice": verifier, "admin": SECRETS["admin"]})
    with pooler.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_auth_query_looks_up_who_is_not_in_the_userlist(make_pooler: MakePooler, user: str) -> None:
    pooler = make_pooler(
        auth_type="md5",
        auth_user="pooler_auth",
        auth_query=AUTH_QUERY,
        databases={"*": "host=127.0.0.1 port={port} auth_dbname=postgres"},
        userlist={"pooler_auth": SECRETS["pooler_auth"], "admin": SECRETS["admin"]},
    )
    with pooler.connect(user) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (user,)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        pooler.connect(user, password="wrong")
    with pytest.raises(psycopg.OperationalError):
        pooler.connect("expired", password=SECRETS["expired"])


# What the documentation of a PgBouncer in Kubernetes has its users run by hand, in each application's database.
BY_HAND = """
CREATE ROLE cnp_pooler_pgbouncer WITH LOGIN;
GRANT CONNECT ON DATABASE app TO cnp_pooler_pgbouncer;
CREATE OR REPLACE FUNCTION user_search(uname TEXT)
  RETURNS TABLE (usename name, passwd text)
  LANGUAGE sql SECURITY DEFINER AS
  'SELECT usename, passwd FROM pg_shadow WHERE usename=$1;';
REVOKE ALL ON FUNCTION user_search(text) FROM public;
GRANT EXECUTE ON FUNCTION user_search(text) TO cnp_pooler_pgbouncer;
"""


def test_a_look_up_made_by_hand_in_the_applications_database_is_enough(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    role = "cnp_pooler_pgbouncer"
    try:
        postgres.execute(BY_HAND, dbname="app")
        postgres.execute(f"ALTER ROLE {role} PASSWORD 'of-the-look-up'")
        pooler = make_pooler(
            auth_user=role,
            auth_query="SELECT usename, passwd FROM user_search($1)",
            userlist={role: "of-the-look-up", "admin": SECRETS["admin"]},
        )
        with pooler.connect("alice") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("alice",)
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            pooler.connect("alice", password="wrong")
        pooler.remove()
    finally:
        postgres.execute(f"DROP FUNCTION IF EXISTS user_search(text); DROP OWNED BY {role}", dbname="app")
        postgres.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("auth_type", ["plain", "md5", "scram-sha-256"])
def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(make_pooler: MakePooler, auth_type: str) -> None:
    pooler = make_pooler(auth_type=auth_type)
    wrong, unknown = refusal(pooler, "alice", "app"), refusal(pooler, "mallory", "app")
    assert wrong == {**wrong, "S": "FATAL", "C": "28P01", "M": 'password authentication failed for user "alice"'}
    assert unknown == {**wrong, "M": 'password authentication failed for user "mallory"'}


def test_an_unknown_database_is_named_only_to_who_may_log_in(make_pooler: MakePooler) -> None:
    pooler = make_pooler(databases={"app": "host=127.0.0.1 port={port}"})
    told = refusal(pooler, "alice", "nowhere", SECRETS["alice"])
    assert (told["C"], "nowhere" in told["M"]) == ("3D000", True)
    assert refusal(pooler, "alice", "nowhere", "wrong")["C"] == "28P01"


def test_a_database_that_postgresql_does_not_know_is_refused_in_its_words(make_pooler: MakePooler) -> None:
    told = refusal(make_pooler(), "alice", "nowhere", SECRETS["alice"])
    assert (told["C"], told["M"]) == ("3D000", 'database "nowhere" does not exist')


def test_a_password_that_postgresql_refuses_is_reported_with_its_code(make_pooler: MakePooler) -> None:
    pooler = make_pooler(userlist={"alice": "not-what-postgresql-has", "admin": SECRETS["admin"]})
    assert refusal(pooler, "alice", "app", "not-what-postgresql-has")["C"] == "28P01"


def test_hba_decides_by_user_and_database(make_pooler: MakePooler) -> None:
    rules = ["host app alice 127.0.0.1/32 trust", "host all bob 127.0.0.1/32 reject", "host all all 0.0.0.0/0 md5"]
    pooler = make_pooler(hba=rules)
    with pooler.connect("alice", password="anything") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pooler.connect("carol") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        pooler.connect("bob")


def test_startup_without_a_user_is_refused_by_name(make_pooler: MakePooler) -> None:
    with WireClient(make_pooler().port) as client:
        client.say(startup(database="app"))
        client.expect_error(text="no username supplied")
        client.expect_closed()


def test_an_unknown_startup_parameter_is_refused_unless_ignored(make_pooler: MakePooler) -> None:
    with WireClient(make_pooler().port) as client:
        client.say(startup(user="alice", database="app", geqo="off"))
        client.expect_error(text="unsupported startup parameter: geqo")
    tolerant = make_pooler(ignore_startup_parameters="geqo")
    with tolerant.wire(geqo="off") as client:
        assert client.ask("SELECT 1") == [[b"1"]]


def test_ssl_and_gss_requests_are_declined_where_tls_is_off(make_pooler: MakePooler) -> None:
    with WireClient(make_pooler().port) as client:
        client.say(gssenc_request())
        assert client.read(1) == b"N"
        client.say(ssl_request())
        assert client.read(1) == b"N"
        client.log_in("alice", "app", SECRETS["alice"])
        assert client.ask("SELECT 1") == [[b"1"]]


def test_a_newer_minor_version_is_negotiated_down(make_pooler: MakePooler) -> None:
    with WireClient(make_pooler().port) as client:
        client.say(startup_packet(196610, {"user": "alice", "database": "app", "_pq_.future": "1"}))
        answer = client.hear()
        assert answer.type == "v"
        assert b"_pq_.future" in answer.body
        client.authenticate("alice", SECRETS["alice"])
        assert client.until("Z")[-1].body == b"I"


def test_the_greeting_has_what_drivers_look_for(make_pooler: MakePooler) -> None:
    wanted = {"server_version", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"}
    with make_pooler().wire(application_name="greeted", client_encoding="UTF8") as client:
        assert wanted <= client.parameters.keys()
        assert client.parameters["application_name"] == "greeted"
        assert client.pid  # PgBouncer's are any 32 bits, and negative half of the time


def test_a_password_in_the_wrong_place_ends_the_connection_and_nothing_else(make_pooler: MakePooler) -> None:
    pooler = make_pooler(auth_type="plain")
    with WireClient(pooler.port) as client:
        client.say(startup(user="alice", database="app"))
        client.expect("R")
        client.say(message("Q", b"SELECT 1\0"))
        assert not {item.type for item in client.until_closed()} - {"E"}
    with WireClient(pooler.port) as client:
        client.say(startup(user="alice", database="app"))
        client.expect("R")
        client.say(password(SECRETS["alice"]))
        assert client.until("Z")[-1].body == b"I"


def test_who_leaves_during_authentication_leaves_nothing_behind(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    for _ in range(20):
        with WireClient(pooler.port) as client:
            client.say(startup(user="alice", database="app"))
            client.expect("R")
    eventually(lambda: {row["list"]: row["items"] for row in pooler.console("SHOW LISTS")}["login_clients"] == 0)


def test_a_server_that_refuses_logins_is_reported_in_its_own_words(make_pooler: MakePooler) -> None:
    def script(session: Session) -> None:
        session.read_startup()
        session.refuse("28000", "no pg_hba.conf entry for you")

    with FakePostgres(script) as fake:
        pooler = make_pooler(server_port=fake.port)
        told = refusal(pooler, "alice", "app", SECRETS["alice"])
        assert (told["C"], told["M"]) == ("28000", "no pg_hba.conf entry for you")


@pytest.mark.parametrize("sqlstate", ["53300", "57P03"])
def test_a_server_that_says_not_now_is_waited_for(make_pooler: MakePooler, sqlstate: str) -> None:
    """A full or starting PostgreSQL costs a delay and no error; PgBouncer passes 53300 on."""

    def script(session: Session) -> None:
        if session.number < 2:
            session.read_startup()
            session.refuse(sqlstate, "not now")
            return
        session.accept_login()
        session.serve()

    with FakePostgres(script) as fake:
        pooler = make_pooler(server_port=fake.port, server_login_retry=0.2)
        with pooler.wire() as client:
            assert client.ask("SELECT 1") == [[b"1"]]
