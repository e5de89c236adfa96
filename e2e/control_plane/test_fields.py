"""Fields that need the API server's help: Secrets that are watched by name, children that come and go, a budget."""

from __future__ import annotations

import pytest
from e2e.control_plane.harness import wait


@pytest.fixture
def world_with_operator(world):
    world.has_cluster()
    world.operator = world.start_operator()
    return world


def userlists(world):
    return {fake.files.get("userlist.txt") for fake in world.fakes()}


def test_a_password_secret_that_comes_late_heals_and_one_that_changes_reaches_every_pod(world_with_operator):
    world = world_with_operator
    users = [{"name": "batch", "passwordSecret": {"name": "batch-login"}}]
    world.pooler()
    world.until("Ready", "True")
    body = world.get("Pooler", "pooler")["spec"]
    spec = {**body, "pgbouncer": {**body["pgbouncer"], "users": users}}
    world.apply({"apiVersion": "pgweir.io/v1", "kind": "Pooler", "metadata": {"name": "pooler"}, "spec": spec})
    assert "'batch-login', which does not exist" in world.until("Ready", "False", "MissingSecret")
    assert userlists(world) == {None}, "the pods keep what they have"
    world.secret("batch-login", username="batch", password="hush-1")
    world.until("Ready", "True")
    assert userlists(world) == {b'"batch" "hush-1"\n'}
    world.secret("batch-login", username="batch", password="hush-2")
    wait(lambda: userlists(world) == {b'"batch" "hush-2"\n'}, lambda: str(userlists(world)), 5.0)
    world.secret("shop-app", username="app", password="hush-3")
    wait(
        lambda: userlists(world) == {b'"app" "hush-3"\n"batch" "hush-2"\n'},
        lambda: str(userlists(world)),
        5.0,
    )
    assert "hush" not in world.operator.log
    assert "hush" not in str(world.get("Pooler", "pooler"))
    assert "hush" not in str(world.events())


def test_a_network_policy_comes_and_goes_with_the_spec(world_with_operator):
    world = world_with_operator
    world.pooler(networkPolicy={"enabled": True})
    world.until("Ready", "True")
    policy = world.get("NetworkPolicy", "pooler")
    assert policy["spec"]["podSelector"] == {"matchLabels": {"pgweir.io/poolerName": "pooler"}}
    world.pooler()
    wait(lambda: world.get("NetworkPolicy", "pooler") is None, lambda: world.operator.log[-2000:], 10.0)


def test_a_network_policy_that_the_api_server_refuses_says_so_and_the_fleet_goes_on(world_with_operator):
    world = world_with_operator
    world.pooler(networkPolicy={"enabled": True, "clients": [{"ipBlock": {"cidr": "nonsense"}}]})
    message = world.until("Ready", "False", "ReconcileFailed")
    assert "nonsense" in message
    world.pooler(networkPolicy={"enabled": True})
    world.until("Ready", "True")


def test_no_pod_is_added_before_the_others_have_come_down_to_their_share(world_with_operator):
    world = world_with_operator
    world.pooler(instances=2, connectionBudget=60)
    world.until("Ready", "True")
    assert {fake.files["pgbouncer.ini"].count(b"max_server_connections = 20") for fake in world.fakes()} == {1}
    first, second = world.fakes()
    first.servers = second.servers = 18
    world.pooler(instances=4, connectionBudget=60)
    wait(
        lambda: "more pods wait for" in world.condition("WithinConnectionBudget")[2],
        lambda: str(world.status()),
    )
    assert world.get("Deployment", "pooler")["spec"]["replicas"] == 2
    assert all(b"max_server_connections = 12" in fake.files["pgbouncer.ini"] for fake in world.fakes())
    first.servers = 12
    second.servers = 3
    wait(lambda: len(world.fakes()) == 4, lambda: str(world.status()), 10.0)
    world.until("Ready", "True")
    assert "more pods wait" not in world.condition("WithinConnectionBudget")[2]
