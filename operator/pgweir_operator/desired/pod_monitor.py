"""The PodMonitor for a Prometheus operator. Pure."""

from __future__ import annotations

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import Manifest, metadata

API_VERSION = "monitoring.coreos.com/v1"


def pod_monitor(pooler: Pooler, *, known: bool) -> Manifest | None:
    """None unless it is asked for and the API server knows the kind."""
    monitoring = pooler.spec.monitoring
    if not monitoring.enable_pod_monitor or not known:
        return None
    endpoint: Manifest = {"port": "metrics", "path": "/metrics"}
    if monitoring.pod_monitor_relabelings:
        endpoint["relabelings"] = list(monitoring.pod_monitor_relabelings)
    if monitoring.pod_monitor_metric_relabelings:
        endpoint["metricRelabelings"] = list(monitoring.pod_monitor_metric_relabelings)
    return {
        "apiVersion": API_VERSION,
        "kind": "PodMonitor",
        "metadata": metadata(pooler, names.pod_monitor_name(pooler.name)),
        "spec": {
            "selector": {"matchLabels": names.selector(pooler.name)},
            "podMetricsEndpoints": [endpoint],
        },
    }
