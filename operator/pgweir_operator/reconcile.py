"""The one story: parse → validate → observe → integrate → desire → apply → prune → push → verify → status.

Whatever happens, it ends in a status that says so: an impossible spec, a missing Secret, a refusal of the API server
become conditions, and the children stay as they were. One call is one pass; who calls when is workers.py's business.
"""

from __future__ import annotations

import json
import logging
import secrets as randomness
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pgweir.bundle import MANIFEST, bundle_digest
from pgweir_operator import children, control_secrets, farewell, pausing, prerequisites, primary, reporting
from pgweir_operator.api import names
from pgweir_operator.api.conditions import Blocker, PrerequisiteError, Reason
from pgweir_operator.api.observed import (
    Observed,
    PodAnswer,
    PodReport,
    WantedConfiguration,
)
from pgweir_operator.api.pooler import OnPauseTimeout, Pooler
from pgweir_operator.desired import Desired, desired_state, skew
from pgweir_operator.expiry import expiring
from pgweir_operator.fleet import Fleet, Member, Push
from pgweir_operator.integration import automatic
from pgweir_operator.integration.certificates import DAY
from pgweir_operator.integration.control import ControlCertificates, renewed
from pgweir_operator.kube import ApiError, ForbiddenError, InvalidError, Kube
from pgweir_operator.kube.cache import Cache
from pgweir_operator.kube.events import Events
from pgweir_operator.metrics import Metrics
from pgweir_operator.observe import Source, World, observe, watched
from pgweir_operator.passes import PAUSE_RECHECK, Memory, Options, Outcome, Pass
from pgweir_operator.rollouts import Rollouts
from pgweir_operator.scaling import making_room
from pgweir_operator.siblings import automatic_siblings, holders, shared_password
from pgweir_operator.status import status as status_of
from pgweir_operator.switchover import Switchovers, standing
from pgweir_operator.validation import invalid_spec, parse, validate

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]

# The target is asked this often whether the lookup still works; at once when a pod says that it does not, or when any
# of what it depends on has changed.
INTEGRATION_RECHECK = 300.0
# Where somebody else gives the role another password so often in so many seconds, it is left to them: two that set it in
# turns would both fail half of the time, and this way one of them does not.
SEIZURES = 3
SEIZURES_WITHIN = 3600.0
# Where nothing happens, what is not watched is asked again after this.
UNWATCHED_RECHECK = 300.0
# While something is on its way that tells nobody when it arrives.
SOON = 2.0
# A single pass waits this long for a pause.
PAUSE_PATIENCE = 1.0
# Pods that close servers so that others may start are asked this often.
MAKING_ROOM_RECHECK = 0.5
# The Event's reason where a pause closed clients.
HOLDERS_TERMINATED = "HoldersTerminated"
# Where a certificate is about to expire: once a day.
CERTIFICATE_EXPIRES = "CertificateExpires"


class Reconciler:
    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        events: Events,
        options: Options,
        switchovers: Switchovers,
        *,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self.rollouts = Rollouts(cache.no_older_than(0.0), options.namespaces)
        self._events = events
        self._options = options
        self._switchovers = switchovers
        self._metrics = metrics or Metrics()
        self._clock = clock

    async def reconcile(self, namespace: str, name: str, memory: Memory) -> Outcome:
        """One pass. Raises ApiError only where not even the Pooler and its status can be read and written."""
        try:
            return await self._reconcile(namespace, name, memory)
        finally:
            await self.rollouts.end_of_pass((namespace, name))

    async def _reconcile(self, namespace: str, name: str, memory: Memory) -> Outcome:
        source = self._cache.no_older_than(UNWATCHED_RECHECK if memory.at_rest else 0.0)
        # What has just been said of a Pooler may not have come to our own watch yet.
        found = await (source if memory.at_rest else self._kube).get(names.KIND, namespace, name)
        if found is None:
            self._switchovers.forget((namespace, name))
            self.rollouts.give_back((namespace, name))
            return Outcome(again=0.0, gone=True)
        manifest = {**found, "apiVersion": names.API_VERSION, "kind": names.KIND}
        await memory.of(manifest["metadata"]["uid"])
        pooler = parse(manifest)
        if not isinstance(pooler, Pooler):
            if manifest["metadata"].get("deletionTimestamp"):
                await farewell.abandon(self._kube, self._events, manifest)
                return Outcome(again=self._options.recheck)
            await self._block(manifest, invalid_spec(pooler))
            ready = "False", Reason.INVALID_SPEC.value
            return Outcome(again=self._options.recheck, blocked=True, ready=ready)
        try:
            return await self._look(manifest, pooler, memory, source)
        except ApiError:
            raise  # Not even a status could be written.
        except Exception as error:
            what = (
                f"The operator stumbled over this Pooler ({type(error).__name__}); its log says more. It tries again."
            )
            await self._block(manifest, Blocker(Reason.RECONCILE_FAILED, what))
            raise

    async def _look(self, manifest: Manifest, pooler: Pooler, memory: Memory, source: Source) -> Outcome:
        namespace, name = pooler.namespace, pooler.name
        pushed, memory.pushed = memory.pushed, None
        if pushed is not None and memory.fleet is not None and (push := pausing.turned(pushed, pooler.spec)):
            logger.info("%s/%s: %s", namespace, name, "pausing" if pooler.wants_pause else "resuming")
            answers = await memory.fleet.push(pushed.members, push)
            logger.info("%s/%s: %d pods were told", namespace, name, len(answers))
        world = await observe(source, pooler)
        concerned = watched(pooler, world)
        if pooler.deleting:
            again = await self._take_back(manifest, pooler, world)
            self._switchovers.forget((namespace, name))
            return Outcome(again=again or self._options.recheck, watched=concerned)
        done = await self._pass(manifest, pooler, world, memory)
        ready = await self._report(manifest, pooler, world.observed, memory, done)
        if not pooler.is_automatic and done.settled and done.blocker is None:
            # WHY not before: until every pod has proved the user's own lookup, they log in by the one that we made.
            done.sooner(await self._take_back(manifest, pooler, world))
        return Outcome(
            again=done.again,
            watched=concerned,
            settled=done.settled and done.blocker is None,
            blocked=done.blocker is not None,
            ready=ready,
            is_expiring=bool(done.expiring),
        )

    async def _take_back(self, manifest: Manifest, pooler: Pooler, world: World) -> float | None:
        return await farewell.take_back(
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

    async def _pass(self, manifest: Manifest, pooler: Pooler, world: World, memory: Memory) -> Pass:
        """Everything between observing and reporting; whatever stops it becomes the blocker."""
        done = Pass(again=self._options.recheck)
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
            password = await self._password(pooler, world, memory)
            certificates = await self._renew(pooler, world, memory, certificates, password)
            await self._integrate(manifest, pooler, world, memory, password, done)
            if memory.shared_password not in (None, password):
                certificates = await self._renew(pooler, world, memory, certificates, memory.shared_password)
            prerequisites.refuse_missing_cluster(pooler, world.observed)
            desired = self._desired(pooler, world.observed, memory, done)
            done.expiring = expiring(pooler, desired.bundle_files, now=self._clock())
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

    async def _password(self, pooler: Pooler, world: World, memory: Memory) -> str | None:
        """The auth role's, where it logs in by one.

        WHY not from Poolers of other namespaces: everybody may write down the host of somebody else's PostgreSQL. Theirs is
        taken where that PostgreSQL itself has it (`holders`).
        """
        if not pooler.is_automatic or automatic.logs_in_by_certificate(world.observed):
            return None
        if memory.shared_password is not None:
            return memory.shared_password
        held = world.control_authority
        own = held.data.get(control_secrets.PASSWORD_KEY) if held is not None and held.owned else None
        source = self._cache.no_older_than(0.0)
        siblings = await automatic_siblings(source, pooler, [pooler.namespace])
        return await shared_password(source, siblings, own.decode() if own else None)

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
        self, manifest: Manifest, pooler: Pooler, world: World, memory: Memory, password: str | None, done: Pass
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
        where = cluster.host, cluster.service_host
        # A pause asks nothing of the target, which may be away meanwhile.
        inputs = (pausing.but_for_pause(pooler.spec), password, cluster.found, where, versions, complaint)
        is_due = not now < memory.integration_due <= now + INTEGRATION_RECHECK  # a clock that was set back counts, too
        if memory.integration is None or inputs != memory.integration_inputs or is_due:
            before = memory.integration_inputs
            if isinstance(before, tuple) and before[0] != inputs[0]:
                memory.seizures.clear()  # Somebody has changed the Pooler.
            dial = self._options.dial_target
            source, namespaces = self._cache.no_older_than(0.0), self._options.namespaces
            memory.integration = await automatic.integrate(
                pooler,
                world.observed,
                automatic.stored(world.observed, password),
                now=now,
                dial=dial,
                find_shell=self._find_shell(pooler),
                holders=partial(holders, source, pooler, namespaces, dial=dial),
                announce=partial(farewell.hold, self._kube, manifest),
                may_seize=len(memory.seizures) < SEIZURES,
            )
            if memory.integration.password is not None:
                memory.shared_password = password = memory.integration.password
                inputs = (inputs[0], password, *inputs[2:])
            if len(memory.seizures) < SEIZURES:
                memory.seizures = [when for when in memory.seizures if 0 <= now - when < SEIZURES_WITHIN]
                memory.seizures += [now] if memory.integration.seized else []
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

    def _desired(self, pooler: Pooler, observed: Observed, memory: Memory, done: Pass) -> Desired:
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
        done: Pass,
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
            done.settled = not (done.making_room or done.waits_for)
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
            memory.fleet = Fleet(identity, port=self._options.control_port, metrics=self._metrics)
            memory.fleet_identity = identity
        return memory.fleet

    # --- status ------------------------------------------------------------------------------------------------------

    async def _report(
        self, manifest: Manifest, pooler: Pooler, observed: Observed, memory: Memory, done: Pass
    ) -> tuple[str, str]:
        """The status as it is now, and an Event for what has become of it. Answers with status and reason of Ready."""
        for pod, count in done.terminated.items():
            assert done.wanted is not None
            note = (
                f"Pod {pod}: closed {count} client{'s' if count > 1 else ''} that still held a server when the pause of "
                f"revision {done.wanted.revision} had waited for {pooler.spec.pause.timeout_seconds} s "
                f"(pause.onTimeout is {OnPauseTimeout.TERMINATE.value})."
            )
            await self._events.say(manifest, "Warning", HOLDERS_TERMINATED, note)
            logger.warning("%s/%s: %s", pooler.namespace, pooler.name, note)
        for sentence in done.expiring:
            if not 0 <= self._clock() - memory.warned.get(sentence, 0.0) < DAY:
                memory.warned[sentence] = self._clock()
                await self._events.say(manifest, "Warning", CERTIFICATE_EXPIRES, sentence)
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
            expiring=done.expiring,
            switchover=self._switchovers.sentence((pooler.namespace, pooler.name)),
        )
        await reporting.write(self._kube, self._events, manifest, status)
        return next((row["status"], row["reason"]) for row in status["conditions"] if row["type"] == "Ready")

    async def _block(self, manifest: Manifest, blocker: Blocker) -> None:
        status = reporting.blocked(manifest, blocker, self._now())
        await reporting.write(self._kube, self._events, manifest, status)

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
