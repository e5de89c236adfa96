"""Fixtures of every end-to-end test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.kubernetes_access import Kubernetes
from e2e.measured import Measured, asked_for


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Kubernetes]:
    """The cluster that runs (`make cluster`, or E2E_CONTEXT). Without one the test fails: it was asked for."""
    access = Kubernetes()
    access.kubectl("get", "--raw", "/readyz")
    yield access
    access.close()


@pytest.fixture
def namespace(kubernetes: Kubernetes) -> Iterator[str]:
    with kubernetes.namespace("test") as name:
        yield name


@pytest.fixture(scope="session")
def measured() -> Iterator[Measured]:
    made = Measured()
    yield made
    if path := asked_for():
        made.keep(path)
