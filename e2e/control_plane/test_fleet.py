"""Many Poolers under one operator: they come up, one change takes the time that it takes alone, and at rest it is quiet.

60 of them; PGWEIR_FLEET=300 (`make fleet`) says how many. The numbers are printed.
"""

from __future__ import annotations

import os
import time
import urllib.request

import pytest
from e2e.control_plane.harness import wait
from tests.postgres.server import free_port

POOLERS = int(os.environ.get("PGWEIR_FLEET", "60"))
REST = 30.0
"""Seconds between two looks at a Pooler where nothing happens, as the operator has it by default."""
QUIET = 20.0
"""Seconds for which a fleet at rest is watched."""

pytestmark = pytest.mark.timeout(120 + 10 * POOLERS)


class Numbers:
    """The operator's own metrics."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    def __call__(self, name: str) -> float:
        with urllib.request.urlopen(self._url, timeout=30) as answer:
            rows = answer.read().decode().splitlines()
        return float(next(row.split()[1] for row in rows if row.split()[0] == name))


def is_ready(pooler) -> bool:
    rows = (pooler.get("status") or {}).get("conditions") or ()
    return any(row["type"] == "Ready" and row["status"] == "True" for row in rows)


def change(world, name: str, size: int) -> float:
    """Seconds from a change of one Pooler to its pod's running it."""
    fake = next(fake for pod, fake in world.kubelet.pods.items() if pod.startswith(f"{name}-"))
    began = time.monotonic()
    world.pooler(name, instances=1, parameters={"default_pool_size": str(size)})
    wait(lambda: f"default_pool_size = {size}".encode() in fake.files["pgbouncer.ini"], f"the change of {name}")
    return time.monotonic() - began


def test_a_fleet_comes_up_takes_one_change_as_fast_as_one_alone_and_is_quiet_at_rest(world, capsys):
    world.has_cluster()
    port = free_port()
    numbers = Numbers(port)
    world.start_operator(f"--listen=127.0.0.1:{port}", recheck=REST)
    world.pooler("first", instances=1)
    world.until("Ready", "True", name="first")
    alone = min(change(world, "first", size) for size in (3, 4, 5))
    memory_of_one = numbers("process_resident_memory_bytes")

    began = time.monotonic()
    for number in range(POOLERS - 1):
        world.pooler(f"p{number}", instances=1)
    created = time.monotonic() - began

    def all_ready() -> bool:
        return sum(map(is_ready, world.run(world.kube.items("Pooler", world.namespace)))) == POOLERS

    wait(all_ready, "all are ready", patience=60 + 8.0 * POOLERS)
    up = time.monotonic() - began
    assert numbers("pgweir_operator_poolers") == POOLERS
    assert numbers("pgweir_operator_failures") == 0

    # At rest: what came with the start has ended when nobody's pass changes a thing.
    time.sleep(5)
    passes, requests, cpu = (numbers(name) for name in _COUNTED)
    time.sleep(QUIET)
    passes, requests, cpu = (
        numbers(name) - before for name, before in zip(_COUNTED, (passes, requests, cpu), strict=True)
    )
    among_many = min(change(world, "first", size) for size in (6, 7, 8))
    memory = numbers("process_resident_memory_bytes")
    watches = numbers("pgweir_operator_watches")
    with capsys.disabled():
        print(
            f"\n{POOLERS} Poolers: created in {created:.0f} s, all ready after {up:.0f} s; one change {among_many:.2f} s,"
            f" alone {alone:.2f} s; memory {memory / 2**20:.0f} MiB, {memory_of_one / 2**20:.0f} with one;"
            f" at rest {requests * 60 / QUIET:.0f} requests, {passes * 60 / QUIET:.0f} passes and"
            f" {cpu * 60 / QUIET:.1f} s of CPU a minute; {watches:.0f} watches by name"
        )
    assert among_many < 10 * alone + 1.0
    # Every Pooler once in its time of rest, which grows with their number, and some whose time fell into ours twice.
    assert passes <= 2 * POOLERS * QUIET / max(REST, POOLERS / 2) + 10
    # All of their own by one, and those of the cluster once for all.
    assert watches <= 10
    assert (memory - memory_of_one) / POOLERS < 4 * 2**20


_COUNTED = ("pgweir_operator_passes", "pgweir_operator_api_requests", "process_cpu_seconds_total")
