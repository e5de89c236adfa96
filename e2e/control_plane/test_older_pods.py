"""Pods of another version than the operator's, at a real API server: what they do not know is named, and heals."""

from __future__ import annotations

from datetime import UTC, datetime

from e2e.control_plane.harness import wait
from e2e.control_plane.test_life_of_a_pooler import ready  # noqa: F401 (a fixture)

PARAMETERS = {"client_overflow": "wait", "default_pool_size": "7"}


def test_what_one_older_pod_does_not_know_is_left_out_for_all_and_named_until_it_is_gone(ready):  # noqa: F811
    old, new = ready.fakes()
    old.catalogue_version, old.first_version = 1, True
    ready.pooler(parameters=PARAMETERS)
    message = ready.until("ConfigurationApplied", "False", "SettingsLeftOut")
    assert f"unknown to {old.name}: client_overflow" in message
    assert ready.condition("Ready")[:2] == ("False", "SettingsLeftOut")
    assert ready.condition("Available")[0] == "True"
    for fake in (old, new):
        assert b"default_pool_size = 7" in fake.files["pgbouncer.ini"]
        assert b"client_overflow" not in fake.files["pgbouncer.ini"]
    assert b"client_overflow" not in ready.files()["pgbouncer.ini"], "nor does a pod that starts now find it"
    rows = {row["name"]: row["catalogueVersion"] for row in ready.status()["pods"]}
    assert rows[old.name] == 1
    assert "SettingsLeftOut" in {event["reason"] for event in ready.events()}

    # A new operator, before which the old pod is silent, remembers what it knows.
    ready.operator.stop()
    ready.run(old.stop())
    ready.operator = ready.start_operator()
    ready.until("ConfigurationApplied", "False", "PodUnreachable")
    assert b"client_overflow" not in ready.files()["pgbouncer.ini"]
    ready.run(old.start())
    ready.until("ConfigurationApplied", "False", "SettingsLeftOut")

    ready.delete("Pod", old.name)
    ready.until("ConfigurationApplied", "True")
    ready.until("Ready", "True")
    assert all(b"client_overflow = wait" in fake.files["pgbouncer.ini"] for fake in ready.fakes())


def test_a_pod_of_an_unknown_image_that_cannot_start_is_given_what_the_first_version_knew(world):
    world.has_cluster()
    world.kubelet.start_new_ones = False
    world.start_operator()
    world.pooler(
        instances=1, parameters=PARAMETERS, template={"spec": {"containers": [{"name": "pgbouncer", "image": "x"}]}}
    )
    wait(lambda: b"client_overflow" in world.files().get("pgbouncer.ini", b""), "it is rendered for our own version")
    (pod,) = pods(world)
    crash(world, pod["metadata"]["name"])
    wait(lambda: b"client_overflow" not in world.files()["pgbouncer.ini"], "what may stop it is left out")
    world.kubelet.start_new_ones = True
    world.until("ConfigurationApplied", "True")
    assert b"client_overflow" in world.files()["pgbouncer.ini"], "it turned out to know it"


def pods(world):
    wait(lambda: world.run(world.kube.items("Pod", world.namespace)), "a pod")
    return world.run(world.kube.items("Pod", world.namespace))


def crash(world, name):
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    status = {
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}],
        "containerStatuses": [
            {"name": "pgbouncer", "image": "x", "imageID": "", "ready": False, "restartCount": 3, "state": state}
        ],
    }
    world.run(world.kube.merge_status("Pod", world.namespace, name, status))
