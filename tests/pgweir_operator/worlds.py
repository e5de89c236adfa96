"""Poolers and worlds for tests: short ways to say what a user wrote and what the operator saw."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pgweir_operator.api.observed import (
    ClusterFacts,
    ClusterFlavour,
    DeploymentFacts,
    Observed,
    PodFacts,
    Provisioned,
    SecretFacts,
)
from pgweir_operator.api.pooler import Pooler

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
UID = "6f1c2b1e-8d53-4b0a-9a7e-0c5d1f2e3a4b"


def manifest(name: str = "pooler", *, status: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A Pooler as the API server has it; without a target it points to the cluster `shop`."""
    if "cluster" not in spec and "target" not in spec:
        spec["cluster"] = {"name": "shop"}
    return {
        "apiVersion": "pgweir.io/v1",
        "kind": "Pooler",
        "metadata": {"name": name, "namespace": "default", "uid": UID, "generation": 4},
        "spec": spec,
        "status": dict(status or {}),
    }


def pooler(name: str = "pooler", **spec: Any) -> Pooler:
    return Pooler.from_manifest(manifest(name, **spec))


def secret(name: str, *, type: str = "Opaque", **data: str | bytes) -> SecretFacts:
    """Keys are written with underscores for dots: `tls_crt`."""
    return SecretFacts(
        name=name,
        type=type,
        resource_version="1",
        data={
            key.replace("_", "."): value.encode() if isinstance(value, str) else value for key, value in data.items()
        },
    )


def cluster(of: Pooler, **changes: Any) -> ClusterFacts:
    """What the cluster contract gives: a CA and the server's certificate."""
    facts: dict[str, Any] = {
        "host": of.target_host,
        "port": of.target_port,
        "name": of.cluster_name,
        "flavour": ClusterFlavour.CONTRACT if of.cluster_name else ClusterFlavour.PLAIN,
    }
    if of.cluster_name:
        facts |= {
            "server_ca": secret(f"{of.cluster_name}-ca", ca_crt="CA CERTIFICATE\n", ca_key="CA KEY\n"),
            "client_ca": secret(f"{of.cluster_name}-ca", ca_crt="CA CERTIFICATE\n", ca_key="CA KEY\n"),
            "server": secret(f"{of.cluster_name}-server", tls_crt="SERVER CERTIFICATE\n", tls_key="SERVER KEY\n"),
        }
    return ClusterFacts(**(facts | changes))


def observed(of: Pooler, **changes: Any) -> Observed:
    return Observed(**({"cluster": cluster(of)} | changes))


def provisioned() -> Provisioned:
    return Provisioned(
        auth_user="cnp_pooler_pgbouncer",
        auth_query="SELECT usename, passwd FROM pgweir.user_search($1)",
        certificate=b"AUTH CERTIFICATE\n",
        key=b"AUTH KEY\n",
    )


def pod(name: str, **changes: Any) -> PodFacts:
    facts: dict[str, Any] = {
        "name": name,
        "ip": "10.0.0.1",
        "uid": f"uid-{name}",
        "ready": True,
        "phase": "Running",
        "terminating": False,
        "restart_digest": "r",
        "created": NOW,
    }
    return PodFacts(**(facts | changes))


def rolled_out(replicas: int) -> DeploymentFacts:
    return DeploymentFacts(
        generation=1,
        observed_generation=1,
        replicas=replicas,
        updated_replicas=replicas,
        ready_replicas=replicas,
        available_replicas=replicas,
    )
