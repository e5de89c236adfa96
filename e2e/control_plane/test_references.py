"""What a spec refers to and only a look can judge: each mistake is a condition and an Event, touches no pod, and heals."""

from __future__ import annotations

import json
import time

import pytest
from e2e.control_plane.harness import wait
from e2e.control_plane.test_life_of_a_pooler import ready  # noqa: F401 (a fixture)
from e2e.control_plane.test_trouble import CLUSTER_CRD

from pgweir_operator.integration.certificates import client_certificate

QUERY = "SELECT usename, passwd FROM pgweir.user_search($1)"


def said(world, reason):
    return [event["note"] for event in world.events() if event["reason"] == reason]


@pytest.fixture
def clusters(kubectl):
    """The API server knows CloudNativePG's kind."""
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(CLUSTER_CRD))
    kubectl("wait", "--for=condition=Established", "crd/clusters.postgresql.cnpg.io", "--timeout=30s")


def of_cloudnativepg(world, name):
    world.apply({"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": name}})


@pytest.mark.parametrize("name", ["other", "other-rw", "other-superuser"])
def test_a_name_that_a_cluster_or_one_of_its_own_has_is_a_conflict_and_heals_with_it(world, clusters, name):
    world.has_cluster()
    of_cloudnativepg(world, "other")
    world.start_operator(recheck=1.0)
    world.pooler(name, instances=1)
    message = world.until("Ready", "False", "NameConflict", name=name)
    assert "Cluster other" in message
    wait(lambda: said(world, "NameConflict"), "an Event follows the status")
    assert said(world, "NameConflict") == [message]
    assert world.get("Deployment", name) is None
    assert world.get("Service", name) is None
    world.delete("Cluster", "other")
    world.until("Ready", "True", name=name)


def test_a_cluster_that_comes_later_under_a_poolers_name_stops_changes_and_no_pod(ready, clusters):  # noqa: F811
    files, deployment = ready.files(), ready.get("Deployment", "pooler")["spec"]
    of_cloudnativepg(ready, "pooler")
    ready.pooler(parameters={"default_pool_size": "3"})
    ready.until("Ready", "False", "NameConflict")
    assert (ready.files(), ready.get("Deployment", "pooler")["spec"]) == (files, deployment)
    assert ready.condition("Available")[0] == "True"
    ready.delete("Cluster", "pooler")
    ready.until("Ready", "True")
    assert b"default_pool_size = 3" in ready.files()["pgbouncer.ini"]


def pair(world, name):
    made = client_certificate(world.ca, name, now=time.time())
    return {"tls.crt": made.certificate.decode(), "tls.key": made.key.decode()}


@pytest.mark.parametrize("kind", ["kubernetes.io/basic-auth", "kubernetes.io/tls", "Opaque", "Opaque password"])
def test_the_lookups_secret_may_be_of_three_types(world, kind):
    world.has_cluster()
    of_password = kind in {"kubernetes.io/basic-auth", "Opaque password"}
    data = {"username": "me", "password": "my-password"} if of_password else pair(world, "me")
    world.secret("login", data=data, type=kind.split()[0])
    world.start_operator()
    world.pooler(instances=1, authQuery=QUERY, authQuerySecret={"name": "login"})
    world.until("Ready", "True")
    assert b"auth_user = me" in world.files()["pgbouncer.ini"]
    if of_password:
        assert b"my-password" in world.files()["userlist.txt"]
    else:
        assert world.files()["server.crt"] == data["tls.crt"].encode()


# The field, what the Secret has first, the word that the complaint must have, and what mends it.
MISTAKES = {
    "authQuerySecret of another shape": (
        {"authQuery": QUERY, "authQuerySecret": {"name": "mine"}},
        {"token": "x"},
        "username and password, or tls.crt and tls.key",
        {"username": "me", "password": "pw"},
    ),
    "authQuerySecret without its password": (
        {"authQuery": QUERY, "authQuerySecret": {"name": "mine"}},
        {"username": "me"},
        "username and password, or tls.crt and tls.key",
        {"username": "me", "password": "pw"},
    ),
    "authQuerySecret with a line break": (
        {"authQuery": QUERY, "authQuerySecret": {"name": "mine"}},
        {"username": "me", "password": "pw\n"},
        "line break",
        {"username": "me", "password": "pw"},
    ),
    "serverTLSSecret without its key": (
        {"authQuery": QUERY, "serverTLSSecret": {"name": "mine"}},
        {"tls.crt": "x"},
        "'tls.key'",
        None,
    ),
    "clientTLSSecret with a login": (
        {"clientTLSSecret": {"name": "mine"}},
        {"username": "me", "password": "pw"},
        "'tls.crt'",
        None,
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_secret_that_will_not_do_is_named_with_its_field_and_heals_when_it_does(ready, mistake):  # noqa: F811
    bouncer, wrong, words, right = MISTAKES[mistake]
    files = ready.files()
    field = next(name for name, value in bouncer.items() if isinstance(value, dict))
    ready.pooler(**bouncer)
    missing = ready.until("Ready", "False", "MissingSecret")
    assert f"spec.pgbouncer.{field} names Secret 'mine'" in missing
    ready.secret("mine", data=wrong)
    message = ready.until("Ready", "False", "InvalidSecret")
    assert f"spec.pgbouncer.{field}" in message
    assert words in message
    assert "pw" not in message
    wait(lambda: message in said(ready, "InvalidSecret"), "an Event says the same")
    assert ready.files() == files, "the pods keep what they have"
    assert ready.condition("Available")[0] == "True"
    ready.secret("mine", data=right or pair(ready, "me"))
    ready.until("Ready", "True")


def test_an_account_that_comes_is_seen_when_it_comes(world):
    world.has_cluster()
    world.start_operator(recheck=600.0)
    world.pooler(instances=1, serviceAccountName="later")
    assert "'later'" in world.until("Ready", "False", "MissingServiceAccount")
    world.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "later"}})
    wait(lambda: world.get("Deployment", "pooler") is not None, "by a watch, not at the next look", patience=15)
    world.until("Ready", "True")


def test_pods_that_the_api_server_refuses_are_told_in_its_words_and_come_when_they_may(world, kubectl):
    world.has_cluster()
    world.start_operator(recheck=600.0)
    name = f"later-{world.namespace}"
    world.pooler(instances=1, template={"spec": {"priorityClassName": name, "containers": []}})
    wait(lambda: name in world.condition("Ready")[2], lambda: str(world.condition("Ready")))
    status, reason, message = world.condition("Ready")
    assert (status, reason) == ("False", "PodsNotReady")
    assert "no PriorityClass" in message
    kubectl("create", "priorityclass", name, "--value=7")
    try:
        # Kubernetes tries again after as long as it has been refused already.
        world.until("Ready", "True", patience=90)
    finally:
        kubectl("delete", "priorityclass", name)
