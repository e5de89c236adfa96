"""Facts out of objects and lines as they come."""

from __future__ import annotations

import json
from typing import Any

from pgweir_operator.doctor.reading import closed, endpoints, kubernetes, tables


def test_close_reasons_are_counted_and_everything_else_is_not() -> None:
    def line(**record: object) -> str:
        return json.dumps({"level": "info", "record": record})

    lines = [
        line(msg="closing", close_reason="client_close"),
        line(msg="closing", close_reason="query_wait_timeout"),
        line(msg='a "close_reason" in a text'),
        line(close_reason="client_close"),
        'a torn line with "close_reason',
        '["close_reason"]',
        "",
    ]
    assert closed(lines) == {"client_close": 2, "query_wait_timeout": 1}


def test_endpoints_without_a_word_are_ready_as_kubernetes_has_it() -> None:
    slices = [
        {"endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": False}}]},
        {"endpoints": [{"addresses": ["10.0.0.3"], "conditions": {"ready": True}}, {"addresses": ["10.0.0.1"]}]},
        {"endpoints": None},
    ]
    assert endpoints(slices) == (("10.0.0.1", "10.0.0.3"), ("10.0.0.2",))


def test_rows_of_several_pods_carry_the_pod() -> None:
    found = tables({"p1": {"pools": [{"database": "app"}]}, "p2": {"pools": [{"database": "app"}], "state": []}})
    assert [row["pod"] for row in found.pools] == ["p1", "p2"]
    assert tables({"": {"pools": [{"database": "app"}]}}).pools == ({"database": "app"},)


def test_a_pod_that_cannot_start_says_why_in_the_kubelets_words() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    pod: dict[str, Any] = {
        "metadata": {"name": "p1", "labels": {"pgweir.io/poolerName": "shop"}},
        "status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]},
    }
    service = {"metadata": {"name": "shop"}, "spec": {"selector": {"pgweir.io/poolerName": "another"}}}
    pooler = {"metadata": {"name": "shop", "namespace": "x"}}
    found = kubernetes(pooler, service, [], [pod], None, target_port=5432)
    assert found.pods[0].message == "ImagePullBackOff: no such image"
    assert not found.pods[0].ready
    assert not found.selector_matches
    assert found.policies is None


def test_of_the_operators_rows_those_count_whose_pod_stays() -> None:
    rows = [{"name": "p1", "configRevision": 2}, {"name": "p2"}, {"name": "gone"}]
    pooler = {"metadata": {"name": "shop", "namespace": "x"}, "status": {"configRevision": 2, "pods": rows}}
    pods: list[dict[str, Any]] = [{"metadata": {"name": name}} for name in ("p1", "p2")]
    assert kubernetes(pooler, None, [], pods, None, target_port=5432).revisions == {"p1": 2, "p2": None}
