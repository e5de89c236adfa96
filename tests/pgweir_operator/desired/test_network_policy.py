"""The NetworkPolicy: who comes in, what is reached, and what happens where something is not known."""

from __future__ import annotations

from typing import Any

import pytest
from tests.pgweir_operator.worlds import cluster, observed, pooler, provisioned

from pgweir_operator.api.observed import ClusterFlavour
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import ChildReference, desired_state


def policy(of: Pooler, *, operator: str = "pgweir-system", **facts: Any) -> dict[str, Any] | None:
    seen = observed(of, cluster=cluster(of, **facts))
    state = desired_state(of, seen, provisioned(), image="x", operator_namespace=operator)
    found = [manifest for manifest in state.manifests if manifest["kind"] == "NetworkPolicy"]
    unwanted = ChildReference("networking.k8s.io/v1", "NetworkPolicy", of.name) in state.unwanted
    assert unwanted == (not found)
    return found[0]["spec"] if found else None


def rules(of: Pooler, direction: str, **more: Any) -> dict[int, Any]:
    """By the first port: the peers, or None for everybody."""
    spec = policy(of, **more)
    assert spec is not None
    key = {"ingress": "from", "egress": "to"}[direction]
    return {rule["ports"][0]["port"]: rule.get(key) for rule in spec[direction]}


OWN = {"podSelector": {"matchLabels": {"pgweir.io/poolerName": "pooler"}}}
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "pgweir-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "pgweir-operator"}},
}


def test_none_is_made_unless_asked_for_and_an_old_one_is_named_for_pruning() -> None:
    assert policy(pooler()) is None


def test_exactly_what_a_pooler_needs_is_let_through() -> None:
    subject = pooler(networkPolicy={"enabled": True})
    assert rules(subject, "ingress") == {5432: None, 9127: [{"namespaceSelector": {}}], 8443: [OPERATOR]}
    spec = policy(subject)
    assert spec is not None
    assert spec["podSelector"] == OWN["podSelector"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == [
        {"ports": [{"protocol": "TCP", "port": 5432}]},
        {"to": [OWN], "ports": [{"protocol": "TCP", "port": 5432}]},
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
    ]


def test_cancels_between_pods_pass_whatever_clients_are_named() -> None:
    clients = [{"podSelector": {"matchLabels": {"app": "shop"}}}]
    assert rules(pooler(networkPolicy={"enabled": True, "clients": clients}), "ingress")[5432] == [*clients, OWN]


def test_peers_that_are_named_stand_in_for_the_defaults() -> None:
    peer = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    subject = pooler(networkPolicy={"enabled": True, "prometheus": peer, "operator": peer, "postgres": peer})
    assert rules(subject, "ingress") == {5432: None, 9127: peer, 8443: peer}
    assert policy(subject)["egress"][0]["to"] == peer  # type: ignore[index]


def test_an_operator_outside_of_the_cluster_is_not_locked_out() -> None:
    assert rules(pooler(networkPolicy={"enabled": True}), "ingress", operator="")[8443] is None


def test_every_instance_of_a_cloudnativepg_cluster_is_reached_whatever_its_role() -> None:
    subject = pooler(networkPolicy={"enabled": True})
    spec = policy(subject, flavour=ClusterFlavour.CLOUDNATIVEPG)
    assert spec is not None
    assert spec["egress"][0]["to"] == [{"podSelector": {"matchLabels": {"cnpg.io/cluster": "shop"}}}]


@pytest.mark.parametrize(
    ("host", "block"), [("10.0.0.7", "10.0.0.7/32"), ("fd00::7", "fd00::7/128"), ("db.example.com", None)]
)
def test_a_target_is_reached_by_its_address_and_port(host: str, block: str | None) -> None:
    subject = pooler(target={"host": host, "port": 6543}, networkPolicy={"enabled": True})
    wanted = [{"ipBlock": {"cidr": block}}] if block else None
    assert rules(subject, "egress")[6543] == wanted
