"""The children of a Pooler at a real API server, promise by promise.

- a budget for disruptions only for more than one pod: test_desired's state, and test_life_of_a_pooler (scaling to 1)
- the template, with containers, with none, and with []; what we force: here, and tests/pgweir_operator/desired/test_merge
- serviceTemplate, a preference for the client's zone, and what is taken out of it again: here
- a stranger's object, of any kind: here
- drift, of any kind: here, and test_life_of_a_pooler (deleted ones)
- what is no longer asked for: here (PodMonitor, NetworkPolicy)
- Pod Security `restricted`, by the API server's own admission: here, and test_golden_manifests
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from e2e.control_plane.harness import wait
from e2e.control_plane.test_life_of_a_pooler import ready  # noqa: F401 (a fixture)

ROOT = Path(__file__).parents[2]


def template_of(world):
    return world.get("Deployment", "pooler")["spec"]["template"]


# --- templates -------------------------------------------------------------------------------------------------------


def test_a_template_may_name_containers_none_or_an_empty_list(ready):  # noqa: F811
    plain = template_of(ready)["spec"]
    for template in ({"spec": {"containers": []}}, {"spec": {}}, {"metadata": {}}):
        ready.pooler(template=template)
        ready.until("Ready", "True")
        assert template_of(ready)["spec"] == plain
    resources = {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "500m", "memory": "500Mi"}}
    ready.pooler(template={"spec": {"containers": [{"name": "pgbouncer", "resources": resources}]}})
    wait(lambda: template_of(ready)["spec"]["containers"][0].get("resources") == resources, "the resources")
    (container,) = template_of(ready)["spec"]["containers"]
    assert container["image"] == plain["containers"][0]["image"]
    assert container["args"] == plain["containers"][0]["args"]


def test_a_template_adds_a_sidecar_and_labels_and_never_takes_what_makes_pods_findable(ready):  # noqa: F811
    labels = {"team": "a", "pgweir.io/poolerName": "somebody-else"}
    sidecar = {"name": "watcher", "image": "watcher:1"}
    ready.pooler(template={"metadata": {"labels": labels}, "spec": {"containers": [sidecar], "priority": 0}})
    wait(lambda: len(template_of(ready)["spec"]["containers"]) == 2, "the sidecar")
    assert template_of(ready)["metadata"]["labels"]["team"] == "a"
    assert template_of(ready)["metadata"]["labels"]["pgweir.io/poolerName"] == "pooler"
    assert [one["name"] for one in template_of(ready)["spec"]["containers"]] == ["pgbouncer", "watcher"]


def test_a_service_template_is_followed_and_what_leaves_it_leaves_the_service(ready):  # noqa: F811
    metadata = {"labels": {"team": "a"}, "annotations": {"lb.example.com/internal": "true"}}
    ports = [{"name": "legacy", "port": 6432, "targetPort": "pgbouncer"}]
    spec = {"type": "LoadBalancer", "ports": ports, "selector": {"app": "other"}, "trafficDistribution": "PreferClose"}
    ready.pooler(serviceTemplate={"metadata": metadata, "spec": spec})
    wait(lambda: ready.get("Service", "pooler")["spec"]["type"] == "LoadBalancer", "the type")
    service = ready.get("Service", "pooler")
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [
        ("pgbouncer", 5432),
        ("legacy", 6432),
    ]
    assert service["spec"]["selector"] == {"pgweir.io/poolerName": "pooler"}, "never anybody else's pods"
    assert service["spec"]["trafficDistribution"] == "PreferClose", "clients of a zone are led to pods of that zone"
    assert service["metadata"]["labels"]["team"] == "a"
    assert service["metadata"]["annotations"]["lb.example.com/internal"] == "true"
    ready.pooler()
    wait(lambda: ready.get("Service", "pooler")["spec"]["type"] == "ClusterIP", "as it was")
    service = ready.get("Service", "pooler")
    assert [port["port"] for port in service["spec"]["ports"]] == [5432]
    assert "trafficDistribution" not in service["spec"]
    assert "team" not in service["metadata"]["labels"]
    assert "lb.example.com/internal" not in (service["metadata"].get("annotations") or {})


def test_pods_are_spread_over_nodes_and_zones_unless_the_template_says_otherwise(ready):  # noqa: F811
    spread = template_of(ready)["spec"]["topologySpreadConstraints"]
    assert {row["topologyKey"] for row in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert {row["whenUnsatisfiable"] for row in spread} == {"ScheduleAnyway"}
    zone = {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 2}
    ready.pooler(template={"spec": {"topologySpreadConstraints": [zone]}})

    def of_the_zone():
        rows = template_of(ready)["spec"]["topologySpreadConstraints"]
        return next(row for row in rows if row["topologyKey"] == zone["topologyKey"])

    wait(lambda: of_the_zone()["whenUnsatisfiable"] == "DoNotSchedule", "the user's word")
    assert of_the_zone()["labelSelector"]["matchLabels"] == {"pgweir.io/poolerName": "pooler"}


# --- strangers, drift, what is no longer desired ---------------------------------------------------------------------

POD = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
STRANGERS = [
    (
        "apps/v1",
        "Deployment",
        "pooler",
        {"spec": {"selector": {"matchLabels": {"a": "b"}}, "replicas": 0, "template": POD}},
    ),
    ("v1", "Service", "pooler-peers", {"spec": {"ports": [{"port": 1}]}}),
    ("v1", "Secret", "pooler", {"stringData": {"pgbouncer.ini": "mine"}}),
    ("v1", "Secret", "pooler-control", {"stringData": {"tls.key": "mine"}}),
    ("v1", "Secret", "pooler-control-ca", {"stringData": {"ca.key": "mine"}}),
    ("v1", "ServiceAccount", "pooler", {}),
    ("policy/v1", "PodDisruptionBudget", "pooler", {"spec": {"maxUnavailable": 1, "selector": {}}}),
    ("networking.k8s.io/v1", "NetworkPolicy", "pooler", {"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}),
]


def test_no_strangers_object_of_any_kind_is_adopted_changed_or_deleted(world):
    world.has_cluster()
    for api_version, kind, name, content in STRANGERS:
        world.apply({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **content})
    before = {(kind, name): world.get(kind, name) for _, kind, name, _ in STRANGERS}
    world.start_operator(recheck=0.5)
    world.pooler(networkPolicy={"enabled": True})
    message = world.until("Ready", "False", "NotOwned")
    for kind, name in before:
        assert f"{kind} {name}" in message
    world.pooler(instances=1)
    world.delete("Pooler", "pooler")
    wait(lambda: world.get("Pooler", "pooler") is None, "it goes")
    for (kind, name), stranger in before.items():
        now = world.get(kind, name)
        if kind == "Deployment":  # its own controller writes a status
            now, stranger = (
                {
                    **one,
                    "status": {},
                    "metadata": {**one["metadata"], "resourceVersion": "", "managedFields": [], "annotations": {}},
                }
                for one in (now, stranger)
            )
        assert now == stranger, f"{kind} {name}"


DRIFT = [
    ("Deployment", "pooler", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}),
    ("Deployment", "pooler", {"spec": {"replicas": 7}}),
    ("Service", "pooler", {"spec": {"selector": {"pgweir.io/poolerName": "other"}}}),
    ("Service", "pooler-peers", {"spec": {"publishNotReadyAddresses": False}}),
    ("PodDisruptionBudget", "pooler", {"spec": {"maxUnavailable": 2}}),
    ("NetworkPolicy", "pooler", {"spec": {"egress": [{}]}}),
    ("ServiceAccount", "pooler", {"automountServiceAccountToken": True}),
]


def test_what_somebody_changes_by_hand_is_set_back(ready, kubectl):  # noqa: F811
    ready.pooler(networkPolicy={"enabled": True})
    wait(lambda: ready.get("NetworkPolicy", "pooler") is not None, "the NetworkPolicy")
    ready.until("Ready", "True")
    before = {(kind, name): content(ready.get(kind, name)) for kind, name, _ in DRIFT}
    for kind, name, change in DRIFT:
        patch = [
            "patch",
            kind.lower(),
            name,
            f"--namespace={ready.namespace}",
            "--type=merge",
            f"--patch={json.dumps(change)}",
        ]
        kubectl(*patch)
    for key, wanted in before.items():
        wait(lambda key=key, wanted=wanted: content(ready.get(*key)) == wanted, f"{key} as it was")
    ready.until("Ready", "True")


def test_a_key_that_somebody_spoiled_is_made_anew_with_its_certificate(ready, kubectl):  # noqa: F811
    change = json.dumps({"data": {"tls.key": "bWluZQ=="}})
    kubectl("patch", "secret", "pooler-control", f"--namespace={ready.namespace}", "--type=merge", f"--patch={change}")
    wait(lambda: b"PRIVATE KEY" in ready.files("pooler-control")["tls.key"], "another key")


def content(found):
    return {key: value for key, value in found.items() if key not in {"metadata", "status"}}


MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "names": {
            "kind": "PodMonitor",
            "plural": "podmonitors",
            "singular": "podmonitor",
            "listKind": "PodMonitorList",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
def monitors(kubectl):
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(MONITORS))
    kubectl("wait", "--for=condition=Established", f"crd/{MONITORS['metadata']['name']}", "--timeout=30s")
    yield
    kubectl("delete", "crd", MONITORS["metadata"]["name"], "--wait=false")


def test_a_pod_monitor_and_a_network_policy_come_when_they_are_asked_for_and_go_when_they_are_not(monitors, ready):  # noqa: F811
    ready.pooler(monitoring={"enablePodMonitor": True, "tls": {"enabled": True}}, networkPolicy={"enabled": True})
    for kind in ("PodMonitor", "NetworkPolicy"):
        wait(lambda kind=kind: ready.get(kind, "pooler") is not None, kind)
    (endpoint,) = ready.get("PodMonitor", "pooler")["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {"ca": {"secret": {"name": "shop-ca", "key": "ca.crt"}}, "serverName": "pooler"}

    def variables() -> set[str]:
        return {row["name"] for row in template_of(ready)["spec"]["containers"][0]["env"]}

    # The Deployment is the last to be written of a pass.
    wait(lambda: "PGWEIR_METRICS_TLS" in variables(), "the pods' metrics under TLS")
    ready.until("Ready", "True")
    ready.pooler()
    for kind in ("PodMonitor", "NetworkPolicy"):
        wait(lambda kind=kind: ready.get(kind, "pooler") is None, f"no {kind}")


# --- Pod Security ----------------------------------------------------------------------------------------------------


def test_in_a_namespace_that_enforces_restricted_the_whole_fleet_comes_up(world, kubectl):
    kubectl("label", "namespace", world.namespace, "pod-security.kubernetes.io/enforce=restricted")
    world.has_cluster()
    world.start_operator()
    world.pooler(monitoring={"tls": {"enabled": True}})
    world.until("Ready", "True")
    assert len(world.kubelet.pods) == 2
    refused = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": POD["spec"]}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        kubectl(
            "create", "--dry-run=server", f"--namespace={world.namespace}", "--filename=-", stdin=json.dumps(refused)
        )


def test_the_operator_and_the_charts_hook_pass_restricted_too(world, kubectl, kubeconfig):
    kubectl("label", "namespace", world.namespace, "pod-security.kubernetes.io/enforce=restricted")
    documents = list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
    helm = Path(kubeconfig).parents[1] / "bin" / "helm"
    if helm.exists():
        command = [str(helm), "template", "t", str(ROOT / "charts" / "pgweir"), "--kube-version=1.35.0"]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        documents += list(yaml.safe_load_all(printed))
    made = [document for document in documents if document and document["kind"] in {"Deployment", "Job"}]
    assert {document["kind"] for document in made} >= {"Deployment"}
    for document in made:
        spec = {**document["spec"]["template"]["spec"], "serviceAccountName": "default"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
        kubectl("create", "--dry-run=server", f"--namespace={world.namespace}", "--filename=-", stdin=json.dumps(pod))
