"""The operator is not in the path of a query: without it, and while it becomes another, Poolers serve on as they are."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.measured import Measured
from e2e.scenarios.release import CHART, OPERATOR_IMAGE, POOLER_IMAGE, Operator, retagged
from e2e.scenarios.shop import DRAIN_UNDER_LOAD, POOLER, Shop, is_ready, until

from pgweir_operator.rollouts import is_rolling

pytestmark = pytest.mark.cluster

SECOND = "pooler-second"
# The first chart that was ever there.
OLDEST_CHART = "41f72ba"


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    shop.pooler(instances=2, drain=DRAIN_UNDER_LOAD)


@pytest.fixture(autouse=True)
def at_rest(shop: Shop, pooler: None) -> None:
    shop.pause(False)
    shop.at_rest()


@pytest.fixture
def oldest_chart(tmp_path: Path) -> Path:
    root = CHART.parents[1]
    made = subprocess.run(["git", "archive", OLDEST_CHART, "charts"], cwd=root, capture_output=True, check=False)
    if made.returncode != 0:
        return CHART  # a history without it
    # WHY not tarfile: before Python 3.11.4 it knows no `filter`, and later ones ask for it.
    subprocess.run(["tar", "--extract", "--directory", tmp_path], input=made.stdout, check=True)
    return tmp_path / "charts" / "pgweir"


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
        shop.patch({"instances": 3})
        shop.at_rest()
        assert shop.status()["pausedInstances"] == 3
        assert shop.server_connections() == 0
        shop.pause(False)
        shop.paused("False")
        done = load.finish()
    shop.books_balance(done)


def test_an_uninstalled_chart_leaves_poolers_serving_and_a_new_install_takes_them_up(
    shop: Shop, operator: Operator, oldest_chart: Path, measured: Measured
) -> None:
    """Uninstalled, installed again from the first chart that there was, and upgraded to this one: under one load."""
    shop.initialise()
    before = shop.lives()
    uid = shop.kubernetes.get("pooler", POOLER, namespace=shop.namespace)["metadata"]["uid"]
    with shop.load("-c", "6") as load:
        said = operator.uninstall()
        try:
            print(said)
            assert "What remains:" in said, "the hook's Job ran, and its words reached whoever typed"
            assert f"{shop.namespace}/{POOLER}" in said
            pooler = shop.kubernetes.get("pooler", POOLER, namespace=shop.namespace)
            assert pooler["metadata"]["uid"] == uid, "the CRD stays, and all Poolers with it"
            assert not pooler["metadata"].get("finalizers")
            assert shop.psql("select 1") == "1"
            generation = shop.parameters(default_pool_size="7")
            operator.install(oldest_chart)
        finally:
            operator.install()
        shop.proved(generation)
        shop.ready()
        done = load.finish()
    lost = f"{done.failed} of {done.processed} transactions failed"
    measured.note("Chart uninstalled, installed from the oldest one, upgraded", lost, "0 failed")
    shop.books_balance(done)
    assert shop.lives() == before
    until(lambda: _finalizers(shop), "the finalizer is back")


def _finalizers(shop: Shop) -> list[str]:
    found = shop.kubernetes.get("pooler", POOLER, namespace=shop.namespace)["metadata"].get("finalizers")
    return list(found or ())


def test_a_pod_that_comes_without_an_operator_serves(shop: Shop, operator: Operator) -> None:
    operator.scale(0)
    try:
        before = shop.lives()
        for pod in shop.pods():
            shop.kubernetes.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false", namespace=shop.namespace)
        until(lambda: not set(before) & set(shop.lives()), "the old ones are going")
        until(lambda: [is_ready(pod) for pod in shop.pods()] == [True] * 3, "the new ones are ready")
        for address in shop.addresses():
            assert shop.psql("select 1", f"host={address}") == "1"
    finally:
        operator.scale(1)


@pytest.fixture
def next_version(shop: Shop, operator: Operator) -> Iterator[None]:
    """The same images under another tag; the Poolers go before the operator is as it was, so that none rolls back."""
    if not (retagged(OPERATOR_IMAGE, "next") and retagged(POOLER_IMAGE, "next")):
        pytest.skip("nobody can give an image another tag in the nodes of this cluster")
    yield
    shop.remove(SECOND)
    shop.remove()
    operator.install()


def test_an_upgrade_under_load_rolls_no_pod_and_a_new_default_image_one_pooler_after_the_other(
    shop: Shop, operator: Operator, measured: Measured, next_version: None
) -> None:
    shop.patch({"instances": 2})
    shop.pooler(SECOND, instances=1, drain=DRAIN_UNDER_LOAD)
    operator.install(replicas="2")
    until(operator.leads, "one of two leads")
    shop.at_rest()
    shop.at_rest(SECOND)
    shop.initialise()
    leader, before = operator.leader(), shop.lives() | shop.lives(SECOND)
    with shop.load("-c", "4", "-C") as load, shop.load("-c", "2", "-C", "-S", host=SECOND) as second:
        began = time.monotonic()
        operator.install(replicas="2", image__tag="next")
        until(lambda: operator.leader() != leader and operator.leads(), "another one leads")
        handed_over = time.monotonic() - began
        shop.proved(shop.parameters(default_pool_size="8"))
        assert shop.lives() | shop.lives(SECOND) == before, "nothing rolls that need not"

        operator.install(replicas="2", image__tag="next", poolerImage__tag="next")
        rolled: list[frozenset[str]] = []

        def has_rolled() -> bool:
            deployments = _deployments(shop)
            rolling = frozenset(name for name, found in deployments.items() if is_rolling(found))
            if not rolled or rolled[-1] != rolling:
                rolled.append(rolling)
            return not rolling and all(_image(found).endswith(":next") for found in deployments.values())

        until(has_rolled, "both have rolled", seconds=150, every=0.1)
        until(lambda: not set(shop.lives() | shop.lives(SECOND)) & set(before), "the old pods are going")
        shop.at_rest()
        shop.at_rest(SECOND)
        done, other = load.finish(), second.finish()
    measured.note(
        "Operator of two replicas upgraded, then the poolers' default image (two Poolers, one after the other)",
        f"{done.failed + other.failed} of {done.processed + other.processed} transactions failed; "
        f"another replica led {handed_over:.1f} s after helm upgrade began",
        "0 failed",
    )
    assert done.failed == other.failed == 0, done.said + other.said
    shop.books_have(done.processed)
    assert max(len(together) for together in rolled) == 1, rolled


def _deployments(shop: Shop) -> dict[str, dict[str, object]]:
    return {found["metadata"]["name"]: found for found in shop.kubernetes.items("deployment", namespace=shop.namespace)}


def _image(deployment: dict[str, object]) -> str:
    spec = deployment["spec"]
    assert isinstance(spec, dict)
    return str(spec["template"]["spec"]["containers"][0]["image"])
