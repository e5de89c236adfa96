"""The NetworkPolicy: clients, Prometheus and the operator come in; PostgreSQL, the other pods and DNS are reached. Pure.

Probes come from the node, which every policy lets through. Whatever else a pod needs (an LDAP server, say) is for a
NetworkPolicy of the user's own beside this one: policies add up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from pgweir_operator.api import names
from pgweir_operator.api.observed import ClusterFlavour, Observed
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import Manifest, metadata

API_VERSION: Final = "networking.k8s.io/v1"

_CLUSTER_LABEL: Final = "cnpg.io/cluster"
"""On every instance of a CloudNativePG cluster, whatever its role: a switchover opens no gap."""

Peers = Sequence[Manifest]


def network_policy(pooler: Pooler, observed: Observed, *, operator_namespace: str) -> Manifest | None:
    """None unless it is asked for. `operator_namespace` is empty where the operator runs outside of the cluster."""
    wanted = pooler.spec.network_policy
    if not wanted.enabled:
        return None
    return {
        "apiVersion": API_VERSION,
        "kind": "NetworkPolicy",
        "metadata": metadata(pooler, names.network_policy_name(pooler.name)),
        "spec": {
            "podSelector": {"matchLabels": names.selector(pooler.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                # Cancel requests that are for another pod come from the Pooler's own pods.
                _rule("from", [*wanted.clients, _own(pooler)] if wanted.clients else [], names.PORT_POOLER),
                _rule("from", wanted.prometheus or [{"namespaceSelector": {}}], names.PORT_METRICS),
                _rule("from", wanted.operator or _operator(operator_namespace), names.PORT_CONTROL),
            ],
            "egress": [
                _rule("to", wanted.postgres or _postgres(pooler, observed), pooler.target_port),
                _rule("to", [_own(pooler)], names.PORT_POOLER),
                {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
            ],
        },
    }


def _own(pooler: Pooler) -> Manifest:
    return {"podSelector": {"matchLabels": names.selector(pooler.name)}}


def _rule(direction: str, peers: Peers, port: int) -> Manifest:
    """No peers: everybody."""
    rule: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": port}]}
    return {direction: [dict(peer) for peer in peers], **rule} if peers else rule


def _operator(namespace: str) -> Peers:
    """WHY everybody where its namespace is not known: it is not a pod then, and the endpoint asks for its certificate."""
    if not namespace:
        return []
    return [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "podSelector": {"matchLabels": dict(names.OPERATOR_LABELS)},
        }
    ]


def _postgres(pooler: Pooler, observed: Observed) -> Peers:
    cluster = observed.cluster
    if cluster.flavour is ClusterFlavour.CLOUDNATIVEPG and cluster.name is not None:
        return [{"podSelector": {"matchLabels": {_CLUSTER_LABEL: cluster.name}}}]
    try:
        address = ipaddress.ip_address(pooler.target_host)
    except ValueError:
        return []  # A name may lead anywhere.
    return [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}]
