"""The PodMonitor for a Prometheus operator. Pure."""

from __future__ import annotations

from typing import Any

from pgweir_operator.api import names
from pgweir_operator.api.observed import Observed
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import Manifest, metadata

API_VERSION = "monitoring.coreos.com/v1"


def pod_monitor(pooler: Pooler, observed: Observed) -> Manifest | None:
    """None unless it is asked for and the API server knows the kind."""
    monitoring = pooler.spec.monitoring
    if not monitoring.enable_pod_monitor or not observed.pod_monitors_known:
        return None
    endpoint: Manifest = {"port": "metrics", "path": "/metrics"}
    if monitoring.tls.enabled:
        endpoint |= {"scheme": "https", "tlsConfig": _tls(pooler, observed)}
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


def _tls(pooler: Pooler, observed: Observed) -> dict[str, Any]:
    """Whom Prometheus trusts, and under which name: pods are scraped by their address, which no certificate bears."""
    given = pooler.spec.pgbouncer.client_tls_secret
    if given is not None:
        # WHY not verified: whom a certificate of the user's own is for, and who signed it, need not be known here.
        secret = observed.secrets.get(given.name)
        authority = given.name if secret is not None and "ca.crt" in secret.data else None
        return _trust(authority) | {"serverName": pooler.name, "insecureSkipVerify": True}
    cluster = observed.cluster
    issued = cluster.server is not None and cluster.server.issued
    authority = cluster.server_ca.name if cluster.server_ca is not None else None
    name = pooler.name if issued else pooler.target_host
    return _trust(authority) | {"serverName": name, **({} if authority else {"insecureSkipVerify": True})}


def _trust(secret: str | None) -> dict[str, Any]:
    return {} if secret is None else {"ca": {"secret": {"name": secret, "key": "ca.crt"}}}
