"""One Pooler at a time rolls where the operator is the reason: whose change it is, whose turn it is, and who is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.pgweir_operator.worlds import observed, pooler, provisioned

from pgweir_operator.api import names
from pgweir_operator.desired import desired_state
from pgweir_operator.rollouts import UNUSED_TURN, Rollouts, held_back, is_ours_to_delay, is_rolling

Manifest = dict[str, Any]


def wanted(name: str = "a", *, image: str = "new", **spec: Any) -> Manifest:
    subject = pooler(name, **spec)
    manifests = desired_state(subject, observed(subject), provisioned(), image=image).manifests
    (found,) = (manifest for manifest in manifests if manifest["kind"] == "Deployment")
    return found


def live(name: str = "a", *, progress: str = "NewReplicaSetAvailable", image: str = "old", **spec: Any) -> Manifest:
    """As the API server has it, written by an operator with another image."""
    made = wanted(name, image=image, **spec)
    status = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3}
    rows = [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "True", "reason": progress}]
    return {**made, "metadata": {**made["metadata"], "generation": 1}, "status": {**status, "conditions": rows}}


def without_annotations(deployment: Manifest) -> Manifest:
    return {**deployment, "metadata": {**deployment["metadata"], "annotations": {}}}


# --- whose change ----------------------------------------------------------------------------------------------------


def test_another_default_image_is_the_operators_own_change() -> None:
    assert is_ours_to_delay(live(), wanted())
    assert not is_ours_to_delay(live(), wanted(image="old"))
    assert not is_ours_to_delay(None, wanted())


@pytest.mark.parametrize(
    "spec",
    [
        {"pgbouncer": {"image": "mine"}},
        {"template": {"metadata": {"labels": {"team": "a"}}}},
        {"drain": {"timeoutSeconds": 7}},
        {"monitoring": {"metricsPrefix": "x"}},
        {"monitoring": {"tls": {"enabled": True}}},
        {"serviceAccountName": "mine"},
        {"pgbouncer": {"parameters": {"listen_backlog": "7"}}},
    ],
    ids=str,
)
def test_what_the_user_asks_for_waits_for_nobody(spec: dict[str, Any]) -> None:
    assert not is_ours_to_delay(live(), wanted(image="old", **spec))


@pytest.mark.parametrize("spec", [{"instances": 5}, {"paused": True}], ids=str)
def test_scaling_and_a_pause_are_no_reason_to_jump_the_queue(spec: dict[str, Any]) -> None:
    assert is_ours_to_delay(live(), wanted(**spec))


def test_a_deployment_of_an_operator_that_wrote_no_digests_waits_its_turn() -> None:
    assert is_ours_to_delay(without_annotations(live()), wanted())
    held = held_back(without_annotations(live()), wanted())
    assert "annotations" not in held["metadata"] or not held["metadata"]["annotations"]


def test_a_deployment_that_waits_keeps_its_pods_and_follows_the_number_of_instances() -> None:
    held = held_back(live(), wanted(instances=5))
    assert held["spec"]["template"] == live()["spec"]["template"]
    assert held["spec"]["replicas"] == 5
    assert held["metadata"]["annotations"] == live()["metadata"]["annotations"]


# --- whose turn ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "rolling"),
    [
        ("NewReplicaSetAvailable", False),
        ("DeploymentPaused", False),
        ("", False),
        ("NewReplicaSetCreated", True),
        ("ReplicaSetUpdated", True),
        ("ProgressDeadlineExceeded", False),
    ],
)
def test_kubernetes_own_word_says_whether_a_deployment_rolls(progress: str, rolling: bool) -> None:
    assert is_rolling(live(progress=progress)) is rolling


def test_a_rollout_that_somebody_has_paused_is_waited_for_by_nobody() -> None:
    deployment = live(progress="DeploymentPaused")
    assert not is_rolling({**deployment, "status": {**deployment["status"], "updatedReplicas": 0}})


def test_a_change_that_nobody_has_looked_at_and_old_pods_that_are_left_are_a_rollout() -> None:
    deployment = live()
    assert is_rolling({**deployment, "metadata": {**deployment["metadata"], "generation": 2}})
    assert is_rolling({**deployment, "status": {**deployment["status"], "updatedReplicas": 2}})


def story(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    return lambda: asyncio.run(asyncio.wait_for(test(), 30))


class Api:
    def __init__(self) -> None:
        self.deployments: dict[str, Manifest] = {}
        self.poolers: set[str] = set()

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        if kind == "Deployment":
            return self.deployments.get(name)
        return {"metadata": {"name": name, "uid": pooler(name).uid}} if name in self.poolers else None

    async def items(self, kind: str, namespace: str, *, labels: str) -> list[Manifest]:
        assert (kind, labels) == ("Deployment", names.POOLER_LABEL)
        return list(self.deployments.values())


class Installation:
    """Poolers with pods of an old image, under an operator that has a new one."""

    def __init__(self, *poolers: str) -> None:
        self.api = Api()
        self.api.deployments = {name: live(name) for name in poolers}
        self.api.poolers = set(poolers)
        self.now = 1000.0
        self.woken: list[str] = []
        self.rollouts = self.restart()

    def restart(self) -> Rollouts:
        self.rollouts = Rollouts(self.api, (), clock=lambda: self.now)  # type: ignore[arg-type]
        self.rollouts.on_free = lambda key: self.woken.append(key[1])
        return self.rollouts

    async def look(self, name: str, **spec: Any) -> str:
        """A pass of this Pooler, and what it applies; answers whom it waits for."""
        manifests, waits_for = await self.rollouts.in_turn(
            pooler(name, **spec), self.api.deployments.get(name), [wanted(name, **spec)]
        )
        if not waits_for and self.image(name) == "old":
            self.api.deployments[name] = live(name, image="new", progress="ReplicaSetUpdated")
        else:
            assert waits_for == "" or manifests[0]["spec"]["template"] == self.api.deployments[name]["spec"]["template"]
        await self.rollouts.end_of_pass(("default", name))
        return waits_for

    async def look_in_vain(self, name: str) -> None:
        """A pass that something stops before it comes to its children."""
        await self.rollouts.end_of_pass(("default", name))

    def image(self, name: str) -> str:
        image: str = self.api.deployments[name]["spec"]["template"]["spec"]["containers"][0]["image"]
        return image

    def ends(self, name: str, progress: str = "NewReplicaSetAvailable") -> None:
        self.api.deployments[name] = live(name, image="new", progress=progress)


@story
async def test_one_rolls_and_the_others_wait_until_it_has() -> None:
    world = Installation("a", "b", "c")
    assert await world.look("a") == ""
    assert await world.look("b") == "default/a"
    assert await world.look("c") == "default/a"
    world.now += UNUSED_TURN + 1
    assert await world.look("b") == "default/a", "it is seen to roll"
    world.ends("a")
    await world.look("a")
    assert world.woken == ["b"]
    assert await world.look("b") == ""
    assert await world.look("c") == "default/b"


@story
async def test_an_operator_that_starts_anew_sees_who_is_rolling() -> None:
    world = Installation("a", "b")
    await world.look("a")
    world.restart()
    assert await world.look("b") == "default/a"
    await world.look("a")
    assert world.woken == []
    world.ends("a")
    await world.look("a")
    assert world.woken == ["b"], "it had no turn from this operator, and is waited for all the same"


@story
async def test_a_rollout_that_kubernetes_calls_stuck_gives_its_turn_away() -> None:
    world = Installation("a", "b")
    await world.look("a")
    await world.look("b")
    world.ends("a", "ProgressDeadlineExceeded")
    await world.look("a")
    assert world.woken == ["b"]
    assert await world.look("b") == ""


@story
async def test_a_turn_of_which_nothing_comes_is_not_kept_for_ever() -> None:
    world = Installation("a", "b")
    await world.look("a")
    world.api.deployments["a"] = live("a")  # The API server refused it, say.
    assert await world.look("b") == "default/a"
    world.now += UNUSED_TURN + 1
    assert await world.look("b") == ""


@story
async def test_a_pooler_that_is_deleted_is_waited_for_no_longer() -> None:
    world = Installation("a", "b")
    await world.look("a")
    assert await world.look("b") == "default/a"
    del world.api.deployments["a"]
    world.rollouts.give_back(("default", "a"))
    assert world.woken == ["b"]
    assert await world.look("b") == ""


@story
async def test_one_that_is_blocked_when_its_turn_comes_gives_it_away_and_comes_back() -> None:
    world = Installation("a", "b", "c", "d")
    await world.look("a")
    for name in "bcd":
        await world.look(name)
    world.ends("a")
    await world.look("a")
    assert world.woken == ["b"]
    await world.look_in_vain("b")
    assert world.woken == ["b", "c"], "not at its time of rest: with 300 Poolers that is 165 s away"
    await world.look_in_vain("c")
    assert world.woken == ["b", "c", "d"]
    assert await world.look("d") == ""
    assert await world.look("b") == "default/d", "it can again, and stands in line"
    world.ends("d")
    await world.look("d")
    assert world.woken == ["b", "c", "d", "b"]
    assert await world.look("b") == ""


@story
async def test_a_turn_that_is_taken_and_comes_to_nothing_is_given_back_with_the_pass() -> None:
    world = Installation("a", "b")
    manifests, waits_for = await world.rollouts.in_turn(pooler("a"), live("a"), [wanted("a")])
    assert waits_for == ""
    assert manifests == [wanted("a")]
    assert await world.look("b") == "default/a"
    await world.look_in_vain("a")  # The API server has refused the Deployment.
    assert world.woken == ["b"]
    assert await world.look("b") == ""


@story
async def test_one_that_rolls_without_a_turn_and_is_blocked_when_it_is_done_is_waited_for_no_longer() -> None:
    world = Installation("a", "b")
    world.api.deployments["a"] = live("a", image="mine", progress="ReplicaSetUpdated")
    assert await world.look("b") == "default/a"
    await world.look_in_vain("a")
    assert world.woken == [], "it rolls, whatever is wrong with it"
    world.api.deployments["a"] = live("a", image="mine")
    await world.look_in_vain("a")
    assert world.woken == ["b"]


@story
async def test_one_that_waits_and_is_changed_by_its_user_stands_in_line_no_more() -> None:
    world = Installation("a", "b", "c")
    for name in "abc":
        await world.look(name)
    asked = {"pgbouncer": {"image": "mine"}}
    world.api.deployments["b"] = live("b", progress="ReplicaSetUpdated", **asked)
    assert await world.look("b", **asked) == ""
    world.ends("a")
    await world.look("a")
    assert world.woken == ["c"], "b has nothing to ask for"
    assert await world.look("c") == "default/b"
    world.api.deployments["b"]["status"]["conditions"] = live("b")["status"]["conditions"]
    await world.look("b", **asked)
    assert world.woken == ["c", "c"]


@story
async def test_a_deployment_of_no_pooler_is_waited_for_by_nobody() -> None:
    world = Installation("a", "b")
    world.api.deployments["a"] = live("a", progress="ReplicaSetUpdated")
    world.api.poolers.discard("a")
    assert await world.look("b") == "", "an orphan, or what the garbage collector has not come to yet"
