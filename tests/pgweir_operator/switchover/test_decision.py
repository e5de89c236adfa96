"""The policy of a switchover, told as timelines: what the Cluster says when, and what the pods are told and say.

The clocks are those that were seen at a real CloudNativePG (seconds after the first sign). Nothing here waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from pgweir_operator.api.conditions import SwitchoverPhase
from pgweir_operator.api.holds import HoldReport, LastHold, RouteReport
from pgweir_operator.api.observed import PodReport, PodSilence
from pgweir_operator.switchover.cluster import HEALTHY, PENDING, ClusterView, Request
from pgweir_operator.switchover.decision import (
    ROUTE_SECONDS,
    Hold,
    Policy,
    Progress,
    Release,
    Route,
    Scene,
    decide,
    resumed,
)
from pgweir_operator.switchover.episode import stored

IN_PLACE = "Primary instance is being restarted in-place"
ADDRESSES = {"c1-1": "10.0.0.1", "c1-2": "10.0.0.2", "c1-3": "10.0.0.3"}
TICK = 0.05


@dataclass
class Pod:
    """A pod that keeps the contract; `servers` are let go when the test says so."""

    name: str
    servers: int = 0
    silent: bool = False
    old: bool = False
    """Its image knows no holds: every order is answered with 404, a question with a report."""
    hold: str | None = None
    since: float = 0.0
    until: float = 0.0
    route: Route | None = None
    last: LastHold | None = None
    told: list[object] = field(default_factory=list)

    def obey(self, order, now):
        if self.silent:
            return
        self.told.append(order)
        if self.old:
            return
        match order:
            case Hold(id_, until) if self.hold != id_:
                self.hold, self.since, self.until = id_, now, until
            case Route(id_):
                self.route = order
                self.end("route", now, id_)
            case Release(id_):
                self.end("told", now, id_)

    def end(self, by, now, id_=None):
        if self.hold is not None and id_ in (None, self.hold):
            self.last = LastHold(self.hold, by, now - self.since, 7)
            self.hold = None

    def answer(self, now):
        if self.silent:
            return PodSilence(self.name, "no answer")
        if self.old and self.told:
            return PodSilence(self.name, "its image is too old for that", is_too_old=True)
        if self.hold is not None and now >= self.until:
            self.end("ceiling", now)
        hold = HoldReport(self.hold, drained=self.servers == 0) if self.hold else None
        route = None
        if self.route is not None and self.route.until > now:
            route = RouteReport(self.route.host, self.route.address, self.route.until - now)
        return PodReport(self.name, 1, "d", "active", paused=False, hold=hold, last_hold=self.last, route=route)


class Play:
    def __init__(self, *, pods=2, timeout=60.0, refusal="", now=1000.0, progress=None, seen=None, **cluster):
        self.start = self.now = now
        self.pods = {f"pod-{n}": Pod(f"pod-{n}") for n in range(pods)} if isinstance(pods, int) else pods
        given = {"uid": "u", "version": "1", "current": "c1-1", "target": "c1-1", "phase": HEALTHY}
        self.cluster = seen or ClusterView(**{**given, "addresses": ADDRESSES, **cluster})
        self.policy = Policy("c1-rw", timeout, refusal)
        self.request = None
        self.ticks = 0
        self.progress = progress or Progress()
        self.addresses = {}
        self.answers = {name: pod.answer(now) for name, pod in self.pods.items()}
        self.phases = []
        self.wanted = []
        self.decision = None
        self.step()

    def step(self):
        """Decide, let the pods obey, until nothing changes at this moment."""
        self.answers = {name: self.answers.get(name) for name in self.pods}
        for _ in range(10):
            before = (self.progress.episode and self.progress.episode.phase, dict(self.answers))
            scene = Scene(self.cluster, self.request, self.answers, self.policy, self.addresses, self.now)
            self.decision = decide(scene, self.progress)
            self.progress = self.decision.progress
            if self.decision.wants_address:
                self.wanted.append(self.decision.wants_address)
            phase = self.progress.episode and self.progress.episode.phase
            if phase is not None and (not self.phases or self.phases[-1][1] is not phase):
                self.phases.append((round(self.now - self.start, 2), phase))
            for name, order in self.decision.orders.items():
                self.pods[name].obey(order, self.now)
            self.answers = {name: pod.answer(self.now) for name, pod in self.pods.items()}
            if before == (phase, self.answers):
                return
        if any(pod.silent or pod.old for pod in self.pods.values()):
            return
        raise AssertionError(f"it does not settle: {self.decision}")

    def until(self, seconds):
        while self.ticks < round(seconds / TICK):
            self.ticks += 1
            self.now = self.start + self.ticks * TICK
            self.step()

    def at(self, seconds, **cluster):
        """The Cluster changes then."""
        self.until(seconds)
        version = str(int(self.cluster.version) + 1)
        if "target" in cluster and cluster["target"] != self.cluster.target:
            cluster.setdefault("target_since", f"t{version}")
        self.cluster = replace(self.cluster, version=version, **cluster)
        self.step()

    def ask(self, id_, seconds):
        self.request = Request(id_, self.now + seconds)
        self.step()

    @property
    def episode(self):
        return self.progress.episode

    @property
    def words(self):
        return [phase.value for _, phase in self.phases]

    def when(self, phase):
        return next(seconds for seconds, seen in self.phases if seen.value == phase)

    def orders(self, name="pod-0"):
        return [type(order).__name__ for order in self.pods[name].told]


# --- the four kinds ------------------------------------------------------------------------------------------------------


def test_a_planned_switchover_holds_at_the_first_sign_and_goes_to_the_new_primary_at_once():
    play = Play()
    play.pods["pod-1"].servers = 3
    play.at(0.05, target="c1-2", phase="Switchover in progress")
    assert play.words == ["Holding"]
    assert all(pod.hold for pod in play.pods.values()), "every pod, in the moment of the event"
    assert {pod.told[0].leaving for pod in play.pods.values()} == {"10.0.0.1"}, "so that they find out without us"
    assert "pod pod-1 closes its servers" in play.episode.message
    play.until(0.5)
    play.pods["pod-1"].servers = 0
    play.until(0.6)
    assert play.words == ["Holding", "Held"]
    play.at(3.6, current="c1-2")
    assert play.words == ["Holding", "Held", "Routing", "Done"]
    assert play.when("Done") == 3.6, "not when the Service follows, four seconds later"
    assert {(pod.route.host, pod.route.address) for pod in play.pods.values()} == {("c1-rw", "10.0.0.2")}
    assert not any(pod.hold for pod in play.pods.values())
    assert (play.episode.origin, play.episode.to) == ("c1-1", "c1-2")
    assert play.episode.held_seconds == pytest.approx(3.55)
    play.at(13.0, phase=HEALTHY)
    play.until(90.0)
    assert play.words == ["Holding", "Held", "Routing", "Done"]
    assert play.orders() == ["Hold", "Route"], "nothing is said twice"


def test_a_primary_that_is_killed_is_held_while_the_failover_is_decided():
    play = Play()
    play.at(2.7, target=PENDING, phase="Failing over")
    assert play.words == ["Holding", "Held"]
    assert play.episode.to == ""
    play.at(2.8, target="c1-2")
    assert play.episode.to == "c1-2"
    play.at(4.2, current="c1-2")
    assert play.words == ["Holding", "Held", "Routing", "Done"]
    assert play.orders() == ["Hold", "Route"], "the target's change from pending is the same switchover"
    assert play.episode.held_seconds == pytest.approx(1.5)


def test_a_deleted_primary_whose_target_flips_for_seconds_is_one_switchover():
    play = Play()
    play.at(0.1, target=PENDING, phase="Failing over")
    for number in range(8):
        play.at(0.4 + number * 0.4, target="c1-1" if number % 2 == 0 else PENDING)
    play.at(3.6, target="c1-2")
    play.until(21.0)
    play.at(21.5, current="c1-2")
    assert play.words == ["Holding", "Held", "Routing", "Done"]
    assert play.orders() == ["Hold", "Route"]


@pytest.mark.parametrize("phase", [IN_PLACE, "Primary instance is being restarted without a switchover"])
def test_a_restart_in_its_place_is_held_until_the_pods_have_seen_it_come_back(phase):
    play = Play()
    play.at(1.0, phase=phase)
    assert play.words == ["Holding", "Held"]
    assert {pod.told[0].release_when for pod in play.pods.values()} == {"restarted"}
    play.until(4.0)
    play.pods["pod-0"].end("restarted", play.now)
    play.until(4.2)
    assert play.words[-1] == "Held", "the other pod has not seen it yet"
    play.pods["pod-1"].end("restarted", play.now)
    play.until(4.3)
    assert play.words[-1] == "Done"
    play.until(5.0)
    assert play.orders() == ["Hold"], "the phase still stands, and nobody is held for it again"
    play.at(6.0, phase=HEALTHY)
    play.at(7.0, phase=phase)
    assert play.orders() == ["Hold", "Hold"], "the next restart is another one"


def test_a_restart_that_is_over_releases_who_has_not_noticed():
    play = Play()
    play.at(1.0, phase=IN_PLACE)
    play.at(5.0, phase=HEALTHY)
    assert play.words == ["Holding", "Held", "Done"]
    assert play.orders() == ["Hold", "Release"]


# --- other ways through --------------------------------------------------------------------------------------------------


def test_a_failover_that_nobody_announced_is_a_route_alone():
    play = Play()
    play.at(1.0, current="c1-2", target="c1-2")
    assert play.words == ["Routing", "Done"]
    assert play.orders() == ["Route"]
    assert play.episode.held_seconds is None
    assert (play.episode.origin, play.episode.to) == ("c1-1", "c1-2")


def test_a_target_that_goes_back_releases_everybody_after_a_moment():
    play = Play()
    play.at(1.0, target="c1-2")
    play.at(3.0, target="c1-1")
    assert play.words == ["Holding", "Held"]
    play.until(4.5)
    assert play.words == ["Holding", "Held", "RolledBack"]
    assert play.orders() == ["Hold", "Release"]
    play.at(9.0, target="c1-2")
    assert play.words[-1] == "Held"
    assert len({order.id for order in play.pods["pod-0"].told if isinstance(order, Hold)}) == 2


def test_the_ceiling_lets_everybody_go_on_and_the_same_signal_holds_nobody_again():
    play = Play(timeout=10.0)
    play.at(1.0, target="c1-2")
    play.until(30.0)
    assert play.words == ["Holding", "Held", "TimedOut"]
    assert play.when("TimedOut") == pytest.approx(11.0, abs=0.1)
    assert play.orders() == ["Hold"]
    assert "timeoutSeconds" in play.episode.message
    play.at(31.0, target=PENDING)
    assert play.orders() == ["Hold"], "it is still the same trouble"
    play.at(40.0, current="c1-2", target="c1-2")
    assert play.words[-1] == "Done", "the way is shown as soon as it is known"
    assert play.orders() == ["Hold", "Route"]


def test_a_silent_pod_holds_up_neither_the_ceiling_nor_the_others():
    play = Play(pods=3, timeout=10.0)
    play.pods["pod-2"].silent = True
    play.at(1.0, target="c1-2")
    assert play.words == ["Holding"]
    assert "pod pod-2 (no answer)" in play.episode.message
    assert play.pods["pod-0"].hold
    assert play.pods["pod-1"].hold
    play.at(4.0, current="c1-2")
    assert play.words == ["Holding", "Routing"]
    assert not play.pods["pod-0"].hold
    assert "Waiting: pod-2" in play.episode.message
    play.until(4.0 + ROUTE_SECONDS)
    assert play.words[-1] == "Done"
    assert "pod-2" in play.episode.message


def test_when_every_pod_is_silent_the_end_comes_all_the_same():
    play = Play(pods=1, timeout=10.0)
    play.pods["pod-0"].silent = True
    play.at(1.0, target="c1-2")
    play.until(14.0)
    assert play.words == ["Holding", "TimedOut"]


def test_a_pod_that_is_too_old_for_holds_is_waited_for_by_nobody_and_named():
    play = Play(pods=3)
    play.pods["pod-1"].old = True
    play.at(1.0, target="c1-2")
    assert play.words == ["Holding", "Held"], "in the moment of the event"
    assert "All 2 pods hold their clients" in play.episode.message
    assert "Without pod pod-1: the image is too old to hold clients." in play.episode.message
    play.at(4.0, current="c1-2")
    assert play.words == ["Holding", "Held", "Routing", "Done"]
    assert play.when("Done") == 4.0
    assert "all pods go to 10.0.0.2. Without pod pod-1" in play.episode.message
    told = len(play.orders("pod-1"))
    play.until(30.0)
    assert len(play.orders("pod-1")) == told, "it is not asked again for what it does not know"


def test_a_restart_does_not_wait_for_a_pod_that_is_too_old_for_holds():
    play = Play(pods=2)
    play.pods["pod-1"].old = True
    play.at(1.0, phase=IN_PLACE)
    assert play.words == ["Holding", "Held"]
    play.pods["pod-0"].end("restarted", play.now)
    play.until(2.0)
    assert play.words == ["Holding", "Held", "Done"]


def test_where_every_pod_is_too_old_nobody_is_said_to_be_held():
    play = Play(pods=2)
    for pod in play.pods.values():
        pod.old = True
    play.at(1.0, target="c1-2")
    play.until(3.0)
    assert play.words == ["Holding"]
    assert play.episode.message.startswith("No pod can hold its clients. Without pod pod-0; pod pod-1")
    play.at(4.0, current="c1-2")
    assert play.words == ["Holding", "Done"]
    assert "its Service is followed. Without pod pod-0; pod pod-1" in play.episode.message


def test_a_pod_that_comes_in_the_middle_gets_the_hold_for_what_is_left_and_later_the_route():
    play = Play(timeout=30.0)
    play.at(1.0, target="c1-2")
    play.until(11.0)
    play.pods["pod-9"] = Pod("pod-9")
    play.step()
    assert play.pods["pod-9"].told[0].until == play.pods["pod-0"].until
    play.at(12.0, current="c1-2")
    play.until(20.0)
    play.pods["pod-10"] = Pod("pod-10")
    play.step()
    assert play.orders("pod-10") == ["Route"]
    play.until(12.0 + ROUTE_SECONDS + 1)
    play.pods["pod-11"] = Pod("pod-11")
    play.step()
    assert play.orders("pod-11") == []


def test_a_pod_that_restarts_in_the_middle_is_held_again():
    play = Play()
    play.at(1.0, target="c1-2")
    play.pods["pod-0"] = Pod("pod-0")
    play.until(2.0)
    assert play.orders() == ["Hold"]
    assert play.pods["pod-0"].hold == play.pods["pod-1"].hold


def test_the_next_switchover_does_not_wait_for_a_pod_that_is_late_for_the_last():
    play = Play(pods=2)
    play.pods["pod-1"].silent = True
    play.at(1.0, target="c1-2")
    play.at(4.0, current="c1-2")
    assert play.words[-1] == "Routing"
    play.at(5.0, target="c1-3")
    assert play.words[-1] == "Holding"
    play.at(8.0, current="c1-3")
    assert play.pods["pod-0"].route.address == "10.0.0.3"


def test_a_restart_that_becomes_a_switchover_goes_on_as_one():
    play = Play()
    play.at(1.0, phase=IN_PLACE)
    play.at(2.0, target="c1-2", phase="Switchover in progress")
    assert [order.release_when for order in play.pods["pod-0"].told] == ["restarted", "told"]
    play.at(4.0, current="c1-2")
    assert play.words[-1] == "Done"
    assert play.episode.to == "c1-2"


def test_a_cluster_that_is_being_made_is_no_switchover():
    play = Play(current="", target="")
    play.at(1.0, target="c1-1", phase="Setting up primary")
    play.at(9.0, current="c1-1")
    play.at(10.0, phase=HEALTHY)
    assert play.words == []
    assert play.orders() == []


def test_a_pooler_without_pods_is_held_as_soon_as_it_is_asked():
    play = Play(pods=0)
    play.at(1.0, target="c1-2")
    assert play.words == ["Held"]
    play.at(2.0, current="c1-2")
    assert play.words[-1] == "Done"


# --- addresses -----------------------------------------------------------------------------------------------------------


def test_an_address_that_the_cluster_does_not_tell_is_looked_up_while_clients_are_still_held():
    play = Play(addresses={})
    play.at(1.0, target="c1-2")
    assert play.wanted[-1] == "c1-2"
    play.addresses["c1-2"] = "10.9.9.9"
    play.at(4.0, current="c1-2")
    assert {pod.route.address for pod in play.pods.values()} == {"10.9.9.9"}


def test_a_primary_without_an_address_is_found_by_its_service_after_all():
    play = Play(addresses={})
    play.at(1.0, target="c1-2")
    play.at(4.0, current="c1-2")
    assert play.words[-1] == "Routing"
    play.until(8.0)
    assert play.words[-1] == "Done"
    assert play.orders() == ["Hold", "Release"]


# --- on purpose ----------------------------------------------------------------------------------------------------------


def test_a_request_holds_before_anything_is_announced_and_is_one_with_what_follows():
    play = Play()
    play.ask("move-7", 30)
    assert play.words == ["Holding", "Held"]
    assert {pod.hold for pod in play.pods.values()} == {"move-7"}
    play.until(1.0)
    play.request = None  # Taken back a moment before the Cluster's event comes.
    play.until(1.3)
    play.at(1.4, target="c1-2")
    play.at(4.0, current="c1-2")
    assert play.words == ["Holding", "Held", "Routing", "Done"]
    assert play.orders() == ["Hold", "Route"]
    assert play.episode.id == "move-7"


@pytest.mark.parametrize("how", ["withdrawn", "past its deadline"])
def test_a_request_that_comes_to_nothing_is_rolled_back_and_not_begun_again(how):
    play = Play()
    play.ask("move-7", 5)
    play.until(3.0)
    if how == "withdrawn":
        play.request = None
    play.until(10.0)
    assert play.words == ["Holding", "Held", "RolledBack"]
    assert play.orders() == ["Hold", "Release"]


def test_a_request_that_has_ended_stands_for_nothing_while_its_annotation_is_still_there():
    play = Play()
    play.ask("move-7", 300)
    play.at(2.0, target="c1-2")
    play.at(4.0, current="c1-2")
    play.until(20.0)
    assert play.words == ["Holding", "Held", "Routing", "Done"]


def test_a_request_that_is_too_late_holds_nobody():
    play = Play()
    play.ask("move-7", -1)
    assert play.words == []


def test_where_nobody_is_held_who_asks_is_told_why():
    play = Play(refusal="spec.switchover.mode is Off.")
    play.at(1.0, target="c1-2")
    assert play.words == []
    play.ask("move-7", 30)
    assert play.words == ["RolledBack"]
    assert play.episode.message == "spec.switchover.mode is Off."
    assert play.orders() == []


def test_switched_off_in_the_middle_everybody_goes_on():
    play = Play()
    play.at(1.0, target="c1-2")
    play.policy = replace(play.policy, refusal="spec.switchover.mode is Off.")
    play.until(1.1)
    assert play.words[-1] == "RolledBack"
    assert play.orders() == ["Hold", "Release"]


# --- an operator that starts in the middle -------------------------------------------------------------------------------


def after_a_restart(play, **cluster):
    """The status is all that is left; nobody has been asked yet."""
    episode = play.episode
    for pod in play.pods.values():
        pod.told.clear()
    seen = replace(play.cluster, **cluster)
    return Play(
        now=play.now, progress=resumed(episode and stored(episode.status()), play.now), pods=play.pods, seen=seen
    )


def test_the_next_leader_goes_on_with_the_same_hold():
    play = Play()
    play.at(1.0, target="c1-2")
    again = after_a_restart(play)
    again.until(0.5)
    assert again.orders() == []
    assert again.episode.id == play.episode.id
    again.at(3.0, current="c1-2")
    assert again.episode.phase is SwitchoverPhase.DONE
    assert again.orders() == ["Route"]


def test_the_next_leader_finds_the_primary_moved_while_nobody_looked():
    play = Play()
    play.at(1.0, target="c1-2")
    again = after_a_restart(play, current="c1-2")
    assert again.orders() == ["Route"]
    assert again.episode.phase is SwitchoverPhase.DONE


def test_the_next_leader_finds_the_status_never_written_and_the_pods_holding():
    play = Play()
    play.at(1.0, target="c1-2")
    play.progress = Progress()
    again = after_a_restart(play)
    assert again.orders() == []
    assert again.episode.id == again.pods["pod-0"].hold
    lost = after_a_restart(play, current="c1-2")
    lost.progress = Progress()
    assert lost.orders() == ["Route"], "it was over meanwhile"


def test_the_next_leader_does_not_hold_for_what_has_timed_out_already():
    play = Play(timeout=5.0)
    play.at(1.0, target="c1-2")
    play.until(9.0)
    again = after_a_restart(play)
    again.until(3.0)
    assert again.orders() == []
    assert again.episode.phase is SwitchoverPhase.TIMED_OUT


def test_what_was_stored_long_ago_says_nothing_about_who_is_primary_now():
    play = Play()
    play.at(1.0, target="c1-2")
    play.at(3.0, current="c1-2")
    play.until(3.0 + 10 * ROUTE_SECONDS)
    again = after_a_restart(play, current="c1-3", target="c1-3")
    assert again.orders() == []


def test_a_status_is_read_as_it_was_written():
    play = Play()
    play.at(1.0, target="c1-2")
    play.at(3.0, current="c1-2")
    status = play.episode.status()
    assert status["phase"] == "Done"
    assert status["startedAt"].endswith("Z")
    assert status["heldMilliseconds"] == pytest.approx(2000, abs=10)
    read = stored(status)
    assert read is not None
    assert read.status() == status
    assert stored({}) is None
    assert stored({**status, "phase": "Sideways"}) is None
