"""Read the world around one Pooler once, into frozen facts. Decides nothing and changes nothing.

Everything is read at the same time; what does not exist is None, what may not be read is as if it did not exist (the
chart may bind the operator to a few namespaces). Called by reconcile.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pgweir_operator.api import names
from pgweir_operator.api.observed import (
    ClusterFacts,
    ClusterFlavour,
    DeploymentFacts,
    Observed,
    PodFacts,
    SecretFacts,
)
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.kube import ForbiddenError
from pgweir_operator.kube.api import Object

# The endings of a cluster's Services and Secrets.
_CLUSTERS_OWN: Final = ("rw", "ro", "r", "superuser", "app", "ca", "server", "replication")
# Of a rollout that has made no progress for the Deployment's progressDeadlineSeconds.
STUCK: Final = "ProgressDeadlineExceeded"
_POD_MONITOR: Final = ("monitoring.coreos.com/v1", "PodMonitor")


class Source(Protocol):
    """Whatever answers: the API server, what the watches have brought, or a file."""

    async def get(self, kind: str, namespace: str, name: str) -> Object | None: ...

    async def items(self, kind: str, namespace: str, *, labels: str | None = None) -> list[Object]: ...

    async def knows(self, api_version: str, kind: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class World:
    """What was read: the facts that decide, and the objects that acting needs."""

    observed: Observed
    children: Mapping[tuple[str, str], Object] = field(repr=False)
    """Existing objects with a child's name, ours or not, by kind and name."""
    control: SecretFacts | None = None
    control_authority: SecretFacts | None = None

    def is_ours(self, pooler: Pooler, kind: str, name: str) -> bool:
        child = self.children.get((kind, name))
        return child is not None and is_controlled_by(child, pooler.uid)


async def observe(kube: Source, pooler: Pooler) -> World:
    children, secrets, pods, monitors_known, taken_by = await asyncio.gather(
        _children(kube, pooler),
        _named_secrets(kube, pooler),
        kube.items("Pod", pooler.namespace, labels=names.selector_text(pooler.name)),
        kube.knows(*_POD_MONITOR) if pooler.spec.monitoring.enable_pod_monitor else _no(),
        _name_taken_by(kube, pooler),
    )
    cluster = await _cluster(kube, pooler, secrets)
    strangers = tuple(
        f"{kind} {name}"
        for (kind, name), child in sorted(children.items())
        if not is_controlled_by(child, pooler.uid) and not _is_named_account(pooler, kind, name)
    )
    observed = Observed(
        cluster=cluster,
        secrets=secrets,
        pods=pods_of(pods),
        deployment=_deployment(children.get(("Deployment", names.deployment_name(pooler.name)))),
        bundle=secret_facts(children.get(("Secret", names.bundle_secret_name(pooler.name))), pooler.uid),
        # One that is there and no longer asked for must be known to be deleted.
        pod_monitors_known=monitors_known or ("PodMonitor", names.pod_monitor_name(pooler.name)) in children,
        service_account_exists=(
            pooler.spec.service_account_name is None or ("ServiceAccount", pooler.spec.service_account_name) in children
        ),
        name_taken_by=taken_by,
        strangers=strangers,
    )
    return World(
        observed=observed,
        children=children,
        control=secret_facts(children.get(("Secret", names.control_secret_name(pooler.name))), pooler.uid),
        control_authority=secret_facts(children.get(("Secret", names.control_ca_secret_name(pooler.name))), pooler.uid),
    )


def watched(pooler: Pooler, world: World | None = None) -> dict[tuple[str, str], str]:
    """Every object of others whose change concerns this Pooler (the Secrets and the ServiceAccount that it names, its
    cluster's Secrets) by kind and name, and the version in which it was read."""
    secrets = dict.fromkeys(pooler.secret_names, "")
    if pooler.cluster_name is not None:
        secrets |= dict.fromkeys(_secret_names(pooler.cluster_name, None).values(), "")
    if world is not None:
        cluster = world.observed.cluster
        of_cluster = (cluster.superuser, cluster.server_ca, cluster.client_ca, cluster.server, cluster.app)
        for secret in (*of_cluster, *world.observed.secrets.values()):
            secrets |= {secret.name: secret.resource_version} if secret else {}
    found = {("Secret", name): version for name, version in secrets.items()}
    if (account := pooler.spec.service_account_name) is not None:
        there = world.children.get(("ServiceAccount", account)) if world is not None else None
        found["ServiceAccount", account] = there["metadata"]["resourceVersion"] if there is not None else ""
    return found


def is_controlled_by(child: Mapping[str, Any], uid: str) -> bool:
    owners: Sequence[Mapping[str, Any]] = child["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def secret_facts(secret: Object | None, owner_uid: str = "") -> SecretFacts | None:
    if secret is None:
        return None
    return SecretFacts(
        name=secret["metadata"]["name"],
        type=secret.get("type") or "Opaque",
        resource_version=secret["metadata"]["resourceVersion"],
        data={key: _decoded(value) for key, value in (secret.get("data") or {}).items()},
        owned=bool(owner_uid) and is_controlled_by(secret, owner_uid),
    )


def pods_of(found: Sequence[Mapping[str, Any]]) -> tuple[PodFacts, ...]:
    """The fleet, by name, out of all pods with a Pooler's label."""
    return tuple(sorted((pod_facts(pod) for pod in found if _is_of_ours(pod)), key=lambda pod: pod.name))


def pod_facts(pod: Mapping[str, Any]) -> PodFacts:
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {row["type"]: row for row in status.get("conditions") or ()}
    return PodFacts(
        name=metadata["name"],
        ip=status.get("podIP") or "",
        uid=metadata["uid"],
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        phase=status.get("phase") or "Pending",
        terminating=metadata.get("deletionTimestamp") is not None,
        restart_digest=(metadata.get("annotations") or {}).get(names.RESTART_DIGEST_ANNOTATION, ""),
        created=_time(metadata["creationTimestamp"]),
        message=_why_not_ready(status, conditions),
        image=_image(pod),
        crashing=_is_crashing(status),
    )


async def _children(kube: Source, pooler: Pooler) -> dict[tuple[str, str], Object]:
    name = pooler.name
    wanted = [
        ("Deployment", names.deployment_name(name)),
        ("Service", names.service_name(name)),
        ("Service", names.peers_service_name(name)),
        ("Secret", names.bundle_secret_name(name)),
        ("Secret", names.control_secret_name(name)),
        ("Secret", names.control_ca_secret_name(name)),
        ("ServiceAccount", pooler.spec.service_account_name or names.service_account_name(name)),
        ("PodDisruptionBudget", names.pod_disruption_budget_name(name)),
        ("PodMonitor", names.pod_monitor_name(name)),
        ("NetworkPolicy", names.network_policy_name(name)),
    ]
    found = await asyncio.gather(*(_readable(kube, kind, pooler.namespace, name) for kind, name in wanted))
    return {key: child for key, child in zip(wanted, found, strict=True) if child is not None}


async def _named_secrets(kube: Source, pooler: Pooler) -> dict[str, SecretFacts | None]:
    found = await asyncio.gather(*(_secret(kube, pooler.namespace, name) for name in pooler.secret_names))
    return dict(zip(pooler.secret_names, found, strict=True))


async def _cluster(kube: Source, pooler: Pooler, secrets: Mapping[str, SecretFacts | None]) -> ClusterFacts:
    """A plain target has no Secrets but those the spec names; a cluster is found by its contract."""
    if pooler.spec.target is not None:
        admin = pooler.spec.target.admin_secret
        name = pooler.target_host.lower()
        is_bare = "." not in name and names.is_object_name(name)
        service = await kube.get("Service", pooler.namespace, name) if is_bare else None
        return ClusterFacts(
            host=pooler.target_host,
            port=pooler.target_port,
            service_host=f"{name}.{pooler.namespace}.svc" if service is not None else "",
            flavour=ClusterFlavour.PLAIN,
            superuser=secrets.get(admin.name) if admin is not None else None,
        )
    if pooler.cluster_name is None:
        return ClusterFacts(host="", port=0)  # An invalid spec is observed too: its pods go on.
    namespace, cluster = pooler.namespace, pooler.cluster_name
    service, (kind, native) = await asyncio.gather(
        kube.get("Service", namespace, pooler.target_host), _cluster_object(kube, namespace, cluster)
    )
    of = _secret_names(cluster, native)
    roles = ("superuser", "server_ca", "client_ca", "server", "app")
    found = await asyncio.gather(*(_secret(kube, namespace, of[role]) for role in roles))
    return ClusterFacts(
        host=pooler.target_host,
        port=pooler.target_port,
        service_host="",
        name=cluster,
        # EDB's clusters know the auth role by the name of the contract.
        flavour=ClusterFlavour.CLOUDNATIVEPG if kind == "Cluster" else ClusterFlavour.CONTRACT,
        object_kind=kind,
        in_recovery=native is not None and _follows_another(native),
        found=service is not None or native is not None,
        **dict(zip(roles, found, strict=True)),
    )


async def _cluster_object(kube: Source, namespace: str, name: str) -> tuple[str | None, Object | None]:
    """CloudNativePG's or EDB's, where there is one: most API servers know one of the kinds at most."""
    for kind in ("Cluster", "EdbCluster"):
        if (found := await _readable(kube, kind, namespace, name)) is not None:
            return kind, found
    return None, None


def _follows_another(native: Mapping[str, Any]) -> bool:
    """A replica cluster: switched on, or another member of a distributed topology is the primary one."""
    spec = native.get("spec")
    replica = spec.get("replica") if isinstance(spec, Mapping) else None
    if not isinstance(replica, Mapping):
        return False
    if replica.get("enabled") is not None:
        return bool(replica["enabled"])
    own = replica.get("self") or native["metadata"]["name"]
    return bool(replica.get("primary")) and replica["primary"] != own


def _secret_names(cluster: str, native: Mapping[str, Any] | None) -> dict[str, str]:
    """By the contract; a CloudNativePG Cluster object names its own, and wins."""
    status = (native or {}).get("status")
    certificates = status.get("certificates") if isinstance(status, Mapping) else None
    known: Mapping[str, Any] = certificates if isinstance(certificates, Mapping) else {}

    def named(role: str, default: str) -> str:
        name = known.get(role)
        return name if names.is_object_name(name) else default

    return {
        "superuser": f"{cluster}-superuser",
        "server_ca": named("serverCASecret", f"{cluster}-ca"),
        "client_ca": named("clientCASecret", f"{cluster}-ca"),
        "server": named("serverTLSSecret", f"{cluster}-server"),
        "app": f"{cluster}-app",
    }


async def _name_taken_by(kube: Source, pooler: Pooler) -> str | None:
    """A cluster of the Pooler's name, or one whose Service or Secret has it: whoever came first, two cannot share it.

    A cluster is known by its Service `<cluster>-rw`, or as a Cluster object, which is there before its Services are.
    """
    namespace = pooler.namespace
    owners = [pooler.name]
    owners += [stem for ending in _CLUSTERS_OWN if (stem := pooler.name.removesuffix(f"-{ending}")) != pooler.name]
    service, *clusters = await asyncio.gather(
        kube.get("Service", namespace, f"{pooler.name}-rw"),
        *(_readable(kube, "Cluster", namespace, owner) for owner in owners),
    )
    if service is not None:
        return f"a cluster (Service {pooler.name}-rw)"
    return next((f"Cluster {owner}" for owner, found in zip(owners, clusters, strict=True) if found is not None), None)


async def _secret(kube: Source, namespace: str, name: str) -> SecretFacts | None:
    return secret_facts(await _readable(kube, "Secret", namespace, name))


async def _readable(kube: Source, kind: str, namespace: str, name: str) -> Object | None:
    try:
        return await kube.get(kind, namespace, name)
    except ForbiddenError:
        return None


async def _no() -> bool:
    return False


def _is_named_account(pooler: Pooler, kind: str, name: str) -> bool:
    return kind == "ServiceAccount" and name == pooler.spec.service_account_name


def _is_of_ours(pod: Mapping[str, Any]) -> bool:
    """A pod that somebody labelled by hand belongs to no ReplicaSet and is none of the fleet."""
    owners: Sequence[Mapping[str, Any]] = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("kind") == "ReplicaSet" for owner in owners)


def _deployment(child: Object | None) -> DeploymentFacts | None:
    if child is None:
        return None
    status = child.get("status") or {}
    return DeploymentFacts(
        generation=int(child["metadata"].get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        replicas=int(status.get("replicas") or 0),
        updated_replicas=int(status.get("updatedReplicas") or 0),
        ready_replicas=int(status.get("readyReplicas") or 0),
        available_replicas=int(status.get("availableReplicas") or 0),
        wanted_replicas=int((child.get("spec") or {}).get("replicas") or 0),
        stuck=progress_of(child) == STUCK,
        refused=next((row.get("message") or "" for row in _conditions(child) if row["type"] == "ReplicaFailure"), ""),
    )


def progress_of(deployment: Mapping[str, Any]) -> str:
    """What Kubernetes says of its rollout, in its own word."""
    return next((str(row.get("reason") or "") for row in _conditions(deployment) if row["type"] == "Progressing"), "")


def _conditions(deployment: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Those that say something; of a trouble that is over, Kubernetes takes the row away or says False."""
    rows = (deployment.get("status") or {}).get("conditions") or ()
    return [row for row in rows if row["type"] == "Progressing" or row.get("status") == "True"]


def _why_not_ready(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> str:
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state = container.get("state") or {}
        held = state.get("waiting") or state.get("terminated") or {}
        if held.get("reason") and held["reason"] not in {"Completed", "PodInitializing"}:
            return ": ".join(part for part in (held["reason"], held.get("message")) if part)
    for name in ("PodScheduled", "Ready"):
        row = conditions.get(name) or {}
        if row.get("status") == "False" and (row.get("message") or row.get("reason")):
            return str(row.get("message") or row.get("reason"))
    return ""


def _image(pod: Mapping[str, Any]) -> str:
    containers: Sequence[Mapping[str, Any]] = (pod.get("spec") or {}).get("containers") or ()
    return next((str(one.get("image") or "") for one in containers if one.get("name") == names.CONTAINER), "")


def _is_crashing(status: Mapping[str, Any]) -> bool:
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        ended = state.get("terminated") or {}
        if container.get("name") == names.CONTAINER:
            return (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff" or bool(ended.get("exitCode"))
    return False


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except binascii.Error:
        return b""


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
