"""The commands of the documentation that a real API server is enough for: with an operator, a CloudNativePG Cluster and
fake pods behind it; and those that install, on an API server where nothing is installed.

What looks into pods is run by e2e/scenarios/test_docs.py, what needs no cluster by tests/docs.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from e2e.control_plane.conftest import CLUSTER, ROOT, forget, lease_rights
from e2e.control_plane.harness import World, wait
from e2e.control_plane.test_switchover import GROUPS, HEALTHY, crd
from tests.docs.blocks import Command, Where, differs, files, pages_with, story

NAME, POOLER = "cluster-example", "pooler-example-rw"
SAMPLE = "manifests/samples/pooler.yaml"


class Shell:
    """Where a person types: a folder with the page's files, and kubectl, helm and our programs on PATH."""

    def __init__(self, folder: Path, kubeconfig: str, binaries: Path) -> None:
        self.folder = folder
        for name in ("manifests", "charts", "crds"):
            (folder / name).symlink_to(ROOT / name)
        path = os.pathsep.join([str(binaries), str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {**os.environ, "KUBECONFIG": kubeconfig, "PATH": path}

    def write(self, page: Path) -> None:
        given = {"pgpool.conf": files(ROOT / "docs/how-to/from-pgpool.md")["pgpool.conf"]}
        given |= {"pooler.yaml": (ROOT / SAMPLE).read_text()} | files(page)
        for name, text in given.items():
            (self.folder / name).write_text(text)

    def type(self, command: Command | str, *, fine: tuple[int, ...] = (0,)) -> str:
        text = command if isinstance(command, str) else command.text
        text = text.replace("/etc/pgpool2/pgpool.conf", "pgpool.conf")
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode in fine, f"{command}: exit code {done.returncode}\n{said}"
        fault = differs(command.shown, said) if isinstance(command, Command) else ""
        assert not fault, f"{command}: {fault}"
        return said


class Cluster:
    """A CloudNativePG Cluster that does what it is told: a target that is set becomes the primary."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._over = threading.Event()
        self.rest()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def rest(self) -> None:
        first, second = f"{NAME}-1", f"{NAME}-2"
        ips = {first: {"ip": "10.0.0.1"}, second: {"ip": "10.0.0.2"}}
        status = {"currentPrimary": first, "targetPrimary": first, "phase": HEALTHY, "instanceNames": [first, second]}
        self._says(**status, instancesReportedState=ips)

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)

    def _says(self, **status: object) -> None:
        self._world.run(self._world.kube.merge_status("Cluster", self._world.namespace, NAME, status))

    def _follow(self) -> None:
        while not self._over.wait(0.3):
            status = (self._world.get("Cluster", NAME) or {}).get("status") or {}
            if status.get("targetPrimary") != status.get("currentPrimary"):
                self._says(currentPrimary=status["targetPrimary"], phase=HEALTHY)


@pytest.fixture(scope="module")
def world(loop, kubeconfig, kubectl, operator_kubeconfig, server, cluster_ca, tmp_path_factory) -> Iterator[World]:
    namespace = f"docs-{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("world")
    made = World(loop, kubeconfig, operator_kubeconfig, namespace, server, cluster_ca, folder)
    try:
        kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(lease_rights(namespace)))
        kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump(crd(GROUPS["Cluster"])))
        kubectl("wait", "--for=condition=Established", f"crd/clusters.{GROUPS['Cluster']}", "--timeout=30s")
        made.has_cluster(NAME)
        metadata = {"name": NAME, "namespace": namespace}
        cluster = {"apiVersion": f"{GROUPS['Cluster']}/v1", "kind": "Cluster", "metadata": metadata}
        kubectl("create", "--filename=-", stdin=yaml.safe_dump(cluster))
        made.start_operator()
        yield made
    finally:
        made.close()
        forget(server)
        kubectl("delete", "crd", f"clusters.{GROUPS['Cluster']}", "--ignore-not-found", "--timeout=30s")


@pytest.fixture(scope="module")
def cluster(world) -> Iterator[Cluster]:
    made = Cluster(world)
    yield made
    made.close()


@pytest.fixture
def shell(world, kubeconfig, tmp_path) -> Shell:
    """The context's namespace is the world's."""
    config = yaml.safe_load(Path(kubeconfig).read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = world.namespace
    own = tmp_path / "kubeconfig"
    own.write_text(yaml.safe_dump(config))
    folder = tmp_path / "folder"
    folder.mkdir()
    return Shell(folder, str(own), Path(kubeconfig).parents[1] / "bin")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages_with(Where.API), ids=named)
def test_the_commands_of_a_page_do_what_it_says(page, world, cluster, shell):
    shell.write(page)
    for pooler in world.run(world.kube.items("Pooler", world.namespace)):
        # A page begins with a Pooler that has no history: what `status` shows of a switchover stays for ever.
        if pooler["metadata"]["name"] != POOLER or (pooler.get("status") or {}).get("switchover"):
            shell.type(f"kubectl delete pooler {pooler['metadata']['name']}")
    shell.type(f"kubectl apply -f {SAMPLE}")
    shell.type(f"kubectl pgweir resume {POOLER} --wait --timeout 60")
    world.until("Ready", "True", name=POOLER)
    for command in story(page, Where.FILES, Where.API):
        if "pgweir switchover" in command.text:
            settle(world, cluster)
        # Of other namespaces the test knows nothing: a Pooler there that is not Ready is no fault of the command.
        print(command, shell.type(command, fine=(0, 1) if command.text.endswith(" -A") else (0,)), sep="\n")


def settle(world: World, cluster: Cluster) -> None:
    """The first instance is the primary, and nobody is held."""
    cluster.rest()
    ended = (None, "Done", "TimedOut", "RolledBack")
    wait(lambda: (world.status(POOLER).get("switchover") or {}).get("phase") in ended, "the last switchover is over")
    world.until("Ready", "True", name=POOLER)


# --- installing ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Iterator[Shell]:
    """An API server of this module's own, with nothing on it."""
    where = ["--control-plane", "--name", f"docs-{os.getpid()}"]
    up = [str(CLUSTER / "up.sh"), *where]
    done = subprocess.run(up, stdout=subprocess.PIPE, text=True, timeout=1200, check=True)
    kubeconfig = done.stdout.strip().splitlines()[-1]
    yield Shell(tmp_path_factory.mktemp("bare"), kubeconfig, Path(kubeconfig).parents[1] / "bin")
    subprocess.run([str(CLUSTER / "down.sh"), *where], timeout=60, check=False)


def empty(shell: Shell) -> None:
    shell.type("helm uninstall pgweir --namespace pgweir-system --no-hooks --ignore-not-found")
    documents = yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text())
    (shell.folder / "all.yaml").write_text(
        yaml.safe_dump_all(document for document in documents if document and document["kind"] != "Namespace")
    )
    shell.type("kubectl delete --ignore-not-found -f all.yaml")


def with_a_crd_of_others(shell: Shell) -> None:
    empty(shell)
    shell.type("kubectl apply --server-side -f crds/poolers.pgweir.io.yaml")
    assert "left AS IT IS" in shell.type("helm install pgweir charts/pgweir -n pgweir-system --create-namespace")


# What a page presumes before a command.
BEFORE: dict[str, Callable[[Shell], None]] = {
    "helm install": empty,
    "kubectl apply": empty,
    "kubectl label crd": with_a_crd_of_others,
}


@pytest.mark.parametrize("page", pages_with(Where.INSTALL), ids=named)
def test_the_commands_that_install_do_so(page, bare):
    for command in story(page, Where.INSTALL):
        for head, prepare in BEFORE.items():
            if command.text.startswith(head):
                prepare(bare)
        # Without a kubelet the hook's Job would never end; e2e/scenarios has it.
        hooks = " --no-hooks" if re.match("helm uninstall", command.text) else ""
        print(command, bare.type(command.text + hooks), sep="\n")
