"""The cluster behind a Pooler goes and comes back, or is another namespace's; a certificate reaches its last third."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from e2e.control_plane.harness import ROLE, wait
from e2e.control_plane.test_life_of_a_pooler import leftovers, ready  # noqa: F401 (a fixture)

from pgweir_operator.integration.certificates import client_certificate, is_due

DAY = 86400.0


def uids(world: Any) -> set[str]:
    pods = world.run(world.kube.items("Pod", world.namespace, labels="pgweir.io/poolerName=pooler"))
    return {pod["metadata"]["uid"] for pod in pods}


def test_a_cluster_that_is_deleted_takes_no_pooler_along_and_is_served_when_it_is_back(ready: Any) -> None:  # noqa: F811
    pods, files = uids(ready), ready.files()
    ready.delete("Service", "shop-rw")
    for name in ("superuser", "ca"):
        ready.delete("Secret", f"shop-{name}")
    assert "shop-rw" in ready.until("TargetAvailable", "False", "TargetNotFound")
    assert ready.get("Deployment", "pooler")["spec"]["replicas"] == 2
    assert ready.files() == files, "the pods keep what they have"
    assert uids(ready) == pods
    ready.has_cluster()
    ready.until("TargetAvailable", "True")
    ready.until("Ready", "True")
    assert uids(ready) == pods


def test_a_pooler_that_is_deleted_leaves_its_cluster_alone(ready: Any) -> None:  # noqa: F811
    names = (("Service", "shop-rw"), ("Secret", "shop-superuser"), ("Secret", "shop-ca"))
    before = {name: ready.get(kind, name)["metadata"]["uid"] for kind, name in names}
    ready.delete("Pooler", "pooler")
    wait(lambda: ready.get("Pooler", "pooler") is None, "it goes")
    assert {name: ready.get(kind, name)["metadata"]["uid"] for kind, name in names} == before


@pytest.mark.parametrize("field", ["cluster", "target"])
def test_what_is_in_another_namespace_cannot_be_named(world: Any, kubectl: Any, field: str) -> None:
    place = {"cluster": {"name": "shop", "namespace": "elsewhere"}}
    if field == "target":
        secret = {"name": "shop-superuser", "namespace": "elsewhere"}
        place = {"target": {"host": "db", "adminSecret": secret}}
    manifest = {
        "apiVersion": "pgweir.io/v1",
        "kind": "Pooler",
        "metadata": {"name": "pooler", "namespace": world.namespace},
        "spec": {**place, "instances": 1, "pgbouncer": {"poolMode": "session"}},
    }
    with pytest.raises(AssertionError, match=r'unknown field "spec\.[a-zA-Z.]*namespace"'):
        kubectl("apply", "--filename=-", stdin=json.dumps(manifest))
    assert world.get("Pooler", "pooler") is None


def test_a_certificate_in_its_last_third_is_renewed_in_every_pod_without_a_restart(ready: Any, kubectl: Any) -> None:  # noqa: F811
    pods = uids(ready)
    old = client_certificate(ready.ca, ROLE, now=time.time() - 80 * DAY)
    assert is_due(old.certificate, now=time.time())
    ready.operator.stop()
    data = {"server.crt": old.certificate, "server.key": old.key}
    patch = {"data": {name: base64.b64encode(content).decode() for name, content in data.items()}}
    kubectl(
        "patch", "secret", "pooler", f"--namespace={ready.namespace}", "--type=merge", f"--patch={json.dumps(patch)}"
    )
    ready.operator = ready.start_operator()
    wait(
        lambda: (
            all(not is_due(fake.files["server.crt"], now=time.time()) for fake in ready.fakes())
            and ready.files()["server.crt"] != old.certificate
        ),
        lambda: str(ready.status()),
    )
    assert len({fake.files["server.crt"] for fake in ready.fakes()}) == 1
    ready.until("Integrated", "True")
    assert uids(ready) == pods


def test_a_namespace_that_is_deleted_with_all_that_is_in_it_goes_by_itself(ready: Any, kubectl: Any) -> None:  # noqa: F811
    assert ready.get("Pooler", "pooler")["metadata"]["finalizers"]
    kubectl("delete", "namespace", ready.namespace, "--wait=false")
    wait(
        lambda: ready.run(ready.kube.get("Namespace", "", ready.namespace)) is None,
        lambda: f"{ready.get('Pooler', 'pooler')}\n{ready.operator.log[-3000:]}",
        60.0,
    )


def test_an_operator_that_is_killed_while_it_makes_and_while_it_takes_back_leaves_nothing_undone(world: Any) -> None:
    """kill -9, and the next one has to wait until the Lease of the dead one is over."""
    world.has_cluster()
    first = world.start_operator()
    wait(lambda: "leading" in first.log, "the first leads")
    world.pooler()
    wait(lambda: world.get("Secret", "pooler-control-ca") is not None, "it has begun")
    first.kill()
    second = world.start_operator()
    world.until("Ready", "True", patience=60)
    assert len(world.fakes()) == 2
    assert world.revision() == 1
    world.delete("Pooler", "pooler")
    second.kill()
    world.start_operator()
    wait(lambda: world.get("Pooler", "pooler") is None, lambda: world.operators[-1].log[-2000:], 60.0)
    assert leftovers(world.server) == []
