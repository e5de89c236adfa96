"""Status: a condition is True only when every pod proved it; silence proves nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from tests.pgweir_operator import worlds
from tests.pgweir_operator.worlds import NOW, pod, rolled_out

from pgweir_operator.api.budget import TargetCapacity
from pgweir_operator.api.conditions import Blocker, Reason
from pgweir_operator.api.observed import (
    DeploymentFacts,
    Holder,
    IntegrationResult,
    PodAnswer,
    PodFacts,
    PodReport,
    PodSilence,
    WantedConfiguration,
)
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.api.pooler_status import PoolerStatus
from pgweir_operator.status import status

INTEGRATED = IntegrationResult("True", Reason.LOOKUP_SUCCEEDED, "The lookup answered.")
HOLDER = Holder(7, 4242, "shop", "app", "psql", "10.0.0.9:1", 12.4)


def report(name: str, **changes: Any) -> PodReport:
    base = PodReport(pod=name, revision=3, digest="d3", state="active", paused=False, target_reachable=True)
    return replace(base, **changes)


@dataclass
class World:
    """Three pods that are ready and proved everything; a test says what is different."""

    spec: dict[str, Any] = field(default_factory=lambda: {"instances": 3})
    pods: tuple[PodFacts, ...] = (pod("a"), pod("b"), pod("c"))
    answers: dict[str, PodAnswer] = field(default_factory=dict)
    deployment: DeploymentFacts | None = field(default_factory=lambda: rolled_out(3))
    wanted: WantedConfiguration | None = field(default_factory=lambda: WantedConfiguration(3, "d3", paused=False))
    integration: IntegrationResult | None = INTEGRATED
    blocker: Blocker | None = None
    cluster_found: bool = True
    pause_timed_out: bool = False
    capacity: TargetCapacity | None = None
    making_room: tuple[str, ...] = ()
    before: dict[str, Any] = field(default_factory=dict)

    def say(self, name: str, **changes: Any) -> World:
        self.answers[name] = report(name, **changes)
        return self

    def status(self) -> dict[str, Any]:
        subject = Pooler.from_manifest(worlds.manifest("pooler", status=self.before, **self.spec))
        answers = {one.name: report(one.name, state=self._state(), paused=self._wish()) for one in self.pods}
        result = status(
            subject,
            worlds.observed(
                subject,
                cluster=worlds.cluster(subject, found=self.cluster_found),
                pods=self.pods,
                deployment=self.deployment,
            ),
            {**answers, **self.answers},
            wanted=self.wanted,
            integration=self.integration,
            blocker=self.blocker,
            now=NOW,
            pause_timed_out=self.pause_timed_out,
            capacity=self.capacity,
            making_room=self.making_room,
        )
        PoolerStatus.model_validate(result)
        return result

    def _wish(self) -> bool:
        return self.wanted is not None and self.wanted.paused

    def _state(self) -> Any:
        return "paused" if self._wish() else "active"

    def condition(self, type: str) -> tuple[str, str, str]:
        (row,) = (row for row in self.status()["conditions"] if row["type"] == type)
        return row["status"], row["reason"], row["message"]


def pausing(**changes: Any) -> World:
    spec = {"instances": 3, "paused": True}
    return World(**{"spec": spec, "wanted": WantedConfiguration(4, "d3", paused=True), **changes})


# --- all is well -----------------------------------------------------------------------------------------------------


def test_everything_proved() -> None:
    result = World().status()
    assert {row["type"]: (row["status"], row["reason"]) for row in result["conditions"]} == {
        "Ready": ("True", "AllPodsReady"),
        "Available": ("True", "MinimumAvailable"),
        "ConfigurationApplied": ("True", "AllPodsProved"),
        "Paused": ("False", "NotAsked"),
        "Integrated": ("True", "LookupSucceeded"),
        "TargetAvailable": ("True", "Reachable"),
        "WithinConnectionBudget": ("Unknown", "CapacityUnknown"),
    }
    assert (result["phase"], result["instances"], result["readyInstances"], result["pausedInstances"]) == (
        "active", 3, 3, 0,
    )  # fmt: skip
    assert (result["configRevision"], result["configDigest"], result["observedGeneration"]) == (3, "d3", 4)
    assert result["selector"] == "pgweir.io/poolerName=pooler"
    assert [row["name"] for row in result["pods"]] == ["a", "b", "c"]


# --- pods of another version ------------------------------------------------------------------------------------------


def test_settings_that_an_older_pod_does_not_know_are_named_with_the_pod_and_are_not_applied() -> None:
    world = World(wanted=WantedConfiguration(3, "d3", paused=False, left_out=("client_overflow",), oldest_pods=("b",)))
    result = world.say("b", catalogue_version=1).status()
    rows = {row["type"]: row for row in result["conditions"]}
    assert (rows["ConfigurationApplied"]["status"], rows["ConfigurationApplied"]["reason"]) == (
        "False",
        "SettingsLeftOut",
    )
    assert "unknown to b: client_overflow" in rows["ConfigurationApplied"]["message"]
    assert rows["Ready"]["reason"] == "SettingsLeftOut"
    assert rows["Available"]["status"] == "True"
    assert [row["catalogueVersion"] for row in result["pods"]] == [1, 1, 1]


def test_what_a_pod_knows_is_remembered_while_it_is_silent() -> None:
    world = World(before={"pods": [{"name": "a", "catalogueVersion": 1}]}, answers={"a": PodSilence("a", "no answer")})
    world.answers["b"] = PodSilence("b", "no answer")
    rows = {row["name"]: row for row in world.status()["pods"]}
    assert rows["a"]["catalogueVersion"] == 1
    assert "catalogueVersion" not in rows["b"]


def test_a_state_that_this_operator_has_no_word_for_is_shown_and_proves_no_pause() -> None:
    world = World(spec={"instances": 3, "paused": True}, wanted=WantedConfiguration(3, "d3", paused=True))
    result = world.say("a", state="meditating", paused=True).status()
    rows = {row["type"]: row for row in result["conditions"]}
    assert [row["state"] for row in result["pods"]] == ["meditating", "paused", "paused"]
    assert rows["Paused"]["status"] == "False"
    assert "meditating" in rows["Paused"]["message"]


# --- Ready -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "reason", "words"),
    [
        (World(pods=(pod("a"), pod("b"), pod("c", ready=False, message="ImagePullBackOff"))), "PodsNotReady",
         "c (ImagePullBackOff)"),
        (World(pods=(pod("a"), pod("b"))), "PodsNotReady", "2 pods are there; 3 are wanted"),
        (World(deployment=None), "RollingOut", "does not exist"),
        (World(deployment=replace(rolled_out(3), generation=2)), "RollingOut", "not taken up"),
        (World(deployment=replace(rolled_out(3), updated_replicas=1)), "RollingOut", "1 of 3 pods"),
        (World(deployment=replace(rolled_out(3), replicas=4)), "RollingOut", "1 pods of an older template"),
        (World(pods=(), deployment=replace(rolled_out(0), refused="no quota.")), "PodsNotReady", "no more: no quota. Kube"),
        (World(answers={"b": PodSilence("b", "timed out")}), "PodUnreachable", "b (timed out)"),
        (World(integration=IntegrationResult("False", Reason.NO_ADMIN_ACCESS, "Run this SQL: …")), "NoAdminAccess",
         "Run this SQL"),
        (World(spec={"instances": 0}, pods=(), deployment=rolled_out(0)), "ScaledToZero", "no pod is wanted"),
        (World(blocker=Blocker(Reason.INVALID_SPEC, "spec.x: no")), "InvalidSpec", "spec.x: no"),
    ],
)  # fmt: skip
def test_ready_is_false_with_the_reason_why(world: World, reason: str, words: str) -> None:
    found = world.condition("Ready")
    assert found[:2] == ("False", reason)
    assert words in found[2]


def test_a_pooler_with_its_own_lookup_is_ready_though_nothing_was_integrated() -> None:
    world = World(integration=IntegrationResult("False", Reason.MANUAL, "The SQL is: …"))
    assert world.condition("Ready")[0] == "True"
    assert world.condition("Integrated")[:2] == ("False", "Manual")


def test_a_pod_that_starts_and_does_not_answer_yet_is_behind_and_not_unreachable() -> None:
    pods = (pod("a"), pod("b"), pod("c", ready=False))
    found = World(pods=pods, answers={"c": PodSilence("c", "connection refused")}).condition("ConfigurationApplied")
    assert found[:2] == ("False", "Applying")
    assert "c (connection refused)" in found[2]


def test_a_pod_on_its_way_out_that_is_silent_is_leaving_and_counts_for_nothing() -> None:
    pods = (pod("a"), pod("b"), pod("c", terminating=True))
    world = World(pods=pods, answers={"c": PodSilence("c", "connection refused")})
    assert [row["state"] for row in world.status()["pods"]] == ["active", "active", "leaving"]
    assert world.condition("ConfigurationApplied")[0] == "True"


def test_an_unreachable_target_makes_the_pooler_unready_but_not_unavailable() -> None:
    world = World().say("b", target_reachable=False, target_error="connection refused")
    assert world.condition("TargetAvailable")[:2] == ("False", "Unreachable")
    assert "b: connection refused" in world.condition("TargetAvailable")[2]
    assert world.condition("Ready")[1] == "Unreachable"
    assert world.condition("Available")[0] == "True"
    assert world.status()["phase"] == "active"


def test_a_target_that_not_every_pod_has_tried_is_unknown() -> None:
    assert World().say("b", target_reachable=None).condition("TargetAvailable")[0] == "Unknown"
    assert World().say("b", target_reachable=None).condition("Ready")[0] == "True"


def test_a_cluster_that_is_gone_makes_the_pooler_inactive() -> None:
    world = World(cluster_found=False)
    assert world.condition("TargetAvailable")[:2] == ("False", "TargetNotFound")
    assert "'shop-rw'" in world.condition("TargetAvailable")[2]
    assert world.status()["phase"] == "inactive"


# --- Available -------------------------------------------------------------------------------------------------------


def test_one_ready_pod_is_enough_to_be_available() -> None:
    dead = {"ready": False}
    assert World(pods=(pod("a"), pod("b", **dead))).condition("Available")[0] == "True"
    assert World(pods=(pod("a", **dead),)).condition("Available")[:2] == ("False", "NoPodReady")
    assert World(pods=(pod("a", terminating=True),)).condition("Available")[0] == "False"
    assert World(pods=(pod("a", **dead),)).status()["phase"] == "pending"


# --- ConfigurationApplied --------------------------------------------------------------------------------------------


def test_one_pod_behind_is_named_with_its_revision() -> None:
    found = World().say("b", digest="d2", revision=2).condition("ConfigurationApplied")
    assert found == ("False", "Applying", "Not at revision 3 yet: b (revision 2).")


def test_the_same_content_under_an_older_revision_is_applied() -> None:
    assert World().say("b", revision=2).condition("ConfigurationApplied")[0] == "True"


def test_a_refusal_is_told_in_the_pods_words() -> None:
    world = World().say("b", digest="d2", revision=2, rejected_revision=3, rejected_error="line 4: no")
    assert world.condition("ConfigurationApplied") == (
        "False",
        "Rejected",
        "Revision 3 was refused: b: line 4: no.",
    )
    assert "line 4: no" in world.status()["pods"][1]["message"]


def test_an_old_refusal_no_longer_counts() -> None:
    world = World().say("b", rejected_revision=2, rejected_error="line 4: no")
    assert world.condition("ConfigurationApplied")[0] == "True"
    assert "message" not in world.status()["pods"][1]


def test_a_pod_that_was_not_asked_proves_nothing() -> None:
    world = World()
    subject = worlds.pooler(instances=1)
    seen = worlds.observed(subject, pods=(pod("a"),), deployment=rolled_out(1))
    result = status(subject, seen, {}, wanted=world.wanted, integration=None, blocker=None, now=NOW)
    rows = {row["type"]: (row["status"], row["reason"]) for row in result["conditions"]}
    assert rows["ConfigurationApplied"] == ("False", "Applying")
    assert rows["Integrated"] == ("Unknown", "Provisioning")
    assert rows["Ready"][0] == "False"


def test_a_pod_on_its_way_out_owes_no_configuration() -> None:
    world = World(pods=(pod("a"), pod("b"), pod("c"), pod("old", terminating=True)))
    assert world.say("old", digest="d1", state="draining").condition("ConfigurationApplied")[0] == "True"


def test_without_a_rendered_configuration_the_last_one_stays_in_the_status() -> None:
    world = World(
        wanted=None,
        blocker=Blocker(Reason.MISSING_SECRET, "Secret 's' does not exist."),
        before={"configRevision": 2, "configDigest": "d2"},
    )
    assert world.condition("ConfigurationApplied")[:2] == ("False", "NotRendered")
    assert (world.status()["configRevision"], world.status()["configDigest"]) == (2, "d2")
    assert world.status()["phase"] == "inactive"


# --- Paused ----------------------------------------------------------------------------------------------------------


def test_paused_is_true_when_every_pod_said_so() -> None:
    world = pausing()
    assert world.condition("Paused") == (
        "True",
        "AllPodsPaused",
        "All 3 pods hold no server and assign none.",
    )
    assert world.status()["phase"] == "paused"
    assert world.status()["pausedInstances"] == 3
    assert world.condition("Ready")[0] == "True"


def test_the_compatible_spelling_pauses_too() -> None:
    assert pausing(spec={"instances": 3, "pgbouncer": {"paused": True}}).condition("Paused")[0] == "True"


def test_while_pausing_the_holders_are_named() -> None:
    world = pausing().say("b", state="pausing", held_servers=1, holders=(HOLDER,))
    found = world.condition("Paused")
    assert found[:2] == ("False", "Pausing")
    assert "pod b: client 7 (app@shop, psql) holds server process 4242 for 12 s" in found[2]
    assert world.status()["pausedInstances"] == 2


def test_past_the_deadline_the_reason_says_so_and_the_holders_are_still_named() -> None:
    found = pausing(pause_timed_out=True).say("b", state="pausing", holders=(HOLDER,)).condition("Paused")
    assert found[:2] == ("False", "PauseTimedOut")
    assert "client 7" in found[2]


def test_a_pause_that_was_given_up_says_how_to_try_again() -> None:
    found = World(spec={"instances": 3, "paused": True, "pause": {"onTimeout": "Resume"}}).condition("Paused")
    assert found[:2] == ("False", "PauseTimedOut")
    assert "set paused to false and to true again" in found[2]


def test_a_silent_pod_keeps_paused_false() -> None:
    found = pausing(answers={"c": PodSilence("c", "connection refused")}).condition("Paused")
    assert found == ("False", "Pausing", "Waiting for an answer of pod c (connection refused).")


def test_a_pod_that_drains_counts_until_it_holds_nothing() -> None:
    pods = (pod("a"), pod("old", terminating=True))
    busy = pausing(pods=pods).say("old", state="draining", servers=2)
    assert busy.condition("Paused")[:2] == ("False", "Pausing")
    assert "pod old, which is draining and has 2 server connections" in busy.condition("Paused")[2]
    assert pausing(pods=pods).say("old", state="draining", servers=0).condition("Paused")[0] == "True"


def test_a_pod_without_an_address_runs_nothing_yet() -> None:
    pods = (pod("a"), pod("new", ip="", phase="Pending", ready=False))
    assert pausing(pods=pods, answers={"new": PodSilence("new", "no address")}).condition("Paused")[0] == "True"


def test_after_the_wish_is_gone_a_pod_that_still_waits_is_named() -> None:
    found = World().say("b", state="paused").condition("Paused")
    assert found == ("False", "Resuming", "Not resumed yet: b.")


def test_only_five_culprits_are_named() -> None:
    pods = tuple(pod(f"p{number}") for number in range(8))
    silent: dict[str, PodAnswer] = {one.name: PodSilence(one.name, "x") for one in pods}
    assert "and 3 more" in World(pods=pods, answers=silent).condition("ConfigurationApplied")[2]


# --- times and rows --------------------------------------------------------------------------------------------------


def test_a_transition_time_is_kept_while_the_status_stays_and_the_reason_may_change() -> None:
    earlier = "2026-11-22T11:00:00Z"
    before = {
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Old", "message": "", "lastTransitionTime": earlier},
            {"type": "Paused", "status": "True", "reason": "Old", "message": "", "lastTransitionTime": earlier},
        ]
    }
    rows = {row["type"]: row for row in World(before=before).status()["conditions"]}
    assert rows["Ready"]["lastTransitionTime"] == earlier
    assert rows["Ready"]["reason"] == "AllPodsReady"
    assert rows["Paused"]["lastTransitionTime"] == "2026-11-22T12:00:00Z"
    assert all(row["observedGeneration"] == 4 for row in rows.values())


def test_the_time_is_written_in_utc() -> None:
    subject = worlds.pooler()
    elsewhere = (NOW + timedelta(0)).astimezone(None)
    result = status(subject, worlds.observed(subject), {}, wanted=None, integration=None, blocker=None, now=elsewhere)
    assert {row["lastTransitionTime"] for row in result["conditions"]} == {"2026-11-22T12:00:00Z"}


def test_a_row_per_pod_says_what_the_pod_said() -> None:
    world = World(answers={"b": PodSilence("b", "timed out")}).say(
        "a", clients=5, waiting_clients=2, servers=3, restart_needed=("pkt_buf",), lookup_ok=False, lookup_error="no"
    )
    first, second, _ = world.status()["pods"]
    assert first == {
        "name": "a",
        "ready": True,
        "state": "active",
        "configRevision": 3,
        "configDigest": "d3",
        "clients": 5,
        "waitingClients": 2,
        "servers": 3,
        "catalogueVersion": 1,
        "message": "a restart is needed for pkt_buf; the last password lookup failed: no",
    }
    assert second == {"name": "b", "ready": True, "state": "unknown", "message": "timed out"}


@pytest.mark.parametrize(
    ("reason", "phase"),
    [(Reason.INVALID_SPEC, "failed"), (Reason.NAME_CONFLICT, "failed"), (Reason.MISSING_SECRET, "inactive")],
)
def test_what_a_person_must_mend_is_failed_and_what_may_still_come_is_inactive(reason: Reason, phase: str) -> None:
    assert World(blocker=Blocker(reason, "x"), wanted=None).status()["phase"] == phase


# --- the connection budget -------------------------------------------------------------------------------------------


ROOM = TargetCapacity(100, 3)


def within_budget(capacity: TargetCapacity | None = ROOM, **spec: Any) -> tuple[str, str, str]:
    world = World(spec=spec, capacity=capacity)
    row = next(row for row in world.status()["conditions"] if row["type"] == "WithinConnectionBudget")
    return row["status"], row["reason"], row["message"]


def test_pools_that_postgresql_has_no_room_for_are_told_with_the_numbers_and_a_way_out() -> None:
    status, reason, message = within_budget(instances=4, pgbouncer={"parameters": {"default_pool_size": "32"}})
    assert (status, reason) == ("False", "OverBudget")
    assert message == (
        "4 pods may open 32 servers each (1 database, 1 user, as far as they are named), and 10 are for everybody else: "
        "138. PostgreSQL has max_connections 100 less 3 reserved. Lower pool sizes, or set connectionBudget to 87 or "
        "less; or raise max_connections to 141."
    )


def test_pools_that_fit_are_told_with_the_numbers_too() -> None:
    status, reason, message = within_budget(instances=2)
    assert (status, reason) == ("True", "WithinBudget")
    assert "2 pods may open 20 servers each" in message
    assert "50. PostgreSQL has max_connections 100" in message


def test_a_pool_without_limit_is_never_within_a_budget() -> None:
    status, _, message = within_budget(instances=1, pgbouncer={"parameters": {"default_pool_size": "0"}})
    assert status == "False"
    assert "any number of servers" in message
    assert "raise max_connections" not in message


def test_a_pod_that_may_not_open_as_many_files_as_its_clients_need_says_so() -> None:
    world = World(capacity=ROOM).say("b", descriptor_limit=1024, descriptors_needed=5032)
    world.say("c", descriptor_limit=5032, descriptors_needed=5032)
    row = next(row for row in world.status()["conditions"] if row["type"] == "WithinConnectionBudget")
    assert (row["status"], row["reason"]) == ("False", "TooFewDescriptors")
    assert row["message"] == (
        "max_client_conn and the pool sizes ask for 5032 open files, and the node lets a process have 1024 (pod b). Raise the "
        "limit of the container runtime (LimitNOFILE), or lower max_client_conn."
    )


def test_a_budget_is_held_against_what_postgresql_has_room_for() -> None:
    assert within_budget(instances=2, connectionBudget=97)[0] == "True"
    status, _, message = within_budget(instances=2, connectionBudget=98)
    assert (status, message) == (
        "False",
        "connectionBudget is 98, 32 for each of up to 3 pods. PostgreSQL has max_connections 100 less 3 reserved. "
        "Set connectionBudget to 97 or less; or raise max_connections to 101.",
    )


def test_what_postgresql_has_room_for_may_not_be_known() -> None:
    assert within_budget(None, instances=2)[:2] == ("Unknown", "CapacityUnknown")


def test_who_has_to_make_room_before_more_pods_start_is_named() -> None:
    world = World(
        spec={"instances": 3, "connectionBudget": 60},
        capacity=TargetCapacity(100, 3),
        making_room=("a (20 servers, 15 are its)",),
    )
    rows = {row["type"]: row["message"] for row in world.status()["conditions"]}
    assert "more pods wait for a (20 servers, 15 are its)" in rows["WithinConnectionBudget"]


def test_a_capacity_that_could_not_be_asked_says_why() -> None:
    asked = IntegrationResult("False", Reason.MANUAL, "by hand", capacity_error="It is away.")
    status, reason, message = World(integration=asked).condition("WithinConnectionBudget")
    assert (status, reason) == ("Unknown", "CapacityUnknown")
    assert message.endswith("max_connections is not known: It is away.")
