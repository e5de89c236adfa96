"""PostgreSQL moves or restarts behind a Pooler, and its clients wait instead of failing.

On a pair that acts like CloudNativePG (e2e/cloudnativepg): a Cluster object, two PostgreSQL with streaming replication, its
timeline. One pair and one Pooler serve all tests; each leaves them whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from e2e.cloudnativepg.pair import Pair
from e2e.kubernetes_access import Kubernetes
from e2e.measured import Measured
from e2e.scenarios.pair_shop import Count, PairShop
from e2e.scenarios.release import Operator
from e2e.scenarios.shop import DRAIN_UNDER_LOAD, POOLER, until
from e2e.scenarios.typed import kubectl_pgweir

pytestmark = pytest.mark.cluster

CLUSTER = "c1"
LOAD = ("select=10", "tpcb=10", "connect=2")
SIGNAL_TO_HOLD = 0.4  # seconds until every pod holds: the first session is closed after 0.5 s
# Seconds after the first has heard of a lost primary in which whoever had a server hears of it. Before CloudNativePG promotes
# another, and three pods and their clients on a machine that starves do not hear in one instant.
IN_FLIGHT = 2.5


@pytest.fixture(scope="module")
def shop(kubernetes: Kubernetes, scenario_namespace: str) -> Iterator[PairShop]:
    made = PairShop(kubernetes, scenario_namespace, CLUSTER)
    try:
        made.open()
        made.pooler(drain=DRAIN_UNDER_LOAD)
        yield made
    finally:
        made.close()


@dataclass(frozen=True, slots=True)
class Event:
    """One event under load: when it began (unix time), and what the clients met."""

    pair: Pair
    began: float
    counts: dict[str, Count]

    @classmethod
    def of(cls, shop: PairShop, order: str, meanwhile: Callable[[float], None] = lambda began: None) -> Event:
        """From a pair at rest to a pair at rest, and a second more."""
        shop.healthy()
        shop.initialise()
        with shop.counted(*LOAD) as load:
            time.sleep(1)
            began = shop.pair.order(order)
            meanwhile(began)
            shop.pair.wait("healthy", after=began)
            time.sleep(1)
            event = cls(shop.pair, began, load.finish())
        event.show(order)
        return event

    def show(self, title: str) -> None:
        print(f"\n{title}: {self.pair.timeline(self.began)}")
        for count in self.counts.values():
            print(f"  {count.line(self.began)}")

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [error for count in self.counts.values() for error in count.errors]

    @property
    def failed(self) -> int:
        return sum(count.failed for count in self.counts.values())

    @property
    def gap(self) -> float:
        return max(count.gap for count in self.counts.values())

    def after(self, event: str) -> float:
        """Seconds from the beginning to this note."""
        return float(self.pair.wait(event, after=self.began, seconds=1.0)["at"]) - self.began

    @property
    def endpoint(self) -> float:
        """Seconds from the beginning until -rw leads to the new primary: whoever is led by the Service waits for it."""
        return next(
            note["at"] - self.began
            for note in self.pair.notes
            if note["at"] > self.began and note.get("role") == "primary"
        )


def holds(shop: PairShop, since: float, *, ended: bool = False) -> dict[str, tuple[float, str]]:
    """Pod → seconds from then until its first hold began (or ended), and what its log says about it."""
    return shop.logged(since, "hold ", " ended after " if ended else " begins")


def latest(found: dict[str, tuple[float, str]]) -> float:
    return max((seconds for seconds, _ in found.values()), default=float("inf"))


def lost(event: Event) -> str:
    processed = sum(count.processed for count in event.counts.values())
    cured = sum(count.retried for count in event.counts.values())
    reconnects = f", {cured} cured by a reconnect" if cured else ""
    return f"{event.failed} of {processed} transactions failed{reconnects}; longest gap {event.gap:.1f} s"


def only_who_was_in_flight(event: Event) -> None:
    """Of a lost primary hears who had a server of it, when it dies; nobody is refused, and nobody hears of it later.

    Its processes do not die in one instant: who comes back within milliseconds may get a server that dies next, so one retry
    does not always cure it. Nor do they die when a pod's deletion is accepted: a busy kubelet comes to it seconds later.
    """
    dies = min((error["at"] for error in event.errors), default=0.0)
    assert [error for error in event.errors if error["where"] == "login"] == []
    assert [error for error in event.errors if error["at"] > dies + IN_FLIGHT] == []
    assert all(count.failed <= count.clients for count in event.counts.values())


def only_who_was_too_long_at_work(event: Event, held: float, *, a_pod_goes: bool = False) -> None:
    """A hold lets transactions end, and PostgreSQL closes its sessions half a second after the signal: a transaction that had
    begun before the hold (so many seconds after the event) and takes longer than that is cut, as on a machine that starves.
    Nobody who began later hears anything, but who was on a pod that goes and has to come back."""
    errors = [error for error in event.errors if error["where"] == "within" or not a_pod_goes]
    began_later = [error for error in errors if error["began"] > event.began + held]
    assert began_later == []
    assert {error["sqlstate"] for error in errors} <= {"57P01"}
    assert event.failed <= len(errors)


def test_a_planned_switchover_costs_a_delay_and_no_error(shop: PairShop, measured: Measured) -> None:
    event = Event.of(shop, "switchover")
    began, ended = holds(shop, event.began), holds(shop, event.began, ended=True)
    moved = event.after("currentPrimary")
    measured.note(
        "Planned switchover, 20 clients",
        f"{lost(event)}; currentPrimary after {moved:.1f} s, every pod served after {latest(ended):.1f} s",
        "0 failed; promotion + 2 s",
    )
    measured.note(
        "Switchover announced → every pod holds", f"{latest(began) * 1000:.0f} ms", f"{SIGNAL_TO_HOLD * 1000:.0f} ms"
    )
    only_who_was_too_long_at_work(event, latest(began))
    shop.books_have(event.counts["tpcb"].processed)
    assert len(began) == len(ended) == 3
    assert latest(began) < 10 * SIGNAL_TO_HOLD
    assert event.gap < event.endpoint


def test_on_purpose_with_the_plugin_everybody_is_held_before_anything_is_announced(
    shop: PairShop, measured: Measured
) -> None:
    shop.healthy()
    shop.initialise()
    with shop.counted(*LOAD) as load:
        time.sleep(1)
        asked = time.time()
        code, said, told = kubectl_pgweir(shop, "switchover", CLUSTER, "--timeout=60", timeout=90)
        assert code == 0, told
        shop.pair.wait("healthy", after=asked)
        time.sleep(1)
        event = Event(shop.pair, asked, load.finish())
    event.show("kubectl pgweir switchover")
    measured.note("Switchover on purpose (kubectl pgweir switchover)", lost(event), "0 failed")
    assert f"{POOLER}: clients waited" in said
    assert event.errors == []
    assert event.failed == 0
    shop.books_have(event.counts["tpcb"].processed)


def test_the_manual_way_pause_switch_resume_costs_a_delay_and_no_error(shop: PairShop, measured: Measured) -> None:
    """As without a Cluster object that anybody watches: the Pooler is paused, PostgreSQL moves, it is resumed."""
    shop.healthy()
    shop.patch({"switchover": {"mode": "Off"}})
    try:
        shop.initialise()
        with shop.counted(*LOAD) as load:
            shop.pause(True)
            shop.paused()
            paused = time.time()
            shop.pair.order("switchover")
            shop.pair.wait("healthy", after=paused)
            shop.pause(False)
            shop.paused("False")
            time.sleep(1)
            event = Event(shop.pair, paused, load.finish())
    finally:
        shop.patch({"switchover": None})
    event.show("paused by hand, switchover, resumed")
    measured.note("Switchover by hand: paused, switched, resumed when healthy", lost(event), "0 failed")
    assert holds(shop, paused) == {}
    assert event.errors == []
    assert event.failed == 0
    shop.books_have(event.counts["tpcb"].processed)


def test_a_killed_primary_costs_what_was_in_flight_and_nobody_is_refused(shop: PairShop, measured: Measured) -> None:
    event = Event.of(shop, "kill")
    moved = event.after("currentPrimary")
    measured.note(
        "kill -9 of the primary, 20 clients",
        f"{lost(event)}; currentPrimary after {moved:.1f} s, "
        f"the -rw endpoint (who connects directly) {event.endpoint:.1f} s",
        "those in flight; gap ≤ direct",
    )
    only_who_was_in_flight(event)
    assert event.gap < event.endpoint


def test_a_restart_in_place_is_not_held_up_by_the_poolers_connections(shop: PairShop, measured: Measured) -> None:
    event = Event.of(shop, "restart")
    down = shop.pair.wait("down", after=event.began)
    ended = holds(shop, event.began, ended=True)
    measured.note(
        "Primary restarted in place",
        f"{lost(event)}; smart shutdown {down['seconds']:.1f} s, every pod served after {latest(ended):.1f} s",
        "0 failed",
    )
    assert not down["forced"]
    assert event.errors == []
    assert event.failed == 0
    shop.books_have(event.counts["tpcb"].processed)
    assert len(ended) == 3
    assert all("(restarted)" in text for _, text in ended.values()), ended


def test_without_an_operator_between_the_order_and_the_route_the_pods_go_on_by_themselves(
    shop: PairShop, operator: Operator, measured: Measured
) -> None:
    container = operator.container()
    with ExitStack() as until_the_end:

        def kill_the_operator(began: float) -> None:
            # A second after the signal, by when every pod holds, and two seconds before there is a primary to route to.
            shop.pair.wait("lease", after=began)
            until_the_end.enter_context(operator.killed(container))

        event = Event.of(shop, "switchover", kill_the_operator)
    ended = holds(shop, event.began, ended=True)
    measured.note(
        "Planned switchover, the operator killed between its order and the route",
        f"{lost(event)}; every pod served after {latest(ended):.1f} s, "
        f"the -rw endpoint came after {event.endpoint:.1f} s",
        "0 failed; the endpoint",
    )
    only_who_was_too_long_at_work(event, latest(holds(shop, event.began)))
    shop.books_have(event.counts["tpcb"].processed)
    assert len(ended) == 3
    assert all("(moved)" in text for _, text in ended.values()), ended
    until(operator.leads, "the operator is back")
    until(lambda: _phase(shop) == "Done", "and has written down how it went")


def _phase(shop: PairShop) -> str:
    return str((shop.status().get("switchover") or {}).get("phase"))


def test_a_pod_that_is_replaced_in_the_middle_costs_its_clients_a_reconnect(
    shop: PairShop, operator: Operator, measured: Measured
) -> None:
    victim = shop.pods()[0]["metadata"]["name"]

    def delete_a_pod(began: float) -> None:
        shop.pair.wait("down", after=began)
        shop.kubernetes.kubectl("delete", "pod", victim, "--wait=false", namespace=shop.namespace)

    event = Event.of(shop, "switchover", delete_a_pod)
    measured.note(
        "Planned switchover, one of three pooler pods deleted when PostgreSQL is down", lost(event), "0 failed"
    )
    # Who was on that pod comes back; the pod's log, which has its hold, went with it: by the end of PostgreSQL it held.
    only_who_was_too_long_at_work(event, event.after("down"), a_pod_goes=True)
    shop.books_have(event.counts["tpcb"].processed)


def test_a_pooler_pod_that_is_deleted_by_force_costs_what_was_in_flight_there(
    shop: PairShop, measured: Measured
) -> None:
    shop.healthy()
    shop.initialise()
    victim = shop.pods()[0]["metadata"]["name"]
    with shop.counted(*LOAD) as load:
        time.sleep(1)
        gone = time.time()
        options = ["--grace-period=0", "--force", "--wait=false"]
        shop.kubernetes.kubectl("delete", "pod", victim, *options, namespace=shop.namespace)
        shop.at_rest()
        time.sleep(1)
        event = Event(shop.pair, gone, load.finish())
    event.show("a pooler's pod deleted by force")
    measured.note("One of three pooler pods deleted by force", lost(event), "those in flight")
    # By the pod's address nobody answers any more, and kube-proxy may lead somebody there who comes back at once.
    nobody_there = [error for error in event.errors if error["where"] == "login" and error["sqlstate"] is None]
    assert [error for error in event.errors if error["where"] == "login" and error not in nobody_there] == []
    assert event.counts["select"].failed <= len(nobody_there)
    assert event.counts["tpcb"].failed <= event.counts["tpcb"].clients + len(nobody_there)
    assert event.gap < 10.0, "the other two pods serve"


def test_a_day_of_changes_costs_nobody_a_transaction(shop: PairShop, measured: Measured) -> None:
    """20 changed parameters, 5 pauses, a rollout, and 3 → 1 → 5 → 2 pods, under one load."""
    shop.healthy()
    shop.initialise()
    with shop.counted("select=10", "tpcb=10") as load:
        began = time.time()
        for size in range(20, 40):
            generation = shop.parameters(default_pool_size=str(size))
            if size % 4 == 3:
                shop.proved(generation)
        for _ in range(5):
            shop.pause(True)
            shop.paused()
            shop.pause(False)
            shop.paused("False")
        shop.kubernetes.kubectl("rollout", "restart", f"deployment/{POOLER}", namespace=shop.namespace)
        shop.kubernetes.rolled_out("deployment", POOLER, namespace=shop.namespace)
        for instances in (1, 5, 2):
            shop.kubernetes.kubectl("scale", "pooler", POOLER, f"--replicas={instances}", namespace=shop.namespace)
            shop.at_rest()
        event = Event(shop.pair, began, load.finish())
    event.show("a day of changes")
    measured.note("20 configuration changes, 5 pauses, a rollout, scaled 3 → 1 → 5 → 2", lost(event), "0 failed")
    assert event.failed == 0
    shop.books_have(event.counts["tpcb"].processed)


def test_a_primary_whose_pod_is_deleted_by_force_costs_what_was_in_flight(shop: PairShop, measured: Measured) -> None:
    """At the end, since the pair's new standby has to be made from nothing."""
    event = Event.of(shop, "lose")
    moved = event.after("currentPrimary")
    measured.note(
        "The primary's pod deleted by force, 20 clients",
        f"{lost(event)}; currentPrimary after {moved:.1f} s, "
        f"the -rw endpoint (who connects directly) {event.endpoint:.1f} s",
        "those in flight; gap ≤ direct",
    )
    only_who_was_in_flight(event)
    assert event.gap < event.endpoint
