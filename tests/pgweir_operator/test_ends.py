"""Every end of provisioning, as a user sees it: the condition, what PostgreSQL has then, and that it recovers alone.

Whole passes against a real PostgreSQL that lets the lookup's role in by certificate, as a cluster's does; the API server
is a dictionary, no pod is needed, and time is handed in. What else can go wrong in PostgreSQL itself is in
integration/test_provisioning.py, and the API server's part in e2e/control_plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import psycopg
import pytest
from tests.pgweir_operator.kube.fake_exec import FakeExec
from tests.pgweir_operator.test_reconcile import Scene
from tests.postgres.server import installations

from pgweir_operator import primary
from pgweir_operator.integration import scram, sql
from pgweir_operator.integration.certificates import DAY, authority, common_name, is_due, server_certificate
from pgweir_operator.kube import Kube
from pgweir_operator.kube.exec import process
from pgweir_operator.passes import Memory

ROLE = "cnp_pooler_pgbouncer"
NATIVE = "cnpg_pooler_pgbouncer"
CA = authority("shop's CA", now=time.time() - 100 * DAY)
HOUR = 3600.0


@pytest.fixture
def server(make_postgres, tmp_path):
    installation = next((item for item in installations() if item.has_tls), None)
    if installation is None:
        pytest.skip("no PostgreSQL built with TLS here")
    shown = server_certificate(CA, ["localhost", "127.0.0.1"], now=time.time())
    for name, content in (("ca", CA.certificate), ("crt", shown.certificate), ("key", shown.key)):
        (tmp_path / name).write_bytes(content)
    by_certificate = [f"hostssl all {role} all cert" for role in (ROLE, NATIVE)]
    made = make_postgres(installation, hba=("local all all trust", *by_certificate, "host all all all scram-sha-256"))
    made.use_tls(tmp_path / "crt", tmp_path / "key", tmp_path / "ca")
    made.start()
    made.execute("DROP SCHEMA pgweir CASCADE")
    return made


class Story(Scene):
    def __init__(self, server, **options):
        super().__init__(dial_target=("127.0.0.1", server.port), **options)
        self.server = server
        self.cluster()

    def cluster(self, *, superuser="password"):
        self.api.objects.pop(("Secret", "shop-superuser"), None)
        if superuser:
            self.api.secret("shop-superuser", username=b"postgres", password=superuser.encode())
        self.api.secret("shop-ca", ca_crt=CA.certificate, ca_key=CA.key)

    async def ends(self, status, reason):
        """After one more pass Integrated is so; its message."""
        await self.look()
        found = self.condition("Integrated")
        assert found[:2] == (status, reason), found
        return found[2]

    async def later(self, seconds, status, reason):
        self.now += seconds
        return await self.ends(status, reason)

    def leftovers(self):
        return self.server.execute(
            "SELECT rolname::text FROM pg_roles WHERE rolname ~ 'pooler_pgbouncer'"
            " UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'pgweir'"
        )


@pytest.fixture
def story(server):
    """Runs `test(story)`; options are the operator's."""

    def run(test, **options):
        async def whole():
            scene = Story(server, **options)
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(scene.close)
                await test(scene)

        asyncio.run(asyncio.wait_for(whole(), 120))

    return run


def going(scene):
    gone = "2026-11-22T12:00:00Z"
    scene.api.put("Pooler", "pooler", metadata={"deletionTimestamp": gone})


def test_with_a_superusers_secret_all_is_made_and_the_last_pooler_takes_it_back(story):
    async def test(scene):
        message = await scene.ends("True", "LookupSucceeded")
        assert "by certificate" in message
        assert scene.leftovers() == [(ROLE,), ("pgweir",)]
        assert scene.condition("WithinConnectionBudget")[0] == "True"
        second = {"uid": "second", "finalizers": ["pgweir.io/provisioned"]}
        scene.api.put("Pooler", "second", metadata=second, spec={"cluster": {"name": "shop"}})
        going(scene)
        await scene.look()
        assert scene.leftovers() == [(ROLE,), ("pgweir",)], "the second needs it"
        scene.api.objects.pop(("Pooler", "second"))
        scene.api.put("Pooler", "pooler", metadata={"finalizers": ["pgweir.io/provisioned"]})
        await scene.look()
        assert scene.leftovers() == []
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == []
        assert scene.api.events[-1] == ("Withdrawn", f"Role {ROLE} and its lookup were removed from the target.")

    story(test)


def test_what_somebody_else_built_on_it_stays_and_an_event_says_what(story):
    async def test(scene):
        await scene.ends("True", "LookupSucceeded")
        scene.server.execute("CREATE TABLE pgweir.theirs (x int)")
        going(scene)
        await scene.look()
        reason, note = scene.api.events[-1]
        assert reason == "WithdrawalIncomplete"
        assert "pgweir.theirs" in note
        assert scene.leftovers() == [("pgweir",)]
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == []

    story(test)


def test_a_statement_that_postgresql_refuses_is_told_in_its_words_and_tried_again(story):
    async def test(scene):
        scene.server.execute(
            "CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'no changes before Monday'; END $$"
        )
        scene.server.execute("CREATE EVENT TRIGGER no_ddl ON ddl_command_start EXECUTE FUNCTION no_ddl()")
        assert "no changes before Monday (SQLSTATE P0001)" in await scene.ends("False", "ProvisioningFailed")
        assert scene.leftovers() == [], "nothing is half made"
        scene.server.execute("DROP EVENT TRIGGER no_ddl")
        await scene.later(60, "True", "LookupSucceeded")

    story(test)


def test_without_a_superuser_the_message_is_the_sql_and_run_verbatim_it_is_enough(story):
    async def test(scene):
        scene.cluster(superuser=None)
        message = await scene.ends("False", "NoAdminAccess")
        sql = message[message.index("CREATE ROLE") :]
        scene.server.execute(sql)
        scene.server.execute(f"ALTER ROLE {ROLE} PASSWORD 'of-my-own'")
        scene.api.secret("mine", username=ROLE.encode(), password=b"of-my-own")
        query = {"authQuery": "SELECT usename, passwd FROM pgweir.user_search($1)", "authQuerySecret": {"name": "mine"}}
        scene.spec(pgbouncer=query)
        assert sql in await scene.ends("False", "Manual")
        assert f"auth_user = {ROLE}".encode() in scene.data("pooler")["pgbouncer.ini"]
        # As the pods would; this server asks this role for a certificate over TCP.
        with psycopg.connect(
            f"host={scene.server.socket_directory} port={scene.server.port} user={ROLE} dbname=postgres"
        ) as there:
            found = there.execute(query["authQuery"].replace("$1", "'alice'")).fetchall()
        assert found[0][1].startswith("SCRAM-SHA-256$")

    story(test)


def test_without_a_superuser_psql_in_the_primarys_pod_does_the_same_where_it_may(story, monkeypatch):
    async def test(scene):
        scene.cluster(superuser=None)
        scene.api.put("Service", "shop-rw", spec={"selector": {"role": "primary"}})
        fake = FakeExec(
            str(scene.server.installation.program("psql")),
            {"PGHOST": str(scene.server.socket_directory), "PGPORT": str(scene.server.port), "LANG": "C"},
        )
        async with fake, Kube(fake.configuration()) as kube:
            monkeypatch.setattr(primary, "process", lambda _, *told: process(kube, *told))
            assert "No pod stands behind" in await scene.ends("False", "NoAdminAccess")
            scene.api.put(
                "Pod",
                "shop-1",
                spec={"containers": [{"name": "postgres"}]},
                status={"containerStatuses": [{"name": "postgres", "state": {"running": {}}}]},
            )
            fake.refuses = 403
            message = await scene.later(31, "False", "NoAdminAccess")
            assert "may not exec in pod shop-1" in message
            assert "CREATE FUNCTION" in message
            fake.refuses = None
            await scene.later(31, "True", "LookupSucceeded")
            scene.server.execute("DROP SCHEMA pgweir CASCADE")
            await scene.later(301, "True", "LookupSucceeded")
            assert scene.leftovers() == [(ROLE,), ("pgweir",)]
            going(scene)
            await scene.look()
        assert scene.leftovers() == []

    story(test, exec_in_primary=True)


def test_a_database_that_is_down_for_an_hour_takes_nothing_from_the_pods_and_is_found_again(story):
    async def test(scene):
        await scene.ends("True", "LookupSucceeded")
        files = scene.data("pooler")
        scene.server.stop()
        scene.now += 301
        for _ in range(60):
            await scene.later(HOUR / 60, "False", "TargetUnavailable")
            assert scene.outcome.again <= 30
        assert scene.data("pooler") == files
        scene.server.start()
        await scene.later(31, "True", "LookupSucceeded")
        assert scene.data("pooler") == files

    story(test)


def test_a_wrong_password_is_told_and_the_right_one_is_taken_at_once(story):
    async def test(scene):
        scene.cluster(superuser="not-this-one")
        message = await scene.ends("False", "AdminLoginFailed")
        assert "not-this-one" not in message
        scene.cluster()
        await scene.ends("True", "LookupSucceeded")
        files = scene.data("pooler")
        scene.cluster(superuser="changed-by-somebody")
        await scene.ends("False", "AdminLoginFailed")
        assert scene.data("pooler") == files
        scene.server.execute("ALTER ROLE postgres PASSWORD 'changed-by-somebody'")
        await scene.later(31, "True", "LookupSucceeded")

    story(test)


def test_a_password_with_a_line_break_behind_it_is_told_as_what_it_is(story):
    async def test(scene):
        scene.cluster(superuser="password\n")
        message = await scene.ends("False", "InvalidSecret")
        assert "key 'password' of Secret 'shop-superuser' contains a line break" in message
        scene.cluster()
        await scene.ends("True", "LookupSucceeded")

    story(test)


def test_a_target_that_is_a_standby_alone_is_told_and_its_promotion_is_enough(story):
    async def test(scene):
        scene.server.set({"wal_level": "replica"})
        scene.server.restart()
        scene.server.stop()
        (scene.server.data_directory / "standby.signal").touch()
        scene.server.start()
        assert "is a standby" in await scene.ends("False", "TargetUnavailable")
        assert scene.leftovers() == []
        scene.server.execute("SELECT pg_promote()")
        await scene.later(31, "True", "LookupSucceeded")

    story(test)


def test_what_drifts_is_repaired_and_a_role_that_expires_lives_on(story):
    async def test(scene):
        await scene.ends("True", "LookupSucceeded")
        for drift in (
            f"ALTER ROLE {ROLE} VALID UNTIL '2001-01-01'",
            "ALTER FUNCTION pgweir.user_search(text) SET search_path = public",
            "DROP SCHEMA pgweir CASCADE",
            f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}",
        ):
            scene.server.execute(drift)
            await scene.later(301, "True", "LookupSucceeded")
        [(valid, path)] = scene.server.execute(
            "SELECT r.rolvaliduntil = 'infinity', p.proconfig FROM pg_roles r, pg_proc p"
            f" WHERE r.rolname = '{ROLE}' AND p.proname = 'user_search'"
        )
        assert (valid in (True, None), path) == (True, ["search_path=pg_catalog, pg_temp"])

    story(test)


def test_the_certificate_is_renewed_before_it_expires_and_the_new_one_lets_it_in(story):
    async def test(scene):
        scene.now = time.time() - 70 * DAY
        await scene.ends("True", "LookupSucceeded")
        first = scene.data("pooler")["server.crt"]
        await scene.later(DAY, "True", "LookupSucceeded")
        assert scene.data("pooler")["server.crt"] == first
        await scene.later(69 * DAY - 60, "True", "LookupSucceeded")
        second = scene.data("pooler")["server.crt"]
        assert second != first
        assert common_name(second) == ROLE
        assert is_due(first, now=scene.now)
        assert not is_due(second, now=scene.now + 59 * DAY)

    story(test)


# What CloudNativePG makes for its own Pooler.
THEIRS = f"""
CREATE ROLE {NATIVE} LOGIN;
GRANT CONNECT ON DATABASE postgres TO {NATIVE};
CREATE FUNCTION public.user_search(uname text) RETURNS TABLE (usename name, passwd text) LANGUAGE sql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS 'SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1';
REVOKE ALL ON FUNCTION public.user_search(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.user_search(text) TO {NATIVE};
"""


@pytest.mark.parametrize("how", ["gone", "going", "made anew"])
def test_for_a_pooler_that_is_deleted_before_anything_was_made_nothing_is_made(story, how):
    async def test(scene):
        pooler = scene.api.objects["Pooler", "pooler"]
        read = scene.api.get

        async def get(kind, namespace, name):
            """As it was, for the last time, when the pass began."""
            found = await read(kind, namespace, name)
            if kind == "Pooler" and how == "going":
                scene.api.put("Pooler", "pooler", metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"})
            elif kind == "Pooler" and how == "made anew":
                scene.api.put("Pooler", "pooler", metadata={"uid": "another"})
            elif kind == "Pooler":
                scene.api.objects.pop(("Pooler", "pooler"), None)
            return found

        scene.api.get = get
        with contextlib.suppress(KeyError):  # there is nowhere to write a status
            await scene.look()
        assert scene.leftovers() == []
        assert pooler["metadata"].get("finalizers", []) == []

    story(test)


def of_cloudnativepg(server):
    """Everything of theirs that we could have touched."""
    return server.execute(
        f"SELECT r.oid, r.rolcanlogin, r.rolpassword, p.oid, p.prosrc, p.proacl::text, d.datacl::text,"
        f" shobj_description(r.oid, 'pg_authid') FROM pg_authid r, pg_proc p, pg_database d WHERE r.rolname = '{NATIVE}'"
        " AND p.oid = 'public.user_search(text)'::regprocedure AND d.datname = 'postgres'"
    )


def test_beside_a_pooler_of_cloudnativepg_nothing_of_theirs_is_touched_while_ours_comes_and_goes(story):
    async def test(scene):
        scene.server.execute(THEIRS)
        theirs = of_cloudnativepg(scene.server)
        scene.api.put("Cluster", "shop", status={"certificates": {"clientCASecret": "shop-ca"}})
        assert NATIVE in await scene.ends("True", "LookupSucceeded")
        assert of_cloudnativepg(scene.server) == theirs
        assert f"auth_user = {NATIVE}".encode() in scene.data("pooler")["pgbouncer.ini"]
        # CloudNativePG writes its function anew whenever it likes.
        scene.server.execute("DROP FUNCTION public.user_search(text)")
        await scene.later(301, "True", "LookupSucceeded")
        scene.server.execute(THEIRS[THEIRS.index("CREATE FUNCTION") :])
        theirs = of_cloudnativepg(scene.server)
        going(scene)
        await scene.look()
        assert scene.leftovers() == [(NATIVE,)]
        assert of_cloudnativepg(scene.server) == theirs
        with psycopg.connect(
            f"host={scene.server.socket_directory} port={scene.server.port} user={NATIVE} dbname=postgres"
        ) as there:
            assert there.execute("SELECT usename FROM public.user_search('alice')").fetchall() == [("alice",)]

    story(test)


def elsewhere(scene, *, password=b"of-the-other-namespace", **spec):
    """Somebody else's Pooler, and older, in a namespace of its own."""
    theirs = {"uid": "theirs", "creationTimestamp": "2026-11-01T12:00:00Z"}
    scene.api.put("Pooler", "theirs", metadata=theirs, spec={"instances": 1, **spec})
    scene.api.put("Secret", "theirs-control-ca", metadata={"ownerReferences": [{"uid": "theirs", "controller": True}]})
    scene.api.secret("theirs-control-ca", **{"auth-password": password})
    scene.api.objects["Pooler", "theirs"]["metadata"]["namespace"] = "elsewhere"


def by_target(scene, host="127.0.0.1", port=None):
    port = port or scene.server.port
    return {"target": {"host": host, "port": port, "adminSecret": {"name": "shop-superuser"}}}


def has_password(scene, password):
    [(stored,)] = scene.server.execute(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'")
    return scram.matches(password.decode(), stored)


def with_passwords(server):
    server.set(hba=("local all all trust", "host all all all scram-sha-256"))


def test_a_password_comes_from_another_namespace_only_where_postgresql_has_it_and_to_its_administrator(story, server):
    with_passwords(server)

    async def test(scene):
        scene.api.put("Pooler", "pooler", spec={**by_target(scene), "instances": 1})
        elsewhere(scene, **by_target(scene))

        def password():
            return scene.data("pooler-control-ca")["auth-password"]

        scene.cluster(superuser="a-guess")
        await scene.ends("False", "AdminLoginFailed")
        scene.cluster()
        await scene.ends("True", "LookupSucceeded")
        assert password() != b"of-the-other-namespace", "who has set nothing there lets nobody in by it"
        assert has_password(scene, password())
        scene.server.execute(f"ALTER ROLE {ROLE} PASSWORD '{scram.verifier('of-the-other-namespace')}'")
        await scene.later(301, "True", "LookupSucceeded")
        assert password() == b"of-the-other-namespace", "one role has one password, or two would set it in turns"
        scene.memory = Memory()
        await scene.later(301, "True", "LookupSucceeded")
        assert password() == b"of-the-other-namespace"
        going(scene)
        await scene.look()
        assert (ROLE,) in scene.leftovers(), "theirs has set it, and needs it"
        scene.server.execute(f"ALTER ROLE {ROLE} PASSWORD '{scram.verifier('of-nobody')}'")
        scene.api.put("Pooler", "pooler", metadata={"finalizers": ["pgweir.io/provisioned"]})
        await scene.look()
        assert scene.leftovers() == [], "one that only names the host keeps nothing there"

    story(test)


def test_one_postgresql_by_two_names_has_one_password_and_the_first_to_go_leaves_it_to_the_other(story, server):
    with_passwords(server)

    async def test(scene):
        scene.api.secret("shop-ca", ca_crt=CA.certificate)  # no key: a password, then
        elsewhere(scene, **by_target(scene, host="postgres.example.com"))
        scene.server.execute(
            f"CREATE ROLE {ROLE} LOGIN PASSWORD '{scram.verifier('of-the-other-namespace')}';"
            f"COMMENT ON ROLE {ROLE} IS '{sql.OWNERSHIP}'"
        )
        for _ in range(3):
            await scene.later(301, "True", "LookupSucceeded")
            assert has_password(scene, b"of-the-other-namespace")
        assert scene.data("pooler-control-ca")["auth-password"] == b"of-the-other-namespace"
        assert b"of-the-other-namespace" in scene.data("pooler")["userlist.txt"]
        written = list(scene.api.applied)
        await scene.ends("True", "LookupSucceeded")
        assert scene.api.applied == written, "and no pass writes it down anew"
        going(scene)
        await scene.look()
        assert (ROLE,) in scene.leftovers()
        assert scene.api.objects["Pooler", "pooler"]["metadata"]["finalizers"] == []

    story(test)


def test_a_certificate_leaves_the_password_that_another_pooler_needs(story):
    async def test(scene):
        await scene.ends("True", "LookupSucceeded")
        elsewhere(scene, **by_target(scene, host="postgres.example.com"))
        scene.server.execute(f"ALTER ROLE {ROLE} PASSWORD '{scram.verifier('of-the-other-namespace')}'")
        await scene.later(301, "True", "LookupSucceeded")
        assert has_password(scene, b"of-the-other-namespace")
        scene.server.execute(f"ALTER ROLE {ROLE} CREATEDB")
        await scene.later(301, "True", "LookupSucceeded")
        assert has_password(scene, b"of-the-other-namespace"), "nor does it go with another repair"
        del scene.api.objects["Pooler", "theirs"]
        await scene.later(301, "True", "LookupSucceeded")
        assert scene.server.execute(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'") == [(None,)]

    story(test)


def test_a_verifier_that_was_seen_somewhere_gets_nobody_the_password_behind_it(story, server, make_postgres):
    """Their PostgreSQL is another one, whose administrator we are not; ours shows a verifier of theirs."""
    with_passwords(server)
    other = make_postgres(installations()[0], hba=("local all all trust", "host all all all scram-sha-256"))
    other.start()
    other.execute("ALTER ROLE postgres PASSWORD 'not-ours'")

    async def test(scene):
        scene.options["dial_target"] = None
        scene.api.put("Pooler", "pooler", spec={**by_target(scene), "instances": 1})
        elsewhere(scene, **by_target(scene, port=other.port))
        scene.server.execute(
            f"CREATE ROLE {ROLE} LOGIN PASSWORD '{scram.verifier('of-the-other-namespace')}';"
            f"COMMENT ON ROLE {ROLE} IS '{sql.OWNERSHIP}'"
        )
        await scene.ends("True", "LookupSucceeded")
        assert not has_password(scene, b"of-the-other-namespace")
        assert b"of-the-other-namespace" not in scene.data("pooler")["userlist.txt"]
        assert scene.data("pooler-control-ca")["auth-password"] != b"of-the-other-namespace"

    story(test)


def test_a_password_that_somebody_unknown_sets_again_and_again_is_left_to_them_until_they_are_gone(story, server):
    """Another operator, in another Kubernetes: if both went on, both would fail half of the time."""
    with_passwords(server)

    async def test(scene):
        scene.api.put("Pooler", "pooler", spec={**by_target(scene), "instances": 1})
        await scene.ends("True", "LookupSucceeded")
        for _ in range(3):
            scene.server.execute(f"ALTER ROLE {ROLE} PASSWORD 'theirs'")
            await scene.later(301, "True", "LookupSucceeded")
        scene.server.execute(f"ALTER ROLE {ROLE} PASSWORD 'theirs'")
        message = await scene.later(301, "False", "NotOwned")
        assert "keeps giving" in message
        await scene.later(2 * HOUR, "False", "NotOwned")
        assert has_password(scene, b"theirs")
        scene.server.execute(f'ALTER ROLE "{ROLE}" PASSWORD NULL')
        assert f'ALTER ROLE "{ROLE}" PASSWORD NULL' in message
        await scene.later(301, "True", "LookupSucceeded")

    story(test)


def test_beside_a_pooler_that_knows_it_as_a_cluster_of_cloudnativepg_both_roles_have_the_lookup(story):
    """The other role: CloudNativePG's pg_hba.conf knows it by that name."""

    async def test(scene):
        await scene.ends("True", "LookupSucceeded")
        scene.api.put("Cluster", "shop", spec={}, status={})
        scene.memory = Memory()
        await scene.ends("True", "LookupSucceeded")
        may = "SELECT rolname::text FROM pg_roles WHERE rolname ~ 'pooler_pgbouncer' AND"
        may += " has_function_privilege(oid, 'pgweir.user_search(text)', 'EXECUTE') AND"
        may += " has_schema_privilege(oid, 'pgweir', 'USAGE') ORDER BY 1"
        assert scene.server.execute(may) == [(ROLE,), (NATIVE,)], "neither takes the other's grants away"
        scene.server.execute("ALTER FUNCTION pgweir.user_search(text) SECURITY INVOKER")
        await scene.later(301, "True", "LookupSucceeded")
        assert scene.server.execute(may) == [(ROLE,), (NATIVE,)], "nor when the function is made anew"
        going(scene)
        await scene.look()
        assert scene.server.execute(may) == [(ROLE,)], "the last one takes the function away, not the first"

    story(test)


def test_on_any_postgresql_a_password_of_our_own_does_and_comes_back_after_it_was_changed(story, server):
    server.set(hba=("local all all trust", "host all all all scram-sha-256"))

    async def test(scene):
        target = {"host": "127.0.0.1", "port": scene.server.port, "adminSecret": {"name": "shop-superuser"}}
        scene.api.put("Pooler", "pooler", spec={"target": target, "instances": 1})
        scene.api.objects["Pooler", "pooler"]["spec"].pop("cluster", None)
        assert "by password" in await scene.ends("True", "LookupSucceeded")
        scene.server.execute(f"ALTER ROLE {ROLE} PASSWORD 'somebody-elses'")
        await scene.later(301, "True", "LookupSucceeded")
        going(scene)
        await scene.look()
        assert scene.leftovers() == []

    story(test)
