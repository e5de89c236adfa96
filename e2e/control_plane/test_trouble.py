"""Whatever is wrong becomes a condition that says what to do, touches nothing that runs, and heals by itself."""

from __future__ import annotations

import base64
import secrets

import pytest
from e2e.control_plane.harness import ROLE, wait
from e2e.control_plane.test_life_of_a_pooler import leftovers, ready  # noqa: F401 (a fixture)

from pgweir_operator.kube import InvalidError


def test_an_impossible_spec_is_refused_at_the_door(world):
    world.has_cluster()
    with pytest.raises(InvalidError, match="pool_size"):
        world.pooler(parameters={"pool_size_of_mine": "3"})
    with pytest.raises(InvalidError):
        world.pooler(parameters={"default_pool_size": "many"})


def test_an_impossible_spec_that_was_stored_all_the_same_leaves_the_children_alone(ready, kubectl):  # noqa: F811
    """Under an older CRD it was allowed: its schema is loosened for a moment."""
    deployment, files = ready.get("Deployment", "pooler"), ready.files()
    name = ready.get("Pooler", "pooler")["metadata"]["name"]
    # A look-up that only the operator can rule on: a template the API server itself would refuse.
    ready.pooler(template={"spec": {"containers": [{"name": "pgbouncer", "ports": [{"containerPort": 99999}]}]}})
    message = ready.until("Ready", "False", "InvalidTemplate")
    assert "99999" in message
    assert name == "pooler"
    assert ready.get("Deployment", "pooler")["spec"] == deployment["spec"]
    assert ready.files() == files
    ready.pooler()
    ready.until("Ready", "True")


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


def test_without_a_key_of_the_authority_all_poolers_share_one_generated_password(world):
    world.has_cluster(ca_key=False)
    world.server.set_hba = getattr(world.server, "set_hba", None)
    world.start_operator()
    world.pooler(target={"host": "127.0.0.1", "port": world.server.port, "adminSecret": {"name": "shop-superuser"}})
    world.pooler(
        "second", target={"host": "127.0.0.1", "port": world.server.port, "adminSecret": {"name": "shop-superuser"}}
    )
    wait(
        lambda: "userlist.txt" in world.files() and "userlist.txt" in world.files("second"),
        "both have a password",
    ) if world.condition("Integrated")[0] == "True" else None
    # The server lets the role in over TLS by certificate alone: the condition says so, with the line that is missing.
    message = world.until("Integrated", "False", "LookupFailed")
    assert ROLE in message
    own = [_password(world, name) for name in ("pooler", "second")]
    assert own[0] == own[1]
    assert own[0].encode() not in str(world.get("Pooler", "pooler")).encode()


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
