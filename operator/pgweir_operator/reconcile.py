"""The one story: parse → validate → observe → integrate → desire → apply → prune → push → verify → status.

Whatever happens, it ends in a status that says so: an impossible spec, a missing Secret, a refusal of the API server
become conditions, and the children stay as they were. One call is one pass; who calls when is workers.py's business.
"""

from __future__ import annotations

import json
import logging
import secrets as randomness
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pgweir.bundle import MANIFEST, bundle_digest
from pgweir_operator import children, control_secrets, farewell, pausing, prerequisites, primary
from pgweir_operator.api import names
from pgweir_operator.api.budget import TargetCapacity
from pgweir_operator.api.conditions import Blocker, PrerequisiteError, Reason
from pgweir_operator.api.observed import (
    IntegrationResult,
    Observed,
    PodAnswer,
    PodReport,
    WantedConfiguration,
)
from pgweir_operator.api.pooler import OnPauseTimeout, Pooler
from pgweir_operator.desired import Desired, desired_state, skew
from pgweir_operator.fleet import Fleet, Identity, Member, Push
from pgweir_operator.integration import automatic
from pgweir_operator.integration.control import ControlCertificates, renewed
from pgweir_operator.kube import ApiError, ForbiddenError, InvalidError, Kube
from pgweir_operator.kube.events import Events
from pgweir_operator.observe import World, observe, watched_secrets
from pgweir_operator.rollouts import Rollouts
from pgweir_operator.scaling import making_room
from pgweir_operator.siblings import automatic_siblings, shared_password
from pgweir_operator.status import status as status_of
from pgweir_operator.switchover import Switchovers, standing
from pgweir_operator.validation import invalid_spec, parse, validate

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]

RECHECK = 30.0
# The target is asked this often whether the lookup still works; at once when a pod says that it does not, or when any
# of what it depends on has changed.
INTEGRATION_RECHECK = 300.0
# While something is on its way that tells nobody when it arrives.
SOON = 2.0
# A pause is looked at this often, and a single pass waits this long for it.
PAUSE_RECHECK = 0.1
PAUSE_PATIENCE = 1.0
# Pods that close servers so that others may start are asked this often.
MAKING_ROOM_RECHECK = 0.5
# The part of the status that reconcile leaves alone.
OF_SWITCHOVERS = "switchover"
# The Event's reason where a pause closed clients.
HOLDERS_TERMINATED = "HoldersTerminated"


@dataclass(frozen=True, slots=True)
class Options:
    """How this installation works, the same for all Poolers."""

    image: str
    namespaces: tuple[str, ...] = ()
    """Where Poolers are served; empty: everywhere."""
    control_port: int = names.PORT_CONTROL
    dial_target: tuple[str, int] | None = None
    """Where to connect for provisioning instead of the Service's name (development, outside a cluster)."""
    recheck: float = RECHECK
    exec_in_primary: bool = False
    """Whether psql may be run in the primary's pod where there is no superuser's Secret."""
    namespace: str = ""
    """Where the operator itself runs; empty: outside of the cluster."""


@dataclass(slots=True)
class Memory:
    """What is remembered of a Pooler between two passes. Losing it costs a repeated check and nothing else: the status
    has what must outlive the operator."""

    integration: automatic.Integration | None = None
    integration_inputs: object = None
    integration_due: float = 0.0
    pausing_since: float | None = None
    pushed: pausing.Pushed | None = None
    """What the last pass ended with, if it came so far."""
    capacity: TargetCapacity | None = None
    written: children.Written = field(default_factory=dict)
    fleet: Fleet | None = None
    fleet_identity: Identity | None = None

    async def close(self) -> None:
        fleet, self.fleet, self.fleet_identity = self.fleet, None, None
        if fleet is not None:
            await fleet.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """When to look again, and which Secrets to watch until then. `gone`: there is no such Pooler any more."""

    again: float
    secrets: frozenset[str] = frozenset()
    gone: bool = False


@dataclass(slots=True)
class _Pass:
    """What one pass has found out so far."""

    again: float
    blocker: Blocker | None = None
    integration: IntegrationResult | None = None
    wanted: WantedConfiguration | None = None
    answers: dict[str, PodAnswer] = field(default_factory=dict)
    pause_timed_out: bool = False
    waits_for: str = ""
    """The Pooler that rolls while this one waits for its turn to."""
    oldest_pods: tuple[str, ...] = ()
    """Pods that decide which settings are left out."""
    making_room: list[str] = field(default_factory=list)
    """Pods that are to close servers before more pods start."""
    terminated: dict[str, int] = field(default_factory=dict)
    """Clients that were closed because a pause waited for them too long, by pod."""

    def sooner(self, seconds: float | None) -> None:
        if seconds is not None:
            self.again = min(self.again, max(seconds, PAUSE_RECHECK))

    def reports(self) -> list[PodReport]:
        return [answer for answer in self.answers.values() if isinstance(answer, PodReport)]


class Reconciler:
    def __init__(
        self,
        kube: Kube,
        events: Events,
        options: Options,
        switchovers: Switchovers,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self.rollouts = Rollouts(kube, options.namespaces)
        self._events = events
        self._options = options
        self._switchovers = switchovers
        self._clock = clock

    async def reconcile(self, namespace: str, name: str, memory: Memory) -> Outcome:
        """One pass. Raises ApiError only where not even the Pooler and its status can be read and written."""
        found = await self._kube.get(names.KIND, namespace, name)
        if found is None:
            self._switchovers.forget((namespace, name))
            return Outcome(again=0.0, gone=True)
        manifest = {**found, "apiVersion": names.API_VERSION, "kind": names.KIND}
        pooler = parse(manifest)
        if not isinstance(pooler, Pooler):
            await self._write_status(manifest, _unreadable(manifest, invalid_spec(pooler), self._now()))
            return Outcome(again=self._options.recheck)
        pushed, memory.pushed = memory.pushed, None
        if pushed is not None and memory.fleet is not None and (push := pausing.turned(pushed, pooler.spec)):
            logger.info("%s/%s: %s", namespace, name, "pausing" if pooler.wants_pause else "resuming")
            answers = await memory.fleet.push(pushed.members, push)
            logger.info("%s/%s: %d pods were told", namespace, name, len(answers))
        world = await observe(self._kube, pooler)
        watched = watched_secrets(pooler, world.observed)
        if pooler.deleting or not pooler.is_automatic:
            again = await farewell.take_back(
                self._kube,
                self._events,
                manifest,
                pooler,
                world.observed,
                namespaces=self._options.namespaces,
                dial=self._options.dial_target,
                now=self._clock(),
                find_shell=self._find_shell(pooler),
            )
            if pooler.deleting:
                self._switchovers.forget((namespace, name))
                return Outcome(again=again or self._options.recheck, secrets=watched)
        done = await self._pass(manifest, pooler, world, memory)
        await self._report(manifest, pooler, world.observed, memory, done)
        return Outcome(again=done.again, secrets=watched)

    async def _pass(self, manifest: Manifest, pooler: Pooler, world: World, memory: Memory) -> _Pass:
        """Everything between observing and reporting; whatever stops it becomes the blocker."""
        done = _Pass(again=self._options.recheck)
        if memory.integration is not None:
            done.integration = memory.integration.result
        certificates = control_secrets.certificates(world.control, world.control_authority)
        if certificates is not None:
            # Before anything is decided: a Pooler with an impossible spec still has pods, and they have a state.
            fleet = await self._fleet(memory, certificates)
            members = _members(world.observed)
            done.answers = dict(await fleet.poll(members))
            self._switchovers.know(
                standing(manifest, pooler, world.observed, fleet=fleet, members=members, answers=done.answers)
            )
        try:
            if problems := validate(pooler):
                raise _stopped(invalid_spec(problems))
            prerequisites.refuse_strangers(world.observed)
            password = await self._password(pooler, world)
            certificates = await self._renew(pooler, world, memory, certificates, password)
            await self._integrate(manifest, pooler, world, memory, password, done)
            prerequisites.refuse_missing_cluster(pooler, world.observed)
            desired = self._desired(pooler, world.observed, memory, done)
            live = world.children.get(("Deployment", names.deployment_name(pooler.name)))
            manifests, done.waits_for = await self.rollouts.in_turn(pooler, live, desired.manifests)
            await children.apply(self._kube, world, manifests, memory.written)
            await children.prune(self._kube, pooler, world, desired.unwanted, memory.written)
            await self._push(pooler, world, memory, certificates, desired, done)
        except PrerequisiteError as error:
            done.blocker = error.blocker
            done.sooner(error.retry_after)
        except ForbiddenError as error:
            done.blocker = Blocker(Reason.FORBIDDEN, f"The operator lacks a right: {error.message}")
        except InvalidError as error:
            done.blocker = Blocker(Reason.RECONCILE_FAILED, f"The API server refused: {error.message}")
        except ApiError as error:
            done.blocker = Blocker(Reason.RECONCILE_FAILED, f"The API server failed: {error.message}")
            done.sooner(5.0)
        return done

    # --- integrate ---------------------------------------------------------------------------------------------------

    async def _password(self, pooler: Pooler, world: World) -> str | None:
        """The auth role's, where it logs in by one."""
        if not pooler.is_automatic or automatic.logs_in_by_certificate(world.observed):
            return None
        held = world.control_authority
        own = held.data.get(control_secrets.PASSWORD_KEY) if held is not None and held.owned else None
        siblings = await automatic_siblings(self._kube, pooler, self._options.namespaces)
        return await shared_password(self._kube, siblings, own.decode() if own else None)

    async def _renew(
        self,
        pooler: Pooler,
        world: World,
        memory: Memory,
        current: ControlCertificates | None,
        password: str | None,
    ) -> ControlCertificates:
        """The control Secrets are there and none of their certificates is due."""
        wanted = renewed(current, pooler=pooler.name, now=self._clock())
        held = world.control.data.get("token") if world.control is not None and world.control.owned else None
        token = held or randomness.token_urlsafe(32).encode()
        manifests = control_secrets.manifests(pooler, wanted, token=token, password=password)
        await children.apply(self._kube, world, manifests, memory.written)
        return wanted

    async def _integrate(
        self, manifest: Manifest, pooler: Pooler, world: World, memory: Memory, password: str | None, done: _Pass
    ) -> None:
        """Asked again when anything it depends on has changed, when a pod complains, and now and then."""
        now = self._clock()
        if memory.integration is not None and self._switchovers.is_unsettled((pooler.namespace, pooler.name)):
            # A primary that is moving proves nothing against what was proved before.
            done.integration = memory.integration.result
            done.sooner(SOON)
            return
        cluster = world.observed.cluster
        secrets = (cluster.superuser, cluster.server_ca, cluster.client_ca, *world.observed.secrets.values())
        versions = tuple(secret.resource_version if secret is not None else None for secret in secrets)
        complaint = frozenset(report.lookup_error for report in done.reports() if report.lookup_ok is False)
        # A pause asks nothing of the target, which may be away meanwhile.
        inputs = (pausing.but_for_pause(pooler.spec), password, cluster.found, cluster.host, versions, complaint)
        if memory.integration is None or inputs != memory.integration_inputs or now >= memory.integration_due:
            stored = automatic.stored(world.observed, password)
            memory.integration = await automatic.integrate(
                pooler,
                world.observed,
                stored,
                now=now,
                dial=self._options.dial_target,
                find_shell=self._find_shell(pooler),
            )
            memory.integration_inputs = inputs
            memory.integration_due = now + (memory.integration.retry_after or INTEGRATION_RECHECK)
        done.integration = memory.integration.result
        memory.capacity = done.integration.capacity or memory.capacity
        done.sooner(memory.integration_due - now)
        if memory.integration.left_something:
            await farewell.hold(self._kube, manifest)

    def _find_shell(self, pooler: Pooler) -> automatic.FindShell | None:
        """psql in the primary's pod, where the installation allows it."""
        return partial(primary.shell, self._kube, pooler) if self._options.exec_in_primary else None

    # --- desire ------------------------------------------------------------------------------------------------------

    def _desired(self, pooler: Pooler, observed: Observed, memory: Memory, done: _Pass) -> Desired:
        """What should be, at a revision above everything that any pod has seen of another content."""
        pause = pausing.deadline(pooler, memory.pausing_since, self._clock())
        pooler, memory.pausing_since, done.pause_timed_out = pause.pooler, pause.since, pause.has_passed
        observed = automatic.with_own_certificate(pooler, observed, now=self._clock())
        provisioned = done.integration.provisioned if done.integration is not None else None
        reports = done.reports()
        oldest = skew.oldest(pooler, observed, done.answers)

        def at_least(floor: int, replicas: int | None = None) -> Desired:
            return desired_state(
                pooler,
                observed,
                provisioned,
                image=self._options.image,
                revision_floor=floor,
                operator_namespace=self._options.namespace,
                replicas=replicas,
                catalogue_version=oldest.version,
            )

        floor = max((report.revision for report in reports), default=0)
        desired = at_least(floor)
        done.oldest_pods = oldest.pods
        digest = bundle_digest(desired.bundle_files)
        if any(report.revision == desired.revision and report.digest != digest for report in reports):
            floor = desired.revision + 1
            desired = at_least(floor)
        done.making_room = making_room(pooler, observed, desired, done.answers)
        if done.making_room:
            assert observed.deployment is not None
            desired = at_least(floor, observed.deployment.wanted_replicas)
        return desired

    # --- push and verify ---------------------------------------------------------------------------------------------

    async def _push(
        self,
        pooler: Pooler,
        world: World,
        memory: Memory,
        certificates: ControlCertificates,
        desired: Desired,
        done: _Pass,
    ) -> None:
        """Every pod that does not run the bundle gets it, and says what it runs then."""
        paused = bool(json.loads(desired.bundle_files[MANIFEST])["paused"])
        digest = bundle_digest(desired.bundle_files)
        wanted = WantedConfiguration(desired.revision, digest, paused, desired.left_out, done.oldest_pods)
        done.wanted = wanted
        members = _members(world.observed)
        fleet = await self._fleet(memory, certificates)
        push = Push(desired.bundle_files)
        behind = [member for member in members if not _has_proved(done.answers.get(member.name), wanted)]
        if behind and paused:
            done.answers |= await fleet.pause(behind, push, patience=PAUSE_PATIENCE)
        elif behind:
            done.answers |= await fleet.push(behind, push)
        if paused and done.pause_timed_out and pooler.spec.pause.on_timeout is OnPauseTimeout.TERMINATE:
            closed = await pausing.terminate_holders(fleet, members, wanted, done.answers)
            done.answers |= closed
            reports = (answer for answer in closed.values() if isinstance(answer, PodReport))
            done.terminated = {report.pod: report.terminated_holders for report in reports if report.terminated_holders}
        memory.pushed = pausing.Pushed(pooler.spec, desired.bundle_files, members)
        if done.making_room:
            done.sooner(MAKING_ROOM_RECHECK)
        if all(_has_proved(done.answers.get(member.name), wanted) for member in members):
            memory.pausing_since = None
            return
        done.sooner(SOON)
        if paused:
            memory.pausing_since = memory.pausing_since or self._clock()
            done.sooner(PAUSE_RECHECK)

    async def _fleet(self, memory: Memory, certificates: ControlCertificates) -> Fleet:
        """Kept from pass to pass: a pause does not wait for handshakes."""
        identity = control_secrets.identity(certificates)
        if memory.fleet is None or memory.fleet_identity != identity:
            await memory.close()
            memory.fleet = Fleet(identity, port=self._options.control_port)
            memory.fleet_identity = identity
        return memory.fleet

    # --- status ------------------------------------------------------------------------------------------------------

    async def _report(
        self, manifest: Manifest, pooler: Pooler, observed: Observed, memory: Memory, done: _Pass
    ) -> None:
        """The status as it is now, and an Event for what has become of it."""
        for pod, count in done.terminated.items():
            assert done.wanted is not None
            note = (
                f"Pod {pod}: closed {count} client{'s' if count > 1 else ''} that still held a server when the pause of "
                f"revision {done.wanted.revision} had waited for {pooler.spec.pause.timeout_seconds} s "
                f"(pause.onTimeout is {OnPauseTimeout.TERMINATE.value})."
            )
            await self._events.say(manifest, "Warning", HOLDERS_TERMINATED, note)
            logger.warning("%s/%s: %s", pooler.namespace, pooler.name, note)
        status = status_of(
            pooler,
            observed,
            done.answers,
            wanted=done.wanted,
            integration=done.integration,
            blocker=done.blocker,
            now=self._now(),
            pause_timed_out=done.pause_timed_out,
            pausing_since=memory.pausing_since,
            capacity=memory.capacity,
            making_room=done.making_room,
            waits_for=done.waits_for,
            switchover=self._switchovers.sentence((pooler.namespace, pooler.name)),
        )
        await self._write_status(manifest, status)

    async def _write_status(self, manifest: Manifest, status: Mapping[str, Any]) -> None:
        before = manifest.get("status") or {}
        # WHY a merge: the part about switchovers is another writer's, who does not wait for us.
        gone = dict.fromkeys(before.keys() - status.keys() - {OF_SWITCHOVERS})
        part = {key: value for key, value in status.items() if before.get(key) != value} | gone
        if not part:
            return
        metadata = manifest["metadata"]
        await self._kube.merge_status(names.KIND, metadata["namespace"], metadata["name"], part)
        old = {row["type"]: (row["status"], row["reason"]) for row in before.get("conditions") or ()}
        for row in status["conditions"]:
            if old.get(row["type"]) != (row["status"], row["reason"]) and (kind := _worth_an_event(row)):
                await self._events.say(manifest, kind, row["reason"], row["message"])
                logger.info("%s/%s: %s=%s %s: %s", metadata["namespace"], metadata["name"], *_told(row))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _members(observed: Observed) -> list[Member]:
    """Every pod that can be talked to: one that is going still holds servers."""
    return [Member(pod.name, pod.ip) for pod in observed.pods if pod.is_reachable]


def _has_proved(answer: PodAnswer | None, wanted: WantedConfiguration) -> bool:
    if not isinstance(answer, PodReport) or (answer.revision, answer.digest) != (wanted.revision, wanted.digest):
        return False
    if not wanted.paused:
        return answer.state in {"active", "draining"}
    return answer.state == "paused" or (answer.state == "draining" and not answer.held_servers)


def _stopped(blocker: Blocker) -> PrerequisiteError:
    return PrerequisiteError(blocker.reason, blocker.message)


def _worth_an_event(row: Mapping[str, Any]) -> Any:
    """Normal for what somebody waited for, Warning for what somebody must do; None for what passes."""
    passing = {
        "PodsNotReady",
        "RollingOut",
        "Applying",
        "NotAsked",
        "Unknown",
        "Provisioning",
        "Manual",
        "ScaledToZero",
    }
    if row["status"] == "True":
        return "Normal" if row["type"] in {"Ready", "Paused", "Integrated"} else None
    if row["status"] != "False" or row["reason"] in passing or row["type"] == "Available":
        return None
    return "Normal" if row["reason"] in {"Pausing", "Resuming"} else "Warning"


def _told(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return row["type"], row["status"], row["reason"], row["message"]


def _unreadable(manifest: Manifest, blocker: Blocker, now: datetime) -> dict[str, Any]:
    """The status of an object that is no Pooler (stored under another CRD): one condition, the rest as it was."""
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
