"""Which pod runs a cluster's primary, and starting psql in it: administrative access without a superuser's Secret.

Only where the installation allows it (`provisioning.exec` of the chart), and only for a cluster, never for a plain
target. The container is named `postgres`, as CloudNativePG's and EDB's is. Called by reconcile and farewell.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from pgweir_operator.api import names
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.integration.psql import Shell
from pgweir_operator.kube import ApiError, ForbiddenError, Kube
from pgweir_operator.kube.exec import PodProcess, process

CONTAINER: Final = "postgres"


async def shell(kube: Kube, pooler: Pooler) -> Shell:
    """Raises where there is no pod to go into, or none that could answer now."""
    assert pooler.cluster_name is not None, "a plain target has no pods that we know of"
    namespace, cluster = pooler.namespace, pooler.cluster_name
    try:
        pod = await _named_by_cluster(kube, namespace, cluster) or await _behind_service(kube, namespace, cluster)
    except ForbiddenError as error:
        raise _no_access(f"The operator may not look for the primary's pod: {error.message}.") from None
    if pod is None:
        raise _no_access(f"No pod stands behind Service '{cluster}-rw', so psql cannot be run in one.")
    name = pod["metadata"]["name"]
    if CONTAINER not in {row["name"] for row in pod["spec"]["containers"]}:
        raise _no_access(f"The primary's pod {name} has no container '{CONTAINER}', in which psql would be run.")
    if not _runs(pod):
        raise PrerequisiteError(
            Reason.TARGET_UNAVAILABLE,
            f"The primary's pod {name} is not running its container '{CONTAINER}', in which psql would be run.",
            retry_after=5.0,
        )
    return Shell(name, lambda command: _started(kube, namespace, name, command))


@contextlib.asynccontextmanager
async def _started(kube: Kube, namespace: str, pod: str, command: Sequence[str]) -> AsyncIterator[PodProcess]:
    try:
        async with process(kube, namespace, pod, CONTAINER, command) as made:
            yield made
    except ForbiddenError as error:
        raise _no_access(f"The operator may not exec in pod {pod}: {error.message}.") from None
    except ApiError as error:
        if error.status in {400, 404}:
            raise _no_access(f"psql cannot be run in container '{CONTAINER}' of pod {pod}: {error.message}.") from None
        raise PrerequisiteError(
            Reason.TARGET_UNAVAILABLE, f"psql cannot be run in pod {pod}: {error.message}.", retry_after=10.0
        ) from None


async def _named_by_cluster(kube: Kube, namespace: str, cluster: str) -> Mapping[str, Any] | None:
    """A Cluster object knows its primary sooner than the Service does."""
    try:
        native = await kube.get("Cluster", namespace, cluster)
    except ForbiddenError:
        return None
    status = (native or {}).get("status")
    name = status.get("currentPrimary") if isinstance(status, Mapping) else None
    return await kube.get("Pod", namespace, name) if names.is_object_name(name) else None


async def _behind_service(kube: Kube, namespace: str, cluster: str) -> Mapping[str, Any] | None:
    service = await kube.get("Service", namespace, f"{cluster}-rw")
    selector = ((service or {}).get("spec") or {}).get("selector") or {}
    if not selector:
        return None
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    pods = await kube.items("Pod", namespace, labels=labels)
    return next((pod for pod in pods if _runs(pod)), pods[0] if pods else None)


def _runs(pod: Mapping[str, Any]) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(row.get("name") == CONTAINER and "running" in (row.get("state") or {}) for row in containers)


def _no_access(message: str) -> PrerequisiteError:
    return PrerequisiteError(Reason.NO_ADMIN_ACCESS, message, retry_after=30.0)
