"""Every right that the operator is given is one that it uses: a Pooler's whole life, and the API server's audit log beside it.

(That a right is missing would show in any other test: the operator has no others.) The log is of the API server that this
folder brings up; with PGWEIR_KUBECONFIG there may be none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.control_plane.harness import wait
from e2e.control_plane.test_children import monitors  # noqa: F401
from e2e.control_plane.test_switchover import Primary, kinds  # noqa: F401

FILES = Path(__file__).parents[2] / "charts" / "pgweir" / "files"
Right = tuple[str, str, str]
UNSEEN: set[Right] = {
    # No request of its own: asked where an owner reference blocks its owner's deletion, if the cluster enforces that.
    ("pgweir.io", "poolers/finalizers", "update"),
    # Where a watch knows the answer nobody asks; without it (the API server restarts) each pass does.
    ("", "services", "get"),
    # One rule with CloudNativePG's; a cluster has one of the two.
    ("postgresql.k8s.enterprisedb.io", "clusters", "get"),
    ("postgresql.k8s.enterprisedb.io", "clusters", "watch"),
}


def rights(file: str) -> set[Right]:
    rules = yaml.safe_load((FILES / file).read_text())
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(row: dict[str, Any]) -> set[Right]:
    about = row["objectRef"]
    resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
    made = ["create"] if row["verb"] == "patch" and row.get("responseStatus", {}).get("code") == 201 else []
    return {(about.get("apiGroup", ""), resource, verb) for verb in (row["verb"], *made)}


@pytest.fixture
def audited(kubeconfig, world):
    """What the operator has asked of the API server in this test's namespace, so far."""
    log = Path(kubeconfig).parents[1] / "logs" / "audit.log"
    if not log.exists():
        pytest.skip("this API server keeps no audit log beside its kubeconfig")

    def so_far() -> set[Right]:
        rows = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        about = [row for row in rows if (row.get("objectRef") or {}).get("namespace") == world.namespace]
        return {right for row in about for right in used(row)}

    return so_far


def test_every_right_that_the_operator_has_is_one_that_it_uses(audited, world, kubectl, kinds, monitors):  # noqa: F811
    kinds()
    world.has_cluster()
    primary = Primary(world, kubectl)
    operator = world.start_operator(recheck=1.0)
    world.pooler(monitoring={"enablePodMonitor": True}, networkPolicy={"enabled": True})
    world.until("Ready", "True")
    primary.says(targetPrimary="shop-3")  # whose address nobody has told yet
    wait(lambda: ("", "pods", "get") in audited(), "a look at the primary that is to be")
    primary.says(currentPrimary="shop-3")
    world.pooler(instances=1)
    for kind in ("PodDisruptionBudget", "PodMonitor", "NetworkPolicy"):
        wait(lambda kind=kind: world.get(kind, "pooler") is None, f"no {kind}")
    world.secret("shop-superuser", username="postgres", password="of yesterday")
    world.delete("Pooler", "pooler")
    wait(lambda: ("", "namespaces", "get") in audited(), "a withdrawal that fails, and a look whether all is going")
    world.secret("shop-superuser", username="postgres", password="password")
    wait(lambda: world.get("Pooler", "pooler") is None, "no Pooler")
    operator.stop()
    given = rights("rules.yaml") | rights("leader-rules.yaml")
    wait(lambda: given - UNSEEN <= audited(), lambda: f"the operator never used {sorted(given - UNSEEN - audited())}")
    assert audited() <= given
