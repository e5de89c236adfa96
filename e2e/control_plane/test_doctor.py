"""`kubectl pgweir doctor` against a real API server: what it can say from there alone, and what it may not look at.

What is measured inside pods needs a kubelet: e2e/scenarios/test_doctor.py.
"""

from __future__ import annotations

import json
import time

import pytest


@pytest.fixture
def ready(world):
    """A Pooler with two pods, ready, and no operator any more that would mend what a test breaks."""
    world.has_cluster()
    operator = world.start_operator()
    world.pooler()
    world.until("Ready", "True")
    operator.stop()
    listed(world, True, True)
    return world


@pytest.fixture
def doctor(ready, plugin):
    """Exit code, codes of findings, and the whole answer; asked until endpoints have followed."""

    def ask(*expected: str, patience: float = 20.0):
        until = time.monotonic() + patience
        while True:
            code, said = plugin("doctor", "pooler", "--json")
            found = json.loads(said)
            codes = [finding["code"] for finding in found["findings"]]
            if codes == list(expected) or time.monotonic() > until:
                assert codes == list(expected), said
                return code, found
            time.sleep(0.3)

    return ask


def listed(world, *ready: bool) -> None:
    """An EndpointSlice of the Service: nobody makes one for pods whose addresses are this machine's own."""
    endpoints = [{"addresses": [f"192.0.2.{at}"], "conditions": {"ready": each}} for at, each in enumerate(ready, 1)]
    world.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "pooler-by-hand",
                "namespace": world.namespace,
                "labels": {"kubernetes.io/service-name": "pooler"},
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "pgweir", "port": 5432, "protocol": "TCP"}],
        }
    )


def deny(world, name: str, **spec: object) -> None:
    labels = {"matchLabels": {"pgweir.io/poolerName": "pooler"}}
    world.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": world.namespace},
            "spec": {"podSelector": labels, **spec},
        }
    )


def test_a_healthy_pooler_has_no_finding_and_what_could_not_be_looked_at_is_named(doctor):
    code, found = doctor()
    assert code == 0
    notes = "\n".join(found["notes"])
    assert "nothing was measured from inside" in notes  # there is no kubelet here
    assert "SHOW POOLS" in notes


def test_no_endpoints_a_policy_and_an_old_configuration_are_three_findings(ready, doctor):
    """T08."""
    first, second = ready.fakes()
    ready.run(ready.kubelet.set_ready(second.name, ready=False))
    listed(ready, True, False)
    assert doctor("pods-not-ready")[0] == 10
    ready.run(ready.kubelet.set_ready(first.name, ready=False))
    listed(ready, False, False)
    code, found = doctor("no-endpoints")
    assert code == 10
    said = "\n".join(found["findings"][0]["evidence"])
    assert first.name in said
    assert second.name in said
    for fake in (first, second):
        ready.run(ready.kubelet.set_ready(fake.name, ready=True))
    listed(ready, True, True)
    doctor()

    deny(ready, "deny-all", policyTypes=["Ingress"])
    code, found = doctor("policy-denies")
    assert (code, found["network_policies"]) == (10, ["deny-all"])
    assert "NetworkPolicy deny-all" in found["findings"][0]["evidence"][0]
    deny(ready, "let-clients-in", policyTypes=["Ingress"], ingress=[{"ports": [{"port": 5432}]}])
    assert doctor()[1]["network_policies"] == ["deny-all", "let-clients-in"]

    status = ready.get("Pooler", "pooler")["status"]
    rows = [{**status["pods"][0], "configRevision": status["configRevision"] - 1}, *status["pods"][1:]]
    ready.run(ready.kube.merge_status("Pooler", ready.namespace, "pooler", {"pods": rows}))
    code, found = doctor("old-configuration")
    assert code == 16
    assert rows[0]["name"] in found["findings"][0]["evidence"][0]


def test_a_service_that_is_gone_and_a_pause_that_was_forgotten_are_found(ready, doctor):
    ready.delete("Service", "pooler")
    assert doctor("service-missing")[0] == 10
    ready.run(ready.kube.merge("Pooler", ready.namespace, "pooler", {"spec": {"paused": True}}))
    doctor("service-missing", "paused")


def test_who_may_only_read_poolers_hears_what_was_left_out(ready, plugin, looker):
    code, said = plugin("doctor", "pooler", "--json", who=looker)
    found = json.loads(said)
    assert (code, found["findings"]) == (0, [])
    notes = "\n".join(found["notes"])
    for what in ("pods", "the Service", "EndpointSlices", "NetworkPolicies"):
        assert f"{what} could not be looked at" in notes
