"""What a pod is to Kubernetes: ready while its pool is full, gone from the Service when it drains, small, and nobody's root;
and what a drain of its node asks of it."""

from __future__ import annotations

import subprocess
import time

import pytest
from e2e.kubernetes_access import WRAPPERS
from e2e.measured import Measured
from e2e.scenarios.shop import DRAIN_UNDER_LOAD, POOLER, WAIT, Shop, until

pytestmark = pytest.mark.cluster

NARROW = "pooler-narrow"
# The resources of the documentation's example.
RESOURCES = {"requests": {"cpu": "0.1", "memory": "100Mi"}, "limits": {"cpu": "0.5", "memory": "500Mi"}}


@pytest.fixture(scope="module", autouse=True)
def poolers(shop: Shop) -> None:
    container = {"name": "pgbouncer", "resources": RESOURCES}
    template = {"metadata": {"labels": {"app": "pooler"}}, "spec": {"containers": [container]}}
    shop.pooler(drain=DRAIN_UNDER_LOAD)
    shop.pooler(NARROW, instances=1, template=template, pgbouncer={"parameters": {"default_pool_size": "1"}})
    shop.at_rest(NARROW)


@pytest.fixture(autouse=True)
def at_rest(shop: Shop) -> None:
    shop.at_rest()


def in_pod(shop: Shop, program: str, pod: str) -> str:
    return shop.kubernetes.execute(pod, "python3", "-c", program, namespace=shop.namespace).strip()


def names(shop: Shop, name: str = POOLER) -> list[str]:
    return [pod["metadata"]["name"] for pod in shop.pods(name)]


def test_a_full_pool_takes_no_pod_from_the_service_and_restarts_none(shop: Shop) -> None:
    lives = shop.lives(NARROW)
    with shop.holding() as release:
        clients = [shop.start_psql(WAIT, f"host={NARROW}") for _ in range(6)]
        until(lambda: int(waiting(shop)) == 5, "the others wait")
        # Two probes in a row that fail, one every 2 s, would take it away.
        for _ in range(14):
            (pod,) = shop.pods(NARROW)
            ready = {row["type"]: row["status"] for row in pod["status"]["conditions"]}
            assert ready["Ready"] == "True"
            time.sleep(0.5)
        release()
        for client in clients:
            client.communicate(timeout=60)
            assert client.returncode == 0
    assert shop.lives(NARROW) == lives


def waiting(shop: Shop) -> str:
    program = (
        "import json, urllib.request as r; "
        "print(sum(p['clients']['waiting'] for p in json.load(r.urlopen('http://127.0.0.1:8080/api/v1/pools'))))"
    )
    return in_pod(shop, program, names(shop, NARROW)[0])


def test_small_resources_are_enough_and_a_resting_pod_needs_less_than_it_asked_for(
    shop: Shop, measured: Measured
) -> None:
    (pod,) = shop.pods(NARROW)
    (container,) = [row for row in pod["spec"]["containers"] if row["name"] == "pgbouncer"]
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "500Mi"}
    assert shop.psql("select 1", f"host={NARROW}") == "1"
    program = "import os; print(int(open('/proc/1/statm').read().split()[1]) * os.sysconf('SC_PAGESIZE') // 2**20)"
    mebibytes = int(in_pod(shop, program, pod["metadata"]["name"]))
    measured.note("Memory of a pod at rest", f"{mebibytes} MiB", "100 MiB")
    assert mebibytes < 100


def test_nobody_is_root_and_nothing_can_be_written_but_what_is_meant_to(shop: Shop) -> None:
    program = (
        "import os\n"
        "print(os.getuid() > 0, open('/proc/self/status').read().split('CapEff:')[1].split()[0])\n"
        "try: open('/usr/x', 'w')\n"
        "except OSError as error: print(error.strerror)"
    )
    assert in_pod(shop, program, names(shop)[0]).splitlines() == ["True 0000000000000000", "Read-only file system"]


def test_the_metrics_are_there_for_who_may_exec(shop: Shop) -> None:
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9127/metrics').read().decode())"
    for pod in names(shop):
        assert "cnp_pgbouncer_pools_cl_active{" in in_pod(shop, program, pod)
    console = shop.kubernetes.execute(pod, "pgweir-console", "show", "metrics", namespace=shop.namespace)
    assert "cnp_pgbouncer_pools_cl_active" in console


def test_thirty_clients_of_the_service_are_spread_over_three_pods(shop: Shop) -> None:
    thirty = f"for n in $(seq 30); do psql -XAtc '{WAIT}' & done; wait"
    program = (
        "import json, urllib.request as r; "
        "print(sum(p['clients']['active'] + p['clients']['waiting'] for p in"
        " json.load(r.urlopen('http://127.0.0.1:8080/api/v1/pools')) if p['database'] == 'app'))"
    )
    last: list[int] = []

    def counted() -> list[int] | None:
        last[:] = [int(in_pod(shop, program, pod)) for pod in names(shop)]
        return last if sum(last) == 30 else None

    with shop.holding() as release:
        clients = shop.start("bash", "-c", thirty)
        try:
            found = until(counted, "thirty are there")
        except AssertionError as error:
            raise AssertionError(f"{error}; they were {last}") from None
        print(f"clients of each pod: {found}")
        assert min(found) >= 1, "by chance alone once in 60,000 times"
        release()
        said, _ = clients.communicate(timeout=60)
    assert "rror" not in said, said


def test_a_pod_that_is_told_to_go_leaves_the_service_at_once_and_serves_on(shop: Shop, measured: Measured) -> None:
    pod = shop.pods()[0]
    address = pod["status"]["podIP"]
    asked = time.monotonic()
    shop.kubernetes.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false", namespace=shop.namespace)
    until(lambda: address not in shop.ready_addresses(), "it has left", seconds=20, every=0.05)
    left = time.monotonic() - asked
    measured.note("A pod is deleted → it is not ready for the Service", f"{left:.2f} s (with kubectl)", "2 s")
    assert shop.psql("select 1", f"host={address}") == "1", "who has not heard of it yet is served"


def test_a_drained_node_lets_one_pod_go_after_the_other_and_costs_no_transaction(
    shop: Shop, measured: Measured
) -> None:
    """`kubectl drain` itself, of the pods of one Pooler. Where there is one node, the pods that take their place are Pending
    until it is uncordoned, and until then the disruption budget lets no second one go."""
    shop.initialise()
    before = names(shop)
    (node,) = {pod["spec"]["nodeName"] for pod in shop.pods()}
    selector = f"--pod-selector=pgweir.io/poolerName={POOLER}"
    options = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s"]
    command = [str(WRAPPERS / "kubectl"), "drain", node, selector, *options]
    with shop.load("-c", "4", "-C") as load:
        drain = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            until(lambda: _pending(shop), "a new pod finds no node")
            time.sleep(3)
            stay = len(set(names(shop)) & set(before))
        finally:
            shop.kubernetes.kubectl("uncordon", node)
            said, _ = drain.communicate(timeout=180)
        until(lambda: not set(names(shop)) & set(before), "the old ones are going")
        shop.at_rest()
        done = load.finish()
    lost = f"{done.failed} of {done.processed} transactions failed"
    measured.note("kubectl drain of the (one) node, uncordoned when a new pod was Pending", lost, "0 failed")
    shop.books_balance(done)
    assert drain.returncode == 0, said
    assert stay == 2, "the disruption budget lets them go one at a time"
    assert "Cannot evict pod" in said


def _pending(shop: Shop) -> bool:
    return any(pod["status"]["phase"] == "Pending" and "nodeName" not in pod["spec"] for pod in shop.pods())
