"""A Cluster's status is patched as CloudNativePG patches it, and the pods of its Poolers hear it at once.

The API server is real, its Cluster kind has no schema worth the name, nobody plays PostgreSQL: what is looked at is who
is told what, when, and what status.switchover says. The real thing, with sessions to lose, is in e2e/scenarios.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2e.control_plane.harness import PATIENCE, wait

from pgweir_operator.kube.cache import KIND_SECONDS

BUDGET = 0.4
HEALTHY = "Cluster in healthy state"
IN_PLACE = "Primary instance is being restarted in-place"
GROUPS = {"Cluster": "postgresql.cnpg.io", "EdbCluster": "postgresql.k8s.enterprisedb.io"}
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def crd(group):
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": OPEN, "status": OPEN}}},
    }
    names = {"kind": "Cluster", "listKind": "ClusterList", "plural": "clusters", "singular": "cluster"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"clusters.{group}"},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def install(kubectl, group):
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(crd(group)))
    kubectl("wait", "--for=condition=Established", f"crd/clusters.{group}", "--timeout=30s")


@pytest.fixture
def kinds(kubectl):
    """Installs the kinds that a test asks for, and takes them away again."""
    installed = []

    def add(kind="Cluster"):
        install(kubectl, GROUPS[kind])
        installed.append(GROUPS[kind])

    yield add
    for group in installed:
        kubectl("delete", "crd", f"clusters.{group}", "--ignore-not-found", "--timeout=30s")


class Primary:
    """The Cluster `shop` and its status."""

    def __init__(self, world, kubectl, kind="Cluster"):
        self.world, self.kind = world, kind
        metadata = {"name": "shop", "namespace": world.namespace}
        body = json.dumps({"apiVersion": f"{GROUPS[kind]}/v1", "kind": "Cluster", "metadata": metadata})
        kubectl("create", "--filename=-", stdin=body)
        self.says(
            currentPrimary="shop-1",
            targetPrimary="shop-1",
            phase=HEALTHY,
            instancesReportedState={"shop-1": {"ip": "10.0.0.1"}, "shop-2": {"ip": "10.0.0.2"}},
        )

    def says(self, **status):
        self.world.run(self.world.kube.merge_status(self.kind, self.world.namespace, "shop", status))


@pytest.fixture
def followed(world, kinds, kubectl):
    """A ready Pooler of two pods, whose operator watches the Cluster."""
    kinds()
    world.has_cluster()
    world.primary = Primary(world, kubectl)
    world.operator = world.start_operator(recheck=2.0)
    world.pooler()
    world.until("Ready", "True")
    return world


def switchover(world, name="pooler"):
    return world.status(name).get("switchover") or {}


def reaches(world, phase, name="pooler", patience=PATIENCE):
    wait(
        lambda: switchover(world, name).get("phase") == phase,
        lambda: f"{phase}; it is {switchover(world, name)}\n{world.operators[-1].log[-6000:]}",
        patience,
    )
    return switchover(world, name)


def seen(world, name):
    """A pass knows the Pooler as it is, and with it whoever conducts its switchovers."""
    generation = world.get("Pooler", name)["metadata"]["generation"]
    wait(lambda: world.status(name).get("observedGeneration") == generation, f"a pass over {name}")


def test_a_switchover_is_heard_by_every_pod_within_the_budget_and_told_to_its_end(followed):
    begun = time.monotonic()
    followed.primary.says(targetPrimary="shop-2", phase="Switchover in progress")
    wait(lambda: all(fake.orders for fake in followed.fakes()), "every pod is told")
    took = max(fake.orders[0][0] for fake in followed.fakes()) - begun
    print(f"patch of the Cluster to the last pod's order: {took * 1000:.0f} ms (budget {BUDGET * 1000:g} ms)")
    assert took < 10 * BUDGET
    held = reaches(followed, "Held")
    assert (held["from"], held["to"]) == ("shop-1", "shop-2")
    assert all(fake.held for fake in followed.fakes())
    wait(lambda: followed.condition("TargetAvailable")[:2] == ("Unknown", "SwitchingOver"), "it is said")
    assert followed.condition("Ready")[0] == "True", "a switchover is no failure"
    followed.primary.says(currentPrimary="shop-2")
    done = reaches(followed, "Done")
    assert done["id"] == held["id"]
    assert done["heldMilliseconds"] > 0
    assert {fake.route["address"] for fake in followed.fakes()} == {"10.0.0.2"}
    assert {tuple(order for _, order, _ in fake.orders) for fake in followed.fakes()} == {("hold", "route")}
    wait(lambda: followed.condition("TargetAvailable")[0] != "Unknown", "the pods are believed again")
    wait(
        lambda: {event["reason"] for event in followed.events()} >= {"SwitchoverHeld", "SwitchoverDone"},
        "Events",
    )


def test_a_failover_a_rollback_a_restart_and_a_ceiling_each_end_as_they_should(followed):
    followed.primary.says(targetPrimary="pending", phase="Failing over")
    reaches(followed, "Held")
    followed.primary.says(targetPrimary="shop-2")
    followed.primary.says(currentPrimary="shop-2")
    reaches(followed, "Done")
    followed.primary.says(targetPrimary="shop-1")
    reaches(followed, "Held")
    followed.primary.says(targetPrimary="shop-2", phase=HEALTHY)
    reaches(followed, "RolledBack")
    assert not any(fake.held for fake in followed.fakes())
    wait(lambda: "SwitchoverRolledBack" in {event["reason"] for event in followed.events()}, "it is told")
    followed.primary.says(phase=IN_PLACE)
    restart = reaches(followed, "Held")
    assert restart["from"] == restart["to"] == "shop-2"
    followed.primary.says(phase=HEALTHY)
    reaches(followed, "Done")
    followed.pooler(switchover={"timeoutSeconds": 2})
    seen(followed, "pooler")
    followed.primary.says(targetPrimary="shop-1")
    reaches(followed, "TimedOut")
    wait(lambda: "SwitchoverTimedOut" in {event["reason"] for event in followed.events()}, "a warning")
    followed.primary.says(currentPrimary="shop-1")
    reaches(followed, "Done")


def test_an_operator_that_is_killed_in_the_middle_is_followed_by_one_that_goes_on(followed):
    followed.primary.says(targetPrimary="shop-2")
    held = reaches(followed, "Held")
    followed.operator.kill()
    followed.primary.says(currentPrimary="shop-2")
    assert all(fake.held for fake in followed.fakes())
    followed.operator = followed.start_operator(recheck=2.0)
    done = reaches(followed, "Done", patience=60.0)
    assert done["id"] == held["id"]
    assert {tuple(order for _, order, _ in fake.orders) for fake in followed.fakes()} == {("hold", "route")}


def test_pods_that_come_in_the_middle_and_a_second_pooler_are_held_too_and_one_that_is_off_is_not(followed):
    followed.pooler("second", instances=1)
    followed.pooler("third", instances=1, switchover={"mode": "Off"})
    wait(lambda: len(followed.fakes()) == 4, "four pods")
    wait(lambda: all(fake.revision for fake in followed.fakes()), "they are configured")
    for name in ("second", "third"):
        followed.until("Ready", "True", name=name)
        seen(followed, name)
    followed.primary.says(targetPrimary="shop-2")
    reaches(followed, "Held")
    reaches(followed, "Held", "second")
    followed.pooler(instances=3)
    wait(lambda: sum(bool(fake.held) for fake in followed.fakes()) == 4, "the pod that came is held")
    followed.primary.says(currentPrimary="shop-2")
    reaches(followed, "Done")
    reaches(followed, "Done", "second")
    assert switchover(followed, "third") == {}
    assert [fake.orders for fake in followed.fakes() if fake.name.startswith("third")] == [[]]


def test_an_annotation_asks_for_a_hold_before_anything_is_announced(followed, kubectl):
    deadline = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    where = (f"--namespace={followed.namespace}", "pooler/pooler")
    begun = time.monotonic()
    kubectl("annotate", *where, f"pgweir.io/switchover=move-7 {deadline}")
    reaches(followed, "Held")
    print(f"annotation to Held, kubectl included: {time.monotonic() - begun:.2f} s")
    assert {fake.held["id"] for fake in followed.fakes()} == {"move-7"}
    followed.primary.says(targetPrimary="shop-2", phase="Switchover in progress")
    kubectl("annotate", *where, "pgweir.io/switchover-")
    time.sleep(1.5)
    assert switchover(followed)["phase"] == "Held"
    followed.primary.says(currentPrimary="shop-2")
    assert reaches(followed, "Done")["id"] == "move-7"


def test_the_plugin_holds_everybody_tells_the_cluster_and_waits_for_the_end(followed, plugin):
    followed.primary.says(instanceNames=["shop-1", "shop-2"])

    def promote():
        wait(lambda: (followed.get("Cluster", "shop") or {})["status"].get("targetPrimary") == "shop-2", "it is told")
        assert all(fake.held for fake in followed.fakes()), "held before anything was announced"
        followed.primary.says(currentPrimary="shop-2", phase=HEALTHY)

    with ThreadPoolExecutor(1) as pool:
        promoted = pool.submit(promote)
        code, said = plugin("switchover", "shop", "--timeout=40")
        promoted.result()
    assert code == 0, said
    assert "pooler: clients waited" in said
    assert switchover(followed)["id"].startswith("plugin-")
    assert "pgweir.io/switchover" not in (followed.get("Pooler", "pooler")["metadata"].get("annotations") or {})


def test_the_plugin_takes_everything_back_while_somebody_holds_a_server(followed, plugin):
    followed.primary.says(instanceNames=["shop-1", "shop-2"])
    followed.fakes()[0].hold(applicationName="month_end")
    code, said = plugin("switchover", "pooler", "--to=shop-2", "--timeout=3")
    assert code == 4, said
    assert "the cluster was not touched" in said
    assert followed.get("Cluster", "shop")["status"]["targetPrimary"] == "shop-1"
    wait(lambda: not any(fake.held for fake in followed.fakes()), "every pod is released")
    assert "pgweir.io/switchover" not in (followed.get("Pooler", "pooler")["metadata"].get("annotations") or {})


def test_a_kind_that_is_installed_later_is_found_edbs_too(world, kinds, kubectl):
    world.has_cluster()
    world.start_operator(recheck=1.0)
    world.pooler(instances=1)
    world.until("Ready", "True")
    kinds("EdbCluster")
    primary = Primary(world, kubectl, "EdbCluster")
    # At rest nothing is asked for, and whether a kind is there no more often than this.
    time.sleep(KIND_SECONDS)
    world.pooler(instances=1, parameters={"default_pool_size": "7"})
    wait(lambda: all(b"default_pool_size = 7" in fake.files["pgbouncer.ini"] for fake in world.fakes()), "a pass")
    primary.says(targetPrimary="shop-2")
    reaches(world, "Held")
    primary.says(currentPrimary="shop-2")
    reaches(world, "Done")
