"""One Pooler at a time where the operator itself is the reason for new pods: a new default image, a new form of the pods.

What a user changes in a spec rolls that Pooler at once. A change that comes with another operator waits for its turn: the
Deployment keeps its pod template (its replicas follow the spec), and the Pooler stays as ready as it is. The turn passes
on when the rollout is done, or when Kubernetes calls it stuck (the Deployment's progressDeadlineSeconds, ten minutes):
its old pods serve on, its status says so, and one Pooler's trouble does not keep the others from what is new.

Who rolls is read from the Deployments, so that an operator that starts anew sees what the last one has begun; what is
remembered here only keeps two workers from taking the same free turn. Called by reconcile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired.child import Manifest
from pgweir_operator.observe import STUCK, Source, progress_of

Key = tuple[str, str]
"""Namespace and name of a Pooler."""

# A turn that was given and of which nothing is seen is given to somebody else after this many seconds.
UNUSED_TURN: Final = 30.0

_AT_REST: Final = frozenset({"NewReplicaSetAvailable", "DeploymentPaused", ""})


def is_rolling(deployment: Mapping[str, Any]) -> bool:
    """Pods are being replaced, and nobody has called it hopeless."""
    status = deployment.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(deployment["metadata"].get("generation") or 0):
        return True
    progress = progress_of(deployment)
    if progress == STUCK:
        return False
    older = int(status.get("replicas") or 0) > int(status.get("updatedReplicas") or 0)
    return older or progress not in _AT_REST


def is_ours_to_delay(live: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """The template changes, and nothing that the user says about it has: it is this operator that wants other pods."""
    if live is None:
        return False
    before, after = live["metadata"].get("annotations") or {}, wanted["metadata"]["annotations"]
    if before.get(names.TEMPLATE_ANNOTATION) == after[names.TEMPLATE_ANNOTATION]:
        return False
    # A Deployment without the annotation is one of an operator that did not write it: its user has changed nothing either.
    asked = after[names.ASKED_ANNOTATION]
    return bool(before.get(names.ASKED_ANNOTATION, asked) == asked)


def held_back(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> Manifest:
    """The Deployment as wanted, with the pods that it has."""
    before = live["metadata"].get("annotations") or {}
    ours = (names.TEMPLATE_ANNOTATION, names.ASKED_ANNOTATION)
    annotations = {**wanted["metadata"]["annotations"], **{key: before.get(key) for key in ours}}
    kept = {key: value for key, value in annotations.items() if value is not None}
    return {
        **wanted,
        "metadata": {**wanted["metadata"], "annotations": kept},
        "spec": {**wanted["spec"], "template": live["spec"]["template"]},
    }


class Rollouts:
    """The turn, and who waits for it."""

    def __init__(self, kube: Source, namespaces: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._namespaces = namespaces or ("",)
        self._clock = clock
        self._lock = asyncio.Lock()
        self._holder: Key | None = None
        self._blocker: Key | None = None
        """Who was seen to roll without a turn, for a reason of its own."""
        self._since = 0.0
        self._waiting: dict[Key, None] = {}
        self.on_free: Callable[[Key], None] = lambda key: None
        """Told who may ask again now."""

    async def in_turn(
        self, pooler: Pooler, live: Mapping[str, Any] | None, manifests: Sequence[Manifest]
    ) -> tuple[list[Manifest], str]:
        """The manifests that may be applied now, and the Pooler that is waited for (or nothing)."""
        key = (pooler.namespace, pooler.name)
        result = list(manifests)
        (place,) = (index for index, manifest in enumerate(result) if manifest["kind"] == "Deployment")
        if live is None or not is_ours_to_delay(live, result[place]):
            if live is None or not is_rolling(live):
                self.give_back(key)
            return result, ""
        before = await self._ask(key)
        if before is not None:
            result[place] = held_back(live, result[place])
            return result, "/".join(before)
        return result, ""

    def give_back(self, key: Key) -> None:
        """This Pooler does not roll (any more)."""
        self._waiting.pop(key, None)
        if key not in (self._holder, self._blocker):
            return
        self._holder = None if self._holder == key else self._holder
        self._blocker = None if self._blocker == key else self._blocker
        if self._waiting:
            self.on_free(next(iter(self._waiting)))

    async def _ask(self, key: Key) -> Key | None:
        """None: the turn is ours. Else whose it is."""
        async with self._lock:
            if self._holder == key:
                return None
            if self._holder is not None and self._clock() - self._since < UNUSED_TURN:
                self._waiting.setdefault(key)
                return self._holder
            rolling = self._blocker = await self._rolling(key)
            if rolling is not None:
                self._waiting.setdefault(key)
                return rolling
            self._holder, self._since = key, self._clock()
            self._waiting.pop(key, None)
            return None

    async def _rolling(self, but: Key) -> Key | None:
        """Another Pooler whose pods are being replaced, for whatever reason."""
        for namespace in self._namespaces:
            for deployment in await self._kube.items("Deployment", namespace, labels=names.POOLER_LABEL):
                metadata = deployment["metadata"]
                key = metadata["namespace"], metadata["labels"][names.POOLER_LABEL]
                if key != but and is_rolling(deployment):
                    return key
        return None
