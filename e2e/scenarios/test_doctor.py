"""`kubectl pgweir doctor` on real pods: one Pooler, one thing wrong at a time; it names that and nothing else (T08, T09).

Nothing but the pooler's own image is in the cluster for it: what is measured is measured in a pod of the Pooler. Faults
are made where they happen: in the network of a pod (`e2e/cluster/in-pod-net`), in PostgreSQL, in Secrets, in the Pooler.
Two are not what they would be elsewhere. This cluster's network obeys no NetworkPolicy, so that one is read, and packets
are dropped by hand beside it. And the kernel may have no netem: PostgreSQL is slow because a relay stands on the way to it.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from e2e import target
from e2e.kubernetes_access import Kubernetes
from e2e.scenarios.shop import CLIENT, POOLER, WAIT, Shop, until
from e2e.scenarios.typed import kubectl_pgweir

pytestmark = pytest.mark.cluster

MAX_CONNECTIONS, RESERVED = 40, 3
RW = "cluster-example-rw"
DNS_ANSWERS = ("INPUT", "--protocol", "udp", "--sport", "53")

# Carries bytes from port 5433 of this pod to PostgreSQL, and back so many seconds late.
RELAY = """
import socket, sys, threading, time
def carry(source, sink, late):
    try:
        while data := source.recv(65536):
            time.sleep(late)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
listener = socket.create_server(("", 5433))
while True:
    near, _ = listener.accept()
    far = socket.create_connection((sys.argv[1], 5432))
    for way in ((near, far, 0), (far, near, float(sys.argv[2]))):
        threading.Thread(target=carry, args=way, daemon=True).start()
"""


@pytest.fixture(scope="module")
def shop(kubernetes: Kubernetes, scenario_namespace: str) -> Iterator[Shop]:
    """With a PostgreSQL that others can fill, and a Pooler without pods: the first fault is there from the start."""
    made = Shop(kubernetes, scenario_namespace)
    try:
        made.open(max_connections=MAX_CONNECTIONS)
        parameters = {"default_pool_size": "2", "auth_type": "hba", "dns_max_ttl": "1"}
        made.pooler(instances=0, connectionBudget=12, pgbouncer={"parameters": parameters})
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def ready(shop: Shop) -> Shop:
    shop.patch({"instances": 2})
    shop.at_rest()
    return shop


def doctor(shop: Shop, *options: str) -> tuple[int, list[str], Any]:
    words = ("doctor", POOLER, "--json", "--tries=3", "--patience=2", "--timeout=1", *options)
    code, said, told = kubectl_pgweir(shop, *words, timeout=180)
    assert said, told
    found = json.loads(said)
    return code, [finding["code"] for finding in found["findings"]], found


def finds(shop: Shop, *expected: str, words: Iterable[str] = (), options: tuple[str, ...] = ()) -> tuple[int, Any]:
    """Asked again for a while, since endpoints, statuses and kube-proxy follow within seconds: these findings alone, with these
    words in them, and no note."""
    deadline = time.monotonic() + 45
    while True:
        began = time.monotonic()
        code, codes, found = doctor(shop, *options)
        said = "\n".join(
            line for finding in found["findings"] for line in (finding["what"], *finding["evidence"], finding["fix"])
        )
        missing = [word for word in words if word not in said]
        print(f"{time.monotonic() - began:.1f} s: {codes}, missing {missing}, notes {found['notes']}")
        if codes == list(expected) and not missing and not found["notes"]:
            print(said)
            return code, found
        assert time.monotonic() < deadline, f"missing {missing}:\n{json.dumps(found, indent=1)}"


# --- the faults: each is made, and `undo` takes it away ------------------------------------------------------------------------


def dropped(shop: Shop, undo: ExitStack, pod: int, *packets: str) -> None:
    """Packets of that kind, by iptables' words, never come into the pod, or never leave it."""
    name = shop.pods()[pod]["metadata"]["name"]

    def rule(change: str) -> None:
        shop.kubernetes.in_pod_net(shop.namespace, name, "iptables", change, *packets, "--jump", "DROP")

    rule("--insert")
    undo.callback(rule, "--delete")


def in_the_client(shop: Shop, undo: ExitStack, name: str, script: str) -> None:
    """A program in the client's pod, ended with all that it started."""
    shop.start("setsid", "--wait", "bash", "-c", f"echo $$ > /tmp/{name}.pid; {script}")
    undo.callback(shop.execute, "bash", "-c", f"kill -KILL -- -$(cat /tmp/{name}.pid)")


def reconnect(shop: Shop) -> None:
    """No pod has a server of before."""
    for pod in shop.pods():
        name = pod["metadata"]["name"]
        shop.kubernetes.execute(name, "pgweir-console", "-c", "RECONNECT", namespace=shop.namespace)


def first_pod(shop: Shop) -> str:
    return f"host={shop.addresses()[0]}"


def packets_to_the_pooler_dropped(shop: Shop, undo: ExitStack) -> None:
    dropped(shop, undo, 1, "INPUT", "--protocol", "tcp", "--dport", "5432")


def packets_to_a_pod_that_measures_itself_dropped(shop: Shop, undo: ExitStack) -> None:
    dropped(shop, undo, 0, "INPUT", "--protocol", "tcp", "--dport", "5432")


def packets_to_postgresql_dropped(shop: Shop, undo: ExitStack) -> None:
    address = shop.kubernetes.get("service", RW, namespace=shop.namespace)["spec"]["clusterIP"]
    dropped(shop, undo, 0, "OUTPUT", "--destination", address)


def a_policy_that_would_deny(shop: Shop, undo: ExitStack) -> None:
    metadata = {"name": "deny-all", "namespace": shop.namespace}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
    manifest = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
    undo.callback(shop.kubernetes.kubectl, "delete", "networkpolicy", "deny-all", namespace=shop.namespace)
    shop.kubernetes.apply([manifest])


def a_name_that_is_none(shop: Shop, undo: ExitStack) -> None:
    """PostgreSQL's Service is gone, and with it its name."""
    service = shop.kubernetes.get("service", RW, namespace=shop.namespace)
    metadata = {"name": RW, "namespace": shop.namespace, "labels": service["metadata"]["labels"]}
    spec = {key: service["spec"][key] for key in ("selector", "ports")}
    undo.callback(shop.kubernetes.apply, [{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])
    shop.kubernetes.kubectl("delete", "service", RW, namespace=shop.namespace)


def dns_is_silent(shop: Shop, undo: ExitStack) -> None:
    dropped(shop, undo, 0, *DNS_ANSWERS)


def a_wrong_password_in_the_application(shop: Shop, undo: ExitStack) -> None:
    """Its own Secret, which the doctor is told of, has another one than PostgreSQL."""
    metadata = {"name": "application", "namespace": shop.namespace}
    data = {"username": "app", "password": "of-last-year", "dbname": "app"}
    shop.kubernetes.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}])


def a_wrong_password_in_the_cluster(shop: Shop, undo: ExitStack) -> None:
    """PostgreSQL has another one than the cluster's Secret, by which the pooler goes."""
    password = shop.secret("app", "password")
    undo.callback(shop.administrator, f"alter role app password '{password}'")
    shop.administrator("alter role app password 'changed-by-hand'")
    reconnect(shop)


def no_line_in_postgresqls_hba(shop: Shop, undo: ExitStack) -> None:
    """None for the application: the lines are those of the poolers' own role and of the superuser."""

    def lines(of: str, become: str) -> None:
        edit = f"sed -i 's/^host all {of} /host all {become} /' /data/pg_hba.conf"
        shop.kubernetes.execute(shop.primary, "sh", "-c", edit, namespace=shop.namespace)
        shop.administrator("select pg_reload_conf()")

    undo.callback(lines, "postgres", "all")
    lines("all", "postgres")
    reconnect(shop)


def a_line_of_the_poolers_hba_that_rejects(shop: Shop, undo: ExitStack) -> None:
    undo.callback(lambda: shop.proved(shop.patch({"pgbouncer": {"pg_hba": []}})))
    shop.proved(shop.patch({"pgbouncer": {"pg_hba": ["host all app 0.0.0.0/0 reject"]}}))


def an_expired_certificate(shop: Shop, undo: ExitStack) -> None:
    pair = target.Authority("somebody").issue(POOLER, (POOLER,), days=-1)
    secret = {"type": "kubernetes.io/tls", "stringData": {"tls.crt": pair.certificate, "tls.key": pair.key}}
    metadata = {"name": "expired", "namespace": shop.namespace}
    shop.kubernetes.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **secret}])
    undo.callback(lambda: shop.proved(shop.patch({"pgbouncer": {"clientTLSSecret": None}})))
    shop.proved(shop.patch({"pgbouncer": {"clientTLSSecret": {"name": "expired"}}}))


def a_pool_full_of_sleepers(shop: Shop, undo: ExitStack) -> None:
    undo.enter_context(shop.holding())
    sleeper = f"psql -XAtc '{WAIT}' '{first_pod(shop)} application_name=sleeper'"
    in_the_client(shop, undo, "sleepers", f"{sleeper} & {sleeper} & wait")
    shop.until_held(2)


def hoarders_that_are_idle_in_transaction(shop: Shop, undo: ExitStack) -> None:
    """T21, T02."""
    hoarder = f"(echo 'begin; select 1;'; sleep 600) | psql -XAt '{first_pod(shop)} application_name=month_end'"
    in_the_client(shop, undo, "hoarders", f"{hoarder} & {hoarder} & wait")
    idle = (
        "select count(*) from pg_stat_activity where usename = 'app' and state = 'idle in transaction' "
        "and state_change < now() - interval '1.1 s'"
    )
    until(lambda: shop.administrator(idle) == "2", "both are idle in their transactions")


def max_connections_reached_by_others(shop: Shop, undo: ExitStack) -> None:
    """As many as there can be, each of which comes again until it is in: whoever else had one has to leave it some day."""
    # They rest on their own side: a backend that sleeps outlives its client.
    sleeper = f"psql -XAt -c '\\! sleep 600' 'host={RW} application_name=batch'"
    again = f"while ! {sleeper}; do sleep 0.5; done &"
    in_the_client(shop, undo, "others", f"for n in $(seq {MAX_CONNECTIONS - RESERVED}); do {again} done; wait")
    reconnect(shop)
    taken = "select count(*) from pg_stat_activity where application_name = 'batch'"
    until(lambda: int(shop.administrator(taken)) == MAX_CONNECTIONS - RESERVED, "they have them all")


def a_slow_backend(shop: Shop, undo: ExitStack) -> None:
    """T13. Its Service leads to a relay by which every answer is late."""
    address = shop.kubernetes.get("pod", shop.primary, namespace=shop.namespace)["status"]["podIP"]
    relay = base64.b64encode(RELAY.encode()).decode()
    program = f"echo {relay} | base64 -d > /tmp/relay.py; exec python3 /tmp/relay.py {address} 0.4"
    there = shop.kubernetes.get("service", RW, namespace=shop.namespace)["spec"]

    def lead(selector: Any, port: Any) -> None:
        spec = {"selector": selector, "ports": [{**there["ports"][0], "targetPort": port}]}
        patch = f"--patch={json.dumps({'spec': spec})}"
        shop.kubernetes.kubectl("patch", "service", RW, "--type=merge", patch, namespace=shop.namespace)
        reconnect(shop)

    in_the_client(shop, undo, "relay", program)
    shop.kubernetes.kubectl("label", "pod", CLIENT, "relay=yes", "--overwrite", namespace=shop.namespace)
    undo.callback(lead, {**there["selector"], "relay": None}, there["ports"][0]["targetPort"])
    lead({**dict.fromkeys(there["selector"]), "relay": "yes"}, 5433)
    shop.psql("select 1", first_pod(shop))  # a server of this way is at hand, as in a pool that is at work


def paused_and_forgotten(shop: Shop, undo: ExitStack) -> None:
    undo.callback(shop.pause, False)
    shop.pause(True)
    shop.paused()


def a_pod_with_an_old_digest(shop: Shop, undo: ExitStack) -> None:
    """The operator does not reach its control port, and the kubelet brings Secrets a minute late."""
    dropped(shop, undo, 1, "INPUT", "--protocol", "tcp", "--dport", "8443")
    generation = shop.parameters(query_wait_timeout="100")
    until(lambda: shop.status().get("observedGeneration", 0) >= generation, "the operator has tried")


def too_few_descriptors(shop: Shop, undo: ExitStack) -> None:
    """E44. More clients than any node gives a process files for: the pods report it, and a condition has it."""
    undo.callback(lambda: shop.proved(shop.parameters(max_client_conn="1000")))
    shop.parameters(max_client_conn="2000000")
    shop.until_condition("WithinConnectionBudget", "False", "TooFewDescriptors")


@dataclass(frozen=True, slots=True)
class Fault:
    make: Callable[[Shop, ExitStack], None]
    code: str
    exit_code: int
    evidence: tuple[str, ...]  # words of the finding; POD0 and POD1 are the pods' names
    options: tuple[str, ...] = ()


FAULTS = (
    Fault(packets_to_the_pooler_dropped, "tcp-timeout", 10, ("POD1", "no answer within 1 s")),
    Fault(packets_to_a_pod_that_measures_itself_dropped, "tcp-timeout", 10, ("POD0", "no answer within 1 s")),
    Fault(packets_to_postgresql_dropped, "target-unreachable", 15, ("no answer within 1 s",)),
    Fault(a_policy_that_would_deny, "policy-denies", 10, ("NetworkPolicy deny-all", "clients not allowed")),
    Fault(a_name_that_is_none, "dns", 10, (f"look-up of {RW}",)),
    Fault(dns_is_silent, "dns", 10, (RW, POOLER, "no answer within 1 s")),
    Fault(
        a_wrong_password_in_the_application,
        "login-refused-password",
        12,
        ("app@app", "auth_stage: password", "28P01"),
        ("--secret=application",),
    ),
    Fault(a_wrong_password_in_the_cluster, "login-refused-server", 12, ("auth_stage: server", "28P01")),
    Fault(no_line_in_postgresqls_hba, "login-refused-server", 12, ("no pg_hba.conf entry", "auth_stage: server")),
    Fault(a_line_of_the_poolers_hba_that_rejects, "login-refused-hba", 12, ("auth_stage: hba",)),
    Fault(an_expired_certificate, "certificate-expired", 11, ("expired 1.0 days ago",)),
    Fault(a_pool_full_of_sleepers, "queue-pool-size", 14, ("sleeper", "stage queue", "POD0")),
    Fault(
        hoarders_that_are_idle_in_transaction,
        "idle-in-transaction",
        15,
        ("2 of ", "month_end", "by pod: POD0 2"),
        ("--stuck=1",),
    ),
    Fault(max_connections_reached_by_others, "queue-max-connections", 15, ("37 of 37 connections", "batch", "POD0")),
    Fault(a_slow_backend, "slow-backend", 13, ("stage backend: 3 of 3", "more than 300 ms")),
    Fault(paused_and_forgotten, "paused", 14, ("spec.paused is true", f"resume {POOLER}")),
    Fault(a_pod_with_an_old_digest, "old-configuration", 16, ("pod POD1",)),
    Fault(too_few_descriptors, "condition-withinconnectionbudget", 16, ("TooFewDescriptors", "LimitNOFILE", "POD0")),
)


# --- the tests ---------------------------------------------------------------------------------------------------------------


def test_without_endpoints_it_says_so_and_why(shop: Shop) -> None:
    shop.until_condition("Ready", "False", "ScaledToZero")
    code, found = finds(shop, "no-endpoints")
    assert code == 10
    assert "spec.instances" in found["findings"][0]["fix"]


def test_healthy_there_is_no_finding_and_everything_was_looked_at(ready: Shop) -> None:
    code, found = finds(ready, options=("--tries=20", "--burst=1"))
    assert code == 0
    assert list(found["stages_ms"]) == ["dns", "tcp", "tls", "auth", "queue", "backend"]
    assert found["tries"] == 20
    assert found["burst"]["done"] > 10
    assert found["burst"]["errors"] == {}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.make.__name__)
def test_one_fault_is_named_with_its_evidence_and_nothing_else(fault: Fault, ready: Shop) -> None:
    pods = [pod["metadata"]["name"] for pod in ready.pods()]
    with ExitStack() as undo:
        fault.make(ready, undo)
        words = [each.replace("POD0", pods[0]).replace("POD1", pods[1]) for each in fault.evidence]
        code, _ = finds(ready, fault.code, words=words, options=fault.options)
    assert code == fault.exit_code


def test_a_resolver_that_is_silent_for_three_seconds_costs_nobody_an_error(ready: Shop) -> None:
    """T24: logins at PostgreSQL go on, by the addresses that are known, and nothing is reported as broken."""
    before = ready.lives()
    ready.execute("sh", "-c", "echo 'select 1;' > /tmp/one.sql")
    # In one program: where each rule takes a second to be set and to be taken away, three seconds become ten.
    silence = 'iptables --insert "$@" --jump DROP && sleep 3; iptables --delete "$@" --jump DROP'
    with ready.load("-c", "4", "-C", "-f", "/tmp/one.sql") as load:
        silent = [
            ready.kubernetes.start_in_pod_net(ready.namespace, name, "sh", "-c", silence, "sh", *DNS_ANSWERS)
            for name in (pod["metadata"]["name"] for pod in ready.pods())
        ]
        while any(process.poll() is None for process in silent):
            reconnect(ready)
        for process in silent:
            said, _ = process.communicate(timeout=20)
            assert process.returncode == 0, said
        done = load.finish()
    assert done.failed == 0, done.said
    assert done.processed > 0
    bad = [row for row in ready.status()["conditions"] if row["status"] == "False" and row["type"] != "Paused"]
    assert bad == []
    assert ready.lives() == before


def test_and_after_all_of_them_there_is_no_finding(ready: Shop) -> None:
    assert finds(ready)[0] == 0
