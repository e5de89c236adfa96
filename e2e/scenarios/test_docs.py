"""The commands of the documentation that look into pods, or are typed in one: page by page, on real pods, as written.

What an API server is enough for runs in e2e/control_plane/test_docs.py as well; here it comes between, so that each page is
told in its order.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.kubernetes_access import WRAPPERS
from e2e.scenarios.shop import CA_FILE, CLIENT, Manifest, Shop, until
from tests.docs.blocks import ROOT, Command, Where, differs, files, pages_with, story

pytestmark = pytest.mark.cluster

# What is typed is what is written, but for what each reader has of their own.
IMAGE = (
    r"registry\.example/pgweir-operator:\S+",
    os.environ.get("E2E_OPERATOR_IMAGE", "localhost/pgweir-operator:dev"),
)
CA = ("sslrootcert=ca.crt", f"sslrootcert={CA_FILE}")
ENDLESS = re.compile(r" --watch | -f $")
MAKES_IT = re.compile(r"kubectl apply -f \S*pooler\.yaml")
CHANGES = re.compile(r"kubectl (apply|patch|scale) ")
# The shop's PostgreSQL is no CloudNativePG Cluster: e2e/control_plane has one, and test_switchover.py a pair that moves.
ELSEWHERE = re.compile(r"kubectl pgweir switchover|kubectl delete")


class Shell:
    """Where a person types: this machine with the cluster's kubectl, in the shop's namespace."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.shop, self.folder = shop, folder
        for name in ("manifests", "charts", "crds"):
            (folder / name).symlink_to(ROOT / name)
        config = yaml.safe_load(shop.kubernetes.kubectl("config", "view", "--minify", "--flatten", "--raw"))
        for context in config["contexts"]:
            context["context"]["namespace"] = shop.namespace
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        (folder / "kubeconfig").chmod(0o600)
        path = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if "E2E_CONTEXT" not in os.environ:
            said = subprocess.run([str(WRAPPERS / "env")], capture_output=True, text=True, check=True).stdout
            path.insert(0, str(Path(re.search(r"KUBECONFIG='([^']+)'", said)[1]).parent / "bin"))  # type: ignore[index]
        self._environment = os.environ | {"KUBECONFIG": str(folder / "kubeconfig"), "PATH": os.pathsep.join(path)}
        self._groups: list[int] = []

    def type(self, command: Command) -> str:
        text = re.sub(*IMAGE, command.text).replace(
            "PGPASSWORD=app-password", f"PGPASSWORD={self.shop.secret('app', 'password')}"
        )
        if command.where is Where.CLIENT:
            text = f"kubectl exec {CLIENT} -- bash -c {shlex.quote(text.replace(*CA))}"
        if ENDLESS.search(f"{text} "):
            text = f"timeout --signal=INT 4 {text}"
        # A file, not a pipe: what goes on in the background keeps it open.
        with (self.folder / "said").open("w+") as said:
            process = subprocess.Popen(
                [str(WRAPPERS / "in-net"), "bash", "-c", text],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            code = process.wait(180)
            said.seek(0)
            answer = said.read()
        fine = {0}
        if text.startswith("timeout "):
            fine |= {124, 130}
        if "pgweir doctor" in text:
            fine |= set(range(10, 18))  # it finds what it finds; tests of its own know what that has to be
        assert code in fine, f"{command}: exit code {code}\n{answer}"
        fault = differs(command.shown, answer)
        assert not fault, f"{command}: {fault}"
        return answer

    def leave(self) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


@pytest.fixture
def shell(shop: Shop, tmp_path: Path) -> Iterator[Shell]:
    made = Shell(shop, tmp_path)
    yield made
    made.leave()


@pytest.fixture(scope="module", autouse=True)
def pods_of_any_kind(shop: Shop) -> None:
    """`kubectl run` makes one that does not pass Pod Security `restricted`."""
    label = "pod-security.kubernetes.io/enforce=privileged"
    shop.kubernetes.kubectl("label", "--overwrite", "namespace", shop.namespace, label)


def has(found: Any, wanted: Any) -> bool:
    """What is wanted is there; what the API server adds does not matter."""
    if not isinstance(wanted, dict):
        return bool(found == wanted)
    return isinstance(found, dict) and all(has(found.get(key), each) for key, each in wanted.items())


def clear(shop: Shop) -> None:
    """No Pooler, and no pod of one on its way out, which everything that asks by label or Deployment would meet."""
    shop.kubernetes.kubectl("delete", "poolers", "--all", "--timeout=60s", namespace=shop.namespace, timeout=70)
    selector = "pgweir.io/poolerName"

    def left() -> list[Manifest]:
        return shop.kubernetes.items("pod", namespace=shop.namespace, selector=selector)

    until(lambda: all("deletionTimestamp" in pod["metadata"] for pod in left()), "all pods are going")
    # Nobody comes any more for whom they would have to stay.
    at_once = ["--grace-period=1", "--wait=false", "--ignore-not-found"]
    shop.kubernetes.kubectl("delete", "pods", f"--selector={selector}", *at_once, namespace=shop.namespace)
    until(lambda: not left(), "all pods are gone")


@pytest.mark.parametrize("page", pages_with(Where.PODS, Where.CLIENT), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_do_what_it_says(page: Path, shop: Shop, shell: Shell) -> None:
    """The Pooler is that of manifests/samples, which most pages leave as it is; one that makes it finds none."""
    sample = (ROOT / "manifests/samples/pooler.yaml").read_text()
    given = {"pooler.yaml": sample} | files(page)
    for name, text in given.items():
        (shell.folder / name).write_text(text)
    told = [
        command
        for command in story(page, Where.FILES, Where.API, Where.CLIENT, Where.PODS)
        if not ELSEWHERE.match(command.text) and "/etc/" not in command.text
    ]
    first = next(command.text for command in told if command.where is not Where.FILES)
    there = shop.kubernetes.items("pooler", namespace=shop.namespace)
    makes_it = bool(MAKES_IT.match(first))
    if len(there) != (not makes_it) or not all(has(each["spec"], yaml.safe_load(sample)["spec"]) for each in there):
        clear(shop)
    if not makes_it:
        shop.kubernetes.kubectl("apply", "--filename=-", stdin=sample, namespace=shop.namespace)
        shop.pause(False)
        shop.at_rest()
    for command in told:
        print(command, shell.type(command), sep="\n")
        if CHANGES.search(command.text):
            # What a page shows is how it is once the change has arrived.
            for pooler in shop.kubernetes.items("pooler", namespace=shop.namespace):
                shop.at_rest(pooler["metadata"]["name"])
