"""The local cluster is what the other end-to-end tests take it for.

Plan: a node that is Ready; names; a PostgreSQL target that keeps the cluster contract, asked from a pod; kubectl's ways
into a pod (exec, logs, port-forward); no way out.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator

import pytest
from e2e import target
from e2e.kubernetes_access import CommandFailed, Kubernetes

pytestmark = pytest.mark.cluster

CLUSTER = "cluster-example"


@pytest.fixture(scope="module")
def shop(kubernetes: Kubernetes) -> Iterator[str]:
    """A namespace with a target, and a client's pod that has its CA and a certificate of the pooler's role."""
    with kubernetes.namespace("smoke") as namespace:
        authority = target.Authority("smoke-ca")
        pooler = authority.issue("cnp_pooler_pgbouncer")
        kubernetes.apply(target.manifests(namespace, CLUSTER, max_connections=37, authority=authority))
        kubernetes.rolled_out("statefulset", CLUSTER, namespace=namespace)
        kubernetes.client_pod("client", namespace=namespace)
        for name, text in (
            ("ca.crt", authority.pem.certificate),
            ("pooler.crt", pooler.certificate),
            ("pooler.key", pooler.key),
        ):
            write = f"umask 077; cat > /tmp/{name}"
            kubernetes.execute("client", "sh", "-c", write, namespace=namespace, stdin=text)
        yield namespace


def password(kubernetes: Kubernetes, namespace: str, secret: str) -> str:
    return base64.b64decode(
        kubernetes.get("secret", f"{CLUSTER}-{secret}", namespace=namespace)["data"]["password"]
    ).decode()


def psql(kubernetes: Kubernetes, namespace: str, sql: str, conninfo: str) -> str:
    answer = kubernetes.execute("client", "psql", "-XAt", "-c", sql, conninfo, namespace=namespace)
    return answer.strip()


def as_application(kubernetes: Kubernetes, namespace: str, host: str = f"{CLUSTER}-rw") -> str:
    secret = password(kubernetes, namespace, "app")
    return f"host={host} user=app dbname=app password={secret} sslmode=verify-full sslrootcert=/tmp/ca.crt"


def test_every_node_is_ready(kubernetes: Kubernetes) -> None:
    nodes = json.loads(kubernetes.kubectl("get", "nodes", "--output=json"))["items"]
    assert nodes
    for node in nodes:
        conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
        assert conditions["Ready"] == "True", node["metadata"]["name"]


def test_a_pod_resolves_a_service_by_its_short_and_by_its_full_name(kubernetes: Kubernetes, shop: str) -> None:
    address = kubernetes.get("service", f"{CLUSTER}-rw", namespace=shop)["spec"]["clusterIP"]
    for name in (f"{CLUSTER}-rw", f"{CLUSTER}-rw.{shop}.svc.cluster.local"):
        resolved = kubernetes.execute("client", "getent", "ahostsv4", name, namespace=shop)
        assert resolved.split()[0] == address


def test_a_name_that_nobody_has_is_not_resolved(kubernetes: Kubernetes, shop: str) -> None:
    with pytest.raises(CommandFailed):
        kubernetes.execute("client", "getent", "hosts", "nobody-has-this-name", namespace=shop)


def test_the_target_answers_over_verified_tls_from_a_pod(kubernetes: Kubernetes, shop: str) -> None:
    for service in ("rw", "ro", "r"):
        conninfo = as_application(kubernetes, shop, f"{CLUSTER}-{service}")
        assert psql(kubernetes, shop, "select 1", conninfo) == "1"
    encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    assert psql(kubernetes, shop, encrypted, as_application(kubernetes, shop)) == "t"


def test_the_superuser_of_the_secret_is_one_and_the_settings_arrived(kubernetes: Kubernetes, shop: str) -> None:
    secret = password(kubernetes, shop, "superuser")
    conninfo = f"host={CLUSTER}-rw user=postgres dbname=postgres password={secret}"
    sql = "select usesuper, current_setting('max_connections') from pg_user where usename = current_user"
    assert psql(kubernetes, shop, sql, conninfo) == "t|37"


def test_the_role_of_the_pooler_comes_in_by_certificate_and_not_by_password(kubernetes: Kubernetes, shop: str) -> None:
    secret = password(kubernetes, shop, "superuser")
    administrator = f"host={CLUSTER}-rw user=postgres dbname=postgres password={secret}"
    psql(kubernetes, shop, "create role cnp_pooler_pgbouncer login password 'known'", administrator)
    pooler = f"host={CLUSTER}-rw user=cnp_pooler_pgbouncer dbname=postgres sslmode=verify-full sslrootcert=/tmp/ca.crt"
    certificate = "sslcert=/tmp/pooler.crt sslkey=/tmp/pooler.key"
    assert psql(kubernetes, shop, "select current_user", f"{pooler} {certificate}") == "cnp_pooler_pgbouncer"
    with pytest.raises(CommandFailed, match="certificate"):
        psql(kubernetes, shop, "select 1", f"{pooler} password=known")


def test_pgbench_runs_in_a_pod(kubernetes: Kubernetes, shop: str) -> None:
    conninfo = as_application(kubernetes, shop)
    kubernetes.execute("client", "pgbench", "-i", "-q", "-s", "1", conninfo, namespace=shop)
    said = kubernetes.execute("client", "pgbench", "-c", "2", "-t", "20", conninfo, namespace=shop)
    assert "number of failed transactions: 0" in said


def test_a_command_of_this_machine_reaches_a_pod_by_its_address(kubernetes: Kubernetes, shop: str) -> None:
    address = kubernetes.get("pod", f"{CLUSTER}-0", namespace=shop)["status"]["podIP"]
    knock = f"import socket; socket.create_connection(('{address}', 5432), 10).close(); print('open')"
    assert kubernetes.in_net("python3", "-c", knock).strip() == "open"


def test_logs_are_read(kubernetes: Kubernetes, shop: str) -> None:
    logs = kubernetes.kubectl("logs", f"{CLUSTER}-0", namespace=shop)
    assert "database system is ready to accept connections" in logs


def test_a_port_is_forwarded(kubernetes: Kubernetes, shop: str) -> None:
    kubectl = str(target.__file__).replace("target.py", "cluster/kubectl")
    forward = kubernetes.start_in_net(kubectl, "--namespace", shop, "port-forward", f"pod/{CLUSTER}-0", ":5432")
    try:
        assert forward.stdout is not None
        said = forward.stdout.readline()
        port = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert port, said
        knock = (
            "import socket; s = socket.create_connection(('127.0.0.1', {}), 10); "
            "s.sendall(bytes.fromhex('0000000804d2162f')); print(s.recv(1))"  # SSLRequest
        )
        assert kubernetes.in_net("python3", "-c", knock.format(port[1])).strip() == "b'S'"
    finally:
        forward.terminate()
        forward.communicate(timeout=20)


def test_a_changed_secret_reaches_its_pod(kubernetes: Kubernetes, shop: str) -> None:
    replaced = target.Authority("another").pem.certificate
    patch = json.dumps({"stringData": {"ca.crt": replaced}})
    kubernetes.kubectl("patch", "secret", f"{CLUSTER}-ca", "--type=merge", f"--patch={patch}", namespace=shop)
    deadline = time.monotonic() + 120
    while kubernetes.execute(f"{CLUSTER}-0", "cat", "/etc/postgres/ca/ca.crt", namespace=shop) != replaced:
        assert time.monotonic() < deadline, "the pod still has the old one after two minutes"
        time.sleep(0.5)
