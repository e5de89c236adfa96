"""What pods may open together, and each pod's share."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.pgweir_operator.worlds import pooler

from pgweir_operator.api import budget
from pgweir_operator.validation import validate


def most(parameters: dict[str, str] | None = None, **bouncer: Any) -> float:
    return budget.per_pod(pooler(pgbouncer={"parameters": parameters or {}, **bouncer})).most


def test_one_database_and_one_user_are_presumed_where_none_is_named() -> None:
    assert most() == 20
    assert most({"default_pool_size": "32", "reserve_pool_size": "4"}) == 36


def test_each_named_database_has_a_pool_for_each_named_user() -> None:
    databases = [{"name": "a"}, {"name": "b", "parameters": {"pool_size": "5", "reserve_pool_size": "1"}}]
    users = [{"name": "x"}, {"name": "y", "parameters": {"pool_size": "3"}}]
    assert most(databases=databases, users=users) == 20 + 3 + (5 + 1) + (3 + 1)
    forced = [{"name": "a", "parameters": {"user": "y"}}]
    assert most(databases=forced, users=users) == 3


def test_limits_over_pools_count() -> None:
    users = [{"name": name} for name in "xyz"]
    assert most({"max_db_connections": "30"}, users=users) == 30
    assert most({"max_user_connections": "12"}, users=users) == 36
    own = [{"name": "x", "parameters": {"max_user_connections": "2"}}, {"name": "y"}]
    assert most(users=own) == 22
    assert most({"max_server_connections": "7"}, users=users) == 7
    assert most({"max_server_connections": "99"}, users=users) == 60


def test_an_entry_for_all_databases_is_the_one_that_counts_where_none_is_named() -> None:
    assert most(databases=[{"name": "*", "parameters": {"pool_size": "4", "max_db_connections": "3"}}]) == 3


def test_no_pool_size_is_no_limit() -> None:
    assert most({"default_pool_size": "0"}) == math.inf
    assert most({"default_pool_size": "0", "max_db_connections": "9"}) == 9


@pytest.mark.parametrize(
    ("strategy", "pods"),
    [
        ({}, 5),
        ({"type": "Recreate"}, 4),
        ({"type": "RollingUpdate"}, 5),
        ({"rollingUpdate": {"maxSurge": 2}}, 6),
        ({"rollingUpdate": {"maxSurge": "30%"}}, 6),
        ({"rollingUpdate": {"maxSurge": "what"}}, 5),
    ],
)
def test_a_rollout_adds_pods(strategy: dict[str, Any], pods: int) -> None:
    assert budget.pods_at_once(pooler(instances=4, deploymentStrategy=strategy)) == pods


def test_the_shares_of_all_pods_that_can_be_there_are_within_the_budget() -> None:
    for instances in range(60):
        for there in range(60):
            subject = pooler(instances=instances, connectionBudget=100)
            share = budget.share(subject, there)
            assert share is not None
            assert share * max(there, instances + 1) <= 100 or max(there, instances + 1) > 100
            assert share >= 1
    assert budget.share(pooler(), 3) is None


def test_a_budget_has_a_server_for_each_pod_of_a_rollout() -> None:
    assert [str(problem) for problem in validate(pooler(instances=5, connectionBudget=5))] == [
        "spec.connectionBudget is 5: a rollout has up to 6 pods, and each needs a server; write 6 or more, or lower "
        "instances"
    ]
    assert validate(pooler(instances=5, connectionBudget=6)) == []


def test_a_pod_makes_room_by_knowing_its_share_and_keeping_to_it() -> None:
    assert budget.over_share([("a", 10), ("b", 11), ("c", None)], 10) == [
        "b (11 servers, 10 are its)",
        "c (its share is not acknowledged)",
    ]
