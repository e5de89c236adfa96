"""Poolers in other surroundings than usual: any user id, IPv6, several standbys, and as many servers as they may have at all.

One PostgreSQL with two standbys and one Pooler of type rw serve all of it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from e2e.kubernetes_access import Kubernetes
from e2e.measured import Measured
from e2e.scenarios.release import RELEASE, Operator
from e2e.scenarios.shop import CA_FILE, CLUSTER, DRAIN_UNDER_LOAD, POOLER, ROLE, WAIT, Shop, until

pytestmark = pytest.mark.cluster

# As OpenShift gives them: a user of the namespace's own range, the root group, the volumes' group of that range.
ANYBODY = {"runAsUser": 1000660000, "runAsGroup": 0, "fsGroup": 1000660000}
READERS = "pooler-example-ro"
BUDGET = 20


@pytest.fixture(scope="module")
def shop(kubernetes: Kubernetes, scenario_namespace: str) -> Iterator[Shop]:
    made = Shop(kubernetes, scenario_namespace)
    try:
        made.open(instances=3)
        _lead_readers_to_every_standby(made)
        made.pooler(
            instances=2,
            drain=DRAIN_UNDER_LOAD,
            template={"spec": {"securityContext": ANYBODY}},
            serviceTemplate={"spec": {"ipFamilyPolicy": "PreferDualStack"}},
            pgbouncer={"parameters": {"default_pool_size": "10"}},
        )
        made.pooler(READERS, type="ro", instances=1)
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def at_rest(shop: Shop) -> None:
    shop.pause(False)
    shop.at_rest()


def _lead_readers_to_every_standby(shop: Shop) -> None:
    kubectl, standbys = shop.kubernetes.kubectl, [f"{CLUSTER}-1", f"{CLUSTER}-2"]
    kubectl("label", "pods", *standbys, "e2e-role=standby", namespace=shop.namespace)
    patch = {"spec": {"selector": {"statefulset.kubernetes.io/pod-name": None, "e2e-role": "standby"}}}
    kubectl("patch", "service", f"{CLUSTER}-ro", f"--patch={json.dumps(patch)}", namespace=shop.namespace)


def test_under_any_user_id_it_reloads_pauses_and_reads_its_certificates(shop: Shop) -> None:
    pod = shop.pods()[0]["metadata"]["name"]
    whoami = "import os; print(os.getuid(), os.getgid(), sorted(os.getgroups()))"
    said = shop.kubernetes.execute(pod, "python3", "-c", whoami, namespace=shop.namespace)
    assert said.split()[:2] == ["1000660000", "0"], said
    lives = shop.lives()
    shop.proved(shop.parameters(query_wait_timeout="60"))
    assert shop.psql("select 1", f"host={POOLER} sslmode=verify-full sslrootcert={CA_FILE}") == "1"
    shop.pause(True)
    shop.paused()
    assert shop.server_connections() == 0
    shop.pause(False)
    shop.paused("False")
    assert shop.psql("select 1") == "1"
    assert shop.lives() == lives


def test_the_operator_works_under_any_user_id(shop: Shop, operator: Operator) -> None:
    patched = {"spec": {"template": {"spec": {"securityContext": ANYBODY}}}}
    usual = {"spec": {"template": {"spec": {"securityContext": dict.fromkeys(ANYBODY)}}}}
    _patch_operator(operator, patched)
    try:
        (pod,) = operator.pods()
        said = operator.kubernetes.execute(pod["metadata"]["name"], "id", "-u", namespace=operator.namespace)
        assert said.strip() == "1000660000"
        shop.proved(shop.parameters(query_wait_timeout="61"))
        assert "Traceback" not in operator.logs()
    finally:
        _patch_operator(operator, usual)


def _patch_operator(operator: Operator, patch: Mapping[str, object]) -> None:
    kubectl, name = operator.kubernetes.kubectl, f"deployment/{RELEASE}"
    kubectl("patch", name, f"--patch={json.dumps(patch)}", namespace=operator.namespace)
    operator.kubernetes.rolled_out("deployment", RELEASE, namespace=operator.namespace)
    until(lambda: len(operator.pods()) == 1 and operator.leads(), "one is there, and leads")


def test_a_service_of_both_families_is_reached_at_either_address(shop: Shop) -> None:
    service = shop.kubernetes.get("service", POOLER, namespace=shop.namespace)["spec"]
    if len(service["clusterIPs"]) == 1:
        pytest.skip("this cluster has one family of addresses")
    assert sorted(service["ipFamilies"]) == ["IPv4", "IPv6"]
    (address,) = [each for each in service["clusterIPs"] if ":" in each]
    # The certificate bears names: the address says where, the name whom to expect.
    verified = f"host={POOLER} hostaddr={address} sslmode=verify-full sslrootcert={CA_FILE}"
    until(lambda: shop.psql("select 1", verified) == "1", "kube-proxy has heard of it")
    with shop.holding() as release:
        assert "57014" in shop.interrupted(verified)
        client = shop.start_psql(WAIT, verified)
        until(lambda: any(":" in each for each in _clients(shop)), "the console shows where it came from")
        release()
        client.communicate(timeout=30)
    assert client.returncode == 0


def _clients(shop: Shop) -> list[str]:
    """Where the clients of `app` came from, by every pod's own word."""
    found = []
    for pod in shop.pods():
        command = ["pgweir-console", "--json", "-c", "SHOW CLIENTS"]
        said = shop.kubernetes.execute(pod["metadata"]["name"], *command, namespace=shop.namespace)
        found += [row["addr"] for row in json.loads(said) if row["database"] == "app"]
    return found


def test_readers_are_spread_over_the_standbys(shop: Shop) -> None:
    shop.at_rest(READERS)
    sql = "select host(inet_server_addr()), pg_is_in_recovery(), pg_sleep(2)"
    many = f"for n in $(seq 16); do psql -XAt -c '{sql}' host={READERS} & done; wait"
    seen: set[str] = set()

    def both() -> bool:
        """A machine that is busy starts the sixteen one after the other, and they share a few servers: then once more."""
        rows = [line.split("|") for line in shop.execute("bash", "-c", many, timeout=60).splitlines()]
        assert len(rows) == 16
        assert {row[1] for row in rows} == {"t"}
        seen.update(row[0] for row in rows)
        return len(seen) == 2

    until(both, "either standby serves")
    shop.remove(READERS)


def test_a_pod_opens_no_more_servers_for_a_pair_than_it_may(shop: Shop) -> None:
    pods = shop.addresses()
    thirty = f"for pod in $0 $1; do for n in $(seq 30); do psql -XAtc '{WAIT}' host=$pod & done; done; wait"

    def counted() -> dict[str, int]:
        sql = "select host(client_addr), count(*) from pg_stat_activity where usename = 'app' group by 1"
        rows = [row.split("|") for row in shop.administrator(sql).splitlines()]
        return {pod: int(count) for pod, count in rows}

    with shop.holding() as release:
        clients = shop.start("bash", "-c", thirty, *pods)
        shop.until_held(20)
        until(lambda: _waiting(shop) == 40, "all others wait")
        assert counted() == dict.fromkeys(pods, 10)
        release()
        said, _ = clients.communicate(timeout=60)
    assert "rror" not in said, said
    assert max(counted().values()) <= 10


def _waiting(shop: Shop) -> int:
    """How many clients wait for a server, by every pod's own word."""
    found = 0
    for pod in shop.pods():
        command = ["pgweir-console", "--json", "-c", "SHOW POOLS"]
        said = shop.kubernetes.execute(pod["metadata"]["name"], *command, namespace=shop.namespace)
        found += sum(int(row["cl_waiting"]) for row in json.loads(said) if row["database"] == "app")
    return found


def test_the_budget_is_never_exceeded_while_pods_come_and_go_with_everybody_waiting_for_servers(
    shop: Shop, operator: Operator, measured: Measured
) -> None:
    shop.patch({"connectionBudget": BUDGET, "pgbouncer": {"parameters": {"default_pool_size": "20"}}})
    shop.at_rest()
    shop.execute("sh", "-c", "echo 'select pg_sleep(0.2);' > /tmp/slow.sql")
    with sums(shop, operator) as seen, shop.load("-c", "40", "-j", "2", "-C", "-f", "/tmp/slow.sql") as load:
        for instances in (5, 1, 3):
            began = len(seen)
            shop.kubernetes.kubectl("scale", "pooler", POOLER, f"--replicas={instances}", namespace=shop.namespace)
            shop.ready()
            assert len(shop.pods()) == instances
            until(lambda since=began: len(seen) > since + 20, "looked twenty times")  # type: ignore[misc]
        time.sleep(2)
        done = load.finish()
    print(f"server connections: at most {max(seen)}, looked at {len(seen)} times; at the end {seen[-1]}")
    measured.note(
        f"connectionBudget of {BUDGET}, 40 clients, 2 → 5 → 1 → 3 pods",
        f"at most {max(seen)} server connections in {len(seen)} looks; {done.failed} of {done.processed} failed",
        f"never above {BUDGET}; 0 failed",
    )
    assert done.failed == 0, done.said
    assert max(seen) <= BUDGET
    assert max(seen) > BUDGET // 2, "each pod was at its share, which is of one pod more than there are"


@contextmanager
def sums(shop: Shop, operator: Operator) -> Iterator[list[int]]:
    """All the time, how many connections PostgreSQL has from the poolers' pods."""
    (other,) = operator.pods()
    sql = (
        f"select count(*) from pg_stat_activity where usename in ('app', '{ROLE}') "
        f"and client_addr <> '{other['status']['podIP']}';"
    )
    look = f'while echo "{sql}"; do sleep 0.05; done | psql -XAt -h /run/postgresql -U postgres -d postgres'
    process = shop.kubernetes.start_execute(shop.primary, "bash", "-c", look, namespace=shop.namespace)
    seen: list[int] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit():
                seen.append(int(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
