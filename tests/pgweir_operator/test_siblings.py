"""Which Poolers point to one PostgreSQL, by what their specs call it."""

from __future__ import annotations

import asyncio

import pytest
from tests.pgweir_operator import worlds

from pgweir_operator.api.pooler import Pooler
from pgweir_operator.siblings import automatic_siblings

CLUSTER = {"cluster": {"name": "shop"}}


def target(host: str, **more: object) -> dict[str, object]:
    return {"target": {"host": host, **more}, "cluster": None}


def are_siblings(one: tuple[str, dict[str, object]], other: tuple[str, dict[str, object]]) -> bool:
    """Each by its namespace and its spec."""
    manifests = []
    for number, (namespace, spec) in enumerate((one, other)):
        manifest = worlds.manifest(f"p{number}", **spec)
        manifest["metadata"] |= {
            "namespace": namespace,
            "uid": f"uid-{number}",
            "creationTimestamp": "2026-11-22T12:00:00Z",
        }
        manifests.append(manifest)

    class Api:
        async def items(self, kind: str, namespace: str, *, labels: str | None = None) -> list[dict[str, object]]:
            return [item for item in manifests if namespace in {"", item["metadata"]["namespace"]}]

    of = Pooler.from_manifest(manifests[0])
    found = asyncio.run(automatic_siblings(Api(), of, []))  # type: ignore[arg-type]
    return [item["metadata"]["name"] for item in found] == ["p0", "p1"]


@pytest.mark.parametrize(
    ("namespace", "spec"),
    [
        ("a", CLUSTER),
        ("a", target("shop-rw")),
        ("a", target("shop-rw.a")),
        ("b", target("shop-rw.a")),
        ("b", target("Shop-RW.a.svc")),
        ("b", target("shop-rw.a.svc.cluster.local")),
        ("b", target("shop-rw.a.svc.cluster.local.", port=5432)),
    ],
    ids=str,
)
def test_a_clusters_service_is_one_postgresql_by_whatever_name(namespace: str, spec: dict[str, object]) -> None:
    assert are_siblings(("a", CLUSTER), (namespace, spec))
    assert are_siblings((namespace, spec), ("a", CLUSTER))


@pytest.mark.parametrize(
    ("namespace", "spec"),
    [
        ("b", CLUSTER),
        ("b", target("shop-rw")),
        ("b", target("shop-rw.a", port=5433)),
        ("b", target("shop-rw.a.svc.example.com")),
        ("b", target("shop-rw.a.example.com")),
        ("a", target("10.0.0.1")),
        ("a", target("localhost")),
        ("a", target("::1")),
        ("a", {**CLUSTER, "pgbouncer": {"authQuery": "SELECT 1", "authQuerySecret": {"name": "mine"}}}),
    ],
    ids=str,
)
def test_what_may_be_another_is_another(namespace: str, spec: dict[str, object]) -> None:
    assert not are_siblings(("a", CLUSTER), (namespace, spec))


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost", "db.example.com", "::1"])
def test_a_name_that_means_the_same_everywhere_does_so_in_every_namespace(host: str) -> None:
    assert are_siblings(("a", target(host)), ("b", target(host.upper())))
