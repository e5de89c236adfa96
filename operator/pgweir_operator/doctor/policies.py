"""What NetworkPolicies say about a Pooler's pods. Pure.

WHY read and not tried: whether a policy is obeyed is the cluster network's affair, and some networks ignore them
all. Peers are not
weighed (who a client is, nobody told us): a direction is denied when no policy lets anybody through on that port.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pgweir_operator.doctor.facts import Policy

DNS: Final = 53

Manifest = Mapping[str, Any]


def selecting(
    policies: Iterable[Manifest], labels: Mapping[str, str], *, port: int, target_port: int
) -> tuple[Policy, ...]:
    """Those that select a pod with these labels."""
    return tuple(
        _policy(policy, port, target_port)
        for policy in sorted(policies, key=lambda each: str(each["metadata"]["name"]))
        if selects((policy.get("spec") or {}).get("podSelector") or {}, labels)
    )


def _policy(manifest: Manifest, port: int, target_port: int) -> Policy:
    spec = manifest.get("spec") or {}
    # SPEC: without policyTypes, Ingress always, and Egress where there are rules for it.
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    ingress, egress = spec.get("ingress") or (), spec.get("egress") or ()
    return Policy(
        name=str(manifest["metadata"]["name"]),
        clients=_lets(ingress, port) if "Ingress" in types else None,
        target=_lets(egress, target_port) if "Egress" in types else None,
        dns=_lets(egress, DNS) if "Egress" in types else None,
    )


def _lets(rules: Iterable[Manifest], port: int) -> bool:
    return any(not rule.get("ports") or any(_covers(each, port) for each in rule["ports"]) for rule in rules)


def _covers(ports: Manifest, port: int) -> bool:
    first = ports.get("port")
    if first is None or isinstance(first, str):
        return True  # all of them; a port by name is taken for the right one
    return int(first) <= port <= int(ports.get("endPort") or first)


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """SPEC: meta/v1 LabelSelector; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_matches(each, labels) for each in selector.get("matchExpressions") or ())


def _matches(expression: Manifest, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None
