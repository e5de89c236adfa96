"""How end-to-end tests reach the Kubernetes they run on, and its pods.

Through the wrappers in e2e/cluster, which know whether it is the local cluster (then commands of this machine run in
its network namespace), kind's, or a context of the user's own (E2E_CONTEXT). No test calls kubectl by itself. On the
local cluster they are asked once, and what they would run is run: a wrapper takes as long as its kubectl. What is
asked again and again (`get`, `find`, `list`) goes through one `kubectl proxy`: a kubectl for each question costs half a
second on a machine that is at work, and what it says is as old.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from e2e.api_server import ApiServer, NotThere, path_of

WRAPPERS = Path(__file__).parent / "cluster"
BASE_IMAGE = "localhost/pgweir-base:1"


class CommandFailed(AssertionError):
    """A command ended with another status than 0; the message has what it said."""

    def __init__(self, command: Sequence[str], status: int, stdout: str, stderr: str) -> None:
        super().__init__(f"{' '.join(command)}: status {status}\n{stdout}{stderr}".rstrip())
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


def run(command: Sequence[str], *, stdin: str | None = None, timeout: float = 120.0) -> str:
    """Run a command of this machine; its stdout, or CommandFailed."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise CommandFailed(command, done.returncode, done.stdout, done.stderr)
    return done.stdout


def _ways() -> tuple[list[str], list[str]]:
    """What a command begins with that is to run where pods and Services are reached, and kubectl itself."""
    wrappers = [str(WRAPPERS / "in-net")], [str(WRAPPERS / "kubectl")]
    if os.environ.get("E2E_CONTEXT"):
        return wrappers
    settings = dict(re.findall(r"^export (\w+)='(.+)'$", run([str(WRAPPERS / "env")]), re.MULTILINE))
    if "PGWEIR_E2E_NETNS" not in settings:
        return wrappers  # kind's
    in_net = ["nsenter", f"--net=/run/netns/{settings['PGWEIR_E2E_NETNS']}"]
    kubeconfig = Path(settings["KUBECONFIG"])
    return in_net, [*in_net, str(kubeconfig.parent / "bin" / "kubectl"), f"--kubeconfig={kubeconfig}"]


class Kubernetes:
    """The cluster under test, with verbs."""

    def __init__(self) -> None:
        self._api: ApiServer | None = None
        self._in_net, self._kubectl = _ways()

    @property
    def api(self) -> ApiServer:
        """Opened when it is first asked for; `close` ends it."""
        if self._api is None:
            self._api = ApiServer(WRAPPERS / "kubectl")
        return self._api

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    def kubectl(
        self, *arguments: str, namespace: str | None = None, stdin: str | None = None, timeout: float = 120.0
    ) -> str:
        scope = [] if namespace is None else ["--namespace", namespace]
        return run([*self._kubectl, *scope, *arguments], stdin=stdin, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = 180.0) -> str:
        return run([str(WRAPPERS / "helm"), *arguments], timeout=timeout)

    def in_net(self, *command: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run a command of this machine where pods and Services are reached."""
        return run([*self._in_net, *command], stdin=stdin, timeout=timeout)

    def in_pod_net(self, namespace: str, pod: str, *command: str) -> str:
        """Run a command of this machine in the network of a pod."""
        return run([str(WRAPPERS / "in-pod-net"), namespace, pod, *command])

    def start_in_pod_net(self, namespace: str, pod: str, *command: str) -> subprocess.Popen[str]:
        """Start one there, in the background; it ends by itself."""
        whole = [str(WRAPPERS / "in-pod-net"), namespace, pod, *command]
        return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def start_in_net(self, *command: str) -> subprocess.Popen[str]:
        """Start a command of this machine there, in the background; the caller ends it."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*self._in_net, *command], stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def apply(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        together = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(together))

    def get(self, kind: str, name: str, *, namespace: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.request("GET", path_of(kind, namespace, name))
        return found

    def find(self, kind: str, name: str, *, namespace: str) -> dict[str, Any] | None:
        try:
            return self.get(kind, name, namespace=namespace)
        except NotThere:
            return None

    def items(self, kind: str, *, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        found: list[dict[str, Any]] = self.api.request("GET", path_of(kind, namespace) + query)["items"]
        return found

    def rolled_out(self, kind: str, name: str, *, namespace: str, timeout: float = 120.0) -> None:
        """Wait until every replica of it is there and ready."""
        status = ["rollout", "status", f"{kind}/{name}", f"--timeout={timeout:.0f}s"]
        self.kubectl(*status, namespace=namespace, timeout=timeout + 10)

    def wait_for(
        self, condition: str, kind: str, name: str, *, namespace: str | None = None, timeout: float = 120.0
    ) -> None:
        """`kubectl wait --for=CONDITION`, for example `condition=Ready` or `delete`."""
        arguments = ["wait", f"--for={condition}", f"{kind}/{name}", f"--timeout={timeout:.0f}s"]
        self.kubectl(*arguments, namespace=namespace, timeout=timeout + 10)

    def execute(
        self,
        pod: str,
        *command: str,
        namespace: str,
        container: str | None = None,
        stdin: str | None = None,
        timeout: float = 120.0,
    ) -> str:
        """Run a command in a pod."""
        where = [pod] if container is None else [pod, f"--container={container}"]
        flags = ["--stdin"] if stdin is not None else []
        return self.kubectl("exec", *flags, *where, "--", *command, namespace=namespace, stdin=stdin, timeout=timeout)

    def start_execute(self, pod: str, *command: str, namespace: str, with_stdin: bool = False) -> subprocess.Popen[str]:
        """Start a command in a pod, in the background; its output comes in one stream, the caller ends it."""
        flags = ["--stdin"] if with_stdin else []
        whole = [*self._kubectl, "--namespace", namespace, "exec", *flags, pod, "--", *command]
        stdin = subprocess.PIPE if with_stdin else None
        return subprocess.Popen(whole, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def client_pod(
        self, name: str, *, namespace: str, environment: Mapping[str, str] | None = None, image: str = BASE_IMAGE
    ) -> str:
        """A pod with Python and PostgreSQL's client tools that waits for `execute`; its name."""
        container = {
            "name": "client",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "infinity"],
            "env": [{"name": key, "value": value} for key, value in (environment or {}).items()],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
            },
        }
        self.apply([pod])
        self.wait_for("condition=Ready", "pod", name, namespace=namespace)
        return name

    def ensure_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """There, and so is the account without which the API server takes no pod."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
        self.wait_for("create", "serviceaccount", "default", namespace=name)

    @contextmanager
    def namespace(self, purpose: str) -> Iterator[str]:
        """A namespace of the test's own, which goes with everything in it at the end, by itself."""
        name = f"{purpose}-{secrets.token_hex(3)}"
        self.ensure_namespace(name)
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")
