"""The Service that applications connect to. Pure."""

from __future__ import annotations

from typing import Any

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import Manifest, metadata
from pgweir_operator.desired.merge import merged

PORT_NAME = "pgbouncer"


def service(pooler: Pooler) -> Manifest:
    template = pooler.spec.service_template
    spec = merged({"type": "ClusterIP"}, template.spec)
    spec["ports"] = _ports(template.spec.get("ports") or [])
    # WHY forced: a Service that selects other pods than this Pooler's would send clients to strangers.
    spec["selector"] = names.selector(pooler.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            pooler,
            names.service_name(pooler.name),
            extra_labels=template.metadata.labels,
            annotations=template.metadata.annotations,
        ),
        "spec": spec,
    }


def _ports(wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The template's ports; ours is filled into the one of our name or number, or stands before them."""
    ours = {"name": PORT_NAME, "port": names.PORT_POOLER, "protocol": "TCP", "targetPort": PORT_NAME}
    result = []
    found = False
    for port in wanted:
        if port.get("name") == PORT_NAME or port.get("port") == names.PORT_POOLER:
            result.append({**ours, **port})
            found = True
        else:
            result.append({"protocol": "TCP", **port})
    return result if found else [ours, *result]
