"""The operator as its chart installs it, and one namespace for each module of scenarios."""

from __future__ import annotations

import fcntl
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.kubernetes_access import Kubernetes
from e2e.scenarios.release import Operator
from e2e.scenarios.shop import Shop, until


@contextmanager
def alone() -> Iterator[None]:
    """One run at a time: the release is the whole cluster's, and the end of one run would take it from another."""
    with (Path(tempfile.gettempdir()) / "pgweir-e2e-scenarios.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def operator(kubernetes: Kubernetes) -> Iterator[Operator]:
    made = Operator(kubernetes)
    with alone():
        made.install()
        yield made
        made.uninstall()


@pytest.fixture(scope="session")
def namespaces(kubernetes: Kubernetes, operator: Operator) -> Iterator[list[str]]:
    """Those of finished modules go by themselves, side by side, their Poolers first, for which the operator has to be there."""
    made: list[str] = []
    yield made
    for name in made:
        until(lambda of=name: not kubernetes.items("pooler", namespace=of), f"no Pooler is in {name}", seconds=120)  # type: ignore[misc]


@pytest.fixture(scope="module")
def scenario_namespace(kubernetes: Kubernetes, namespaces: list[str]) -> Iterator[str]:
    """A namespace that lets no pod in but those that pass Pod Security `restricted`."""
    name = f"scenario-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    kubernetes.ensure_namespace(name, labels)
    yield name
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")
    namespaces.append(name)


@pytest.fixture(scope="module")
def shop(kubernetes: Kubernetes, scenario_namespace: str) -> Iterator[Shop]:
    made = Shop(kubernetes, scenario_namespace)
    try:
        made.open()
        yield made
    finally:
        made.close()
