"""Where nothing happens nothing is written: no pass, and no operator that starts anew, changes an object that is as it should be.

Whatever a user may write stands here at least once, in the forms that the API server stores otherwise (quantities, defaults,
lists with keys of their own): an operator that compared what it wants with what is there would repair it for ever.
"""

from __future__ import annotations

import time
import urllib.request
from typing import Any

import yaml
from e2e.control_plane.harness import wait
from prometheus_client.parser import text_string_to_metric_families
from tests.pgweir_operator.desired import golden
from tests.postgres.server import free_port

KINDS = ("Pooler", "Deployment", "Service", "Secret", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy")
PASSES = 2

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "a"}, "annotations": {"note": "", "count": "007"}},
    "spec": {
        "containers": [
            {
                "name": "pgbouncer",
                "resources": {
                    "requests": {"cpu": "0.50", "memory": "1024Mi", "ephemeral-storage": "1e9"},
                    "limits": {"cpu": "1500m", "memory": "1.5Gi", "ephemeral-storage": "2000M"},
                },
                "env": [
                    {"name": "PLAIN", "value": ""},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y", "optional": True}}},
                ],
                "envFrom": [{"configMapRef": {"name": "missing", "optional": True}}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch", "readOnly": False}],
                "lifecycle": {"postStart": {"exec": {"command": ["true"]}}},
                "startupProbe": {"httpGet": {"path": "/livez", "port": "http"}, "failureThreshold": 60},
            },
            {
                "name": "beside",
                "image": "busybox",
                "ports": [{"containerPort": 9999}, {"containerPort": 9999, "protocol": "UDP"}],
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
                "livenessProbe": {"tcpSocket": {"port": 9999}},
            },
        ],
        "initContainers": [
            {"name": "first", "image": "busybox:latest", "command": ["true"]},
            {"name": "all-along", "image": "busybox", "restartPolicy": "Always"},
        ],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": "0.5Gi"}},
            {"name": "settings", "configMap": {"name": "missing", "optional": True}},
            {
                "name": "keys",
                "secret": {"secretName": "missing", "optional": True, "items": [{"key": "a", "path": "b"}]},
            },
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            {"name": "labels", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        ],
        "tolerations": [{"key": "spot"}, {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}],
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]},
                    }
                ]
            }
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}], "searches": ["example.com"]},
        "imagePullSecrets": [{"name": "missing"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "readinessGates": [],
        "schedulerName": "default-scheduler",
        "securityContext": {"fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch", "sysctls": []},
        "terminationGracePeriodSeconds": 77,
        "enableServiceLinks": True,
        "shareProcessNamespace": False,
    },
}
EVERYTHING: dict[str, Any] = {
    "template": TEMPLATE,
    "serviceTemplate": {
        "metadata": {"annotations": {"a": "b"}, "labels": {"c": "d"}},
        "spec": {
            "type": "LoadBalancer",
            "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "ports": [{"name": "more", "port": 6432, "targetPort": "pgbouncer"}],
        },
    },
    "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}},
    "networkPolicy": {"enabled": True, "clients": [{"namespaceSelector": {}}]},
    "connectionBudget": 60,
    "monitoring": {"tls": {"enabled": True}},
    "drain": {"acceptSeconds": 0, "timeoutSeconds": 5},
    "parameters": {"max_client_conn": "100", "server_idle_timeout": "7", "query_timeout": "0"},
    "users": [{"name": "batch", "parameters": {"query_timeout": "3600"}}],
}


def versions(world: Any) -> dict[str, str]:
    """Of everything that could have been written."""
    found = {}
    for kind in KINDS:
        for item in world.run(world.kube.items(kind, world.namespace)):
            found[f"{kind} {item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return found


def numbers(port: int) -> dict[str, float]:
    """Passes, and the requests that write, but for the Lease's (`update`)."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    passes = sum(sample.value for sample in samples if sample.name == "pgweir_operator_reconciles_total")
    writes = {
        sample.labels["verb"]: sample.value
        for sample in samples
        if sample.name == "pgweir_operator_api_requests_total"
        and sample.labels["verb"] in {"patch", "create", "delete"}
    }
    return {"passes": passes, "writes": sum(writes.values())}


def test_no_pass_over_what_is_as_it_should_be_writes_anything_nor_does_an_operator_that_starts_anew(world):
    world.has_cluster()
    world.has_cluster("cluster-example")
    port = free_port()
    operator = world.start_operator(f"--listen=127.0.0.1:{port}", recheck=0.2, log_level="INFO")
    names = []
    for path in sorted({path for name, path in golden.POOLERS.items() if name != "own-target"}):
        names.append(path.stem)
        spec = {**yaml.safe_load(path.read_text())["spec"], "instances": 1}
        world.apply({"apiVersion": "pgweir.io/v1", "kind": "Pooler", "metadata": {"name": path.stem}, "spec": spec})
    world.pooler("everything", instances=1, **EVERYTHING)
    for name in [*names, "everything"]:
        world.until("Integrated", "True", name=name, patience=60)
        world.until("ConfigurationApplied", "True", name=name, patience=60)
        wait(lambda name=name: world.get("Deployment", name)["status"].get("replicas") == 1, "its pod", patience=60)
    settle(world)

    before, began = versions(world), numbers(port)
    wait(lambda: numbers(port)["passes"] >= began["passes"] + PASSES * (len(names) + 1), "some passes", patience=90)
    assert versions(world) == before
    assert numbers(port)["writes"] == began["writes"]

    assert operator.stop() == 0
    world.start_operator(f"--listen=127.0.0.1:{port}", recheck=0.2, log_level="INFO")
    wait(lambda: is_up(port) and numbers(port)["passes"] >= PASSES * (len(names) + 1), "some more", patience=90)
    now = versions(world)
    assert {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)} == set()


def is_up(port: int) -> bool:
    try:
        numbers(port)
    except OSError:
        return False
    return True


def settle(world: Any) -> None:
    """Until Kubernetes' own controllers have said all that they have to say."""
    seen, since = versions(world), time.monotonic()
    until = since + 60
    while time.monotonic() - since < 3 and time.monotonic() < until:
        time.sleep(0.3)
        if (now := versions(world)) != seen:
            seen, since = now, time.monotonic()
