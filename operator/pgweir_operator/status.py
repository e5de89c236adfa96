"""What a Pooler's status says: the truth about its pods, not the wish of its spec.

Pure: (Pooler, what was observed, what the pods answered) to the status as the API server stores it. A condition is True
only when every pod that counts has proved it; silence proves nothing. Called by reconcile.py, which writes the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pgweir_operator.api import budget, names
from pgweir_operator.api.budget import TargetCapacity
from pgweir_operator.api.conditions import Blocker, Condition, ConditionStatus, ConditionType, Phase, Reason
from pgweir_operator.api.observed import (
    Holder,
    IntegrationResult,
    Observed,
    PodAnswer,
    PodFacts,
    PodReport,
    PodSilence,
    WantedConfiguration,
)
from pgweir_operator.api.pooler import OnPauseTimeout, Pooler

# Blockers that wait for something to appear; every other one waits for a person to change something.
_WAITING: Final = frozenset(
    {Reason.MISSING_SECRET, Reason.MISSING_SERVICE_ACCOUNT, Reason.TARGET_NOT_FOUND, Reason.UNREACHABLE}
)
_MAX_NAMED: Final = 5
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class _View:
    """Everything the conditions are decided from."""

    pooler: Pooler
    observed: Observed
    answers: Mapping[str, PodAnswer]
    wanted: WantedConfiguration | None
    blocker: Blocker | None
    integration: IntegrationResult | None
    pause_timed_out: bool
    capacity: TargetCapacity | None
    making_room: Sequence[str]
    waits_for: str
    switchover: str
    expiring: Sequence[str]

    @property
    def serving(self) -> tuple[PodFacts, ...]:
        return tuple(pod for pod in self.observed.pods if pod.expected_to_serve)

    def answer(self, pod: PodFacts) -> PodAnswer:
        return self.answers.get(pod.name) or PodSilence(pod.name, "it was not asked yet")

    def reports(self) -> list[PodReport]:
        found = (self.answer(pod) for pod in self.serving)
        return [answer for answer in found if isinstance(answer, PodReport)]


def status(
    pooler: Pooler,
    observed: Observed,
    answers: Mapping[str, PodAnswer],
    *,
    wanted: WantedConfiguration | None,
    integration: IntegrationResult | None,
    blocker: Blocker | None,
    now: datetime,
    pause_timed_out: bool = False,
    pausing_since: float | None = None,
    capacity: TargetCapacity | None = None,
    making_room: Sequence[str] = (),
    waits_for: str = "",
    expiring: Sequence[str] = (),
    switchover: str = "",
) -> dict[str, Any]:
    """The whole status. `wanted` is None where no configuration could be rendered (`blocker` says why).

    `making_room`: the pods that have to close servers before more pods start. `waits_for`: the Pooler that rolls while
    this one waits for its turn. `expiring`: sentences about certificates. `switchover`: the sentence about one that is
    under way; who writes status.switchover is the package of that name.
    """
    view = _View(
        pooler,
        observed,
        answers,
        wanted,
        blocker,
        integration,
        pause_timed_out,
        capacity,
        making_room,
        waits_for,
        switchover,
        expiring,
    )
    paused = _paused(view)
    applied = _configuration_applied(view)
    target = _target_available(view)
    integrated = _integrated(view)
    available = _available(view)
    ready = _ready(view, applied, target, integrated)
    conditions = (ready, available, applied, paused, integrated, target, _within_budget(view))
    phase = _phase(view, ready, available, paused)
    result: dict[str, Any] = {
        "phase": phase.value,
        "phaseReason": paused.message if phase is Phase.PAUSED else ready.message,
        "conditions": _with_times(pooler, conditions, now),
        "observedGeneration": pooler.generation,
        "instances": observed.deployment.replicas if observed.deployment else len(view.serving),
        "readyInstances": sum(pod.ready for pod in view.serving),
        "pausedInstances": sum(report.state == "paused" for report in view.reports()),
        "selector": names.selector_text(pooler.name),
        "pods": [_row(pod, view.answer(pod), wanted, pooler.status) for pod in observed.pods],
    }
    if pausing_since is not None and pooler.wants_pause:
        result["pausingSince"] = _timestamp(datetime.fromtimestamp(pausing_since, UTC))
    if wanted is not None:
        result |= {"configRevision": wanted.revision, "configDigest": wanted.digest}
    else:
        kept = ("configRevision", "configDigest")
        result |= {key: pooler.status[key] for key in kept if key in pooler.status}
    return result


def pausing_since(pooler: Pooler) -> float | None:
    """When the pause that is under way began, as the status has it: an operator that starts anew reads it there."""
    try:
        return datetime.strptime(pooler.status["pausingSince"], _TIME_FORMAT).replace(tzinfo=UTC).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


# --- one function per condition --------------------------------------------------------------------------------------


def _ready(view: _View, applied: Condition, target: Condition, integrated: Condition) -> Condition:
    """All is as the spec says: nothing in the way, every pod there, new enough, ready and proved."""

    def no(reason: Reason, message: str) -> Condition:
        return Condition(ConditionType.READY, "False", reason, message)

    if view.blocker is not None:
        return no(view.blocker.reason, view.blocker.message)
    if integrated.status == "False" and integrated.reason is not Reason.MANUAL:
        return no(integrated.reason, integrated.message)
    instances = view.pooler.spec.instances
    if instances == 0 and not view.serving:
        return no(Reason.SCALED_TO_ZERO, "spec.instances is 0: no pod is wanted and none is there.")
    not_ready = [pod for pod in view.serving if not pod.ready]
    details = _listed(f"{pod.name} ({pod.message or pod.phase})" for pod in not_ready)
    refused = view.observed.deployment.refused.rstrip(".") if view.observed.deployment is not None else ""
    if view.observed.deployment is not None and view.observed.deployment.stuck:
        message = f"The rollout makes no progress: {details or refused or 'no new pod comes'}. What is ready serves on."
        return no(Reason.ROLLOUT_STUCK, message)
    if refused and len(view.serving) < instances:
        what = f"{len(view.serving)} of {instances} pods are there, and the API server takes no more: {refused}."
        return no(Reason.PODS_NOT_READY, f"{what} Kubernetes tries again, after up to 17 minutes.")
    if not_ready:
        return no(Reason.PODS_NOT_READY, f"{len(not_ready)} of {len(view.serving)} pods are not ready: {details}.")
    rollout = _rollout(view)
    if rollout:
        return no(Reason.ROLLING_OUT, rollout)
    if len(view.serving) != instances:
        return no(Reason.PODS_NOT_READY, f"{len(view.serving)} pods are there; {instances} are wanted.")
    if applied.status != "True":
        return no(applied.reason, applied.message)
    if target.status == "False":
        return no(target.reason, target.message)
    message = f"All {instances} pods are ready and proved."
    if view.waits_for:
        message += f" Newer ones are due and wait until {view.waits_for} has rolled."
    message = " ".join([message, *view.expiring])
    return Condition(ConditionType.READY, "True", Reason.ALL_PODS_READY, message)


def _rollout(view: _View) -> str:
    """Why the Deployment is not done, or nothing."""
    facts = view.observed.deployment
    if facts is None:
        return "The Deployment does not exist yet."
    if facts.observed_generation < facts.generation:
        return "The Deployment's last change was not taken up yet."
    wanted = view.pooler.spec.instances
    if facts.updated_replicas < wanted:
        return f"{facts.updated_replicas} of {wanted} pods are of the newest template."
    if facts.replicas > facts.updated_replicas:
        return f"{facts.replicas - facts.updated_replicas} pods of an older template are still there."
    return ""


def _available(view: _View) -> Condition:
    """A client that connects now is served by somebody."""
    ready = sum(pod.ready for pod in view.serving)
    if ready:
        message = f"{ready} of {view.pooler.spec.instances} pods are ready."
        return Condition(ConditionType.AVAILABLE, "True", Reason.MINIMUM_AVAILABLE, message)
    if view.pooler.spec.instances == 0:
        return Condition(ConditionType.AVAILABLE, "False", Reason.SCALED_TO_ZERO, "spec.instances is 0.")
    return Condition(ConditionType.AVAILABLE, "False", Reason.NO_POD_READY, "No pod is ready.")


def _configuration_applied(view: _View) -> Condition:
    """Every pod said itself that it runs the wanted bundle, byte for byte."""

    def no(reason: Reason, message: str) -> Condition:
        return Condition(ConditionType.CONFIGURATION_APPLIED, "False", reason, message)

    wanted = view.wanted
    if wanted is None:
        why = f" {view.blocker.message}" if view.blocker else ""
        return no(Reason.NOT_RENDERED, f"No new configuration was rendered; the pods keep the one they have.{why}")
    if not view.serving:
        if view.pooler.spec.instances == 0:
            message = "There is no pod that could run another configuration."
            return Condition(ConditionType.CONFIGURATION_APPLIED, "True", Reason.SCALED_TO_ZERO, message)
        return no(Reason.APPLYING, "There is no pod yet.")
    answers = [view.answer(pod) for pod in view.serving]
    rejections = [
        f"{answer.pod}: {answer.rejected_error}"
        for answer in answers
        if isinstance(answer, PodReport) and answer.rejected_revision == wanted.revision
    ]
    if rejections:
        return no(Reason.REJECTED, f"Revision {wanted.revision} was refused: {_listed(rejections)}.")
    # WHY only of pods that are ready: every pod is silent while it starts, and that is no fault to warn of.
    silent = [
        f"{answer.pod} ({answer.error})"
        for pod in view.serving
        if pod.ready and isinstance(answer := view.answer(pod), PodSilence) and answer.pod in view.answers
    ]
    if silent:
        return no(Reason.POD_UNREACHABLE, f"{len(silent)} of {len(answers)} pods gave no answer: {_listed(silent)}.")
    behind = [
        f"{answer.pod} (revision {answer.revision})"
        if isinstance(answer, PodReport)
        else f"{answer.pod} ({answer.error})"
        for answer in answers
        if isinstance(answer, PodSilence) or answer.digest != wanted.digest
    ]
    if behind:
        return no(Reason.APPLYING, f"Not at revision {wanted.revision} yet: {_listed(behind)}.")
    if wanted.left_out:
        return no(
            Reason.SETTINGS_LEFT_OUT,
            f"All {len(answers)} pods run revision {wanted.revision} without what is unknown to {_listed(wanted.oldest_pods)}: "
            f"{_listed(wanted.left_out)}. Give every pod a newer image, or take these settings out of the spec.",
        )
    message = f"All {len(answers)} pods run revision {wanted.revision}."
    return Condition(ConditionType.CONFIGURATION_APPLIED, "True", Reason.ALL_PODS_PROVED, message)


def _paused(view: _View) -> Condition:
    """No pod holds a server connection, nor will assign one. A pod that is going counts until it is gone."""

    def no(reason: Reason, message: str) -> Condition:
        return Condition(ConditionType.PAUSED, "False", reason, message)

    pause = view.pooler.spec.pause
    # A pod without an address runs nothing yet; it will start paused, since the pause is part of its configuration.
    running = [pod for pod in view.observed.pods if pod.ip and not pod.ended]
    if not view.pooler.wants_pause:
        return _not_paused(view, running)
    if view.wanted is not None and not view.wanted.paused:
        return no(
            Reason.PAUSE_TIMED_OUT,
            f"The pause was given up after {pause.timeout_seconds} s and every pod resumed "
            f"(pause.onTimeout is {OnPauseTimeout.RESUME.value}); set paused to false and to true again to retry.",
        )
    waiting = [sentence for pod in running if (sentence := _why_not_paused(pod, view.answer(pod)))]
    if waiting:
        if view.pause_timed_out:
            return no(Reason.PAUSE_TIMED_OUT, f"Past {pause.timeout_seconds} s, still waiting for {_listed(waiting)}.")
        return no(Reason.PAUSING, f"Waiting for {_listed(waiting)}.")
    message = f"All {len(running)} pods hold no server and assign none." if running else "There is no pod."
    return Condition(ConditionType.PAUSED, "True", Reason.ALL_PODS_PAUSED, message)


def _not_paused(view: _View, running: Sequence[PodFacts]) -> Condition:
    answers = [view.answer(pod) for pod in running]
    held_back = [
        answer.pod for answer in answers if isinstance(answer, PodReport) and answer.state in {"pausing", "paused"}
    ]
    if held_back:
        message = f"Not resumed yet: {_listed(held_back)}."
        return Condition(ConditionType.PAUSED, "False", Reason.RESUMING, message)
    return Condition(ConditionType.PAUSED, "False", Reason.NOT_ASKED, "No pause is asked for.")


def _why_not_paused(pod: PodFacts, answer: PodAnswer) -> str:
    """The end of the sentence 'Waiting for …', or nothing when the pod proved its pause."""
    if isinstance(answer, PodSilence):
        return f"an answer of pod {pod.name} ({answer.error})"
    if answer.state == "paused":
        return ""
    if answer.state == "draining" and answer.servers == 0 and answer.held_servers == 0:
        return ""
    if answer.holders:
        return _listed(_holder(pod.name, holder) for holder in answer.holders)
    held = max(answer.held_servers, answer.servers)
    return f"pod {pod.name}, which is {answer.state} and has {held} server connections"


def _holder(pod: str, holder: Holder) -> str:
    application = f", {holder.application_name}" if holder.application_name else ""
    return (
        f"pod {pod}: client {holder.client_id} ({holder.user}@{holder.database}{application}) holds server process "
        f"{holder.server_pid} for {holder.in_transaction_seconds:.0f} s"
    )


def _integrated(view: _View) -> Condition:
    result = view.integration
    if result is None:
        message = "Provisioning in PostgreSQL was not tried yet."
        return Condition(ConditionType.INTEGRATED, "Unknown", Reason.PROVISIONING, message)
    return Condition(ConditionType.INTEGRATED, result.status, result.reason, result.message)


def _target_available(view: _View) -> Condition:
    cluster = view.observed.cluster
    if not cluster.found:
        message = f"Service {cluster.host!r} of cluster {cluster.name!r} does not exist in the Pooler's namespace."
        return Condition(ConditionType.TARGET_AVAILABLE, "False", Reason.TARGET_NOT_FOUND, message)
    if view.switchover:
        # What the pods have reached is about to go, and what they fail to reach is to come.
        return Condition(ConditionType.TARGET_AVAILABLE, "Unknown", Reason.SWITCHING_OVER, view.switchover)
    reports = view.reports()
    failing = [f"{report.pod}: {report.target_error}" for report in reports if report.target_reachable is False]
    if failing:
        message = f"{cluster.host}:{cluster.port} cannot be reached: {_listed(failing)}."
        return Condition(ConditionType.TARGET_AVAILABLE, "False", Reason.UNREACHABLE, message)
    if reports and all(report.target_reachable for report in reports):
        message = f"Every pod has reached {cluster.host}:{cluster.port}."
        return Condition(ConditionType.TARGET_AVAILABLE, "True", Reason.REACHABLE, message)
    message = f"Not every pod has tried to reach {cluster.host}:{cluster.port} yet."
    return Condition(ConditionType.TARGET_AVAILABLE, "Unknown", Reason.UNKNOWN, message)


def _within_budget(view: _View) -> Condition:
    """Whether PostgreSQL has room for all that the pods may open, with the numbers and a way out."""

    def said(status: ConditionStatus, reason: Reason, message: str) -> Condition:
        return Condition(ConditionType.WITHIN_CONNECTION_BUDGET, status, reason, message)

    if short := [report for report in view.reports() if report.descriptor_limit < report.descriptors_needed]:
        worst = max(short, key=lambda report: report.descriptors_needed)
        who = _listed([f"pod {report.pod}" for report in short])
        return said(
            "False",
            Reason.TOO_FEW_DESCRIPTORS,
            f"max_client_conn and the pool sizes ask for {worst.descriptors_needed} open files, and the node lets a process "
            f"have {worst.descriptor_limit} ({who}). Raise the limit of the container runtime (LimitNOFILE), or lower "
            "max_client_conn.",
        )
    pooler, capacity = view.pooler, view.capacity
    instances, given = pooler.spec.instances, pooler.spec.connection_budget
    if given is not None:
        needed: float = given
        pods = budget.pods_at_once(pooler)
        sum_of = f"connectionBudget is {given}, {given // pods} for each of up to {pods} pods"
        if view.making_room:
            sum_of += f" (more pods wait for {_listed(view.making_room)})"
    else:
        pod = budget.per_pod(pooler)
        needed = instances * pod.most + budget.HEADROOM
        most = "any number of" if pod.most == budget.NO_LIMIT else f"{pod.most:g}"
        total = "no limit" if needed == budget.NO_LIMIT else f"{needed:g}"
        sum_of = (
            f"{instances} pods may open {most} servers each ({pod.because}), and {budget.HEADROOM} are for everybody "
            f"else: {total}"
        )
    if capacity is None:
        why = "it is read when the operator logs in for the lookup, which it has not done."
        if view.integration is not None and view.integration.capacity_error:
            why = view.integration.capacity_error
        return said("Unknown", Reason.CAPACITY_UNKNOWN, f"{sum_of}. PostgreSQL's max_connections is not known: {why}")
    room = f"PostgreSQL has max_connections {capacity.max_connections} less {capacity.reserved} reserved"
    if needed <= capacity.usable:
        return said("True", Reason.WITHIN_BUDGET, f"{sum_of}. {room}.")
    if given is not None:
        advice = f"Set connectionBudget to {capacity.usable} or less"
    else:
        advice = f"Lower pool sizes, or set connectionBudget to {max(1, capacity.usable - budget.HEADROOM)} or less"
    if needed != budget.NO_LIMIT:
        advice += f"; or raise max_connections to {needed + capacity.reserved:g}"
    return said("False", Reason.OVER_BUDGET, f"{sum_of}. {room}. {advice}.")


# --- phase, rows, times ----------------------------------------------------------------------------------------------


def _phase(view: _View, ready: Condition, available: Condition, paused: Condition) -> Phase:
    if view.blocker is not None:
        return Phase.INACTIVE if view.blocker.reason in _WAITING else Phase.FAILED
    if not view.observed.cluster.found or view.pooler.spec.instances == 0:
        return Phase.INACTIVE
    if paused.status == "True":
        return Phase.PAUSED
    if ready.status == "True" or available.status == "True":
        return Phase.ACTIVE
    return Phase.PENDING


def _row(
    pod: PodFacts, answer: PodAnswer, wanted: WantedConfiguration | None, before: Mapping[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": pod.name, "ready": pod.ready and not pod.terminating, "state": "unknown"}
    if isinstance(answer, PodSilence):
        if pod.terminating:
            row["state"] = "leaving"
        # What it knows does not change while it is silent, and decides what is rendered.
        kept = [old for old in before.get("pods") or () if old.get("name") == pod.name and old.get("catalogueVersion")]
        return row | {"message": answer.error} | ({"catalogueVersion": kept[0]["catalogueVersion"]} if kept else {})
    row |= {
        "state": answer.state,
        "configRevision": answer.revision,
        "configDigest": answer.digest,
        "clients": answer.clients,
        "waitingClients": answer.waiting_clients,
        "servers": answer.servers,
        "catalogueVersion": answer.catalogue_version,
    }
    remarks = []
    if answer.rejected_error and (wanted is None or answer.rejected_revision == wanted.revision):
        remarks.append(f"refused revision {answer.rejected_revision}: {answer.rejected_error}")
    if answer.restart_needed:
        remarks.append(f"a restart is needed for {', '.join(answer.restart_needed)}")
    if answer.lookup_ok is False:
        remarks.append(f"the last password lookup failed: {answer.lookup_error}")
    return row | ({"message": "; ".join(remarks)} if remarks else {})


def _with_times(pooler: Pooler, conditions: Iterable[Condition], now: datetime) -> list[dict[str, Any]]:
    """The rows as stored: a transition time is kept for as long as the status stays what it was."""
    before = {row.get("type"): row for row in pooler.status.get("conditions") or ()}
    rows = []
    for condition in conditions:
        old = before.get(condition.type.value, {})
        unchanged = old.get("status") == condition.status and old.get("lastTransitionTime")
        rows.append(
            {
                "type": condition.type.value,
                "status": condition.status,
                "reason": condition.reason.value,
                "message": condition.message,
                "lastTransitionTime": old["lastTransitionTime"] if unchanged else _timestamp(now),
                "observedGeneration": pooler.generation,
            }
        )
    return rows


def _timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime(_TIME_FORMAT)


def _listed(items: Iterable[str]) -> str:
    found = list(items)
    rest = len(found) - _MAX_NAMED
    return "; ".join(found[:_MAX_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
