"""The operator as Kubernetes, Prometheus, an autoscaler and a reader of the API see it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from e2e.control_plane.harness import wait
from e2e.control_plane.proxy import ApiProxy
from e2e.control_plane.test_life_of_a_pooler import ready  # noqa: F401 (a fixture)
from prometheus_client.parser import text_string_to_metric_families
from tests.monitoring.prometheus import promtool
from tests.postgres.server import free_port


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_each_replica_is_healthy_and_counts_what_it_does(world: Any) -> None:
    world.has_cluster()
    leader, follower = free_port(), free_port()
    first = world.start_operator(f"--listen=127.0.0.1:{leader}")
    wait(lambda: "leading" in first.log, "it leads")
    second = world.start_operator(f"--listen=127.0.0.1:{follower}")
    wait(lambda: "standing by" in second.log, "the second stands by")
    world.pooler()
    world.until("Ready", "True")
    for port in (leader, follower):
        assert get(port, "/healthz")[0] == 200, "one that stands by is healthy, too"
        assert get(port, "/readyz")[0] == 200, "and could lead at once"
    assert "pgweir_operator_leader 1.0" in get(leader, "/metrics")[1]
    assert "pgweir_operator_leader 0.0" in get(follower, "/metrics")[1]
    text = get(leader, "/metrics")[1]
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert {name for name, kind in kinds.items() if kind == "counter" and name.startswith("pgweir")} == {
        f"pgweir_operator_{name}" for name in ("reconciles", "api_requests", "pod_calls", "switchovers")
    }
    assert 'pgweir_operator_poolers{ready="True",reason="AllPodsReady"} 1.0' in text
    assert 'pgweir_operator_reconciles_total{result="failed"} 0.0' in text
    assert 'pgweir_operator_pod_call_duration_seconds_count{call="configuration"}' in text
    assert world.namespace not in text, "no label bears a name of somebody's"
    said = promtool("check", "metrics", text=own_metrics(text))
    assert said.returncode == 0, said.stdout + said.stderr


def own_metrics(text: str) -> str:
    """Without those of the process, which everybody's client library names as it does."""
    return "".join(f"{row}\n" for row in text.splitlines() if "pgweir" in row)


def test_a_replica_is_not_ready_while_the_kind_is_missing_and_alive_all_the_while(
    world: Any, operator_kubeconfig: str, tmp_path: Any
) -> None:
    config = yaml.safe_load(Path(operator_kubeconfig).read_text())
    port = free_port()
    with ApiProxy(config, world.loop) as proxy:
        proxy.fault = lambda call: 404 if call.path == "/apis/pgweir.io/v1" else None
        world.start_operator(f"--listen=127.0.0.1:{port}", kubeconfig=proxy.kubeconfig(tmp_path))
        wait(lambda: get(port, "/healthz")[0] == 200, "it is alive")
        wait(lambda: "apply crds/" in get(port, "/readyz")[1], lambda: str(get(port, "/readyz")))
        assert get(port, "/readyz")[0] == 503
        proxy.fault = lambda call: None
        wait(lambda: get(port, "/readyz")[0] == 200, lambda: str(get(port, "/readyz")))


def test_an_autoscaler_that_asks_for_more_pods_gets_them(ready: Any, kubectl: Any) -> None:  # noqa: F811
    target = {"apiVersion": "pgweir.io/v1", "kind": "Pooler", "name": "pooler"}
    use = {"type": "Utilization", "averageUtilization": 70}
    spec = {
        "scaleTargetRef": target,
        "minReplicas": 3,
        "maxReplicas": 5,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": use}}],
    }
    manifest = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "pooler"}}
    kubectl("apply", f"--namespace={ready.namespace}", "--filename=-", stdin=json.dumps({**manifest, "spec": spec}))
    wait(lambda: len(ready.fakes()) == 3, lambda: str(ready.status()), 60.0)
    ready.until("Ready", "True")
    assert ready.get("Pooler", "pooler")["spec"]["instances"] == 3
    assert ready.status()["instances"] == 3


def test_every_field_that_a_user_writes_is_explained_where_he_asks(ready: Any, kubectl: Any) -> None:  # noqa: F811
    for path in ("pooler", "pooler.spec.cluster", "pooler.spec.pgbouncer.parameters", "pooler.spec.switchover.mode"):
        said = kubectl("explain", path)
        description = said.partition("DESCRIPTION:")[2].strip()
        assert len(description) > 20, said
        assert "<empty>" not in description.splitlines()[0], said
