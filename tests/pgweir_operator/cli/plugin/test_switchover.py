"""`kubectl pgweir switchover`: nothing is announced before every client is held, and until then all can be taken back.

The operators are played here; they themselves are tried in e2e/scenarios.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pgweir_operator.cli.exit_codes import DEADLINE, DONE
from pgweir_operator.cli.plugin import switchover
from pgweir_operator.cli.plugin.cluster import Cluster, Impossible
from pgweir_operator.cli.plugin.switchover import ANNOTATION, chosen_target, rw_poolers, switch_over

Object = dict[str, Any]
REST = {"phase": "Cluster in healthy state", "currentPrimary": "shop-1", "targetPrimary": "shop-1"}


def shop(**status: Any) -> Object:
    return {
        "metadata": {"name": "shop"},
        "status": {**REST, "instancesStatus": {"healthy": ["shop-1", "shop-2"]}, **status},
    }


def pooler(name: str = "shop-rw", **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"cluster": {"name": "shop"}, "type": "rw", **spec}}


class Played:
    """A Kube whose objects answer: `operator` and `cloudnativepg` are called after each patch."""

    def __init__(self, *objects: tuple[str, Object]) -> None:
        self.objects = {(kind, each["metadata"]["name"]): each for kind, each in objects}
        self.written: list[tuple[str, str, Object]] = []
        self.operator: Callable[[Object, str | None], None] = lambda pooler, asked: None
        self.promotes = True

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self.objects.get((kind, name))

    async def items(self, kind: str, namespace: str, **_: object) -> list[Object]:
        return [each for (of, _), each in self.objects.items() if of == kind]

    async def merge(self, kind: str, namespace: str, name: str, body: Object) -> Object:
        self.written.append((kind, name, body))
        found = self.objects[kind, name]
        self.operator(found, body["metadata"]["annotations"][ANNOTATION])
        return found

    async def merge_status(self, kind: str, namespace: str, name: str, part: Object) -> Object:
        self.written.append((kind, name, {"status": part}))
        found = self.objects[kind, name]
        found["status"] |= part
        if self.promotes:
            found["status"] |= {"currentPrimary": part["targetPrimary"]}
            held = [each for each in await self.items("Pooler", namespace) if "status" in each]
            for each in held:
                each["status"]["switchover"] |= {"phase": "Done", "heldMilliseconds": 2900}
        return found

    def run(self, name: str = "shop", to: str | None = None, timeout: float = 5.0) -> int:
        return asyncio.run(switch_over(Cluster(self, "shop"), name, to, timeout))  # type: ignore[arg-type]

    @property
    def steps(self) -> list[str]:
        """What was written, in order."""
        words = []
        for kind, name, body in self.written:
            if kind != "Pooler":
                words.append(f"{name} → {body['status']['targetPrimary']}")
            else:
                words.append(f"{name}: {'ask' if body['metadata']['annotations'][ANNOTATION] else 'take back'}")
        return words


def holds(pooler: Object, asked: str | None) -> None:
    if asked is not None:
        pooler["status"] = {"switchover": {"id": asked.split()[0], "phase": "Held"}}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchover, "LOOK_EVERY", 0.01)


def test_clients_are_held_first_then_the_cluster_is_told_then_the_request_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = Played(
        ("Cluster", shop()), ("Pooler", pooler("a")), ("Pooler", pooler("b")), ("Pooler", pooler("c", type="ro"))
    )
    world.operator = holds
    assert world.run() == DONE
    assert world.steps == ["a: ask", "b: ask", "shop → shop-2", "a: take back", "b: take back"]
    told = world.written[2][2]["status"]
    assert told["phase"] == "Switchover in progress"
    assert told["targetPrimaryTimestamp"].endswith("Z")
    asked = world.written[0][2]["metadata"]["annotations"][ANNOTATION]
    assert world.written[1][2]["metadata"]["annotations"][ANNOTATION] == asked
    assert "a: clients waited 2900 ms" in capsys.readouterr().out


def test_a_pooler_leads_to_its_cluster() -> None:
    world = Played(("Cluster", shop()), ("Pooler", pooler()))
    world.operator = holds
    assert world.run("shop-rw") == DONE


def test_edbs_cluster_is_told_as_edbs() -> None:
    world = Played(("EdbCluster", shop()), ("Pooler", pooler()))
    world.operator = holds
    assert world.run() == DONE
    assert [kind for kind, _, _ in world.written] == ["Pooler", "EdbCluster", "Pooler"]


def test_who_cannot_be_held_in_time_is_named_and_nothing_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    def half(found: Object, asked: str | None) -> None:
        holds(found, asked)
        if asked is not None and found["metadata"]["name"] == "b":
            found["status"]["switchover"] |= {"phase": "Holding", "message": "client 7 (alice) holds a server"}

    world = Played(("Cluster", shop()), ("Pooler", pooler("a")), ("Pooler", pooler("b")))
    world.operator = half
    assert world.run(timeout=0.1) == DEADLINE
    assert world.steps == ["a: ask", "b: ask", "a: take back", "b: take back"]
    told = capsys.readouterr().err
    assert "b: client 7 (alice) holds a server. Taken back: the cluster was not touched" in told


def test_an_operator_that_does_not_answer_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    world = Played(("Cluster", shop()), ("Pooler", pooler()))
    assert world.run(timeout=0.05) == DEADLINE
    assert "the operator has not answered" in capsys.readouterr().err


def test_a_hold_that_ended_by_itself_ends_the_wait_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    world = Played(("Cluster", shop()), ("Pooler", pooler()))

    def ends(found: Object, asked: str | None) -> None:
        holds(found, asked)
        found["status"]["switchover"] |= {"phase": "TimedOut", "message": "the ceiling was reached"}

    world.operator = ends
    assert world.run(timeout=60) == DEADLINE
    assert "the ceiling was reached" in capsys.readouterr().err


def test_a_switchover_of_another_time_is_not_taken_for_this_one() -> None:
    world = Played(
        ("Cluster", shop()), ("Pooler", pooler() | {"status": {"switchover": {"id": "old", "phase": "Held"}}})
    )
    assert world.run(timeout=0.05) == DEADLINE
    assert "shop → shop-2" not in world.steps


def test_a_promotion_that_takes_too_long_goes_on_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    world = Played(("Cluster", shop()), ("Pooler", pooler()))
    world.operator, world.promotes = holds, False
    assert world.run(timeout=0.1) == DEADLINE
    assert world.steps == ["shop-rw: ask", "shop → shop-2", "shop-rw: take back"]
    assert "The cluster goes on with what it has begun" in capsys.readouterr().err


def test_the_target_is_a_healthy_standby() -> None:
    three = shop(instancesStatus={"healthy": ["shop-1", "shop-2", "shop-3"]})
    assert chosen_target(shop(), None) == "shop-2"
    assert chosen_target(three, "shop-3") == "shop-3"
    for cluster, to, words in (
        (three, None, "--to shop-2 or --to shop-3"),
        (three, "shop-1", "'shop-1' is no healthy standby"),
        (shop(instancesStatus={"healthy": ["shop-1"]}), None, "no healthy instance beside"),
        (shop(targetPrimary="shop-2"), None, "not at rest"),
        (shop(phase="Failing over"), None, "not at rest"),
    ):
        with pytest.raises(Impossible, match=words):
            chosen_target(cluster, to)


def test_poolers_of_the_primary_are_held_unless_their_mode_is_off() -> None:
    found = [
        pooler("a"),
        pooler("b", switchover={"mode": "Off"}),
        pooler("c", type="r"),
        pooler("d", cluster={"name": "x"}),
    ]
    assert rw_poolers(found, "shop") == (["a"], ["b"])
    with pytest.raises(Impossible, match="no rw Pooler"):
        Played(("Cluster", shop()), ("Pooler", found[1])).run()
    with pytest.raises(Impossible, match="kubectl pgweir pause"):
        Played().run("nothing")
