"""One Pooler at a time where the operator itself is the reason for new pods: a new default image, a new form of the pods.

What a user changes in a spec rolls that Pooler at once. A change that comes with another operator waits for its turn: the
Deployment keeps its pod template (its replicas follow the spec), and the Pooler stays as ready as it is. The turn passes
on when the rollout is done, or when Kubernetes calls it stuck (the Deployment's progressDeadlineSeconds, ten minutes):
its old pods serve on, its status says so, and one Pooler's trouble does not keep the others from what is new. A Pooler
that cannot ask when it is its turn (a missing Secret, an impossible spec) gives it away, and asks again when it can.

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
from pgweir_operator.kube import ApiError
from pgweir_operator.observe import STUCK, Source, is_controlled_by, progress_of

Key = tuple[str, str]
"""Namespace and name of a Pooler."""

# A turn that was given and of which nothing is seen is given to somebody else after this many seconds.
UNUSED_TURN: Final = 30.0

# By `kubectl rollout pause`: it may stay so for days, with pods of both templates.
_PAUSED: Final = "DeploymentPaused"
_AT_REST: Final = frozenset({"NewReplicaSetAvailable", ""})


def is_rolling(deployment: Mapping[str, Any]) -> bool:
    """Pods are being replaced, and nobody has called it hopeless."""
    status = deployment.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(deployment["metadata"].get("generation") or 0):
        return True
    progress = progress_of(deployment)
    if progress in {STUCK, _PAUSED}:
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
        self._told_to_wait: set[Key] = set()
        """In the pass that is under way."""
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
            self._told_to_wait.add(key)
            result[place] = held_back(live, result[place])
            return result, "/".join(before)
        return result, ""

    async def end_of_pass(self, key: Key) -> None:
        """Whatever came of it. Who was not told to wait in it keeps nobody waiting: one that is blocked never asks."""
        if key in self._told_to_wait:
            self._told_to_wait.discard(key)
            return
        if key in (self._holder, self._blocker):
            # What it was to write was refused, or makes no other pods. One that does roll is waited for.
            try:
                live = await self._kube.get("Deployment", key[0], names.deployment_name(key[1]))
            except ApiError:
                return  # Its next pass ends, too.
            if live is not None and is_rolling(live):
                self._waiting.pop(key, None)
                return
        self.give_back(key)

    def give_back(self, key: Key) -> None:
        """This Pooler does not roll (any more), and does not wait to."""
        stood_in_line = key in self._waiting
        self._waiting.pop(key, None)
        had_it = key in (self._holder, self._blocker)
        self._holder = None if self._holder == key else self._holder
        self._blocker = None if self._blocker == key else self._blocker
        is_free = self._holder is None and self._blocker is None
        if self._waiting and (had_it or (stood_in_line and is_free)):
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
                if key != but and is_rolling(deployment) and await self._has_pooler(key, deployment):
                    return key
        return None

    async def _has_pooler(self, key: Key, deployment: Mapping[str, Any]) -> bool:
        """WHY: nobody would say that the rollout of an orphan, or of a stranger with our label, is over."""
        pooler = await self._kube.get(names.KIND, *key)
        return pooler is not None and is_controlled_by(deployment, pooler["metadata"]["uid"])
