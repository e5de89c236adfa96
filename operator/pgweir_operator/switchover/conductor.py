"""The edge of a switchover: Clusters are watched, orders go to the pods, status.switchover and Events are written.

One task for each Pooler asks decision.py what is to be done, after every event and every answer; each order travels in
a task of its own, over the connections that the reconcile passes keep open. WHY not in a pass: a pass may take seconds,
above all while PostgreSQL is away, and sessions end half a second after the first sign. For the same reason nothing
here waits for the API server: what is told is written by another task, the newest first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pgweir_operator.api import names
from pgweir_operator.api.conditions import SwitchoverPhase
from pgweir_operator.api.observed import Observed, PodAnswer, PodReport
from pgweir_operator.api.pooler import Pooler, ServiceType, SwitchoverMode
from pgweir_operator.fleet import Fleet, Member
from pgweir_operator.kube import ApiError, Kube, NotFoundError
from pgweir_operator.kube.events import Events
from pgweir_operator.kube.watches import Change, Named, ObjectWatches
from pgweir_operator.observe import pods_of
from pgweir_operator.switchover.cluster import ClusterView, Request, cluster_view, request
from pgweir_operator.switchover.decision import (
    Decision,
    Hold,
    Order,
    Policy,
    Progress,
    Release,
    Route,
    Scene,
    decide,
    resumed,
)
from pgweir_operator.switchover.episode import FIELDS, Episode, stored

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name of a Pooler."""

# While something is going on: pods are asked this often, less often when it takes long, and an order that came to
# nothing is given again after this.
ASK_INTERVAL: Final = 0.1
LONG: Final = 2.0
ASK_INTERVAL_WHEN_LONG: Final = 0.5
RETRY_INTERVAL: Final = 0.25
# Pods that start in the middle are looked for this often.
SEARCH_INTERVAL: Final = 1.0
# Two writes of a status are at least this far apart.
TELL_INTERVAL: Final = 0.1
# For so long after its end nothing is concluded from a PostgreSQL that does not answer: its Service is late.
SETTLING: Final = 15.0

_EVENTS: Final[Mapping[SwitchoverPhase, tuple[Literal["Normal", "Warning"], str]]] = {
    SwitchoverPhase.HELD: ("Normal", "SwitchoverHeld"),
    SwitchoverPhase.DONE: ("Normal", "SwitchoverDone"),
    SwitchoverPhase.TIMED_OUT: ("Warning", "SwitchoverTimedOut"),
    SwitchoverPhase.ROLLED_BACK: ("Normal", "SwitchoverRolledBack"),
}


@dataclass(frozen=True, slots=True)
class Standing:
    """A Pooler as a pass has found it: whom to tell, and how."""

    manifest: Mapping[str, Any]
    cluster: Named | None
    policy: Policy
    fleet: Fleet
    members: tuple[Member, ...]
    answers: Mapping[str, PodAnswer]

    @property
    def key(self) -> Key:
        return self.manifest["metadata"]["namespace"], self.manifest["metadata"]["name"]


def standing(
    manifest: Mapping[str, Any],
    pooler: Pooler,
    observed: Observed,
    *,
    fleet: Fleet,
    members: Sequence[Member],
    answers: Mapping[str, PodAnswer],
) -> Standing:
    kind = observed.cluster.object_kind
    refusal = ""
    if pooler.spec.type is not ServiceType.RW:
        refusal = f"Only a Pooler of type rw is held in a switchover; this one's type is {pooler.spec.type.value}."
    elif kind is None or pooler.cluster_name is None:
        refusal = "There is no Cluster object that would announce a switchover; use spec.paused."
    elif pooler.spec.switchover.mode is SwitchoverMode.OFF:
        refusal = "spec.switchover.mode is Off; set it to Automatic."
    watched = None
    if not refusal and kind is not None and pooler.cluster_name is not None:
        watched = Named(kind, pooler.namespace, pooler.cluster_name)
    timeout = float(pooler.spec.switchover.timeout_seconds)
    return Standing(
        manifest=manifest,
        cluster=watched,
        policy=Policy(observed.cluster.host, timeout, refusal),
        fleet=fleet,
        members=tuple(members),
        answers=answers,
    )


class Switchovers:
    """Every Pooler's. `changed` is told when one was held, and when it is over: its conditions say something else. `ended`
    is told how one ended."""

    def __init__(
        self,
        kube: Kube,
        events: Events,
        changed: Callable[[Key], None],
        *,
        clock: Callable[[], float] = time.time,
        ended: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._kube = kube
        self._ended = ended
        self._events = events
        self._changed = changed
        self._clock = clock
        self._watches: ObjectWatches[Key] = ObjectWatches(kube, self._heard)
        self._views: dict[Named, ClusterView] = {}
        self._conductors: dict[Key, _Conductor] = {}
        self._asked: dict[Key, str | None] = {}

    def know(self, found: Standing) -> None:
        """What a pass has found: from now on these are the pods."""
        conductor = self._conductors.get(found.key)
        if conductor is None:
            conductor = _Conductor(
                self._kube, self._events, found, self._clock, lambda: self._changed(found.key), self._ended
            )
            self._conductors[found.key] = conductor
            annotations = found.manifest["metadata"].get("annotations") or {}
            conductor.asked(self._asked.get(found.key, annotations.get(names.SWITCHOVER_ANNOTATION)))
        else:
            conductor.know(found)
        self._watches.want(found.key, [found.cluster] if found.cluster is not None else [])
        if found.cluster is not None and conductor.has_seen_nothing and (view := self._views.get(found.cluster)):
            conductor.saw_cluster(view)  # Another Pooler's watch of it has been there before.
        self._drop_views()

    def saw_pooler(self, key: Key, annotations: Mapping[str, str] | None) -> None:
        """As every event of the Pooler has them; None: it is gone."""
        if annotations is None:
            self._asked.pop(key, None)
            return
        text = self._asked[key] = annotations.get(names.SWITCHOVER_ANNOTATION)
        if conductor := self._conductors.get(key):
            conductor.asked(text)

    @property
    def watches(self) -> ObjectWatches[Key]:
        return self._watches

    def episode(self, key: Key) -> Episode | None:
        conductor = self._conductors.get(key)
        return conductor.episode if conductor is not None else None

    def sentence(self, key: Key) -> str:
        """What is under way, for those who would conclude something from its traces; else empty."""
        episode = self.episode(key)
        if episode is None or not episode.is_active:
            return ""
        what = f"{episode.origin} restarts" if episode.is_restart else f"from {episode.origin} to {episode.to or '?'}"
        return f"A switchover is under way ({what}), and clients are held. {episode.message}"

    def is_unsettled(self, key: Key) -> bool:
        """Whether a PostgreSQL that does not answer is what is to be expected."""
        episode = self.episode(key)
        if episode is None:
            return False
        return episode.is_active or (episode.ended is not None and self._clock() - episode.ended < SETTLING)

    def forget(self, key: Key) -> None:
        self._watches.forget(key)
        self._drop_views()
        if conductor := self._conductors.pop(key, None):
            conductor.stop()

    async def close(self) -> None:
        """Nobody is told anything any more: a hold that stands is for the next leader to go on with."""
        conductors, self._conductors = list(self._conductors.values()), {}
        await self._watches.close()
        for conductor in conductors:
            conductor.stop()
        await asyncio.gather(*(task for conductor in conductors for task in conductor.tasks), return_exceptions=True)

    def _heard(self, key: Key, change: Change) -> None:
        view = None if change.type == "DELETED" else cluster_view(change.object)
        if view is None:
            self._views.pop(change.what, None)
        else:
            self._views[change.what] = view
        if conductor := self._conductors.get(key):
            conductor.saw_cluster(view)

    def _drop_views(self) -> None:
        for what in [what for what in self._views if not self._watches.is_watched(what)]:
            del self._views[what]


@dataclass(slots=True)
class _Courier:
    """An order on its way to one pod, or the last one. None asks how it is."""

    order: Order | None
    task: asyncio.Task[None] | None = None
    again: float = 0.0

    @property
    def is_under_way(self) -> bool:
        return self.task is not None and not self.task.done()


class _Conductor:
    """One Pooler's: the state between two decisions, and the tasks."""

    def __init__(
        self,
        kube: Kube,
        events: Events,
        found: Standing,
        clock: Callable[[], float],
        changed: Callable[[], None],
        ended: Callable[[str], None],
    ) -> None:
        self._ended = ended
        self._kube = kube
        self._events = events
        self._clock = clock
        self._changed = changed
        self._standing = found
        self._name = "/".join(found.key)
        self._members = {member.name: member for member in found.members}
        self._answers: dict[str, PodAnswer] = dict(found.answers)
        self._cluster: ClusterView | None = None
        self._request: Request | None = None
        self._addresses: dict[str, str] = {}
        self._couriers: dict[str, _Courier] = {}
        status = (found.manifest.get("status") or {}).get("switchover") or {}
        self._progress: Progress = resumed(stored(status), clock())
        self._told: Mapping[str, Any] = status
        self._happened: list[Episode] = []
        self._woken = asyncio.Event()
        self._untold = asyncio.Event()
        self._search_due = 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        self._start(self._work())
        self._start(self._tell())

    @property
    def episode(self) -> Episode | None:
        return self._progress.episode

    @property
    def has_seen_nothing(self) -> bool:
        return self._cluster is None

    # --- what comes in -----------------------------------------------------------------------------------------------

    def know(self, found: Standing) -> None:
        self._standing = found
        self._set_members(found.members)
        # WHY only in quiet times: while something is going on the pods are asked here, and a pass's answer is older.
        if self.episode is None or not self.episode.is_active:
            for pod, answer in found.answers.items():
                courier = self._couriers.get(pod)
                if courier is None or not courier.is_under_way:
                    self._answers[pod] = answer
        self._woken.set()

    def saw_cluster(self, view: ClusterView | None) -> None:
        self._cluster = view
        self._woken.set()

    def asked(self, text: str | None) -> None:
        try:
            self._request = request(text) if text else None
        except ValueError as error:
            self._request = None
            note = f"Annotation {names.SWITCHOVER_ANNOTATION}: {error}."
            logger.warning("%s: %s", self._name, note)
            self._start(self._events.say(self._standing.manifest, "Warning", "SwitchoverNotUnderstood", note))
        self._woken.set()

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()

    def _set_members(self, members: Sequence[Member]) -> None:
        before = self._members
        self._members = {member.name: member for member in members}
        for name in [name for name, member in before.items() if self._members.get(name) != member]:
            self._answers.pop(name, None)
            if courier := self._couriers.pop(name, None):
                self._cancel(courier)

    # --- what goes out -----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            self._woken.clear()
            busy = True
            try:
                decision = decide(self._scene(), self._progress)
                self._note(decision)
                busy = self._send(decision)
            except Exception:
                # As with a pass: a Pooler that makes us stumble is logged, and looked at again.
                logger.exception("%s: the switchover stumbled", self._name)
                await asyncio.sleep(SEARCH_INTERVAL)
            try:
                async with asyncio.timeout(ASK_INTERVAL if busy else None):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def _scene(self) -> Scene:
        return Scene(
            cluster=self._cluster,
            request=self._request,
            pods={name: self._answers.get(name) for name in self._members},
            policy=self._standing.policy,
            addresses=self._addresses,
            now=self._clock(),
        )

    def _note(self, decision: Decision) -> None:
        before, episode = self._progress.episode, decision.progress.episode
        self._progress = decision.progress
        if episode is None or episode == before:
            return
        if before is None or (before.id, before.phase) != (episode.id, episode.phase):
            logger.info("%s: switchover %s is %s. %s", self._name, episode.id, episode.phase.value, episode.message)
            self._happened.append(episode)
            if episode.ended is not None:
                self._ended(episode.phase.value)
            if episode.phase is SwitchoverPhase.HELD or episode.ended is not None:
                self._changed()
        self._untold.set()

    def _send(self, decision: Decision) -> bool:
        """Give every pod its order; whether to look again soon."""
        now = time.monotonic()
        active = self.episode is not None and self.episode.is_active
        for name, member in self._members.items():
            order = decision.orders.get(name)
            courier = self._couriers.get(name) or _Courier(None)
            if order is None and (not active or courier.is_under_way or now < courier.again):
                continue
            if order is not None and order == courier.order and (courier.is_under_way or now < courier.again):
                continue
            if order is not None and courier.order is not None:
                self._cancel(courier)  # Another order than the one that is on its way.
            courier = self._couriers[name] = _Courier(order)
            courier.task = self._start(self._carry(member, courier))
        if active and now >= self._search_due:
            self._search_due = now + SEARCH_INTERVAL
            self._start(self._search(decision.wants_address))
        return active or bool(decision.orders)

    async def _carry(self, member: Member, courier: _Courier) -> None:
        fleet, order = self._standing.fleet, courier.order
        left = max(1.0, round(order.until - self._clock(), 3)) if isinstance(order, Hold | Route) else 0.0
        match order:
            case Hold():
                answer = await fleet.hold(
                    member, order.id, ceiling=left, release_when=order.release_when, leaving=order.leaving
                )
            case Route():
                answer = await fleet.route(member, order.id, host=order.host, address=order.address, seconds=left)
            case Release():
                answer = await fleet.release(member, order.id)
            case None:
                answer = await fleet.ask(member)
        if self._couriers.get(member.name) is not courier:
            return  # Overtaken by an order.
        said = isinstance(answer, PodReport)
        courier.again = time.monotonic() + (self._pace() if said and order is None else RETRY_INTERVAL)
        self._answers[member.name] = answer
        self._woken.set()

    def _pace(self) -> float:
        episode = self.episode
        long = episode is not None and self._clock() - episode.started > LONG
        return ASK_INTERVAL_WHEN_LONG if long else ASK_INTERVAL

    async def _search(self, instance: str) -> None:
        """Pods that came or went meanwhile, and the address of the primary that is to be."""
        namespace, name = self._standing.key
        try:
            if instance:
                pod = await self._kube.get("Pod", namespace, instance)
                if address := ((pod or {}).get("status") or {}).get("podIP"):
                    self._addresses[instance] = address
                    self._woken.set()
            pods = await self._kube.items("Pod", namespace, labels=names.selector_text(name))
        except ApiError as error:
            logger.warning("%s: pods cannot be read during a switchover: %s", self._name, error.message)
            return
        self._set_members([Member(pod.name, pod.ip) for pod in pods_of(pods) if pod.is_reachable])
        self._woken.set()

    # --- what is told ------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            await self._untold.wait()
            self._untold.clear()
            try:
                await self._write()
            except NotFoundError:
                return  # The Pooler is gone.
            except ApiError as error:
                logger.warning("%s: status.switchover cannot be written: %s", self._name, error.message)
                self._untold.set()
                await asyncio.sleep(SEARCH_INTERVAL)
                continue
            while self._happened:
                episode = self._happened.pop(0)
                if said := _EVENTS.get(episode.phase):
                    await self._events.say(self._standing.manifest, *said, episode.message)
            await asyncio.sleep(TELL_INTERVAL)

    async def _write(self) -> None:
        assert self.episode is not None
        status = self.episode.status()
        if status == self._told:
            return
        part = {"switchover": {name: status.get(name) for name in FIELDS}}
        await self._kube.merge_status(names.KIND, *self._standing.key, part)
        self._told = status

    # --- tasks -------------------------------------------------------------------------------------------------------

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"switchover of {self._name}")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _cancel(self, courier: _Courier) -> None:
        if courier.task is not None:
            courier.task.cancel()
