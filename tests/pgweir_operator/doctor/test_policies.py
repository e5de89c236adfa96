"""What NetworkPolicies let through, as their specification has it."""

from __future__ import annotations

from typing import Any

import pytest

from pgweir_operator.doctor.policies import selecting, selects

LABELS = {"pgweir.io/poolerName": "shop-rw", "tier": "db"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"tier": "db"}}, True),
        ({"matchLabels": {"tier": "web"}}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web", "db"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}, False),
        ({"matchExpressions": [{"key": "other", "operator": "NotIn", "values": ["db"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_selector_selects_by_labels(selector: dict[str, Any], expected: bool) -> None:
    assert selects(selector, LABELS) is expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, (False, None, None)),  # selects, and allows nobody in
        ({"policyTypes": ["Ingress", "Egress"]}, (False, False, False)),
        ({"ingress": [{}]}, (True, None, None)),
        ({"ingress": [{"ports": [{"port": 5432}]}]}, (True, None, None)),
        ({"ingress": [{"ports": [{"port": 9127}]}]}, (False, None, None)),
        ({"ingress": [{"ports": [{"port": 5000, "endPort": 6000}]}]}, (True, None, None)),
        ({"ingress": [{"ports": [{"port": "postgres"}]}]}, (True, None, None)),
        ({"egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}, (False, False, True)),
        ({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 5433}]}]}, (None, True, False)),
    ],
)
def test_a_policy_says_for_each_direction_what_comes_through(spec: dict[str, Any], expected: tuple[Any, ...]) -> None:
    manifest = {"metadata": {"name": "p"}, "spec": {"podSelector": {}, **spec}}
    (policy,) = selecting([manifest], LABELS, port=5432, target_port=5433)
    assert (policy.clients, policy.target, policy.dns) == expected
