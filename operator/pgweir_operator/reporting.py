"""Writing down what a pass has found: the part of the status that is new, and an Event where somebody should hear of it.

What the status says is status.py's; this room only carries it to the API server. Called by reconcile.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from pgweir_operator.api import names
from pgweir_operator.api.conditions import Blocker
from pgweir_operator.kube import Kube
from pgweir_operator.kube.events import Events

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]

# The part of the status that a pass leaves alone.
OF_SWITCHOVERS: Final = "switchover"
# Reasons that pass by themselves, and are worth no Event.
_PASSING: Final = frozenset(
    {"PodsNotReady", "RollingOut", "Applying", "NotAsked", "Unknown", "Provisioning", "Manual", "ScaledToZero"}
)


async def write(kube: Kube, events: Events, manifest: Manifest, status: Mapping[str, Any]) -> None:
    """What has changed of the status, and an Event for each condition that somebody waited for, or must do something about."""
    before = manifest.get("status") or {}
    # WHY a merge: the part about switchovers is another writer's, who does not wait for us.
    gone = dict.fromkeys(before.keys() - status.keys() - {OF_SWITCHOVERS})
    part = {key: value for key, value in status.items() if before.get(key) != value} | gone
    if not part:
        return
    metadata = manifest["metadata"]
    await kube.merge_status(names.KIND, metadata["namespace"], metadata["name"], part)
    old = {row["type"]: (row["status"], row["reason"]) for row in before.get("conditions") or ()}
    for row in status["conditions"]:
        if old.get(row["type"]) != (row["status"], row["reason"]) and (kind := _worth_an_event(row)):
            await events.say(manifest, kind, row["reason"], row["message"])
            logger.info("%s/%s: %s=%s %s: %s", metadata["namespace"], metadata["name"], *_told(row))


def blocked(manifest: Manifest, blocker: Blocker, now: datetime) -> dict[str, Any]:
    """The status where nothing could be observed (no Pooler, a pass that stumbled): one condition, the rest as it was."""
    before = manifest.get("status") or {}
    row = {
        "type": "Ready",
        "status": "False",
        "reason": blocker.reason.value,
        "message": blocker.message,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": manifest["metadata"].get("generation") or 0,
    }
    for old in before.get("conditions") or ():
        if old["type"] == "Ready" and old["status"] == "False":
            row["lastTransitionTime"] = old["lastTransitionTime"]
    others = [old for old in before.get("conditions") or () if old["type"] != "Ready"]
    kept = {key: value for key, value in before.items() if key != OF_SWITCHOVERS}
    return {**kept, "phase": "failed", "phaseReason": blocker.message, "conditions": [row, *others]}


def _worth_an_event(row: Mapping[str, Any]) -> Literal["Normal", "Warning"] | None:
    """Normal for what somebody waited for, Warning for what somebody must do; None for what passes."""
    if row["status"] == "True":
        return "Normal" if row["type"] in {"Ready", "Paused", "Integrated"} else None
    if row["status"] != "False" or row["reason"] in _PASSING or row["type"] == "Available":
        return None
    return "Normal" if row["reason"] in {"Pausing", "Resuming"} else "Warning"


def _told(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return row["type"], row["status"], row["reason"], row["message"]
