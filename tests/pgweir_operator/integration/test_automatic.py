"""One Pooler's integration as a whole: which way the role logs in, what is kept when something fails, what is said."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest
from tests.pgweir_operator import worlds

from pgweir_operator.api.budget import TargetCapacity
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import ClusterFlavour, SecretFacts
from pgweir_operator.integration import automatic, provisioning
from pgweir_operator.integration.automatic import Stored
from pgweir_operator.integration.certificates import (
    DAY,
    KeyPair,
    authority,
    client_certificate,
    common_name,
    is_issued_by,
    names_of,
)
from pgweir_operator.integration.psql import Shell

NOW = time.time()
CA = authority("shop's CA", now=NOW)
POOLER = worlds.pooler()
SUPERUSER = worlds.secret("shop-superuser", username="postgres", password="super-secret-word")


def observed(pooler=POOLER, *, ca=CA, ca_key=True, bundle=None, **cluster):
    data = {"ca.crt": ca.certificate} | ({"ca.key": ca.key} if ca_key else {})
    secret = SecretFacts("shop-ca", "Opaque", "1", data)
    facts = {"superuser": SUPERUSER, "server_ca": secret, "client_ca": secret, "server": None} | cluster
    return worlds.observed(pooler, cluster=worlds.cluster(pooler, **facts), bundle=bundle)


def bundle(**files):
    data = {name.replace("_", "."): content for name, content in files.items()}
    return SecretFacts("pooler", "Opaque", "1", data, owned=True)


@pytest.fixture
def postgres_says_yes(monkeypatch):
    """What was asked of PostgreSQL, which agrees to everything."""
    asked = []

    async def provision(endpoint, admin, spec):
        asked.append(("provision", endpoint, admin, spec))
        return provisioning.Made(password=spec.password)

    async def check_login(endpoint, login, *, query, database):
        asked.append(("login", endpoint, login))

    monkeypatch.setattr(provisioning, "provision", provision)
    monkeypatch.setattr(provisioning, "check_login", check_login)
    return asked


def integrate(seen, stored=None, pooler=POOLER, find_shell=None):
    stored = stored if stored is not None else Stored()
    return asyncio.run(automatic.integrate(pooler, seen, stored, now=NOW, find_shell=find_shell))


def test_a_service_of_the_poolers_namespace_is_dialled_by_its_full_name_since_the_operator_is_in_another():
    pooler = worlds.pooler(target={"host": "postgres", "port": 5433})
    there = worlds.observed(pooler, cluster=worlds.cluster(pooler, service_host="postgres.default.svc"))
    assert str(automatic.endpoint(pooler, there)) == "postgres.default.svc:5433"
    assert str(automatic.endpoint(pooler, worlds.observed(pooler))) == "postgres:5433"


def test_with_the_authoritys_key_the_role_gets_a_certificate_and_no_password(postgres_says_yes):
    result = integrate(observed()).result
    assert (result.status, result.reason) == ("True", Reason.LOOKUP_SUCCEEDED)
    assert common_name(result.provisioned.certificate) == "cnp_pooler_pgbouncer"
    assert is_issued_by(result.provisioned.certificate, CA.certificate)
    assert result.provisioned.password is None
    _, where, admin, spec = postgres_says_yes[0]
    assert where.host == "shop-rw.default.svc", "the primary, whatever Service the pods use"
    assert where.ca == CA.certificate
    assert (admin.user, spec.role, spec.password) == ("postgres", "cnp_pooler_pgbouncer", None)


def test_without_it_a_password(postgres_says_yes):
    result = integrate(observed(ca_key=False), Stored(password="generated")).result
    assert result.provisioned.password == "generated"
    assert result.provisioned.certificate is None
    assert "generated" not in repr(result)


def test_a_cloudnativepg_cluster_knows_another_role(postgres_says_yes):
    result = integrate(observed(flavour=ClusterFlavour.CLOUDNATIVEPG)).result
    assert result.provisioned.auth_user == "cnpg_pooler_pgbouncer"


def test_a_certificate_is_used_again_until_it_is_due(postgres_says_yes):
    pair = client_certificate(CA, "cnp_pooler_pgbouncer", now=NOW)
    assert integrate(observed(), Stored(pair)).result.provisioned.certificate == pair.certificate
    old = client_certificate(CA, "cnp_pooler_pgbouncer", now=NOW - 80 * DAY)
    foreign = client_certificate(authority("x", now=NOW), "cnp_pooler_pgbouncer", now=NOW)
    other = client_certificate(CA, "somebody", now=NOW)
    broken = KeyPair(pair.certificate, other.key)
    for stored in (old, foreign, other, broken):
        assert integrate(observed(), Stored(stored)).result.provisioned.certificate != stored.certificate


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"superuser": None}, Reason.NO_ADMIN_ACCESS, "shop-superuser"),
        ({"superuser": worlds.secret("shop-superuser", username="postgres")}, Reason.INVALID_SECRET, "'password'"),
        ({"found": False}, Reason.TARGET_NOT_FOUND, "shop-rw"),
        ({"ca": KeyPair(CA.certificate, authority("x", now=NOW).key)}, Reason.INVALID_SECRET, "ca.key"),
    ],
)
def test_what_is_missing_is_named_and_running_pods_keep_what_they_have(postgres_says_yes, changes, reason, words):
    pair = client_certificate(CA, "cnp_pooler_pgbouncer", now=NOW - 80 * DAY)
    done = integrate(observed(**changes), Stored(pair, was_integrated=True))
    assert (done.result.status, done.result.reason) == ("False", reason)
    assert words in done.result.message
    assert "super-secret-word" not in done.result.message
    assert done.result.provisioned.certificate == pair.certificate
    assert done.retry_after
    assert integrate(observed(**changes)).result.provisioned is None


def test_without_administrative_access_the_message_is_the_sql(postgres_says_yes):
    message = integrate(observed(superuser=None)).result.message
    for words in ("CREATE ROLE", "CREATE FUNCTION", "REVOKE ALL", "GRANT EXECUTE", "authQuery"):
        assert words in message


def test_without_a_superusers_secret_psql_in_the_primarys_pod_is_used_where_it_may(postgres_says_yes):
    shell = Shell("shop-1", start=None)

    async def found():
        return shell

    result = integrate(observed(superuser=None), find_shell=found).result
    assert (result.status, result.reason) == ("True", Reason.LOOKUP_SUCCEEDED)
    assert postgres_says_yes[0][2] is shell
    integrate(observed(), find_shell=found)
    assert postgres_says_yes[2][2].user == "postgres", "a Secret comes first"
    assert isinstance(postgres_says_yes[2][2], automatic.Credentials)


def test_an_exec_that_cannot_be_says_why_and_has_the_sql(postgres_says_yes):
    async def forbidden():
        raise PrerequisiteError(Reason.NO_ADMIN_ACCESS, "The operator may not exec in pod shop-1: no.")

    result = integrate(observed(superuser=None), find_shell=forbidden).result
    assert (result.status, result.reason) == ("False", Reason.NO_ADMIN_ACCESS)
    assert result.message.startswith("The operator may not exec in pod shop-1: no. Create Secret 'shop-superuser'")
    assert "provisioning.exec" not in result.message, "that switch is on already"
    assert "CREATE FUNCTION" in result.message
    assert "provisioning.exec: true" in integrate(observed(superuser=None)).result.message


def test_a_plain_target_has_no_pod_to_go_into(postgres_says_yes):
    pooler = worlds.pooler(target={"host": "db.example"})

    async def never():
        raise AssertionError("there is no cluster")

    message = integrate(worlds.observed(pooler), pooler=pooler, find_shell=never).result.message
    assert "spec.target.adminSecret" in message
    assert "provisioning.exec" not in message


def test_a_login_that_does_not_work_asks_for_the_line_in_pg_hba(postgres_says_yes, monkeypatch):
    async def no(*_, **__):
        raise PrerequisiteError(Reason.LOOKUP_FAILED, "it does not log in.")

    monkeypatch.setattr(provisioning, "check_login", no)
    assert "hostssl all cnp_pooler_pgbouncer all cert" in integrate(observed()).result.message


def test_with_secrets_of_ones_own_nothing_is_asked_of_postgresql(postgres_says_yes):
    result = integrate(observed(OWN), pooler=OWN).result
    assert (result.status, result.reason) == ("False", Reason.MANUAL)
    assert "CREATE FUNCTION" in result.message
    assert postgres_says_yes == []


OWN = worlds.pooler(pgbouncer={"authQuery": "SELECT 1", "authQuerySecret": {"name": "mine"}})


def own(**data):
    return dataclasses.replace(observed(OWN), secrets={"mine": worlds.secret("mine", **data)})


def test_the_users_own_role_is_asked_what_postgresql_has_room_for(monkeypatch):
    asked = []

    async def capacity(where, login, database):
        asked.append((where.host, where.ca, login.user, login.password, login.certificate, database))
        return TargetCapacity(100, 3)

    monkeypatch.setattr(provisioning, "capacity", capacity)
    done = integrate(own(username="me", password="mine"), pooler=OWN)
    assert (done.result.reason, done.result.capacity) == (Reason.MANUAL, TargetCapacity(100, 3))
    pair = client_certificate(CA, "somebody", now=NOW)
    integrate(own(tls_crt=pair.certificate, tls_key=pair.key), pooler=OWN)
    assert asked == [
        ("shop-rw.default.svc", CA.certificate, "me", "mine", None, "postgres"),
        ("shop-rw.default.svc", CA.certificate, "somebody", None, pair, "postgres"),
    ]


@pytest.mark.parametrize("reason", [Reason.TARGET_UNAVAILABLE, Reason.ADMIN_LOGIN_FAILED])
def test_where_it_cannot_be_asked_the_budget_says_why_and_nothing_else_changes(monkeypatch, reason):
    async def no(*_):
        raise PrerequisiteError(reason, "It is away.", retry_after=10.0)

    monkeypatch.setattr(provisioning, "capacity", no)
    done = integrate(own(username="me", password="mine"), pooler=OWN)
    assert (done.result.reason, done.result.capacity_error) == (Reason.MANUAL, "It is away.")
    assert done.retry_after == (10.0 if reason is Reason.TARGET_UNAVAILABLE else None)
    assert "'mine'" in integrate(observed(OWN), pooler=OWN).result.capacity_error, "the Secret that is missing"


def test_the_users_own_certificate_of_before_is_never_taken_for_ours(postgres_says_yes):
    theirs = client_certificate(CA, "their_role", now=NOW)
    assert integrate(observed(superuser=None), Stored(theirs, was_integrated=True)).result.provisioned is None


def test_applications_see_a_certificate_with_the_poolers_own_names():
    shown = automatic.with_own_certificate(POOLER, observed(), now=NOW).cluster.server
    assert names_of(shown.data["tls.crt"]) >= {"pooler", "pooler.default.svc", "pooler.default.svc.cluster.local"}
    assert is_issued_by(shown.data["tls.crt"], CA.certificate)
    again = observed(bundle=bundle(client_crt=shown.data["tls.crt"], client_key=shown.data["tls.key"]))
    assert automatic.with_own_certificate(POOLER, again, now=NOW).cluster.server.data == shown.data
    later = automatic.with_own_certificate(POOLER, again, now=NOW + 70 * DAY).cluster.server
    assert later.data["tls.crt"] != shown.data["tls.crt"]


def test_the_clusters_certificate_is_reused_without_the_authoritys_key_and_kept_while_it_is_away():
    server = worlds.secret("shop-server", tls_crt="C", tls_key="K")
    assert (
        automatic.with_own_certificate(POOLER, observed(ca_key=False, server=server), now=NOW).cluster.server is server
    )
    away = observed(ca_key=False, bundle=bundle(client_crt=b"C", client_key=b"K"))
    assert automatic.with_own_certificate(POOLER, away, now=NOW).cluster.server.data["tls.crt"] == b"C"


def test_what_was_written_by_somebody_else_is_not_used():
    pair = client_certificate(CA, "cnp_pooler_pgbouncer", now=NOW)
    written = bundle(server_crt=pair.certificate, server_key=pair.key)
    assert automatic.stored(observed(bundle=written), None).certificate == pair
    foreign = dataclasses.replace(written, owned=False)
    assert automatic.stored(observed(bundle=foreign), None) == Stored()
