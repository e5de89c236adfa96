"""Names, labels and annotation keys of everything that belongs to a Pooler.

Decides only how things are called. Called by the builders (desired/), by observe and fleet, and by the CRD generator.
"""

from __future__ import annotations

import re
from typing import Final, TypeGuard

GROUP: Final = "pgweir.io"
VERSION: Final = "v1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "Pooler"
PLURAL: Final = "poolers"

FINALIZER: Final = f"{GROUP}/provisioned"
FIELD_MANAGER: Final = "pgweir"

POOLER_LABEL: Final = f"{GROUP}/poolerName"
CLUSTER_LABEL: Final = f"{GROUP}/cluster"
RESTART_DIGEST_ANNOTATION: Final = f"{GROUP}/restart-digest"
TEMPLATE_ANNOTATION: Final = f"{GROUP}/template-digest"
ASKED_ANNOTATION: Final = f"{GROUP}/asked-digest"
"""On the Deployment itself: of the pod template, and of what of the spec it was made from."""
SWITCHOVER_ANNOTATION: Final = f"{GROUP}/switchover"
"""On a Pooler: `<id> <deadline>` asks for clients to be held before a switchover is begun."""

CONTAINER: Final = "pgbouncer"
"""The templates people bring from CloudNativePG override the container by this name."""

PORT_POOLER: Final = 5432
PORT_HTTP: Final = 8080
PORT_CONTROL: Final = 8443
PORT_METRICS: Final = 9127

METRICS_PREFIX: Final = "cnp_pgbouncer"

OPERATOR_LABELS: Final = {"app.kubernetes.io/name": "pgweir-operator"}
"""What the chart and manifests/install.yaml put on the operator's pods."""

CONTROL_DNS_NAME: Final = "control.pgweir.internal"
CONTROL_CLIENT_NAME: Final = "pgweir-operator"

AUTH_ROLE: Final = "cnp_pooler_pgbouncer"
AUTH_ROLE_CLOUDNATIVEPG: Final = "cnpg_pooler_pgbouncer"
"""The HBA of a CloudNativePG Cluster object knows this name, and no other."""
AUTH_QUERY: Final = "SELECT usename, passwd FROM pgweir.user_search($1)"
AUTH_DATABASE: Final = "postgres"

# WHY 50: the longest child name is `<pooler>-control-ca`, and a Deployment's pods append `-<hash>-<suffix>` (17 more)
# to a name that must stay a DNS label of 63.
MAX_NAME_LENGTH: Final = 50
DNS_LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

_MAX_OBJECT_NAME: Final = 253

_dns_label = re.compile(DNS_LABEL_PATTERN)
_dns_subdomain = re.compile(DNS_SUBDOMAIN_PATTERN)
_label_value = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")


def is_pooler_name(name: str) -> bool:
    """A Pooler's name is a DNS label of at most 50 characters."""
    return len(name) <= MAX_NAME_LENGTH and _dns_label.fullmatch(name) is not None


def is_object_name(value: object) -> TypeGuard[str]:
    """Asked of every name that somebody else wrote into a status: it becomes a path of the API server."""
    return isinstance(value, str) and len(value) <= _MAX_OBJECT_NAME and _dns_subdomain.fullmatch(value) is not None


def deployment_name(pooler: str) -> str:
    return pooler


def service_name(pooler: str) -> str:
    return pooler


def peers_service_name(pooler: str) -> str:
    """The headless Service by which the pods of one Pooler find each other."""
    return f"{pooler}-peers"


def bundle_secret_name(pooler: str) -> str:
    """The Secret with the configuration files."""
    return pooler


def control_secret_name(pooler: str) -> str:
    """The Secret with the pods' side of the control endpoint's mutual TLS."""
    return f"{pooler}-control"


def control_ca_secret_name(pooler: str) -> str:
    """The operator's own side: never mounted into a pod."""
    return f"{pooler}-control-ca"


def service_account_name(pooler: str) -> str:
    return pooler


def pod_disruption_budget_name(pooler: str) -> str:
    return pooler


def pod_monitor_name(pooler: str) -> str:
    return pooler


def network_policy_name(pooler: str) -> str:
    return pooler


def selector(pooler: str) -> dict[str, str]:
    """What finds the pods of a Pooler; nothing that could ever change is in it."""
    return {POOLER_LABEL: pooler}


def selector_text(pooler: str) -> str:
    """The selector as the scale subresource wants it."""
    return ",".join(f"{key}={value}" for key, value in selector(pooler).items())


def labels(pooler: str, cluster: str | None) -> dict[str, str]:
    """The labels of every child. `cluster` is None for a Pooler with a plain target."""
    result = {
        "app.kubernetes.io/name": "pgweir-pooler",
        "app.kubernetes.io/instance": pooler,
        "app.kubernetes.io/component": "pooler",
        "app.kubernetes.io/managed-by": "pgweir",
        POOLER_LABEL: pooler,
    }
    # WHY the check: a cluster's name may be a DNS name of 253 characters, a label's value may not.
    if cluster is not None and _label_value.fullmatch(cluster):
        result[CLUSTER_LABEL] = cluster
    return result
