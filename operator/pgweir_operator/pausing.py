"""The deadline of a pause: whether it has passed, what is rendered then, and who is closed.

The pause itself is part of the configuration; reconcile pushes it and calls here. A deadline outlives the operator: the
status has the time at which the pause began, and remembers that one was given up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pgweir.bundle import MANIFEST, bundle_manifest
from pgweir_operator.api.conditions import Reason
from pgweir_operator.api.observed import PodAnswer, PodReport, WantedConfiguration
from pgweir_operator.api.pooler import OnPauseTimeout, Pooler, PoolerSpec
from pgweir_operator.fleet import Answers, Fleet, Member, Push
from pgweir_operator.status import pausing_since


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a pass handed to the pods at its end, and for which spec."""

    spec: PoolerSpec
    files: Mapping[str, bytes] = field(repr=False)
    members: Sequence[Member]


def turned(pushed: Pushed, spec: PoolerSpec) -> Push | None:
    """What the pods can be told at once where nothing of the spec has changed but its pause; else None.

    WHY: a pass looks at the whole world first, and clients who wait for a resume would wait for that, too. The pass that
    follows proves it and writes it down; what it pushes then has the same content under a later revision.
    """
    if spec.wants_pause == pushed.spec.wants_pause or but_for_pause(spec) != but_for_pause(pushed.spec):
        return None
    before = json.loads(pushed.files[MANIFEST])
    manifest = bundle_manifest(
        revision=before["revision"] + 1, paused=spec.wants_pause, catalogue_version=before["catalogueVersion"]
    )
    return Push({**pushed.files, MANIFEST: manifest})


def but_for_pause(spec: PoolerSpec) -> PoolerSpec:
    """All that is asked for, as it is when nobody pauses."""
    return spec.model_copy(update={"paused": False, "pgbouncer": spec.pgbouncer.model_copy(update={"paused": False})})


@dataclass(frozen=True, slots=True)
class Deadline:
    """`pooler`: as it is to be rendered. `since`: when the pause began, as far as that is known."""

    pooler: Pooler
    since: float | None = None
    has_passed: bool = False


def deadline(pooler: Pooler, since: float | None, now: float) -> Deadline:
    """Past it: as it is, or resumed, as the spec says."""
    if not pooler.wants_pause:
        return Deadline(pooler)
    if since is None:
        since = pausing_since(pooler)  # The operator is new; the pause is not.
    passed = since is not None and now - since > pooler.spec.pause.timeout_seconds
    resumes = pooler.spec.pause.on_timeout is OnPauseTimeout.RESUME
    if resumes and (passed or _was_given_up(pooler)):
        pooler = pooler.model_copy(update={"spec": but_for_pause(pooler.spec)})
    return Deadline(pooler, since, passed)


async def terminate_holders(
    fleet: Fleet, members: Sequence[Member], wanted: WantedConfiguration, answers: Mapping[str, PodAnswer]
) -> Answers:
    """Past the deadline: each pod that runs this pause and still holds a server closes the clients there.

    WHY nobody remembers which pods were told: one that was holds nothing any more, and none assigns while it pauses.
    """
    overdue = [
        member
        for member in members
        if isinstance(answer := answers.get(member.name), PodReport)
        and (answer.revision, answer.digest) == (wanted.revision, wanted.digest)
        and answer.held_servers
    ]
    return await fleet.terminate_holders(overdue, wanted.revision)


def _was_given_up(pooler: Pooler) -> bool:
    """The status remembers across restarts that a pause was given up, until the spec changes."""
    return any(
        row.get("type") == "Paused"
        and row.get("reason") == Reason.PAUSE_TIMED_OUT.value
        and row.get("observedGeneration") == pooler.generation
        for row in pooler.status.get("conditions") or ()
    )
