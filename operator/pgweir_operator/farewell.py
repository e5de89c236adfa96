"""A Pooler goes: what was provisioned for it is taken back, unless another Pooler needs it, and its finalizer falls.

Children are the garbage collector's business. The finalizer never holds a Pooler for long: it gives up, with an Event
that says what stays behind, when the target, its superuser's Secret or the namespace is gone or going, or after ten
minutes. Called by reconcile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pgweir_operator.api import names
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import Observed
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.integration import automatic, provisioning
from pgweir_operator.integration.provisioning import FindHolders, InUseError, ProvisionSpec
from pgweir_operator.kube import ConflictError, Kube, NotFoundError
from pgweir_operator.kube.events import Events
from pgweir_operator.siblings import automatic_siblings
from pgweir_operator.siblings import holders as other_holders

logger = logging.getLogger(__name__)

GIVE_UP_AFTER = 600.0
RETRY = 10.0


def has_finalizer(manifest: Mapping[str, Any]) -> bool:
    """Something was provisioned for it."""
    return names.FINALIZER in (manifest["metadata"].get("finalizers") or ())


async def hold(kube: Kube, manifest: dict[str, Any]) -> None:
    """From now on there is something to take back. Raises where nothing is to be made any more: the Pooler is going."""

    def held(current: Mapping[str, Any], finalizers: list[str]) -> list[str]:
        if names.FINALIZER in finalizers:
            return finalizers
        if current["metadata"].get("deletionTimestamp"):
            raise PrerequisiteError(Reason.PROVISIONING, "The Pooler is being deleted.")
        return [*finalizers, names.FINALIZER]

    if not await _set_finalizers(kube, manifest, held):
        raise PrerequisiteError(Reason.PROVISIONING, "The Pooler is gone.")


async def abandon(kube: Kube, events: Events, manifest: dict[str, Any]) -> None:
    """One that is going and whose spec says nothing that can be understood (any more): nobody knows where to take it back."""
    if not has_finalizer(manifest):
        return
    note = "The look-up role and schema pgweir may stay behind in the target, since the spec cannot be read."
    await events.say(manifest, "Warning", "WithdrawalAbandoned", note)
    await _release(kube, manifest)


async def take_back(
    kube: Kube,
    events: Events,
    manifest: dict[str, Any],
    pooler: Pooler,
    observed: Observed,
    *,
    namespaces: Sequence[str],
    dial: tuple[str, int] | None,
    now: float,
    find_shell: automatic.FindShell | None = None,
) -> float | None:
    """Withdraw and let go. None when done; else the seconds after which to try again."""
    if not has_finalizer(manifest):
        return None
    uid = manifest["metadata"]["uid"]
    others = [
        other["metadata"]["name"]
        for other in await automatic_siblings(kube, pooler, namespaces)
        if other["metadata"]["uid"] != uid
        # WHY: one that nothing was made for has nothing to take back, and would leave it there for ever; and everybody may
        # write down this target's host.
        and has_finalizer(other)
    ]
    if others:
        logger.info("%s: the role and its lookup stay for %s", pooler.name, ", ".join(others))
        await _release(kube, manifest)
        return None
    try:
        holders = partial(other_holders, kube, pooler, namespaces, dial=dial)
        remains = await _withdraw(pooler, observed, holders, dial=dial, find_shell=find_shell)
    except InUseError as error:
        logger.info("%s: the role and its lookup stay for %s", pooler.name, error)
        await _release(kube, manifest)
        return None
    except PrerequisiteError as error:
        reason = await _hopeless(kube, manifest, error, now=now)
        if reason is None:
            note = f"What was provisioned cannot be taken back yet: {error.message}"
            await events.say(manifest, "Warning", "WithdrawalDelayed", note)
            return min(error.retry_after, RETRY)
        note = f"Role {automatic.role_of(observed)} and schema pgweir may stay behind in the target, since {reason}: "
        await events.say(manifest, "Warning", "WithdrawalAbandoned", note + error.message)
    else:
        if remains:
            note = f"What others built on it stays in the target: {'; '.join(remains)}"
            await events.say(manifest, "Warning", "WithdrawalIncomplete", note)
        else:
            note = f"Role {automatic.role_of(observed)} and its lookup were removed from the target."
            await events.say(manifest, "Normal", "Withdrawn", note)
    await _release(kube, manifest)
    return None


async def _withdraw(
    pooler: Pooler,
    observed: Observed,
    holders: FindHolders,
    *,
    dial: tuple[str, int] | None,
    find_shell: automatic.FindShell | None,
) -> tuple[str, ...]:
    if not observed.cluster.found:
        raise PrerequisiteError(Reason.TARGET_NOT_FOUND, f"Service {observed.cluster.host!r} does not exist.")
    where = automatic.endpoint(pooler, observed, dial=dial)
    admin = await automatic.administrator(pooler, observed, find_shell)
    return await provisioning.withdraw(where, admin, ProvisionSpec(automatic.role_of(observed), holders=holders))


async def _hopeless(kube: Kube, manifest: dict[str, Any], error: PrerequisiteError, *, now: float) -> str | None:
    """Why waiting would help nobody, or None."""
    if error.reason is Reason.TARGET_NOT_FOUND:
        return "the cluster is gone"
    if error.reason is Reason.NO_ADMIN_ACCESS:
        return "there is no administrative access any more"
    namespace = await kube.get("Namespace", "", manifest["metadata"]["namespace"])
    if namespace is None or namespace["metadata"].get("deletionTimestamp"):
        return "the namespace is going"
    asked = manifest["metadata"].get("deletionTimestamp")
    if asked and now - datetime.strptime(asked, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() > GIVE_UP_AFTER:
        return f"it did not succeed within {GIVE_UP_AFTER / 60:.0f} minutes"
    return None


async def _release(kube: Kube, manifest: dict[str, Any]) -> None:
    await _set_finalizers(kube, manifest, lambda _, finalizers: [one for one in finalizers if one != names.FINALIZER])


async def _set_finalizers(
    kube: Kube, manifest: dict[str, Any], change: Callable[[Mapping[str, Any], list[str]], list[str]]
) -> bool:
    """Write what `change` makes of the Pooler's finalizers, whoever else changes it meanwhile. False: it is gone."""
    metadata = manifest["metadata"]
    current: Mapping[str, Any] | None = manifest
    while current is not None and current["metadata"]["uid"] == metadata["uid"]:
        finalizers = list(current["metadata"].get("finalizers") or ())
        changed = change(current, finalizers)
        try:
            if changed != finalizers:
                current = await kube.set_finalizers({**current, "kind": names.KIND}, changed)
        except (ConflictError, NotFoundError):
            # Somebody has changed it since it was read, a status of our own perhaps, and nothing of that is ours to judge.
            current = await kube.get(names.KIND, metadata["namespace"], metadata["name"])
            continue
        version = current["metadata"]["resourceVersion"]
        manifest["metadata"] |= {"finalizers": changed, "resourceVersion": version}
        return True
    return False
