"""Merging a user's template over what the operator builds, as Kubernetes merges: objects by key, lists by identity.

Pure. WHY a table of our own: a full PodSpec schema makes a CRD of 650 KB, which client-side apply refuses, and only a
handful of lists in it have an identity at all. Whatever is not in the table is replaced whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

LIST_KEYS: Final[Mapping[str, str]] = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}

# WHY: these are unions. A `value` merged into a `valueFrom`, or a second source into a volume, would be neither.
REPLACED_WHOLE: Final = frozenset({"env", "volumes"})


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` over it; neither is changed. What the patch says wins."""
    result = deepcopy(dict(base))
    for key, value in patch.items():
        result[key] = _merged_value(key, result[key], value) if key in result else deepcopy(value)
    return result


def _merged_value(name: str, base: Any, patch: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(patch, Mapping):
        return merged(base, patch)
    if isinstance(base, list) and isinstance(patch, list) and name in LIST_KEYS:
        return _merged_list(name, base, patch)
    return deepcopy(patch)


def _merged_list(name: str, base: list[Any], patch: list[Any]) -> list[Any]:
    """Items of the same identity are merged in place, new ones are appended in the patch's order."""
    identity = LIST_KEYS[name]
    result = deepcopy(base)
    places = {
        item[identity]: index for index, item in enumerate(result) if isinstance(item, Mapping) and identity in item
    }
    for item in patch:
        known = places.get(item.get(identity)) if isinstance(item, Mapping) else None
        if known is None:
            result.append(deepcopy(item))
        elif name in REPLACED_WHOLE:
            result[known] = deepcopy(item)
        else:
            result[known] = merged(result[known], item)
    return result
