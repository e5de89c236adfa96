"""The operator as its chart installs it, with what a user's administrator does to it.

E2E_OPERATOR_IMAGE and E2E_POOLER_IMAGE name other images than those of `make images`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.kubernetes_access import WRAPPERS, CommandFailed, Kubernetes, run

CHART = Path(__file__).parents[2] / "charts" / "pgweir"
RELEASE = "pgweir"
OPERATOR_NAMESPACE = "pgweir-system"
OPERATOR_IMAGE = "localhost/pgweir-operator:dev"
POOLER_IMAGE = "localhost/pgweir-pooler:dev"


class Operator:
    """The release, with what scenarios do to it."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes = kubernetes
        self.namespace = OPERATOR_NAMESPACE

    def install(self, chart: Path = CHART, /, **more: str) -> None:
        """`more` are values of the chart, with two underscores where their path has a dot."""
        image = os.environ.get("E2E_OPERATOR_IMAGE", OPERATOR_IMAGE).rsplit(":", 1)
        pooler = os.environ.get("E2E_POOLER_IMAGE", POOLER_IMAGE).rsplit(":", 1)
        values = {
            "image.repository": image[0],
            "image.tag": image[1],
            "poolerImage.repository": pooler[0],
            "poolerImage.tag": pooler[1],
            # An image that was built anew has the same name: the pod has to be another one.
            "podAnnotations.e2e": f"run-{secrets.token_hex(4)}",
        }
        values |= {key.replace("__", "."): value for key, value in more.items()}
        said = [f"--set={key}={value}" for key, value in values.items()]
        scope = ["--namespace", self.namespace, "--create-namespace"]
        self.kubernetes.helm("upgrade", "--install", RELEASE, str(chart), *scope, "--wait", "--timeout=120s", *said)

    def uninstall(self) -> str:
        """What Helm said, the hook's last words among it: those it tells on stderr."""
        options = ["--namespace", self.namespace, "--wait", "--ignore-not-found"]
        return run(
            ["sh", "-c", 'exec "$@" 2>&1', "sh", str(WRAPPERS / "helm"), "uninstall", RELEASE, *options], timeout=180
        )

    def pods(self) -> list[dict[str, Any]]:
        selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component!=uninstall"
        items = self.kubernetes.items("pod", namespace=self.namespace, selector=selector)
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def scale(self, replicas: int) -> None:
        self.kubernetes.kubectl("scale", f"deployment/{RELEASE}", f"--replicas={replicas}", namespace=self.namespace)

    def container(self) -> str:
        """Of its only pod, as the node calls it."""
        (pod,) = self.pods()
        return str(pod["status"]["containerStatuses"][0]["containerID"]).rpartition("/")[2]

    @contextmanager
    def killed(self, container: str) -> Iterator[None]:
        """From here on it does nothing, and it is killed (-9) at the end, which nobody in its pod could do.

        WHY it is frozen first: the kubelet starts a killed one again within a second. On a cluster whose node is out of
        reach the pod is deleted by force, and comes back at the end.
        """
        try:
            run([str(WRAPPERS / "ctr"), "task", "pause", container])
        except CommandFailed:
            self.scale(0)
            self.take_pod_away()
            try:
                yield
            finally:
                self.scale(1)
        else:
            try:
                yield
            finally:
                run([str(WRAPPERS / "ctr"), "task", "kill", "--signal", "SIGKILL", container])

    def delete_pod(self) -> None:
        selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
        self.kubernetes.kubectl("delete", "pod", selector, namespace=self.namespace)
        self.kubernetes.rolled_out("deployment", RELEASE, namespace=self.namespace)

    def take_pod_away(self) -> None:
        """Without waiting for it: what it still says and does is between it and the kubelet."""
        selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
        options = ["--grace-period=0", "--force", "--wait=false"]
        self.kubernetes.kubectl("delete", "pod", selector, *options, namespace=self.namespace)

    def leader(self) -> str:
        """The pod that holds the Lease, or held it last."""
        lease = self.kubernetes.get("lease", "pgweir-operator", namespace=self.namespace)
        return str(lease["spec"].get("holderIdentity") or "").partition("_")[0]

    def leads(self) -> bool:
        """The Lease is held by a pod that is there."""
        return self.kubernetes.find("pod", self.leader() or "nobody", namespace=self.namespace) is not None

    def logs(self) -> str:
        """Of the pods that stay; `deployment/…` would take any, one that is being deleted as well."""
        names = [pod["metadata"]["name"] for pod in self.pods()]
        return "".join(self.kubernetes.kubectl("logs", name, "--tail=-1", namespace=self.namespace) for name in names)


def retagged(image: str, tag: str) -> bool:
    """The same image in the node under another tag, as a new version has one; False where the node is out of reach."""
    try:
        run([str(WRAPPERS / "ctr"), "images", "tag", "--force", image, f"{image.rpartition(':')[0]}:{tag}"])
    except CommandFailed:
        return False
    return True
