"""The operator is not in the path of a query: without it, Poolers serve on as they are, paused or not."""

from __future__ import annotations

import time

import pytest
from e2e.scenarios.release import Operator
from e2e.scenarios.shop import POOLER, Shop, until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    shop.pooler()
    shop.ready()


def test_a_pause_outlives_the_operators_pod_and_the_next_one_ends_it(shop: Shop, operator: Operator) -> None:
    shop.initialise()
    with shop.load("-c", "6") as load:
        shop.pause(True)
        shop.paused()
        operator.delete_pod()
        for _ in range(10):
            assert shop.server_connections() == 0
            assert shop.condition("Paused")["status"] == "True"
            time.sleep(0.2)
        # A pod that comes while it is paused begins paused.
        shop.kubernetes.kubectl(
            "delete", "pod", shop.pods()[0]["metadata"]["name"], "--wait=false", namespace=shop.namespace
        )
        until(
            lambda: all(row["ready"] for row in shop.status()["pods"]) and len(shop.status()["pods"]) == 3, "a new pod"
        )
        shop.paused(timeout=60)
        assert shop.server_connections() == 0
        shop.pause(False)
        shop.paused("false")
        load.abandon()  # its client on the deleted pod had to go
    assert shop.psql("select 1") == "1"


def test_an_uninstalled_chart_leaves_poolers_serving_and_a_new_install_takes_them_up(
    shop: Shop, operator: Operator
) -> None:
    shop.initialise()
    before = shop.lives()
    with shop.load("-c", "6") as load:
        operator.uninstall()
        try:
            assert shop.psql("select 1") == "1"
            victim = shop.pods()[0]["metadata"]["name"]
            generation = shop.parameters(default_pool_size="7")
        finally:
            operator.install()
        shop.proved(generation, seconds=60)
        shop.ready()
        done = load.finish()
    shop.books_balance(done)
    assert shop.lives() == before
    assert victim in {row["name"] for row in shop.status()["pods"]}


def test_a_pod_that_comes_without_an_operator_serves(shop: Shop, operator: Operator) -> None:
    operator.uninstall()
    try:
        before = shop.lives()
        for pod in shop.pods():
            shop.kubernetes.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false", namespace=shop.namespace)
        until(lambda: not set(before) & set(shop.lives()), "the old ones are going")
        shop.kubernetes.rolled_out("deployment", POOLER, namespace=shop.namespace)
        until(lambda: _serves(shop), "the new ones serve")
    finally:
        operator.install()
    shop.ready()


def _serves(shop: Shop) -> bool:
    return all(shop.psql("select 1", f"host={address}") == "1" for address in shop.addresses())
