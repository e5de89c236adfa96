"""Provisioning in a real PostgreSQL: made, proved, repaired, taken back; and nothing of anybody else's touched."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import struct
import time

import psycopg
import pytest
from tests.pooler.fake_postgres import FakePostgres
from tests.pooler.wire import message
from tests.postgres.server import PostgresError

from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.names import AUTH_QUERY
from pgweir_operator.integration import login, provisioning, scram, sql
from pgweir_operator.integration.certificates import KeyPair, authority, client_certificate
from pgweir_operator.integration.login import Credentials, Endpoint
from pgweir_operator.integration.provisioning import ProvisionSpec

ROLE = "cnp_pooler_pgbouncer"
PASSWORD = "a-generated-password"
SPEC = ProvisionSpec(ROLE, password=PASSWORD)
LOGIN = Credentials(ROLE, password=PASSWORD)


@pytest.fixture
def server(any_postgres):
    """A server as a cluster operator hands it over: without the lookup that other tests' servers have."""
    any_postgres.execute("DROP SCHEMA pgweir CASCADE")
    return any_postgres


@pytest.fixture
def endpoint(server):
    return Endpoint("127.0.0.1", server.port)


@pytest.fixture
def admin(server):
    return Credentials("postgres", password="password")


def provision(endpoint, admin, spec=SPEC):
    return asyncio.run(provisioning.provision(endpoint, admin, spec)).statements


def withdraw(endpoint, admin, spec=SPEC):
    return asyncio.run(provisioning.withdraw(endpoint, admin, spec))


def check_login(endpoint, login=LOGIN, query=AUTH_QUERY):
    return asyncio.run(provisioning.check_login(endpoint, login, query=query, database="postgres"))


def leftovers(server):
    """Everything in the server that provisioning could have made."""
    return (
        server.execute(f"SELECT rolname FROM pg_roles WHERE rolname = '{ROLE}'")
        + server.execute("SELECT nspname FROM pg_namespace WHERE nspname = 'pgweir'")
        + server.execute(f"SELECT datname FROM pg_database WHERE datacl::text LIKE '%{ROLE}%'")
    )


def lookup(server, name):
    with psycopg.connect(f"host=127.0.0.1 port={server.port} user={ROLE} password={PASSWORD} dbname=postgres") as there:
        return there.execute("SELECT usename, passwd FROM pgweir.user_search(%s)", (name,)).fetchall()


def test_it_is_made_proved_and_taken_back(server, endpoint, admin):
    assert provision(endpoint, admin)
    room = check_login(endpoint)
    assert [(str(room.max_connections),)] == server.execute("SHOW max_connections")
    assert room.reserved >= 3
    assert lookup(server, "alice")[0][1].startswith("SCRAM-SHA-256$")
    assert withdraw(endpoint, admin) == ()
    assert leftovers(server) == []


def test_a_second_look_changes_nothing(endpoint, admin):
    provision(endpoint, admin)
    assert provision(endpoint, admin) == ()


def test_taking_back_twice_is_taking_back_once(server, endpoint, admin):
    provision(endpoint, admin)
    withdraw(endpoint, admin)
    assert withdraw(endpoint, admin) == ()


def test_many_poolers_may_provision_one_cluster_at_the_same_time(endpoint, admin):
    async def all_at_once():
        return await asyncio.gather(*(provisioning.provision(endpoint, admin, SPEC) for _ in range(5)))

    assert sum(bool(made.statements) for made in asyncio.run(all_at_once())) == 1
    check_login(endpoint)


def test_the_last_two_poolers_may_go_at_the_same_moment(server, endpoint, admin):
    provision(endpoint, admin)

    async def all_at_once():
        return await asyncio.gather(*(provisioning.withdraw(endpoint, admin, SPEC) for _ in range(4)))

    assert asyncio.run(all_at_once()) == [(), (), (), ()]
    assert leftovers(server) == []


def test_an_expired_role_loses_its_secret_and_an_unknown_one_its_row(server, endpoint, admin):
    provision(endpoint, admin)
    assert lookup(server, "expired") == [("expired", None)]
    assert lookup(server, "nobody") == []
    server.execute("CREATE ROLE group_role NOLOGIN PASSWORD 'x'")
    assert lookup(server, "group_role") == []


def test_only_the_auth_role_may_look_up(server, endpoint, admin):
    provision(endpoint, admin)
    with (
        psycopg.connect(server.connection_string("alice", dbname="postgres")) as alice,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        alice.execute("SELECT pgweir.user_search('bob')")
    rights = server.execute(
        "SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles"
        f" WHERE rolname = '{ROLE}'"
    )
    assert rights == [(True, False, False, False, False)]


def test_a_hostile_search_path_changes_nothing(server, endpoint, admin):
    provision(endpoint, admin)
    server.execute(
        "CREATE SCHEMA evil; CREATE VIEW evil.pg_authid AS SELECT 'alice'::name AS rolname, 'x' AS rolpassword"
    )
    server.execute("CREATE FUNCTION evil.eq(name, text) RETURNS bool LANGUAGE sql AS 'SELECT true'")
    server.execute("CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.eq)")
    server.execute("GRANT USAGE ON SCHEMA evil TO PUBLIC; GRANT ALL ON evil.pg_authid TO PUBLIC")
    text = f"host=127.0.0.1 port={server.port} user={ROLE} password={PASSWORD} dbname=postgres"
    with psycopg.connect(text) as there:
        there.execute("CREATE TEMP TABLE pg_authid (rolname name, rolpassword text)")
        there.execute("SET search_path = evil, pg_temp, pg_catalog")
        assert len(there.execute("SELECT * FROM pgweir.user_search('alice')").fetchall()) == 1
        assert there.execute("SELECT * FROM pgweir.user_search('nobody')").fetchall() == []


DRIFT = [
    f"ALTER ROLE {ROLE} NOLOGIN",
    f"ALTER ROLE {ROLE} SUPERUSER",
    f"ALTER ROLE {ROLE} PASSWORD 'other'",
    f"ALTER ROLE {ROLE} VALID UNTIL '2001-01-01'",
    f"ALTER ROLE {ROLE} CONNECTION LIMIT 0",
    f"REVOKE CONNECT ON DATABASE postgres FROM {ROLE}",
    f"REVOKE USAGE ON SCHEMA pgweir FROM {ROLE}",
    "GRANT ALL ON SCHEMA pgweir TO PUBLIC",
    "GRANT CREATE ON SCHEMA pgweir TO alice",
    "ALTER SCHEMA pgweir OWNER TO alice",
    "GRANT EXECUTE ON FUNCTION pgweir.user_search(text) TO PUBLIC",
    "GRANT EXECUTE ON FUNCTION pgweir.user_search(text) TO alice",
    f"REVOKE EXECUTE ON FUNCTION pgweir.user_search(text) FROM {ROLE}",
    "ALTER FUNCTION pgweir.user_search(text) RESET search_path",
    "ALTER FUNCTION pgweir.user_search(text) SECURITY INVOKER",
    "ALTER FUNCTION pgweir.user_search(text) OWNER TO alice",
    "CREATE OR REPLACE FUNCTION pgweir.user_search(uname text) RETURNS TABLE (usename name, passwd text) LANGUAGE sql"
    " SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT rolname, rolpassword FROM pg_authid'",
    "DROP FUNCTION pgweir.user_search(text)",
    "DROP SCHEMA pgweir CASCADE",
]


def test_whatever_drifts_is_repaired(server, endpoint, admin):
    provision(endpoint, admin)
    for drift in DRIFT:
        server.execute(drift)
        assert provision(endpoint, admin), drift
        assert provision(endpoint, admin) == (), f"one repair was not enough: {drift}"
        check_login(endpoint)


def test_grants_in_every_database_go_and_what_others_own_stays(server, endpoint, admin):
    provision(endpoint, admin)
    for database in ("app", "other"):
        server.execute(f"GRANT CONNECT ON DATABASE {database} TO {ROLE}")
        server.execute(f"CREATE TABLE kept (i int); GRANT SELECT ON kept TO {ROLE}", database)
        server.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {ROLE}", database)
    assert withdraw(endpoint, admin) == ()
    assert leftovers(server) == []
    assert server.execute("SELECT count(*) FROM kept", "app") == [(0,)]


def test_a_role_that_owns_something_stays_and_is_named(server, endpoint, admin):
    provision(endpoint, admin)
    server.execute(f"CREATE TABLE precious (i int); ALTER TABLE precious OWNER TO {ROLE}", "app")
    remains = withdraw(endpoint, admin)
    assert len(remains) == 1
    assert "owns 1 object" in remains[0]
    assert server.execute("SELECT count(*) FROM precious", "app") == [(0,)]


def test_what_somebody_put_into_our_schema_stays(server, endpoint, admin):
    provision(endpoint, admin)
    server.execute("CREATE TABLE pgweir.notes (i int)")
    assert any("SCHEMA" in line for line in withdraw(endpoint, admin))
    assert server.execute("SELECT count(*) FROM pgweir.notes") == [(0,)]


def test_somebody_elses_role_is_used_and_neither_altered_nor_dropped(server, endpoint, admin):
    server.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{PASSWORD}'")
    provision(endpoint, admin)
    check_login(endpoint)
    withdraw(endpoint, admin)
    assert server.execute(f"SELECT rolcreatedb FROM pg_roles WHERE rolname = '{ROLE}'") == [(True,)]
    assert server.execute("SELECT nspname FROM pg_namespace WHERE nspname = 'pgweir'") == []


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        ("CREATE SCHEMA pgweir", "Schema pgweir exists"),
        (f"CREATE ROLE {ROLE} NOLOGIN", "without LOGIN"),
        (f"CREATE ROLE {ROLE} LOGIN PASSWORD 'theirs'", "password is not changed"),
    ],
)
def test_a_strangers_object_in_the_way_is_named_and_left(server, endpoint, admin, obstacle, words):
    server.execute(obstacle)
    before = leftovers(server)
    with pytest.raises(PrerequisiteError, match=words) as caught:
        provision(endpoint, admin)
    assert caught.value.reason is Reason.NOT_OWNED
    assert leftovers(server) == before
    withdraw(endpoint, admin)
    assert leftovers(server) == before


def test_a_role_that_changes_to_certificates_loses_its_password(server, endpoint, admin):
    provision(endpoint, admin)
    assert provision(endpoint, admin, ProvisionSpec(ROLE))
    assert server.execute(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'") == [(None,)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wrong-secret-word"}, Reason.ADMIN_LOGIN_FAILED),
        ({"user": "nobody", "password": "wrong-secret-word"}, Reason.ADMIN_LOGIN_FAILED),
        ({"user": "alice", "password": "alice-password"}, Reason.NO_ADMIN_ACCESS),
    ],
)
def test_an_administrator_who_cannot_becomes_a_reason(endpoint, admin, change, reason):
    with pytest.raises(PrerequisiteError) as caught:
        provision(endpoint, dataclasses.replace(admin, **change))
    assert caught.value.reason is reason
    assert change["password"] not in caught.value.message
    assert caught.value.retry_after > 0


def test_whoever_asks_for_the_password_in_clear_text_and_proves_nothing_does_not_get_it(admin):
    heard = []

    def asks(session):
        session.read_startup()
        session.say(message("R", struct.pack("!i", 3)))
        heard.extend(session.requests())

    with FakePostgres(asks) as stranger, pytest.raises(PrerequisiteError, match="clear text") as caught:
        provision(Endpoint("127.0.0.1", stranger.port), admin)
    assert caught.value.reason is Reason.ADMIN_LOGIN_FAILED
    assert "serverCASecret" in caught.value.message, "and what helps"
    assert heard == []


def test_a_server_that_is_away_is_unavailable(server, endpoint, admin):
    server.stop()
    with pytest.raises(PrerequisiteError) as caught:
        provision(endpoint, admin)
    assert caught.value.reason is Reason.TARGET_UNAVAILABLE


def test_a_login_that_fails_says_so(server, endpoint, admin):
    provision(endpoint, admin)
    with pytest.raises(PrerequisiteError, match="its password") as caught:
        check_login(endpoint, Credentials(ROLE, password="not-this-one"))
    assert caught.value.reason is Reason.LOOKUP_FAILED
    assert "not-this-one" not in caught.value.message
    server.execute(f"REVOKE EXECUTE ON FUNCTION pgweir.user_search(text) FROM {ROLE}")
    with pytest.raises(PrerequisiteError, match="permission denied"):
        check_login(endpoint)
    server.stop()
    with pytest.raises(PrerequisiteError) as caught:
        check_login(endpoint)
    assert caught.value.reason is Reason.TARGET_UNAVAILABLE


def test_the_manual_sql_makes_a_working_setup(server, endpoint):
    server.execute(sql.manual(ROLE, ["postgres", "app"]))
    server.execute(f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'")
    check_login(endpoint)
    assert lookup(server, "expired") == [("expired", None)]


def test_nothing_that_is_logged_holds_a_secret(server, endpoint, admin, caplog):
    caplog.set_level("DEBUG")
    done = provision(endpoint, admin)
    assert caplog.records
    for text in (*done, caplog.text, repr(SPEC), repr(admin), repr(LOGIN)):
        assert "SCRAM-SHA-256" not in text
        assert PASSWORD not in text
    log = server.log() if callable(getattr(server, "log", None)) else ""
    assert PASSWORD not in log


def test_a_server_cannot_keep_us_busy_with_a_verifier_that_takes_hours_to_check():
    made = scram.verifier(PASSWORD)
    assert scram.matches(PASSWORD, made)
    for iterations in ("0", "-1", "1000000000", "nonsense", ""):
        assert not scram.matches(PASSWORD, made.replace("4096", iterations, 1))


def test_the_verifier_we_make_is_one_that_postgresql_makes(server):
    server.execute("SET password_encryption = 'scram-sha-256'; CREATE ROLE made LOGIN PASSWORD 'made-password'")
    [(stored,)] = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'made'")
    assert scram.matches("made-password", stored)
    assert not scram.matches("other", stored)
    assert not scram.matches("made-password", None)
    assert not scram.matches("made-password", "md5abc")
    assert not scram.matches("made-password", "SCRAM-SHA-256$x:y$z")


def test_with_the_clusters_authority_the_role_logs_in_by_certificate_alone(make_postgres, tmp_path):
    from tests.postgres.server import installations

    installation = next((item for item in installations() if item.has_tls), None)
    if installation is None:
        pytest.skip("no PostgreSQL built with TLS here")
    from pgweir_operator.integration.certificates import server_certificate

    ca = authority("cluster CA", now=time.time())
    shown = server_certificate(ca, ["localhost", "127.0.0.1"], now=time.time())
    for name, content in (("ca", ca.certificate), ("crt", shown.certificate), ("key", shown.key)):
        (tmp_path / name).write_bytes(content)
    hba = ("local all all trust", f"hostssl all {ROLE} all cert", "hostssl all all all scram-sha-256")
    server = make_postgres(installation, hba=hba)
    server.start()
    server.use_tls(tmp_path / "crt", tmp_path / "key", tmp_path / "ca")
    server.restart()
    server.execute("DROP SCHEMA pgweir CASCADE")
    endpoint = Endpoint("127.0.0.1", server.port, ca=ca.certificate)
    provision(endpoint, Credentials("postgres", password="password"), ProvisionSpec(ROLE))
    good = client_certificate(ca, ROLE, now=time.time())
    check_login(endpoint, Credentials(ROLE, certificate=good))
    stranger = client_certificate(authority("other CA", now=time.time()), ROLE, now=time.time())
    someone = client_certificate(ca, "someone_else", now=time.time())
    for wrong in (stranger, someone, KeyPair(good.certificate, someone.key)):
        with pytest.raises(PrerequisiteError):
            check_login(endpoint, Credentials(ROLE, certificate=wrong))
    with pytest.raises(PrerequisiteError) as caught:
        provision(
            dataclasses.replace(endpoint, ca=authority("x", now=time.time()).certificate),
            Credentials("postgres", password="password"),
        )
    assert caught.value.reason is Reason.TARGET_UNAVAILABLE


def test_an_address_of_postgresql_may_be_ipv6(make_postgres):
    server = make_postgres(hba=("local all all trust", "host all all ::1/128 scram-sha-256"))
    server.set({"listen_addresses": "::1"})
    try:
        server.start()
    except PostgresError:
        pytest.skip("this machine has no ::1")
    server.execute("DROP SCHEMA pgweir CASCADE")
    endpoint = Endpoint("::1", server.port)
    assert str(endpoint) == f"[::1]:{server.port}"
    provision(endpoint, Credentials("postgres", password="password"))
    assert check_login(endpoint).max_connections > 0


def test_a_postgresql_that_gives_no_answer_is_given_up(monkeypatch, endpoint, admin):
    """Its own timeouts do not end what hangs, and a pass that waits for ever hears of no change any more."""
    monkeypatch.setattr(login, "ANSWER_TIMEOUT", 0.3)

    async def wait():
        async with login.session(endpoint, admin, "postgres") as connection:
            await connection.execute("SELECT pg_sleep(60)")

    with pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.3 s"):
        asyncio.run(wait())


def test_a_postgresql_that_takes_the_connection_and_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(login, "REACH_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(PrerequisiteError) as caught:
        provision(Endpoint("127.0.0.1", silent.getsockname()[1]), Credentials("postgres", password="password"))
    assert caught.value.reason is Reason.TARGET_UNAVAILABLE
    assert "within 0.1 s" in caught.value.message
