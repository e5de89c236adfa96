"""An API server (PGWEIR_KUBECONFIG, or one that is brought up), the CRD, the operator's own rights, a PostgreSQL."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from e2e.control_plane.harness import ROLES, Loop, World
from tests.postgres.server import PostgresServer, installations

from pgweir_operator.integration.certificates import KeyPair, authority, server_certificate

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "e2e" / "cluster"


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[str]:
    if given := os.environ.get("PGWEIR_KUBECONFIG"):
        yield given
        return
    # What is the whole API server's (a CRD, the chart's ClusterRoles) belongs to one worker of pytest-xdist alone.
    name = "-".join(filter(None, ("tests", os.environ.get("PYTEST_XDIST_WORKER"))))
    command = [str(CLUSTER / "up.sh"), "--control-plane", "--name", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1200, check=True)
    yield done.stdout.strip().splitlines()[-1]
    subprocess.run([str(CLUSTER / "down.sh"), "--control-plane", "--name", name], timeout=60, check=False)


@pytest.fixture(scope="session")
def kubectl(kubeconfig):
    binary = Path(kubeconfig).parents[1] / "bin" / "kubectl"

    def run(*arguments: str, stdin: str | None = None) -> str:
        command = [str(binary) if binary.exists() else "kubectl", f"--kubeconfig={kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def operator_kubeconfig(kubeconfig, kubectl, tmp_path_factory) -> str:
    """The operator's own ServiceAccount with exactly the rights that manifests/install.yaml gives: no test is admin."""
    documents = [doc for doc in yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()) if doc]
    kept = [doc for doc in documents if doc["kind"] != "Deployment"]
    text = yaml.safe_dump_all(kept)
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)
    kubectl("wait", "--for=condition=Established", "crd/poolers.pgweir.io", "--timeout=30s")
    account = next(doc["metadata"] for doc in kept if doc["kind"] == "ServiceAccount")
    token = kubectl("create", "token", account["name"], f"--namespace={account['namespace']}", "--duration=2h").strip()
    config = yaml.safe_load(Path(kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    target = tmp_path_factory.mktemp("kubeconfig") / "operator.kubeconfig"
    target.write_text(yaml.safe_dump(config))
    return str(target)


@pytest.fixture(scope="session")
def cluster_ca() -> KeyPair:
    return authority("shop's CA", now=time.time())


@pytest.fixture(scope="session")
def server(cluster_ca, tmp_path_factory) -> Iterator[PostgresServer]:
    installation = next((item for item in installations() if item.has_tls), None)
    if installation is None:
        pytest.skip("no PostgreSQL built with TLS here: install the system's postgresql")
    folder = tmp_path_factory.mktemp("tls")
    shown = server_certificate(cluster_ca, ["localhost", "127.0.0.1"], now=time.time())
    for name, content in (("ca", cluster_ca.certificate), ("crt", shown.certificate), ("key", shown.key)):
        (folder / name).write_bytes(content)
    hba = (
        "local all all trust",
        *(f"hostssl postgres {role} all cert" for role in ROLES),
        "host all all all scram-sha-256",
    )
    with PostgresServer(installation, hba=hba) as made:
        made.use_tls(folder / "crt", folder / "key", folder / "ca")
        made.restart()
        made.execute("DROP SCHEMA pgweir CASCADE")
        yield made


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def world(loop, kubeconfig, kubectl, operator_kubeconfig, server, cluster_ca, tmp_path) -> Iterator[World]:
    namespace = f"test-{secrets.token_hex(4)}"
    made = World(loop, kubeconfig, operator_kubeconfig, namespace, server, cluster_ca, tmp_path)
    try:
        kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(lease_rights(namespace)))
        yield made
    finally:
        made.close()
        forget(server)


@pytest.fixture
def plugin(world, kubeconfig):
    """`kubectl pgweir …`: exit code and all that was printed, as whoever the kubeconfig says."""

    def run(*words: str, who: str = kubeconfig) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pgweir_operator.cli.plugin.main", *words, f"--namespace={world.namespace}"],
            env={**os.environ, "KUBECONFIG": str(who)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def looker(world, kubectl, kubeconfig, tmp_path) -> Path:
    """A kubeconfig of somebody who may read Poolers in this namespace, and nothing else."""
    name, namespace = "looker", world.namespace
    documents = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": name, "namespace": namespace},
            "rules": [{"apiGroups": ["pgweir.io"], "resources": ["poolers"], "verbs": ["get", "list"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    ]
    kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all(documents))
    token = kubectl("create", "token", name, f"--namespace={namespace}").strip()
    config = yaml.safe_load(Path(kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    target = tmp_path / "looker.kubeconfig"
    target.write_text(yaml.safe_dump(config))
    return target


def forget(server: PostgresServer) -> None:
    """The target as it was before the test."""
    server.execute("DROP SCHEMA IF EXISTS pgweir CASCADE")
    for role in ROLES:
        if server.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            server.execute(f"DROP OWNED BY {role}")
            server.execute(f"DROP ROLE {role}")


def lease_rights(namespace: str) -> list[dict[str, object]]:
    """The install's right to hold a Lease, in the test's namespace: each test has a leader of its own."""
    documents = [doc for doc in yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()) if doc]
    found = [doc for doc in documents if doc["kind"] in {"Role", "RoleBinding"}]
    return [{**doc, "metadata": {"name": doc["metadata"]["name"], "namespace": namespace}} for doc in found]
