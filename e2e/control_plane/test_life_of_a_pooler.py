"""From `kubectl apply` to nothing left: children, status, pushes, pause, deletion."""

from __future__ import annotations

import json

import pytest
from e2e.control_plane.harness import ROLE, wait

from pgweir.bundle import bundle_digest


@pytest.fixture
def ready(world):
    """A Pooler with two pods, ready, under an operator."""
    world.has_cluster()
    world.operator = world.start_operator()
    world.pooler()
    world.until("Ready", "True")
    return world


def leftovers(server):
    return (
        server.execute(f"SELECT rolname FROM pg_roles WHERE rolname = '{ROLE}'")
        + server.execute("SELECT nspname FROM pg_namespace WHERE nspname = 'pgweir'")
        + server.execute(f"SELECT datname FROM pg_database WHERE datacl::text LIKE '%{ROLE}%'")
    )


def test_its_children_appear_owned_by_it_and_its_status_says_what_the_pods_proved(ready):
    uid = ready.get("Pooler", "pooler")["metadata"]["uid"]
    children = [
        ("Deployment", "pooler"),
        ("Service", "pooler"),
        ("Service", "pooler-peers"),
        ("Secret", "pooler"),
        ("Secret", "pooler-control"),
        ("Secret", "pooler-control-ca"),
        ("ServiceAccount", "pooler"),
        ("PodDisruptionBudget", "pooler"),
    ]
    for kind, name in children:
        child = ready.get(kind, name)
        assert child is not None, f"{kind} {name}"
        assert [owner["uid"] for owner in child["metadata"]["ownerReferences"]] == [uid]
    status = ready.status()
    digest = bundle_digest(ready.files())
    assert status["configDigest"] == digest
    assert status["readyInstances"] == 2
    assert {row["configDigest"] for row in status["pods"]} == {digest}
    assert {fake.digest for fake in ready.fakes()} == {digest}
    assert {row["type"]: row["status"] for row in status["conditions"]} == {
        "Ready": "True",
        "Available": "True",
        "ConfigurationApplied": "True",
        "Paused": "False",
        "Integrated": "True",
        "TargetAvailable": "True",
        "WithinConnectionBudget": "True",
    }
    assert {event["reason"] for event in ready.events()} >= {"AllPodsReady", "LookupSucceeded"}


def test_no_pod_gets_a_key_of_an_authority(ready):
    pod = ready.get("Deployment", "pooler")["spec"]["template"]["spec"]
    mounted = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert mounted == {"pooler", "pooler-control"}
    assert not any("ca.key" in ready.files(name) for name in mounted)


def test_kopf_leaves_nothing_on_a_pooler(ready):
    metadata = ready.get("Pooler", "pooler")["metadata"]
    assert "kopf" not in json.dumps(metadata.get("annotations") or {})
    assert metadata["finalizers"] == ["pgweir.io/provisioned"]


def test_a_parameter_reaches_every_pod_under_a_new_revision_without_a_new_pod(ready):
    before, pods = ready.revision(), set(ready.kubelet.pods)
    ready.pooler(parameters={"default_pool_size": "7"})
    wait(lambda: all(b"default_pool_size = 7" in fake.files["pgbouncer.ini"] for fake in ready.fakes()), "the push")
    ready.until("Ready", "True")
    assert ready.revision() == before + 1
    assert ready.status()["configRevision"] == before + 1
    assert set(ready.kubelet.pods) == pods


def test_a_pause_is_true_only_when_no_pod_holds_a_server_and_names_who_does(ready):
    first, second = ready.fakes()
    second.hold(serverPid=4711, user="batch")
    ready.pooler(paused=True)
    message = ready.until("Paused", "False", "Pausing")
    wait(lambda: first.state == "paused", "the first pod pauses")
    message = ready.until("Paused", "False", "Pausing")
    assert "4711" in message
    assert "batch" in message
    second.let_go()
    ready.until("Paused", "True")
    assert ready.status()["pausedInstances"] == 2
    ready.pooler(paused=False)
    ready.until("Paused", "False", "NotAsked")
    assert {fake.state for fake in ready.fakes()} == {"active"}


def test_either_spelling_pauses_and_a_pod_that_is_added_starts_paused(ready):
    as_cloudnativepg_says = {"poolMode": "transaction", "paused": True}
    ready.pooler(pgbouncer=as_cloudnativepg_says)
    ready.until("Paused", "True")
    ready.pooler(pgbouncer=as_cloudnativepg_says, instances=3)
    wait(lambda: len(ready.fakes()) == 3, "the third pod")
    ready.until("Paused", "True")
    wait(lambda: {fake.state for fake in ready.fakes()} == {"paused"}, "all are paused")
    ready.pooler(paused=True, pgbouncer={**as_cloudnativepg_says, "paused": False}, instances=3)
    ready.until("Ready", "True")
    assert {fake.state for fake in ready.fakes()} == {"paused"}, "ours pauses, whatever the other says"
    ready.pooler(instances=3)
    ready.until("Paused", "False", "NotAsked")
    assert {fake.state for fake in ready.fakes()} == {"active"}


def test_a_pause_past_its_deadline_resumes_everywhere_where_the_spec_says_so(ready):
    ready.fakes()[0].hold()
    ready.pooler(paused=True, pause={"timeoutSeconds": 1, "onTimeout": "Resume"})
    ready.until("Paused", "False", "PauseTimedOut")
    wait(lambda: {fake.state for fake in ready.fakes()} == {"active"}, "all resumed")
    assert ready.condition("Paused")[:2] == ("False", "PauseTimedOut")


def test_a_pause_past_its_deadline_closes_the_holders_where_the_spec_says_so(ready):
    first, second = ready.fakes()
    second.hold()
    ready.pooler(paused=True, pause={"timeoutSeconds": 1, "onTimeout": "Terminate"})
    ready.until("Paused", "True")
    notes = [event["note"] for event in ready.events() if event["reason"] == "HoldersTerminated"]
    assert len(notes) == 1
    assert f"Pod {second.name}: closed 1 client that" in notes[0]
    assert "POST /v1/holders/terminate" not in first.asked


def test_a_pod_that_refuses_shows_in_the_status_with_its_words(ready):
    ready.fakes()[0].refuses = "server_tls_ca_file: no PEM certificate in server-ca.crt"
    ready.pooler(parameters={"default_pool_size": "8"})
    message = ready.until("ConfigurationApplied", "False", "Rejected")
    assert "no PEM certificate" in message
    ready.until("Ready", "False")
    ready.fakes()[0].refuses = ""
    ready.until("Ready", "True")


def test_a_pod_that_does_not_answer_is_no_proof(ready):
    fake = ready.fakes()[0]
    ready.run(fake.stop())
    message = ready.until("ConfigurationApplied", "False", "PodUnreachable")
    assert fake.name in message
    ready.run(fake.start())
    ready.until("ConfigurationApplied", "True")


def test_what_somebody_set_at_a_pods_console_is_set_back(ready):
    fake = ready.fakes()[0]
    fake.paused, fake.digest = True, "of something else"
    ready.until("Ready", "True")
    wait(lambda: fake.state == "active", "the pod is active again")
    ready.until("ConfigurationApplied", "True")


def test_a_child_that_somebody_changes_or_deletes_comes_back(ready):
    ready.delete("Service", "pooler")
    wait(lambda: ready.get("Service", "pooler") is not None, "the Service")
    ready.delete("Deployment", "pooler")
    wait(lambda: ready.get("Deployment", "pooler") is not None, "the Deployment")
    before = ready.revision()
    ready.delete("Secret", "pooler")
    wait(lambda: ready.files() != {}, "the Secret")
    ready.until("ConfigurationApplied", "True")
    assert ready.revision() >= before, "pods refuse a lower revision"


def test_scaling_up_and_down_keeps_the_truth(ready):
    ready.pooler(instances=3)
    wait(lambda: ready.status().get("readyInstances") == 3, "three")
    ready.until("Ready", "True")
    ready.pooler(instances=1)
    wait(lambda: ready.status().get("readyInstances") == 1, "one")
    ready.until("Ready", "True")
    wait(lambda: ready.get("PodDisruptionBudget", "pooler") is None, "no budget for one pod")


def test_after_deletion_nothing_is_left_anywhere(ready):
    assert leftovers(ready.server)
    ready.delete("Pooler", "pooler")
    wait(lambda: ready.get("Pooler", "pooler") is None, "the Pooler is gone")
    assert leftovers(ready.server) == []
    for kind, name in [("Deployment", "pooler"), ("Service", "pooler"), ("Secret", "pooler-control-ca")]:
        wait(lambda kind=kind, name=name: ready.get(kind, name) is None, f"{kind} {name} is gone")
    assert "Traceback" not in ready.operator.log


def test_the_role_stays_until_the_last_pooler_of_the_cluster_goes(ready):
    ready.pooler("second", instances=1)
    ready.until("Ready", "True", name="second")
    ready.delete("Pooler", "pooler")
    wait(lambda: ready.get("Pooler", "pooler") is None, "the first is gone")
    assert leftovers(ready.server)
    assert ready.condition("Integrated", "second")[0] == "True"
    ready.delete("Pooler", "second")
    wait(lambda: ready.get("Pooler", "second") is None, "the second is gone")
    assert leftovers(ready.server) == []


def test_an_operator_that_starts_anew_goes_on_where_the_last_one_was(ready):
    ready.pooler(parameters={"default_pool_size": "9"})
    wait(lambda: all(b"= 9" in fake.files["pgbouncer.ini"] for fake in ready.fakes()), "the push")
    ready.until("Ready", "True")
    before, files = ready.revision(), ready.files()
    pushes = {fake.name: fake.asked.count("PUT /v1/configuration") for fake in ready.fakes()}
    assert ready.operator.stop() == 0
    ready.operator = ready.start_operator()
    wait(lambda: "leading" in ready.operator.log, "the new one leads")
    wait(lambda: "LookupSucceeded" in str(ready.status()), "it looked")
    wait(lambda: all(fake.asked[-1].startswith("GET") for fake in ready.fakes()), "it asked")
    assert (ready.revision(), ready.files()) == (before, files), "nothing was made anew"
    assert pushes == {fake.name: fake.asked.count("PUT /v1/configuration") for fake in ready.fakes()}
    ready.pooler(parameters={"default_pool_size": "10"})
    ready.until("Ready", "True")
    wait(lambda: ready.revision() == before + 1, "the next revision")


def test_one_replica_leads_and_the_other_takes_over_at_once(ready):
    second = ready.start_operator()
    wait(lambda: "standing by" in second.log, "the second stands by")
    assert "leading" not in second.log
    assert ready.operator.stop() == 0
    wait(lambda: "leading" in second.log, "it takes over")
    ready.pooler(parameters={"default_pool_size": "11"})
    wait(lambda: all(b"= 11" in fake.files["pgbouncer.ini"] for fake in ready.fakes()), "the second pushes")
    assert second.stop() == 0


def test_a_leader_that_lost_its_lease_exits(ready):
    ready.run(_steal(ready))
    assert ready.operator.process.wait(timeout=30) == 3


async def _steal(world):
    lease = await world.kube.get("Lease", world.namespace, "pgweir-operator")
    await world.kube.replace({**lease, "spec": {**lease["spec"], "holderIdentity": "somebody else"}})
