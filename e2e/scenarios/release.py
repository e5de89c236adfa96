"""The operator as its chart installs it, with what a user's administrator does to it.

E2E_OPERATOR_IMAGE and E2E_POOLER_IMAGE name other images than those of `make images`.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from e2e.kubernetes_access import Kubernetes

CHART = Path(__file__).parents[2] / "charts" / "pgweir"
RELEASE = "pgweir"
OPERATOR_NAMESPACE = "pgweir-system"


class Operator:
    """The release, with what scenarios do to it."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes = kubernetes
        self.namespace = OPERATOR_NAMESPACE

    def install(self, **more: str) -> None:
        """`more` are values of the chart, with two underscores where their path has a dot."""
        image = os.environ.get("E2E_OPERATOR_IMAGE", "localhost/pgweir-operator:dev").rsplit(":", 1)
        pooler = os.environ.get("E2E_POOLER_IMAGE", "localhost/pgweir-pooler:dev").rsplit(":", 1)
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
        self.kubernetes.helm("upgrade", "--install", RELEASE, str(CHART), *scope, "--wait", "--timeout=120s", *said)

    def uninstall(self) -> None:
        self.kubernetes.helm("uninstall", RELEASE, "--namespace", self.namespace, "--wait", "--ignore-not-found")

    def delete_pod(self) -> None:
        selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
        self.kubernetes.kubectl("delete", "pod", selector, namespace=self.namespace)
        self.kubernetes.rolled_out("deployment", RELEASE, namespace=self.namespace)

    def take_pod_away(self) -> None:
        """Without waiting for it: what it still says and does is between it and the kubelet."""
        selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
        options = ["--grace-period=0", "--force", "--wait=false"]
        self.kubernetes.kubectl("delete", "pod", selector, *options, namespace=self.namespace)

    def leads(self) -> bool:
        """The Lease is held by a pod that is there."""
        lease = self.kubernetes.get("lease", "pgweir-operator", namespace=self.namespace)
        holder = lease["spec"].get("holderIdentity") or ""
        return self.kubernetes.find("pod", holder.partition("_")[0] or "nobody", namespace=self.namespace) is not None

    def logs(self) -> str:
        return self.kubernetes.kubectl("logs", f"deployment/{RELEASE}", "--tail=-1", namespace=self.namespace)
