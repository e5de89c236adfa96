"""Events on an object: what a person sees in `kubectl describe`. Said once, not on every look.

An Event that cannot be written is logged and forgotten: it never stops what it speaks of.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pgweir_operator.kube.api import Kube
from pgweir_operator.kube.errors import ApiError

logger = logging.getLogger(__name__)

REPEAT_AFTER = 600.0
_MAX_NOTE = 1024


class Events:
    """Writes Events; the same one about the same object not again for ten minutes."""

    def __init__(self, kube: Kube, *, instance: str) -> None:
        self._kube = kube
        self._instance = instance
        self._said: dict[tuple[str, str, str], float] = {}

    async def say(self, about: Mapping[str, Any], kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        metadata = about["metadata"]
        now = time.monotonic()
        self._said = {key: when for key, when in self._said.items() if now - when < REPEAT_AFTER}
        key = (metadata["uid"], reason, note)
        if key in self._said:
            return
        self._said[key] = now
        manifest = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": metadata["namespace"], "generateName": f"{metadata['name']}-"},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "pgweir.io/operator",
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "type": kind,
            "reason": reason,
            "note": note if len(note) <= _MAX_NOTE else note[: _MAX_NOTE - 1] + "…",
            "regarding": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        }
        try:
            await self._kube.create(manifest)
        except ApiError as error:
            logger.warning("an Event about %s could not be written: %s", metadata["name"], error.message)
