"""The operator as its chart installs it, and one namespace for each module of scenarios."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.kubernetes_access import Kubernetes
from e2e.scenarios.shop import Shop

CHART = Path(__file__).parents[2] / "charts" / "pgweir"
RELEASE = "pgweir"
OPERATOR_NAMESPACE = "pgweir-system"


class Operator:
    """The release, with what scenarios do to it."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes = kubernetes
        self.namespace = OPERATOR_NAMESPACE

    def install(self) -> None:
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
        said = [f"--set={key}={value}" for key, value in values.items()]
        scope = ["--namespace", self.namespace, "--create-namespace"]
        self.kubernetes.helm("upgrade", "--install", RELEASE, str(CHART), *scope, "--wait", "--timeout=120s", *said)

    def uninstall(self) -> None:
        self.kubernetes.helm("uninstall", RELEASE, "--namespace", self.namespace, "--wait", "--ignore-not-found")

    def delete_pod(self) -> None:
        selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
        self.kubernetes.kubectl("delete", "pod", selector, namespace=self.namespace)
        self.kubernetes.rolled_out("deployment", RELEASE, namespace=self.namespace)

    def logs(self) -> str:
        return self.kubernetes.kubectl("logs", f"deployment/{RELEASE}", "--tail=-1", namespace=self.namespace)


@pytest.fixture(scope="session")
def operator(kubernetes: Kubernetes) -> Iterator[Operator]:
    made = Operator(kubernetes)
    made.install()
    yield made
    made.uninstall()


@pytest.fixture(scope="session")
def namespaces(kubernetes: Kubernetes, operator: Operator) -> Iterator[list[str]]:
    """Those of finished modules go by themselves, side by side; at the end all of them must have gone."""
    made: list[str] = []
    yield made
    for name in made:
        kubernetes.kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=120s", timeout=130)


@pytest.fixture(scope="module")
def shop(kubernetes: Kubernetes, namespaces: list[str]) -> Iterator[Shop]:
    """A namespace that lets no pod in but those that pass Pod Security `restricted`."""
    name = f"scenario-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    kubernetes.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}])
    made = Shop(kubernetes, name)
    try:
        made.open()
        yield made
    finally:
        made.close()
        kubernetes.kubectl("delete", "namespace", name, "--wait=false")
        namespaces.append(name)
