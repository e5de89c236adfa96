"""A CloudNativePG cluster of two as its operator leaves it: the CRD, a Cluster, and all that stands around it.

Pure: it gives manifests and touches nothing. Two bare pods as CloudNativePG has them, each with instance.py as process 1,
Services that follow the pods' labels, Secrets, a Lease. controller.py brings it to life.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e import target
from e2e.cloudnativepg.instance import PORT

Manifest = dict[str, Any]

GROUP = "postgresql.cnpg.io"
SUPERUSER = "postgres"

_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def crd() -> Manifest:
    """The kind Cluster with whatever fields: CloudNativePG's own schema is 6,000 lines that decide nothing here."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _OPEN, "status": _OPEN}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"clusters.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {"kind": "Cluster", "listKind": "ClusterList", "plural": "clusters", "singular": "cluster"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def pods(cluster: str) -> tuple[str, str]:
    return f"{cluster}-1", f"{cluster}-2"


def manifests(namespace: str, cluster: str, *, max_connections: int = 100) -> list[Manifest]:
    """Everything but the namespace and the CRD."""
    secrets, configuration, stateful_set = _from_target(namespace, cluster, max_connections)
    common = {"cnpg.io/cluster": cluster}

    def manifest(
        api_version: str, kind: str, name: str, labels: dict[str, str] | None = None, **body: object
    ) -> Manifest:
        metadata = {"name": name, "namespace": namespace, "labels": common | (labels or {})}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}

    def service(kind: str, **selector: str) -> Manifest:
        ports = [{"name": "postgres", "port": 5432, "targetPort": 5432}]
        return manifest("v1", "Service", f"{cluster}-{kind}", spec={"selector": common | selector, "ports": ports})

    def pod(name: str, role: str) -> Manifest:
        labels = {"cnpg.io/instanceName": name, "cnpg.io/instanceRole": role, "cnpg.io/podRole": "instance"}
        return manifest("v1", "Pod", name, labels, spec=_pod_spec(stateful_set, cluster))

    first, second = pods(cluster)
    return [
        *secrets,
        configuration,
        service("rw", **{"cnpg.io/instanceRole": "primary"}),
        service("ro", **{"cnpg.io/instanceRole": "replica"}),
        service("r", **{"cnpg.io/podRole": "instance"}),
        manifest(
            "coordination.k8s.io/v1", "Lease", cluster, spec={"holderIdentity": first, "leaseDurationSeconds": 15}
        ),
        pod(first, "primary"),
        pod(second, "replica"),
        manifest(f"{GROUP}/v1", "Cluster", cluster, spec={"instances": 2}),
    ]


def _from_target(namespace: str, cluster: str, max_connections: int) -> tuple[list[Manifest], Manifest, Manifest]:
    """What a plain target has, too: its Secrets, its PostgreSQL's configuration, and the pod that runs it."""
    made = target.manifests(namespace, cluster, max_connections=max_connections)
    secrets = [manifest for manifest in made if manifest["kind"] == "Secret"]
    configuration, stateful_set = (
        next(manifest for manifest in made if manifest["kind"] == kind) for kind in ("ConfigMap", "StatefulSet")
    )
    del configuration["data"]["start.sh"]
    configuration["data"]["instance.py"] = Path(__file__).with_name("instance.py").read_text()
    configuration["data"]["postgresql.conf"] += (
        "ssl_min_protocol_version = 'TLSv1.3'\nwal_keep_size = 256MB\nhba_file = '/etc/postgres/config/pg_hba.conf'\n"
    )
    return secrets, configuration, stateful_set


def _pod_spec(stateful_set: Manifest, cluster: str) -> Manifest:
    spec: Manifest = dict(stateful_set["spec"]["template"]["spec"])
    container = dict(spec["containers"][0])
    del container["startupProbe"]
    container |= {
        "command": ["python3", "/etc/postgres/config/instance.py"],
        "ports": [{"name": "postgres", "containerPort": 5432}, {"name": "status", "containerPort": PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "status"},
            "periodSeconds": 1,
            "failureThreshold": 1,
        },
    }
    return spec | {"containers": [container]}
