"""The whole policy of a switchover: (the Cluster, what was asked for, what the pods report, the clock) to orders.

Pure, so that a night's failover is a table in a test. `decide` is asked again after every event and every answer of a
pod, and its answer stands by itself: an order that was lost is simply given again, to a pod that has just started too.

    nothing ──signal or request──▶ Holding ─no server left─▶ Held ──another primary──▶ Routing ─all pods there─▶ Done
                                      └────────┬──────────────┘
                     it stays where it was ────┼──── the ceiling
                                 RolledBack ◀──┴──▶ TimedOut
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pgweir_operator.api.conditions import SwitchoverPhase
from pgweir_operator.api.holds import HoldReport, LastHold
from pgweir_operator.api.observed import PodAnswer, PodReport, PodSilence
from pgweir_operator.switchover.cluster import HEALTHY, ClusterView, Request, Signal
from pgweir_operator.switchover.episode import Episode

# The rw Service follows its primary seconds later; for so long the pods are told where it is.
ROUTE_SECONDS: Final = 60.0
# A new primary without an address is found by its Service after all.
ADDRESS_PATIENCE: Final = 3.0
# A target that flips back and forth while a failover is being decided is no rollback, and a request may be taken back
# a moment before what it was made for is seen.
CHANGE_OF_MIND: Final = 1.0
# A pod counts its ceiling from when it heard the order.
CEILING_SLACK: Final = 2.0
_MAX_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Hold:
    id: str
    until: float
    release_when: str
    leaving: str = ""
    """The address of the primary that is to go, where it is known: a pod that finds another one goes on by itself."""


@dataclass(frozen=True, slots=True)
class Route:
    id: str
    host: str
    address: str
    until: float


@dataclass(frozen=True, slots=True)
class Release:
    id: str


Order = Hold | Route | Release


@dataclass(frozen=True, slots=True)
class Policy:
    """What the spec says. `refusal`: why this Pooler is not held at all, as a sentence."""

    host: str
    timeout: float
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is known at this moment."""

    cluster: ClusterView | None
    request: Request | None
    pods: Mapping[str, PodAnswer | None]
    """Every pod that runs; None: it was not asked yet."""
    policy: Policy
    addresses: Mapping[str, str]
    """Of instances whose address the Cluster does not tell."""
    now: float

    def address(self, pod: str) -> str:
        known = self.cluster.addresses.get(pod) if self.cluster is not None else None
        return known or self.addresses.get(pod, "")


@dataclass(frozen=True, slots=True)
class Progress:
    """What is remembered from one decision to the next."""

    episode: Episode | None = None
    current: str = ""
    """The primary as it was last seen."""
    spent: str = ""
    """While a signal stands, this primary's clients have been held for it and are not held again."""
    lonely: float | None = None
    """Since when nothing asks for the hold that stands."""


@dataclass(frozen=True, slots=True)
class Decision:
    progress: Progress
    orders: Mapping[str, Order] = field(default_factory=dict)
    """By pod."""
    wants_address: str = ""
    """An instance whose address should be looked up."""


def resumed(episode: Episode | None, now: float) -> Progress:
    """Where an operator before this one stopped."""
    if episode is None:
        return Progress()
    if episode.is_active:
        return Progress(episode, current=episode.origin)
    fresh = episode.ended is not None and now - episode.ended < ROUTE_SECONDS
    last = episode.to if episode.phase is SwitchoverPhase.DONE and episode.to else episode.origin
    return Progress(episode, current=last if fresh else "", spent=episode.origin)


def decide(scene: Scene, before: Progress) -> Decision:
    signal = scene.cluster.signal if scene.cluster is not None else None
    spent = before.spent if signal is not None else ""
    lonely = before.lonely
    episode = before.episode
    if scene.policy.refusal:
        episode = _refused(scene, episode)
    elif scene.cluster is None:
        return Decision(before)  # Nothing was seen of it yet.
    elif episode is not None and episode.is_held:
        asked = signal is Signal.SWITCHOVER or _is_requested(scene, episode) or episode.is_restart
        lonely = None if asked else lonely if lonely is not None else scene.now
        episode = _holding(scene, episode, signal, lonely)
    elif episode is not None and episode.phase is SwitchoverPhase.ROUTING:
        episode = _routing(scene, episode, signal)
    else:
        episode = _begun(scene, before, signal, spent)
    if episode is not None and not episode.is_held:
        lonely = None
    if episode is not None and episode.ended is not None and signal is not None:
        spent = episode.origin
    current = scene.cluster.current if scene.cluster is not None else before.current
    return Decision(
        Progress(episode, current=current or before.current, spent=spent, lonely=lonely),
        orders=_orders(scene, episode),
        wants_address=_wanted_address(scene, episode),
    )


# --- what becomes of it ----------------------------------------------------------------------------------------------


def _begun(scene: Scene, before: Progress, signal: Signal | None, spent: str) -> Episode | None:
    """A new one, or the last one as it was."""
    last, cluster = before.episode, scene.cluster
    assert cluster is not None
    asks = scene.request is not None and scene.request.deadline > scene.now
    orphan = _orphan(scene, last)
    if orphan and signal is None and not (asks and scene.request is not None and scene.request.id == orphan):
        # Held by an operator that is gone, for a switchover that is over.
        return _turned(scene, Episode(orphan, SwitchoverPhase.HOLDING, "", "", scene.now))
    if before.current and cluster.current and cluster.current != before.current:
        id_ = _id("failover", cluster, cluster.version)
        return _turned(scene, Episode(id_, SwitchoverPhase.HOLDING, before.current, "", scene.now))
    if signal is Signal.SWITCHOVER and spent != cluster.current:
        id_ = orphan or _id("switchover", cluster, cluster.target_since or cluster.version)
        return _hold(scene, id_, cluster.target_pod)
    if signal is Signal.RESTART and spent != cluster.current:
        return _hold(scene, orphan or _id("restart", cluster, cluster.version), cluster.current)
    if asks and scene.request is not None and (last is None or scene.request.id != last.id):
        return _hold(scene, scene.request.id, "")
    return last


def _hold(scene: Scene, id_: str, to: str) -> Episode:
    assert scene.cluster is not None
    begun = Episode(id_, SwitchoverPhase.HOLDING, scene.cluster.current, to, scene.now)
    return _progress_of_hold(scene, begun)


def _holding(scene: Scene, episode: Episode, signal: Signal | None, lonely: float | None) -> Episode:
    cluster = scene.cluster
    assert cluster is not None
    if cluster.current and cluster.current != episode.origin:
        return _turned(scene, episode)
    ends = [last for pod in scene.pods if (last := _last_hold(scene.pods[pod])) and last.id == episode.id]
    if any(last.ended_by == "ceiling" for last in ends) or scene.now >= _ceiling(scene, episode) + CEILING_SLACK:
        why = f"Clients were held for {scene.policy.timeout:g} s (spec.switchover.timeoutSeconds) and went on"
        what = "restarted" if episode.is_restart else "handed over"
        return _ended(scene, episode, SwitchoverPhase.TIMED_OUT, f"{why}; {_name(episode.origin)} was not {what}.")
    if signal is Signal.SWITCHOVER and episode.is_restart:
        return _hold(scene, _id("switchover", cluster, cluster.target_since or cluster.version), cluster.target_pod)
    if episode.is_restart:
        back = [last for last in ends if last.ended_by == "restarted"]
        if cluster.phase == HEALTHY or (back and len(back) == len(_able(scene))):
            return _ended(scene, episode, SwitchoverPhase.DONE, f"{episode.origin} was restarted in its place.")
    elif lonely is not None and scene.now - lonely >= CHANGE_OF_MIND:
        why = f"{_name(episode.origin)} stays primary: nothing asks for a switchover any more."
        return _ended(scene, episode, SwitchoverPhase.ROLLED_BACK, why)
    if signal is Signal.SWITCHOVER and cluster.target_pod:
        episode = replace(episode, to=cluster.target_pod)
    return _progress_of_hold(scene, episode)


def _progress_of_hold(scene: Scene, episode: Episode) -> Episode:
    """Who holds already, and for whom is waited. What was Held once stays so: a pod that comes later is held too."""
    now, able, without = scene.now, _able(scene), _without(scene)
    count = len(able)
    missing, draining = [], []
    for pod, answer in able.items():
        if sentence := _not_held(pod, answer, episode.id):
            missing.append(sentence)
        elif (hold := _hold_of(answer)) and not hold.drained:
            assert isinstance(answer, PodReport)
            servers = max(answer.held_servers, answer.servers)
            draining.append(f"pod {pod} has {servers} servers in use" if servers else f"pod {pod} closes its servers")
    if scene.pods and not able:
        return replace(episode, message=f"No pod can hold its clients.{without}")
    if not missing and episode.acknowledged is None:
        episode = replace(episode, acknowledged=now)
    if missing or draining:
        message = f"Told to hold: {count - len(missing)} of {count} pods. Waiting: {_listed([*missing, *draining])}."
        return replace(episode, message=message + without)
    what = f"{episode.origin} to restart" if episode.is_restart else f"{episode.to or 'another primary'} to take over"
    told = f"within {(episode.acknowledged or now) - episode.started:.3f} s"
    who = f"All {count} pods hold their clients ({told}) and no server" if count else "There is no pod"
    message = f"{who}; waiting for {what}.{without}"
    return replace(episode, phase=SwitchoverPhase.HELD, held=episode.held or now, message=message)


def _turned(scene: Scene, episode: Episode) -> Episode:
    """Another pod is primary now."""
    assert scene.cluster is not None
    now = scene.now
    return _routing(
        scene,
        replace(episode, phase=SwitchoverPhase.ROUTING, to=scene.cluster.current, turned=now),
        scene.cluster.signal,
    )


def _routing(scene: Scene, episode: Episode, signal: Signal | None) -> Episode:
    cluster, now = scene.cluster, scene.now
    assert cluster is not None
    if cluster.current and cluster.current != episode.to:
        episode = replace(episode, to=cluster.current, turned=now)
    elif signal is Signal.SWITCHOVER and cluster.target_pod != episode.to:
        # On again: the next one does not wait for a pod that is late for this one.
        return _hold(scene, _id("switchover", cluster, cluster.target_since or cluster.version), cluster.target_pod)
    turned = episode.turned if episode.turned is not None else now
    episode = replace(episode, turned=turned)
    address = scene.address(episode.to)
    if not address:
        if now - turned < ADDRESS_PATIENCE:
            return replace(episode, message=f"{episode.to} is primary; its address is being looked up.")
        message = f"{episode.to} is primary; its address is not known, so its Service is followed."
        return _ended(scene, episode, SwitchoverPhase.DONE, message)
    able = _able(scene)
    late = [pod for pod, answer in able.items() if not _is_routed(answer, scene.policy.host, address, episode.id)]
    if late and now - turned < ROUTE_SECONDS:
        count = len(able)
        message = f"{episode.to} is primary; {count - len(late)} of {count} pods go there. Waiting: {_listed(late)}."
        return replace(episode, message=message + _without(scene))
    message = f"{episode.to} is primary; all pods go to {address}."
    if late:
        message = f"{episode.to} is primary; these pods did not say that they go to {address}: {_listed(late)}."
    elif scene.pods and not able:
        message = f"{episode.to} is primary; its Service is followed."
    return _ended(scene, episode, SwitchoverPhase.DONE, message + _without(scene))


def _refused(scene: Scene, episode: Episode | None) -> Episode | None:
    """This Pooler is not held: what stands is ended, and who asks is told why."""
    if episode is not None and episode.is_active:
        return _ended(scene, episode, SwitchoverPhase.ROLLED_BACK, scene.policy.refusal)
    asked = scene.request
    if asked is None or asked.deadline <= scene.now or (episode is not None and episode.id == asked.id):
        return episode
    current = scene.cluster.current if scene.cluster is not None else ""
    return _ended(
        scene,
        Episode(asked.id, SwitchoverPhase.HOLDING, current, "", scene.now),
        SwitchoverPhase.ROLLED_BACK,
        scene.policy.refusal,
    )


def _ended(scene: Scene, episode: Episode, phase: SwitchoverPhase, message: str) -> Episode:
    ends = (_last_hold(answer) for answer in scene.pods.values())
    waited = [last.seconds for last in ends if last is not None and last.id == episode.id]
    if not waited and episode.acknowledged is not None:
        waited = [scene.now - episode.acknowledged]
    return replace(
        episode,
        phase=phase,
        ended=scene.now,
        held_seconds=max(waited) if waited else None,
        message=message,
    )


# --- who is told what ------------------------------------------------------------------------------------------------


def _orders(scene: Scene, episode: Episode | None) -> dict[str, Order]:
    found: dict[str, Order] = {}
    for pod, answer in scene.pods.items():
        order = None if episode is None else _order(scene, episode, answer)
        hold = _hold_of(answer)
        if order is None and hold is not None and (episode is None or not episode.is_held):
            order = Release(hold.id)
        if order is not None:
            found[pod] = order
    return found


def _order(scene: Scene, episode: Episode, answer: PodAnswer | None) -> Order | None:
    if episode.is_held:
        hold, last = _hold_of(answer), _last_hold(answer)
        if (hold is not None and hold.id == episode.id) or (last is not None and last.id == episode.id):
            return None  # What a pod has ended by itself is not begun again.
        ceiling = _ceiling(scene, episode)
        if episode.is_restart:
            return Hold(episode.id, ceiling, "restarted")
        return Hold(episode.id, ceiling, "told", scene.address(episode.origin))
    address = scene.address(episode.to)
    if episode.phase not in {SwitchoverPhase.ROUTING, SwitchoverPhase.DONE} or episode.turned is None or not address:
        return None
    until = episode.turned + ROUTE_SECONDS
    if until - scene.now < 1.0 or _is_routed(answer, scene.policy.host, address, episode.id):
        return None
    if episode.ended is not None and _is_too_old(answer):
        return None
    return Route(episode.id, scene.policy.host, address, until)


def _wanted_address(scene: Scene, episode: Episode | None) -> str:
    """Before it is needed: a switchover's target is known while its clients are still held."""
    if episode is None or not episode.is_active or episode.is_restart or not episode.to or scene.address(episode.to):
        return ""
    return episode.to


def _is_requested(scene: Scene, episode: Episode) -> bool:
    asked = scene.request
    return asked is not None and asked.id == episode.id and asked.deadline > scene.now


def _orphan(scene: Scene, last: Episode | None) -> str:
    """A hold that some pod reports and that we know nothing of."""
    holds = (_hold_of(answer) for answer in scene.pods.values())
    return next((hold.id for hold in holds if hold is not None and (last is None or hold.id != last.id)), "")


def _able(scene: Scene) -> dict[str, PodAnswer | None]:
    """The pods that are waited for: of an image that knows no holds there is nothing to be waited for."""
    return {pod: answer for pod, answer in scene.pods.items() if not _is_too_old(answer)}


def _without(scene: Scene) -> str:
    old = [f"pod {pod}" for pod, answer in scene.pods.items() if _is_too_old(answer)]
    return f" Without {_listed(old)}: the image is too old to hold clients." if old else ""


def _is_too_old(answer: PodAnswer | None) -> bool:
    return isinstance(answer, PodSilence) and answer.is_too_old


def _not_held(pod: str, answer: PodAnswer | None, id_: str) -> str:
    """The name of a pod that has not acknowledged, with the reason where one is known."""
    if answer is None:
        return f"pod {pod}"
    if isinstance(answer, PodSilence):
        return f"pod {pod} ({answer.error})"
    hold, last = answer.hold, answer.last_hold
    held = (hold is not None and hold.id == id_) or (last is not None and last.id == id_)
    return "" if held else f"pod {pod}"


def _is_routed(answer: PodAnswer | None, host: str, address: str, id_: str) -> bool:
    if not isinstance(answer, PodReport) or (answer.hold is not None and answer.hold.id == id_):
        return False
    return answer.route is not None and (answer.route.host, answer.route.address) == (host, address)


def _hold_of(answer: PodAnswer | None) -> HoldReport | None:
    return answer.hold if isinstance(answer, PodReport) else None


def _last_hold(answer: PodAnswer | None) -> LastHold | None:
    return answer.last_hold if isinstance(answer, PodReport) else None


def _ceiling(scene: Scene, episode: Episode) -> float:
    return episode.started + scene.policy.timeout


def _id(kind: str, cluster: ClusterView, stamp: str) -> str:
    """The same for every Pooler of the cluster, and for the operator that takes over."""
    text = "|".join((cluster.uid, cluster.current, stamp))
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _name(pod: str) -> str:
    return pod or "the primary"


def _listed(items: list[str]) -> str:
    rest = len(items) - _MAX_NAMED
    return "; ".join(items[:_MAX_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
