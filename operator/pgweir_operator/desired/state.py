"""The whole desired state of a Pooler in one value. Pure: what was seen goes in, what should be comes out.

Raises PrerequisiteError where something that the spec names is missing; nothing is half-built then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgweir.settings import CATALOGUE_VERSION
from pgweir_operator.api import names
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import Observed, Provisioned
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import digest
from pgweir_operator.desired.bundle import bundle_files, bundle_secret, next_revision, with_revision
from pgweir_operator.desired.child import Manifest
from pgweir_operator.desired.deployment import deployment
from pgweir_operator.desired.headless_service import headless_service
from pgweir_operator.desired.network_policy import API_VERSION as NETWORK_POLICY_API_VERSION
from pgweir_operator.desired.network_policy import network_policy
from pgweir_operator.desired.pod_disruption_budget import pod_disruption_budget
from pgweir_operator.desired.pod_monitor import API_VERSION as POD_MONITOR_API_VERSION
from pgweir_operator.desired.pod_monitor import pod_monitor
from pgweir_operator.desired.service import service
from pgweir_operator.desired.service_account import service_account


@dataclass(frozen=True, slots=True)
class ChildReference:
    """A child by its coordinates: what is pruned when it exists, is ours, and is no longer desired."""

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Desired:
    """`manifests` in the order in which they are applied (the Deployment last)."""

    manifests: tuple[Manifest, ...] = field(repr=False)
    bundle_files: Mapping[str, bytes] = field(repr=False)
    restart_digest: str
    revision: int
    left_out: tuple[str, ...] = ()
    """Settings that the oldest pod does not know."""
    share: int | None = None
    """Server connections that each pod may have, where there is a budget."""
    unwanted: tuple[ChildReference, ...] = ()


def desired_state(
    pooler: Pooler,
    observed: Observed,
    provisioned: Provisioned | None,
    *,
    image: str,
    revision_floor: int = 0,
    operator_namespace: str = "",
    replicas: int | None = None,
    catalogue_version: int = CATALOGUE_VERSION,
) -> Desired:
    """`image` is the default for Poolers that name none; `revision_floor` the highest revision any pod reported;
    `catalogue_version` what the oldest pod knows."""
    _check_prerequisites(pooler, observed)
    rendered = bundle_files(pooler, observed, provisioned, revision=1, catalogue_version=catalogue_version)
    files, settings = rendered.files, rendered.settings
    revision = next_revision(files, observed.bundle, floor=revision_floor)
    files = with_revision(files, revision)
    restart_digest = digest.restart_digest(settings)
    account = service_account(pooler)  # never unwanted later: spec.serviceAccountName cannot be changed
    optional = {
        ChildReference(
            "policy/v1", "PodDisruptionBudget", names.pod_disruption_budget_name(pooler.name)
        ): pod_disruption_budget(pooler),
        ChildReference(POD_MONITOR_API_VERSION, "PodMonitor", names.pod_monitor_name(pooler.name)): pod_monitor(
            pooler, observed
        ),
        ChildReference(
            NETWORK_POLICY_API_VERSION, "NetworkPolicy", names.network_policy_name(pooler.name)
        ): network_policy(pooler, observed, operator_namespace=operator_namespace),
    }
    return Desired(
        manifests=(
            *(manifest for manifest in (account, *optional.values()) if manifest is not None),
            bundle_secret(pooler, files),
            service(pooler),
            headless_service(pooler),
            deployment(pooler, image=image, restart_digest=restart_digest, replicas=replicas),
        ),
        bundle_files=files,
        restart_digest=restart_digest,
        revision=revision,
        left_out=rendered.left_out,
        share=_share(pooler, settings),
        unwanted=tuple(
            reference
            for reference, manifest in optional.items()
            if manifest is None and (reference.kind != "PodMonitor" or observed.pod_monitors_known)
        ),
    )


def _share(pooler: Pooler, settings: Mapping[str, str]) -> int | None:
    """None also where the pods are too old to keep to one: nobody is waited for then."""
    text = settings.get("max_server_connections")
    return int(text) if pooler.spec.connection_budget is not None and text is not None else None


def _check_prerequisites(pooler: Pooler, observed: Observed) -> None:
    if observed.name_taken_by is not None:
        raise PrerequisiteError(
            Reason.NAME_CONFLICT,
            f"The name {pooler.name!r} belongs to {observed.name_taken_by}; a Pooler of that name would take its "
            "Service over. Choose another name.",
        )
    if observed.strangers:
        raise PrerequisiteError(
            Reason.NOT_OWNED,
            f"{', '.join(observed.strangers)} exists and does not belong to this Pooler; delete or rename it, "
            "or choose another name for the Pooler.",
        )
    account = pooler.spec.service_account_name
    if account is not None and not observed.service_account_exists:
        raise PrerequisiteError(
            Reason.MISSING_SERVICE_ACCOUNT,
            f"spec.serviceAccountName names ServiceAccount {account!r}, which does not exist; create it.",
        )
