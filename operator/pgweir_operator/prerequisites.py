"""What has to be so in the world before a pass writes anything; each is a PrerequisiteError that becomes a condition. Pure.

Called by reconcile.
"""

from __future__ import annotations

from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import Observed
from pgweir_operator.api.pooler import Pooler

_CLUSTER_WITHOUT_CA = frozenset({"disable", "allow", "prefer", "require"})


def refuse_strangers(observed: Observed) -> None:
    """Before the first write: our control Secrets are children too."""
    if observed.strangers:
        raise PrerequisiteError(
            Reason.NOT_OWNED,
            f"{', '.join(observed.strangers)} exists and does not belong to this Pooler; delete or rename it, or choose"
            " another name for the Pooler.",
            retry_after=5.0,
        )


def refuse_missing_cluster(pooler: Pooler, observed: Observed) -> None:
    """WHY: without the cluster's CA the pods would be told to trust any server; they keep what they have instead."""
    cluster = observed.cluster
    if cluster.name is None:
        return
    if not cluster.found:
        raise PrerequisiteError(
            Reason.TARGET_NOT_FOUND,
            f"Service {cluster.host!r} of cluster {cluster.name!r} does not exist in namespace {pooler.namespace!r}.",
            retry_after=5.0,
        )
    mode = pooler.spec.pgbouncer.parameters.get("server_tls_sslmode", "").strip().lower()
    if cluster.server_ca is None and pooler.spec.pgbouncer.server_ca_secret is None and mode not in _CLUSTER_WITHOUT_CA:
        raise PrerequisiteError(
            Reason.MISSING_SECRET,
            f"Secret '{cluster.name}-ca' with the cluster's ca.crt does not exist; create it, name one in"
            " spec.pgbouncer.serverCASecret, or set spec.pgbouncer.parameters.server_tls_sslmode to require or less.",
            retry_after=15.0,
        )
