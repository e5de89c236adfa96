"""The headless Service by which the pods of one Pooler find each other (to pass cancel requests on). Pure."""

from __future__ import annotations

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import Manifest, metadata


def headless_service(pooler: Pooler) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(pooler, names.peers_service_name(pooler.name)),
        "spec": {
            "clusterIP": "None",
            # WHY: a pod that drains is not ready, and still has clients whose queries may be cancelled.
            "publishNotReadyAddresses": True,
            "selector": names.selector(pooler.name),
            "ports": [
                {"name": "pgbouncer", "port": names.PORT_POOLER, "protocol": "TCP", "targetPort": "pgbouncer"},
            ],
        },
    }
