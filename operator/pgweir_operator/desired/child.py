"""What every child manifest shares: its name, its labels and the reference to the Pooler that owns it.

Pure. Called by each builder of this room.
"""

from __future__ import annotations

from typing import Any

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler

Manifest = dict[str, Any]


def owner_reference(pooler: Pooler) -> Manifest:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": pooler.name,
        "uid": pooler.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def labels(pooler: Pooler) -> dict[str, str]:
    return names.labels(pooler.name, pooler.cluster_name)


def metadata(
    pooler: Pooler,
    name: str,
    *,
    extra_labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """Metadata of a child. Labels that a template adds never replace ours: selectors and pruning rely on them."""
    result: Manifest = {
        "name": name,
        "namespace": pooler.namespace,
        "labels": {**(extra_labels or {}), **labels(pooler)},
        "ownerReferences": [owner_reference(pooler)],
    }
    if annotations:
        result["annotations"] = dict(annotations)
    return result
