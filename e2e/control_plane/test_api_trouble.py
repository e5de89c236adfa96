"""An API server that refuses, fails and vanishes, and an operator that is killed at every write: each heals by itself."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.control_plane.harness import Manifest, World, wait
from e2e.control_plane.proxy import ApiProxy, Call
from e2e.control_plane.test_life_of_a_pooler import leftovers

KINDS = ("Deployment", "Service", "Secret", "ServiceAccount", "PodDisruptionBudget")
# What is made by chance, or by the clock.
MADE = ("tls.crt", "tls.key", "ca.crt", "ca.key", "token", "server.crt", "server.key", "client.crt", "client.key")


@pytest.fixture
def proxy(world: World, operator_kubeconfig: str) -> Iterator[ApiProxy]:
    with ApiProxy(yaml.safe_load(Path(operator_kubeconfig).read_text()), world.loop) as made:
        yield made


def children(world: World) -> dict[str, Manifest]:
    """All that was made for Poolers, without what differs each time."""
    found = {}
    for kind in KINDS:
        for item in world.run(world.kube.items(kind, world.namespace, labels="pgweir.io/poolerName")):
            item = copy.deepcopy(item)
            metadata = {key: item["metadata"].get(key) for key in ("labels", "annotations")}
            for owner in item["metadata"].get("ownerReferences") or ():
                metadata["owner"] = owner["kind"], owner["name"]
            spec = item.get("spec") or {}
            for key in ("clusterIP", "clusterIPs"):
                spec.pop(key, None)
            data = {key: "made" if key in MADE else value for key, value in (item.get("data") or {}).items()}
            found[f"{kind} {item['metadata']['name']}"] = {"metadata": metadata, "spec": spec, "data": data}
    return found


def killed_at_every_write(world: World, proxy: ApiProxy, folder: Path, done: Any) -> int:
    """One operator after the other; the first is killed (`kill -9`) when the API server has done the first thing that it asked,
    the next after its second, and so on, until one comes to the end. How many were killed."""
    left = [0]
    proxy.after = lambda call: count(call)

    def count(call: Call) -> None:
        left[0] -= call.is_write
        if call.is_write and left[0] == 0:
            os.kill(world.operators[-1].process.pid, signal.SIGKILL)

    for number in range(40):
        left[0] = number + 1
        process = world.start_operator(kubeconfig=proxy.kubeconfig(folder), pod_name="operator-0").process
        wait(lambda: process.poll() is not None or done(), lambda: world.operators[-1].log[-2000:], 60.0)  # noqa: B023
        if process.poll() is None:
            break
    proxy.after = lambda call: None
    return number


@pytest.mark.timeout(600)
def test_killed_at_every_single_write_of_a_making_and_of_a_taking_back_it_ends_as_if_nothing_had_been(
    world: World, proxy: ApiProxy, tmp_path: Path
) -> None:
    world.has_cluster()
    operator = world.start_operator(kubeconfig=proxy.kubeconfig(tmp_path), pod_name="operator-0")
    world.pooler()
    world.until("Ready", "True")
    undisturbed = children(world)
    world.delete("Pooler", "pooler")
    wait(lambda: world.get("Pooler", "pooler") is None and not children(world), "it goes")
    operator.kill()

    world.pooler()
    assert killed_at_every_write(world, proxy, tmp_path, lambda: world.condition("Ready")[0] == "True") >= 7
    world.until("Ready", "True")
    assert children(world) == undisturbed
    assert world.revision() == 1, "no revision was spent"
    world.operators[-1].kill()

    world.delete("Pooler", "pooler")
    killed_at_every_write(world, proxy, tmp_path, lambda: world.get("Pooler", "pooler") is None)
    wait(lambda: not children(world), "nothing is left")
    assert leftovers(world.server) == []
    assert world.secrets_told() == []


def test_an_api_server_that_fails_for_a_while_delays_and_a_right_that_is_taken_away_is_named(
    world: World, proxy: ApiProxy, tmp_path: Path
) -> None:
    world.has_cluster()
    secret = "hunter2-" + "x" * 20
    world.secret("shop-app", username="app", password=secret)
    operator = world.start_operator(kubeconfig=proxy.kubeconfig(tmp_path))
    wait(lambda: "leading" in operator.log, "it leads")
    codes = [409, 410, 429, 500, 503]
    calls = [0]

    def storm(call: Call) -> int | None:
        """Two of three calls fail, each time in another way; of the Lease one of three, or nobody would lead."""
        calls[0] += 1
        often = 2 if "leases" not in call.path else 1
        return codes[calls[0] % 5] if calls[0] % 3 < often else None

    proxy.fault = storm
    world.pooler()
    wait(lambda: calls[0] > 40, lambda: operator.log[-3000:])
    proxy.fault = lambda call: None
    world.until("Ready", "True", patience=90)
    assert operator.process.poll() is None, operator.log[-3000:]

    # A right is taken away: of one kind, and everything else goes on.
    proxy.fault = lambda call: 403 if "/services/pooler" in call.path and call.is_write else None
    world.pooler(parameters={"default_pool_size": "7"}, serviceTemplate={"metadata": {"labels": {"a": "b"}}})
    message = world.until("Ready", "False", "Forbidden")
    assert "the test says 403" in message
    proxy.fault = lambda call: None
    world.until("Ready", "True")
    wait(lambda: all(b"default_pool_size = 7" in fake.files["pgbouncer.ini"] for fake in world.fakes()), "it arrives")

    # Every watch ends at once and cannot be opened again; what was said meanwhile is heard afterwards.
    proxy.fault = lambda call: 410 if call.is_watch else None
    time.sleep(1)
    world.secret("shop-app", username="app", password=secret + "2")
    proxy.fault = lambda call: None
    wait(
        lambda: all((secret + "2").encode() in b"".join(fake.files.values()) for fake in world.fakes()),
        "the new password is everywhere",
    )
    world.until("Ready", "True")
    rows = map(json.loads, operator.log.splitlines())
    assert not [row for row in rows if row.get("exception") and row["logger"].startswith("pgweir")], "no stumbling"
    assert world.secrets_told() == []


def test_a_pooler_that_came_while_kopf_watched_is_looked_after_when_kopf_has_ended(
    world: World, proxy: ApiProxy, tmp_path: Path
) -> None:
    world.has_cluster()
    operator = world.start_operator(kubeconfig=proxy.kubeconfig(tmp_path))
    world.pooler(instances=1)
    world.until("Ready", "True")

    # What kopf has open ends, and the list that it asks for then is refused. (Ours is in pages.)
    def refused(call: Call) -> int | None:
        about_poolers = call.path.endswith("/poolers") and call.method == "GET"
        return 409 if about_poolers and (call.is_watch or "limit" not in call.query) else None

    proxy.fault = refused
    world.pooler(instances=1, parameters={"default_pool_size": "7"})
    wait(lambda: "kopf watches no Poolers any more" in operator.log, lambda: operator.log[-3000:])
    proxy.fault = lambda call: None

    # Only the worker that began with it hears of this.
    made = (world.get("Deployment", "pooler") or {})["metadata"]["uid"]
    world.delete("Deployment", "pooler")
    wait(
        lambda: (world.get("Deployment", "pooler") or {"metadata": {}})["metadata"].get("uid") not in {None, made},
        "again",
    )
    world.until("Ready", "True")
    assert operator.stop() == 0


def test_what_is_huge_is_refused_in_plain_words_and_leaves_the_pods_as_they_are(world: World) -> None:
    world.has_cluster()
    operator = world.start_operator()
    world.pooler(instances=1)
    world.until("Ready", "True")
    before = dict(world.fakes()[0].files)

    # A template that the API server stores and no Deployment can have.
    world.pooler(instances=1, template={"metadata": {"annotations": {"a": "x" * 300_000}}})
    assert "annotations" in world.until("Ready", "False", "InvalidTemplate")

    # Secrets that are too large for one bundle together.
    world.secret("huge", data={"ca.crt": "x" * 700_000})
    world.pooler(instances=1, clientCASecret={"name": "huge"}, serverCASecret={"name": "huge"})
    assert "1048576" in world.until("Ready", "False", "ReconcileFailed")
    assert operator.process.poll() is None
    assert dict(world.fakes()[0].files)["pgbouncer.ini"] == before["pgbouncer.ini"]
    world.pooler(instances=1)
    world.until("Ready", "True")
    rows = map(json.loads, operator.log.splitlines())
    assert not [row for row in rows if row.get("exception") and row["logger"].startswith("pgweir")], "no stumbling"
    assert world.secrets_told() == []
