"""Another operator with another default image: Poolers roll one at a time, and one that gets stuck keeps nobody waiting."""

from __future__ import annotations

import threading
import time

import pytest
from e2e.control_plane.harness import wait

from pgweir_operator.rollouts import is_rolling

POOLERS = [f"pooler-{number}" for number in range(5)]
NEW = "localhost/pgweir-pooler:next"


@pytest.fixture
def five(world):
    """Five Poolers that are ready, and the operator that made them is gone."""
    world.has_cluster()
    operator = world.start_operator()
    for name in POOLERS:
        world.pooler(name, instances=2)
    for name in POOLERS:
        world.until("Ready", "True", name=name)
    operator.stop()
    return world


class Watcher:
    """Looks at every Deployment all the time: who rolls together, and in which order they were done."""

    def __init__(self, world):
        self.world = world
        self.together = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join(timeout=10)

    def _look(self):
        while not self._stop.is_set():
            found = self.world.run(self.world.kube.items("Deployment", self.world.namespace))
            rolling = frozenset(one["metadata"]["name"] for one in found if is_rolling(one))
            self.together.add(rolling)
            time.sleep(0.05)


def image(world, name):
    return world.get("Deployment", name)["spec"]["template"]["spec"]["containers"][0]["image"]


def has_rolled(world, name):
    deployment = world.get("Deployment", name)
    return image(world, name) == NEW and not is_rolling(deployment) and deployment["status"]["updatedReplicas"] == 2


def test_five_poolers_roll_one_at_a_time_under_a_new_default_image_and_one_that_is_blocked_gives_its_turn_away(five):
    five.kubelet.start_new_ones = False
    with Watcher(five) as watcher:
        five.start_operator(image=NEW, recheck=600.0)  # so that nobody comes to anything by time alone
        wait(lambda: any(image(five, name) == NEW for name in POOLERS), "somebody begins")
        waiting = [name for name in POOLERS if image(five, name) != NEW]
        assert len(waiting) == 4
        for name in waiting:
            wait(lambda name=name: "wait until" in five.condition("Ready", name)[2], "those that wait say so")
            assert five.condition("Ready", name)[0] == "True", "its pods are as good as they were"
        *blocked, free = waiting
        for name in blocked:
            five.pooler(name, instances=2, clientTLSSecret={"name": "missing"})
            five.until("Ready", "False", "MissingSecret", name=name)
        five.kubelet.start_new_ones = True
        wait(lambda: has_rolled(five, free), "the only one that can has had its turn", patience=60)
        for name in blocked:
            assert image(five, name) != NEW
            five.pooler(name, instances=2)
        wait(lambda: all(has_rolled(five, name) for name in POOLERS), "all have rolled", patience=90)
    assert max(len(rolling) for rolling in watcher.together) == 1, watcher.together
    for name in POOLERS:
        five.until("Ready", "True", name=name)
        assert "wait until" not in five.condition("Ready", name)[2]


def test_what_a_user_changes_rolls_at_once_and_an_operator_that_restarts_keeps_the_order(five):
    five.kubelet.start_new_ones = False
    operator = five.start_operator(image=NEW)
    wait(lambda: any(image(five, name) == NEW for name in POOLERS), "somebody begins")
    first = next(name for name in POOLERS if image(five, name) == NEW)
    operator.kill()
    with Watcher(five) as watcher:
        follower = five.start_operator(image=NEW)
        others = [name for name in POOLERS if name != first]
        wait(lambda: all(f"/{name}: looking" in follower.log for name in POOLERS), "the new one has looked at all", 60)
        wait(lambda: all(f"/{first} " in five.condition("Ready", name)[2] for name in others), "they wait for it", 60)
        wait(lambda: watcher.together, "a look")
        assert {image(five, name) for name in others} != {NEW}
        assert watcher.together == {frozenset({first})}
    five.pooler(others[0], instances=2, template={"metadata": {"labels": {"team": "a"}}})
    wait(lambda: image(five, others[0]) == NEW, "the user's change waits for nobody")
    five.kubelet.start_new_ones = True
    wait(lambda: all(has_rolled(five, name) for name in POOLERS), "all have rolled", patience=90)


def test_a_rollout_that_gets_stuck_says_so_serves_on_and_lets_the_others_roll(five, kubectl):
    for name in POOLERS:
        deadline = '{"spec":{"progressDeadlineSeconds":3}}'
        kubectl("patch", "deployment", name, f"--namespace={five.namespace}", "--type=merge", f"--patch={deadline}")
    five.kubelet.start_new_ones = False
    five.start_operator(image=NEW)
    wait(lambda: any(image(five, name) == NEW for name in POOLERS), "somebody begins")
    first = next(name for name in POOLERS if image(five, name) == NEW)
    message = five.until("Ready", "False", "RolloutStuck", name=first)
    assert "serves on" in message
    assert five.condition("Available", first)[0] == "True"
    wait(lambda: sum(image(five, name) == NEW for name in POOLERS) > 1, "the next one has its turn")
    assert "RolloutStuck" in {event["reason"] for event in five.events()}
    five.kubelet.start_new_ones = True
    wait(lambda: all(has_rolled(five, name) for name in POOLERS), "all have rolled", patience=90)
    five.until("Ready", "True", name=first)
