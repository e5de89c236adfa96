"""Whatever is wrong becomes a condition that says what to do, touches nothing that runs, and heals by itself."""

from __future__ import annotations

import base64
import copy
import json
import secrets

import pytest
from e2e.control_plane.harness import wait
from e2e.control_plane.test_life_of_a_pooler import leftovers, ready  # noqa: F401 (a fixture)

from pgweir_operator.kube import InvalidError


def test_an_impossible_spec_is_refused_at_the_door(world):
    world.has_cluster()
    with pytest.raises(InvalidError, match="pool_size"):
        world.pooler(parameters={"pool_size_of_mine": "3"})
    with pytest.raises(InvalidError):
        world.pooler(parameters={"default_pool_size": "many"})


def test_a_template_that_the_api_server_would_refuse_leaves_the_children_alone(ready):  # noqa: F811
    deployment, files = ready.get("Deployment", "pooler"), ready.files()
    ready.pooler(template={"spec": {"containers": [{"name": "pgbouncer", "ports": [{"containerPort": 99999}]}]}})
    assert "99999" in ready.until("Ready", "False", "InvalidTemplate")
    assert ready.get("Deployment", "pooler")["spec"] == deployment["spec"]
    assert ready.files() == files
    ready.pooler()
    ready.until("Ready", "True")


def test_a_bad_parameter_that_an_older_crd_let_in_is_a_condition_and_reaches_no_pod(ready, kubectl):  # noqa: F811
    deployment, files = ready.get("Deployment", "pooler"), ready.files()
    crd = json.loads(kubectl("get", "crd", "poolers.pgweir.io", "--output=json"))
    loose = copy.deepcopy(crd)
    for version in loose["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"].pop("x-kubernetes-validations", None)
        version["schema"]["openAPIV3Schema"]["properties"]["spec"] = {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
        }
    try:
        _change_crd(kubectl, loose)
        wait(lambda: _is_stored(ready, default_pool_size="many", no_such_setting="1"), "the API server lets it in")
    finally:
        _change_crd(kubectl, crd)
    message = ready.until("Ready", "False", "InvalidSpec")
    assert "default_pool_size" in message
    assert "no_such_setting" in message
    assert ready.get("Deployment", "pooler")["spec"] == deployment["spec"]
    assert ready.files() == files
    assert {fake.rejected for fake in ready.fakes()} == {None}
    wait(lambda: _is_stored(ready), "the API server checks again")
    ready.until("Ready", "True")


def _is_stored(world, **parameters):
    try:
        world.pooler(parameters=parameters)
    except InvalidError:
        return False
    return True


def _change_crd(kubectl, crd):
    kept = {
        **crd,
        "metadata": {key: crd["metadata"][key] for key in ("name", "labels", "annotations") if key in crd["metadata"]},
    }
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=json.dumps(kept))


def test_a_missing_authority_and_a_missing_superuser_heal_when_they_come(world):
    world.has_cluster(without=("superuser", "ca"))
    world.start_operator()
    world.pooler()
    message = world.until("Ready", "False", "MissingSecret")
    assert "shop-ca" in message
    assert "shop-superuser" in world.until("Integrated", "False", "NoAdminAccess")
    assert "CREATE ROLE" in world.condition("Integrated")[2]
    assert world.get("Deployment", "pooler") is None
    assert not world.get("Pooler", "pooler")["metadata"].get("finalizers")
    world.has_cluster(without=("superuser",))
    wait(lambda: world.get("Deployment", "pooler") is not None, "pods without a lookup")
    world.has_cluster()
    world.until("Integrated", "True")
    world.until("Ready", "True")


def test_a_wrong_superuser_password_is_a_condition_and_takes_nothing_from_running_pods(ready):  # noqa: F811
    password = secrets.token_hex(8)
    files = ready.files()
    ready.secret("shop-superuser", username="postgres", password=password)
    message = ready.until("Integrated", "False", "AdminLoginFailed")
    assert "shop-rw" in message or "127.0.0.1" in message
    assert password not in str(ready.get("Pooler", "pooler")) + str(ready.events()) + ready.operator.log
    assert ready.files() == files
    ready.secret("shop-superuser", username="postgres", password="password")
    ready.until("Integrated", "True")
    ready.until("Ready", "True")


def test_a_secret_without_its_key_is_named_with_the_key(world):
    world.has_cluster()
    world.start_operator()
    world.secret("mine", data={"tls.crt": "x"})
    world.pooler(clientTLSSecret={"name": "mine"})
    message = world.until("Ready", "False", "InvalidSecret")
    assert "tls.key" in message
    assert "mine" in message


def test_a_cluster_that_comes_later_is_found(world):
    world.start_operator()
    world.pooler()
    world.until("TargetAvailable", "False", "TargetNotFound")
    assert world.get("Deployment", "pooler") is None
    world.has_cluster()
    world.until("Ready", "True")


def test_a_strangers_object_is_never_adopted(world):
    world.has_cluster()
    world.service("pooler")
    before = world.get("Service", "pooler")
    world.start_operator()
    world.pooler()
    assert "Service pooler" in world.until("Ready", "False", "NotOwned")
    assert world.get("Service", "pooler") == before
    assert world.get("Secret", "pooler-control-ca") is None
    world.delete("Service", "pooler")
    world.until("Ready", "True")


def test_secrets_of_ones_own_are_used_and_nothing_is_provisioned(world):
    world.has_cluster()
    world.secret("login", username="me", password="my-password")
    world.start_operator()
    world.pooler(authQuery="SELECT usename, passwd FROM pgweir.user_search($1)", authQuerySecret={"name": "login"})
    assert "CREATE FUNCTION" in world.until("Integrated", "False", "Manual")
    world.until("Ready", "True")
    assert b"my-password" in world.files()["userlist.txt"]
    assert leftovers(world.server) == []
    assert not world.get("Pooler", "pooler")["metadata"].get("finalizers")
    # There is no such role yet: the budget says so, and is known once there is.
    assert "does not let me in" in world.until("WithinConnectionBudget", "Unknown", "CapacityUnknown")
    world.server.execute("CREATE ROLE me LOGIN PASSWORD 'my-password'")
    try:
        world.secret("login", username="me", password="my-password", note="another version")
        assert "max_connections" in world.until("WithinConnectionBudget", "True", "WithinBudget")
    finally:
        world.server.execute("DROP ROLE me")


def test_without_a_key_of_the_authority_all_poolers_share_one_generated_password(world):
    world.has_cluster(ca_key=False)
    world.start_operator()
    target = {"host": "127.0.0.1", "port": world.server.port, "adminSecret": {"name": "shop-superuser"}}
    for name in ("pooler", "second"):
        world.pooler(name, target=target, instances=1)
    for name in ("pooler", "second"):
        assert "by password" in world.until("Integrated", "True", name=name)
        world.until("Ready", "True", name=name)
    wait(lambda: _password(world, "pooler") == _password(world, "second"), "one password")
    password = _password(world, "pooler")
    wait(lambda: all(password.encode() in world.files(name)["userlist.txt"] for name in ("pooler", "second")), "pods")
    assert password not in str(world.get("Pooler", "pooler")) + str(world.events()) + world.operators[0].log
    for name in ("pooler", "second"):
        world.delete("Pooler", name)
    wait(lambda: not world.run(world.kube.items("Pooler", world.namespace)), "both are gone")
    assert leftovers(world.server) == []


def _password(world, name):
    secret = world.get("Secret", f"{name}-control-ca")
    return base64.b64decode(secret["data"]["auth-password"]).decode()


def test_a_deletion_whose_target_is_gone_ends_with_an_event(ready):  # noqa: F811
    ready.delete("Service", "shop-rw")
    ready.delete("Secret", "shop-superuser")
    ready.delete("Pooler", "pooler")
    wait(lambda: ready.get("Pooler", "pooler") is None, "the finalizer gives up")
    assert "WithdrawalAbandoned" in {event["reason"] for event in ready.events()}


def test_a_deletion_waits_for_a_target_that_is_only_away(ready):  # noqa: F811
    ready.secret("shop-superuser", username="postgres", password="not-this-one")
    ready.until("Integrated", "False")
    ready.delete("Pooler", "pooler")
    wait(lambda: "WithdrawalDelayed" in {event["reason"] for event in ready.events()}, "it says that it waits")
    assert ready.get("Pooler", "pooler") is not None
    ready.secret("shop-superuser", username="postgres", password="password")
    wait(lambda: ready.get("Pooler", "pooler") is None, "it goes")
    assert leftovers(ready.server) == []


def test_one_operator_for_all_namespaces_serves_this_one_too(world):
    world.has_cluster()
    world.start_operator(everywhere=True)
    world.pooler()
    world.until("Ready", "True")
    world.delete("Pooler", "pooler")
    wait(lambda: world.get("Pooler", "pooler") is None, "it goes")


def test_a_cloudnativepg_cluster_has_the_role_that_its_hba_knows(world, kubectl):
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(CLUSTER_CRD))
    kubectl("wait", "--for=condition=Established", "crd/clusters.postgresql.cnpg.io", "--timeout=30s")
    world.has_cluster()
    cluster = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "shop"}}
    world.apply({**cluster, "status": {"certificates": {"serverCASecret": "shop-ca", "clientCASecret": "shop-ca"}}})
    world.start_operator()
    world.pooler()
    assert "cnpg_pooler_pgbouncer" in world.until("Integrated", "True", "LookupSucceeded")
    world.delete("Pooler", "pooler")
    wait(lambda: world.get("Pooler", "pooler") is None, "it goes")
    assert world.server.execute("SELECT 1 FROM pg_roles WHERE rolname = 'cnpg_pooler_pgbouncer'") == []


CLUSTER_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "clusters.postgresql.cnpg.io"},
    "spec": {
        "group": "postgresql.cnpg.io",
        "names": {"kind": "Cluster", "plural": "clusters", "singular": "cluster", "listKind": "ClusterList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
