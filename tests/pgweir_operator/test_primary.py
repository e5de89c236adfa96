"""psql in the primary's pod, through a server that speaks exec's protocol, in front of a real PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest
from tests.pgweir_operator import worlds
from tests.pgweir_operator.kube.fake_exec import FakeExec

from pgweir_operator import primary
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.integration import provisioning, psql
from pgweir_operator.integration.login import Endpoint
from pgweir_operator.integration.provisioning import ProvisionSpec
from pgweir_operator.kube import Kube

ROLE = "cnp_pooler_pgbouncer"
PASSWORD = "a-generated-password"
SPEC = ProvisionSpec(ROLE, password=PASSWORD)
NOWHERE = Endpoint("192.0.2.1", 5432)
POOLER = worlds.pooler()


@pytest.fixture
def server(fresh_postgres):
    fresh_postgres.execute("DROP SCHEMA pgweir CASCADE")
    return fresh_postgres


def of(server) -> FakeExec:
    """A pod in which psql finds the server over its socket, as in a container of CloudNativePG."""
    return FakeExec(
        str(server.installation.program("psql")),
        {"PGHOST": str(server.socket_directory), "PGPORT": str(server.port), "LANG": "C"},
    )


def in_pod(fake, test):
    """Run `test(shell)` with psql in the fake's pod."""

    async def run():
        async with fake, Kube(fake.configuration()) as kube:
            return await test(await primary.shell(kube, POOLER))

    return asyncio.run(asyncio.wait_for(run(), 60))


def refused(fake, test):
    with pytest.raises(PrerequisiteError) as caught:
        in_pod(fake, test)
    return caught.value


async def provision(shell):
    return await provisioning.provision(NOWHERE, shell, SPEC)


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
def test_it_is_made_proved_repaired_and_taken_back_without_a_superusers_password(server, protocol):
    fake = of(server)
    fake.has_primary()
    fake.protocols = (protocol,)

    async def story(shell):
        assert (await provisioning.provision(NOWHERE, shell, SPEC)).statements
        assert (await provisioning.provision(NOWHERE, shell, SPEC)).statements == ()
        server.execute(f"ALTER ROLE {ROLE} NOLOGIN")
        assert len((await provisioning.provision(NOWHERE, shell, SPEC)).statements) == 1
        login = provisioning.Credentials(ROLE, password=PASSWORD)
        where = Endpoint("127.0.0.1", server.port)
        query = "SELECT usename, passwd FROM pgweir.user_search($1)"
        room = await provisioning.check_login(where, login, query=query, database="postgres")
        assert room.max_connections > 0
        server.execute(f"GRANT CONNECT ON DATABASE app TO {ROLE}")
        assert await provisioning.withdraw(NOWHERE, shell, SPEC) == ()

    in_pod(fake, story)
    assert server.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'") == []
    assert server.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'pgweir'") == []
    assert fake.ended == len(fake.commands), "no psql is left behind"
    assert fake.closed_input == (len(fake.commands) if protocol.startswith("v5") else 0)


def test_no_secret_is_on_a_command_line_and_no_password_goes_over_at_all(server):
    fake = of(server)
    fake.has_primary()
    in_pod(fake, provision)
    assert not any("SCRAM" in word or "ROLE" in word for command in fake.commands for word in command)
    assert b"SCRAM-SHA-256$" in fake.written
    assert PASSWORD.encode() not in fake.written
    assert {command[0] for command in fake.commands} == {"psql"}


def test_many_poolers_may_provision_one_cluster_at_the_same_time(server):
    fake = of(server)
    fake.has_primary()

    async def all_at_once(shell):
        return await asyncio.gather(*(provisioning.provision(NOWHERE, shell, SPEC) for _ in range(4)))

    assert sum(bool(made.statements) for made in in_pod(fake, all_at_once)) == 1


def test_what_others_built_on_it_stays_and_is_named(server):
    fake = of(server)
    fake.has_primary()

    async def story(shell):
        await provisioning.provision(NOWHERE, shell, SPEC)
        server.execute("CREATE TABLE pgweir.notes (i int)")
        server.execute(f"CREATE TABLE precious (i int); ALTER TABLE precious OWNER TO {ROLE}", "app")
        return await provisioning.withdraw(NOWHERE, shell, SPEC)

    remains = in_pod(fake, story)
    assert any("pgweir.notes" in line for line in remains)
    assert any("owns 1 object" in line for line in remains)


async def divided(session):
    async with session.transaction():
        await session.run("CREATE TABLE half (i int)")
        await session.run("SELECT 1 / 0")


def test_an_error_has_its_sqlstate_and_leaves_the_session_usable(server):
    fake = of(server)
    fake.has_primary()

    async def story(shell):
        async with psql.session(shell, "app") as session:
            with pytest.raises(psql.psycopg.errors.UndefinedTable, match='"nowhere" does not exist'):
                await session.run("SELECT * FROM nowhere")
            with pytest.raises(psql.psycopg.errors.DivisionByZero):
                await divided(session)
            hostile = "it's \\ :ERROR $1 %s %% \\echo\nnew ü line"
            [row] = await session.rows("SELECT %(text)s AS text, to_regclass('half') AS half", {"text": hostile})
            assert row == {"text": hostile, "half": None}
            assert await session.rows("SELECT 1 AS one WHERE false", {}) == []

    in_pod(fake, story)


def test_a_database_of_any_name_is_entered(server):
    name = "a 'b\\ host=elsewhere"
    server.execute(f'CREATE DATABASE "{name}"')
    fake = of(server)
    fake.has_primary()

    async def story(shell):
        async with psql.session(shell, name) as session:
            return await session.rows("SELECT current_database() AS name", {})

    assert in_pod(fake, story) == [{"name": name}]


def test_a_psql_that_cannot_log_in_says_why(server):
    server.stop()
    fake = of(server)
    fake.has_primary()
    error = refused(fake, provision)
    assert error.reason is Reason.TARGET_UNAVAILABLE
    assert "shop-1" in error.message


def test_a_pod_whose_pg_hba_asks_for_a_password_says_what_it_needs(make_postgres):
    made = make_postgres(hba=("local all all scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"))
    made.start()
    fake = of(made)
    fake.has_primary()
    error = refused(fake, provision)
    assert error.reason is Reason.ADMIN_LOGIN_FAILED
    assert "local all postgres peer" in error.message


def test_a_standby_is_told_from_a_primary(server, monkeypatch):
    monkeypatch.setattr(
        provisioning.sql, "FACTS", provisioning.sql.FACTS.replace("pg_catalog.pg_is_in_recovery()", "true")
    )
    fake = of(server)
    fake.has_primary()
    error = refused(fake, provision)
    assert error.reason is Reason.TARGET_UNAVAILABLE
    assert "standby" in error.message


def test_a_psql_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(psql, "PATIENCE", 0.3)
    monkeypatch.setattr(psql, "command", lambda database: ("sleep", "1"))
    fake = FakeExec()
    fake.has_primary()
    error = refused(fake, provision)
    assert error.reason is Reason.TARGET_UNAVAILABLE
    assert "no answer" in error.message


@pytest.mark.parametrize(
    ("status", "words"), [(403, "may not exec in pod shop-1"), (404, "pod shop-1"), (400, "'postgres'")]
)
def test_an_exec_that_is_refused_is_no_administrative_access(status, words):
    fake = FakeExec()
    fake.has_primary()
    fake.refuses = status
    error = refused(fake, provision)
    assert error.reason is Reason.NO_ADMIN_ACCESS
    assert words in error.message


def test_an_api_server_that_fails_is_tried_again():
    fake = FakeExec()
    fake.has_primary()
    fake.refuses = 503
    assert refused(fake, provision).reason is Reason.TARGET_UNAVAILABLE
    fake = FakeExec()
    fake.has_primary()
    fake.protocols = ("v9.channel.k8s.io",)
    assert refused(fake, provision).reason is Reason.NO_ADMIN_ACCESS


def test_a_pod_without_psql_is_no_administrative_access():
    fake = FakeExec("/nonexistent/psql")
    fake.has_primary()
    error = refused(fake, provision)
    assert error.reason is Reason.NO_ADMIN_ACCESS
    assert "no psql" in error.message


def test_without_a_pod_or_without_its_container_there_is_no_administrative_access():
    fake = FakeExec()
    assert "No pod" in refused(fake, provision).message
    fake.objects["/api/v1/namespaces/default/services/shop-rw"] = {"spec": {"selector": {"role": "primary"}}}
    fake.objects["/api/v1/namespaces/default/pods"] = {"items": []}
    assert refused(fake, provision).reason is Reason.NO_ADMIN_ACCESS
    fake.has_primary(container="database")
    error = refused(fake, provision)
    assert error.reason is Reason.NO_ADMIN_ACCESS
    assert "no container 'postgres'" in error.message


def test_a_primary_that_starts_is_waited_for():
    fake = FakeExec()
    fake.has_primary()
    [pod] = fake.objects["/api/v1/namespaces/default/pods"]["items"]
    pod["status"] = {}
    assert refused(fake, provision).reason is Reason.TARGET_UNAVAILABLE


def test_a_cluster_object_knows_its_primary_before_the_service_does():
    fake = FakeExec()
    fake.has_primary()
    fake.has_primary(pod="shop-2")
    fake.objects["/api/v1/namespaces/default/pods"]["items"] = [fake.objects["/api/v1/namespaces/default/pods/shop-1"]]
    path = "/apis/postgresql.cnpg.io/v1/namespaces/default/clusters/shop"
    fake.objects[path] = {"status": {"currentPrimary": "shop-2"}}

    async def which(shell):
        return shell.pod

    assert in_pod(fake, which) == "shop-2"
