"""Pods die, are deleted, rolled and scaled: who is on another pod notices nothing, who reconnects loses nothing."""

from __future__ import annotations

import subprocess

import pytest
from e2e.measured import Measured
from e2e.scenarios.shop import CLIENT, DRAIN_UNDER_LOAD, POOLER, Bench, Shop, until

pytestmark = pytest.mark.cluster

GOAL = "0 failed"

# Kills the pooler's process as nothing in the pod would: no signal handler runs.
KILL = """
import os
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) != os.getpid():
        with open(f"/proc/{name}/cmdline", "rb") as file:
            words = file.read().split(bytes(1))
        if any(word.endswith(b"pgweir-pooler") for word in words):
            os.kill(int(name), 9)
            print("killed", name)
"""


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    # In a process namespace that containers share, the pooler is not process 1 and can be killed from within.
    shop.pooler(template={"spec": {"shareProcessNamespace": True}}, drain=DRAIN_UNDER_LOAD)


@pytest.fixture(autouse=True)
def at_rest(shop: Shop) -> None:
    shop.at_rest()


def test_a_killed_process_costs_its_own_clients_alone_and_comes_back_with_what_it_had(
    shop: Shop, measured: Measured
) -> None:
    shop.initialise()
    generation = shop.parameters(default_pool_size="12")
    revision = shop.proved(generation)["configRevision"]
    victim, *others = shop.pods()
    before = shop.lives()
    with shop.load("-c", "6", host=others[0]["status"]["podIP"]) as load:
        said = shop.kubernetes.execute(
            victim["metadata"]["name"], "python3", "-c", KILL, namespace=shop.namespace, timeout=30
        )
        assert "killed" in said
        until(lambda: sum(shop.lives().values()) == 1, "the kubelet starts the container again")
        shop.at_rest()
        done = load.finish()
    measured.note("kill -9 of a pooler's process, seen by the clients of another pod", _lost(done), GOAL)
    shop.books_balance(done)
    assert set(shop.lives()) == set(before)
    status = shop.proved(generation)
    assert status["configRevision"] == revision
    address = victim["status"]["podIP"]
    assert shop.psql("select 1", f"host={address}") == "1", "the killed one serves again"


def test_deleted_pods_under_load_cost_no_transaction(shop: Shop, measured: Measured) -> None:
    shop.initialise()
    before = shop.lives()
    with shop.load("-c", "4", "-C") as load:
        for pod in shop.pods()[:2]:
            shop.kubernetes.kubectl("delete", "pod", pod["metadata"]["name"], namespace=shop.namespace)
            shop.at_rest()
        done = load.finish()
    measured.note("Two of three pods deleted, one after the other", _lost(done), GOAL)
    shop.books_balance(done)
    assert len(set(shop.lives()) & set(before)) == 1


def test_a_rollout_restart_under_load_costs_no_transaction(shop: Shop, measured: Measured) -> None:
    shop.initialise()
    before = shop.lives()
    with shop.load("-c", "4", "-C") as load:
        shop.kubernetes.kubectl("rollout", "restart", f"deployment/{POOLER}", namespace=shop.namespace)
        shop.kubernetes.rolled_out("deployment", POOLER, namespace=shop.namespace)
        shop.at_rest()
        done = load.finish()
    measured.note("Rollout of three pods", _lost(done), GOAL)
    shop.books_balance(done)
    assert not set(shop.lives()) & set(before)


def test_scaled_to_one_and_back_clients_leave_between_transactions(shop: Shop, measured: Measured) -> None:
    shop.initialise()
    idle = {address: _start_idle_client(shop, address) for address in shop.addresses()}
    with shop.load("-c", "4", "-C") as load:
        shop.kubernetes.kubectl("scale", "pooler", POOLER, "--replicas=1", namespace=shop.namespace)
        (pod,) = shop.at_rest()
        left = pod["status"]["podIP"]
        shop.kubernetes.kubectl("scale", "pooler", POOLER, "--replicas=3", namespace=shop.namespace)
        shop.at_rest()
        done = load.finish()
    measured.note("Scaled from three pods to one and back", _lost(done), GOAL)
    shop.books_balance(done)
    for address, process in idle.items():
        said, _ = process.communicate("select 2;\n", timeout=60)
        if address == left:
            assert said.split() == ["2"], said
        else:
            assert "57P01" in said, said
    pooler = shop.kubernetes.get("pooler", POOLER, namespace=shop.namespace)
    assert pooler["status"]["instances"] == 3
    assert pooler["status"]["selector"] == f"pgweir.io/poolerName={POOLER}"


def _lost(done: Bench) -> str:
    return f"{done.failed} of {done.processed} transactions failed"


def _start_idle_client(shop: Shop, address: str) -> subprocess.Popen[str]:
    """A session that has asked once, rests, and asks again when it is told to."""
    command = ["psql", "-XAt", "-v", "VERBOSITY=sqlstate", f"host={address}"]
    process = shop.kubernetes.start_execute(CLIENT, *command, namespace=shop.namespace, with_stdin=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("select 1;\n")
    process.stdin.flush()
    assert process.stdout.readline() == "1\n"
    return process
