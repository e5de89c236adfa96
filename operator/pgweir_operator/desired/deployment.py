"""The Deployment of a Pooler: one container that passes Pod Security `restricted` under any user id.

Pure. The user's template is merged over the pod built here; only what makes the pods findable and what makes them
roll is never the template's to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Drain, Pooler
from pgweir_operator.desired import digest
from pgweir_operator.desired.child import Manifest, labels, metadata
from pgweir_operator.desired.merge import merged

IMAGE_VARIABLE: Final = "PGWEIR_POOLER_IMAGE"

CONFIG_DIR: Final = "/etc/pgweir/config"
CONTROL_DIR: Final = "/etc/pgweir/control"
STATE_DIR: Final = "/var/lib/pgweir"
RUN_DIR: Final = "/run/pgweir"

# Time for the kubelet's own steps and the process's exit, on top of what the drain may take.
_GRACE_MARGIN_SECONDS: Final = 15


def default_image(environment: Mapping[str, str], version: str) -> str:
    """The image of Poolers that name none: what the installation says, else the one of the operator's own version."""
    return environment.get(IMAGE_VARIABLE) or f"pgweir-pooler:{version}"


def deployment(pooler: Pooler, *, image: str, restart_digest: str, replicas: int | None = None) -> Manifest:
    """`replicas`: fewer than the spec says, while pods make room for more."""
    template = _pod_template(pooler, image, restart_digest)
    made_from = {
        names.TEMPLATE_ANNOTATION: digest.of(template),
        names.ASKED_ANNOTATION: digest.asked(pooler, restart_digest),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(pooler, names.deployment_name(pooler.name), annotations=made_from),
        "spec": {
            "replicas": pooler.spec.instances if replicas is None else replicas,
            "selector": {"matchLabels": names.selector(pooler.name)},
            "strategy": _strategy(pooler.spec.deployment_strategy),
            "template": template,
        },
    }


def termination_grace_period(drain: Drain) -> int:
    """Seconds that the kubelet must leave a pod: to go on accepting, to let clients go, and a margin."""
    return drain.accept_seconds + drain.timeout_seconds + _GRACE_MARGIN_SECONDS


def _strategy(given: Mapping[str, Any]) -> dict[str, Any]:
    """WHY not Kubernetes' own 25%: of three pods it would take one away before another has come."""
    if given:
        return dict(given)
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _pod_template(pooler: Pooler, image: str, restart_digest: str) -> Manifest:
    template = pooler.spec.template
    return {
        "metadata": {
            "labels": {**template.metadata.labels, **labels(pooler)},
            "annotations": {**template.metadata.annotations, names.RESTART_DIGEST_ANNOTATION: restart_digest},
        },
        "spec": merged(_pod_spec(pooler, image), template.spec),
    }


def _pod_spec(pooler: Pooler, image: str) -> Manifest:
    account = pooler.spec.service_account_name or names.service_account_name(pooler.name)
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": termination_grace_period(pooler.spec.drain),
        # WHY no runAsUser: OpenShift gives every namespace its own range; the image's user is numeric and not root.
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [
            _spread(pooler, "kubernetes.io/hostname"),
            _spread(pooler, "topology.kubernetes.io/zone"),
        ],
        "containers": [_container(pooler, image)],
        "volumes": [
            # WHY world-readable: the user id is not known here, and the pod has one container that needs them.
            {"name": "config", "secret": {"secretName": names.bundle_secret_name(pooler.name), "defaultMode": 0o444}},
            {"name": "control", "secret": {"secretName": names.control_secret_name(pooler.name), "defaultMode": 0o444}},
            {"name": "state", "emptyDir": {}},
            {"name": "run", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(pooler: Pooler, image: str) -> Manifest:
    drain = pooler.spec.drain
    return {
        "name": names.CONTAINER,
        "image": pooler.spec.pgbouncer.image or image,
        "args": [
            "--json-log",
            *("--state-dir", STATE_DIR),
            *("--control-listen", f"*:{names.PORT_CONTROL}"),
            *("--control-dir", CONTROL_DIR),
            *("--http-listen", f"*:{names.PORT_HTTP}"),
            *("--metrics-listen", f"*:{names.PORT_METRICS}"),
            *("--drain-accept-seconds", str(drain.accept_seconds)),
            *("--drain-seconds", str(drain.timeout_seconds)),
            # WHY no flag may be added: `pgbouncer.image` may name an older image, and a flag that it does not know would
            # keep it from starting. What came later is a variable (`_options`), which an older one ignores.
            f"{CONFIG_DIR}/pgbouncer.ini",
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *({"name": name, "value": value} for name, value in _options(pooler).items()),
        ],
        "ports": [
            {"name": "pgbouncer", "containerPort": names.PORT_POOLER, "protocol": "TCP"},
            {"name": "metrics", "containerPort": names.PORT_METRICS, "protocol": "TCP"},
            {"name": "http", "containerPort": names.PORT_HTTP, "protocol": "TCP"},
            {"name": "control", "containerPort": names.PORT_CONTROL, "protocol": "TCP"},
        ],
        # WHY so patient: a killed pod cuts every client, so only a process that is stuck for good may be killed.
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "control", "mountPath": CONTROL_DIR, "readOnly": True},
            {"name": "state", "mountPath": STATE_DIR},
            {"name": "run", "mountPath": RUN_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
    }


def _options(pooler: Pooler) -> dict[str, str]:
    """The options of `pgweir-pooler` that its first version did not have, as the variables that stand for them."""
    monitoring = pooler.spec.monitoring
    options = {
        # A cancel request arrives at any of the pods; this is how it finds the one that it is for.
        "PGWEIR_PEERS_HOST": names.peers_service_name(pooler.name),
        "PGWEIR_PEERS_ADDRESS": "$(POD_IP)",
    }
    if monitoring.metrics_prefix != names.METRICS_PREFIX:
        options["PGWEIR_METRICS_PREFIX"] = monitoring.metrics_prefix
    if monitoring.tls.enabled:
        options["PGWEIR_METRICS_TLS"] = "1"
    return options


def _spread(pooler: Pooler, topology_key: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": topology_key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": names.selector(pooler.name)},
    }
