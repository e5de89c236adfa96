"""The PodDisruptionBudget: a drained node takes one pooler pod at a time. Pure."""

from __future__ import annotations

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import Manifest, metadata


def pod_disruption_budget(pooler: Pooler) -> Manifest | None:
    """None for a single pod: a budget would only stop the node from being drained."""
    if pooler.spec.instances <= 1:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(pooler, names.pod_disruption_budget_name(pooler.name)),
        "spec": {
            "maxUnavailable": 1,
            # WHY: a pod that is not ready protects nobody and must not hold a node back.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(pooler.name)},
        },
    }
