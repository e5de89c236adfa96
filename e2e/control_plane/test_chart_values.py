"""The chart under Helm itself: it lints, every value can be set, a wrong one is refused by its name, the notes say what to do.

Nothing is installed for it: but for the notes, Helm asks no API server here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pgweir"
VERSION = "--kube-version=1.35.0"

# Every value, set to something else than it is.
ALL: dict[str, Any] = {
    "nameOverride": "weir",
    "fullnameOverride": "weir-of-ours",
    "image": {"repository": "registry.example/operator", "tag": "9", "pullPolicy": "Always"},
    "poolerImage": {"repository": "registry.example/pooler", "tag": "9"},
    "imagePullSecrets": [{"name": "pull"}],
    "replicas": 2,
    "watchNamespaces": ["shop", "bank"],
    "provisioning": {"exec": True},
    "logLevel": "DEBUG",
    "crds": {"install": False},
    "uninstallHook": {"enabled": False},
    "monitoring": {
        "dashboard": {"enabled": True, "namespace": "mon", "labels": {"a": "b"}, "annotations": {"c": "d"}},
        "podMonitor": {"enabled": True, "namespace": "mon", "labels": {"release": "p"}, "interval": "15s"},
        "alerts": {"enabled": True, "namespace": "mon", "labels": {"release": "p"}},
    },
    "serviceAccount": {"create": False, "name": "theirs", "annotations": {"e": "f"}},
    "rbac": {"create": True, "aggregate": False},
    "resources": {"limits": {"memory": "1Gi"}},
    "env": [{"name": "A", "value": "b"}],
    "podLabels": {"g": "h"},
    "podAnnotations": {"i": "j"},
    "nodeSelector": {"k": "l"},
    "tolerations": [{"key": "m", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}


Helm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def helm(kubeconfig: str) -> Helm:
    binary = Path(kubeconfig).parents[1] / "bin" / "helm"
    if not binary.exists():
        pytest.skip(f"there is no {binary}")

    def run(*arguments: str, values: Any = None) -> subprocess.CompletedProcess[str]:
        command = [
            str(binary),
            f"--kubeconfig={kubeconfig}",
            *arguments,
            *(["--values=-"] if values is not None else []),
        ]
        return subprocess.run(
            command, input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False
        )

    return run


def rendered(helm: Helm, values: Any) -> dict[tuple[str, str], dict[str, Any]]:
    done = helm("template", "shop", str(CHART), VERSION, values=values)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


@pytest.mark.parametrize("values", [{}, ALL], ids=["defaults", "all"])
def test_helm_lint_has_nothing_to_say(helm: Helm, values: Any) -> None:
    done = helm("lint", "--strict", VERSION, str(CHART), values=values)
    said = [row for row in done.stdout.splitlines() if row.startswith("[") and "icon is recommended" not in row]
    assert (done.returncode, said) == (0, []), done.stdout + done.stderr


def test_all_values_are_tried_here() -> None:
    def names(values: Any, prefix: str = "") -> set[str]:
        return {prefix + name for name in values} | {
            deeper
            for name, value in values.items()
            if isinstance(value, dict) and name not in {"labels", "annotations", "resources"}
            for deeper in names(value, f"{prefix}{name}.")
        }

    known = names(yaml.safe_load((CHART / "values.yaml").read_text()))
    leaves = {name for name in known if name.partition(".")[0] not in {"affinity", "nodeSelector"}}
    assert leaves <= names(ALL)


def test_every_value_arrives_where_it_belongs(helm: Helm) -> None:
    made = rendered(helm, ALL)
    pod = made["Deployment", "weir-of-ours"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    assert made["Deployment", "weir-of-ours"]["spec"]["replicas"] == 2
    assert (container["image"], container["imagePullPolicy"]) == ("registry.example/operator:9", "Always")
    assert container["args"] == ["--namespace=shop", "--namespace=bank"]
    environment = {row["name"]: row.get("value") for row in container["env"]}
    assert (
        environment.items()
        >= {
            "PGWEIR_POOLER_IMAGE": "registry.example/pooler:9",
            "PGWEIR_LOG_LEVEL": "DEBUG",
            "PGWEIR_EXEC_IN_PRIMARY": "true",
            "A": "b",
        }.items()
    )
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert pod["metadata"]["labels"]["g"] == "h"
    assert pod["metadata"]["annotations"] == {"i": "j"}
    spec = pod["spec"]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["serviceAccountName"] == "theirs"
    assert (spec["nodeSelector"], spec["tolerations"], spec["affinity"], spec["priorityClassName"]) == (
        {"k": "l"},
        [{"key": "m", "operator": "Exists"}],
        {"nodeAffinity": {}},
        "high",
    )
    kinds = {kind for kind, _ in made}
    assert not kinds & {"CustomResourceDefinition", "ClusterRoleBinding", "Job", "ServiceAccount"}
    assert ("ClusterRole", "weir-of-ours-poolers-view") not in made
    monitor = made["PodMonitor", "weir-of-ours"]
    assert monitor["metadata"]["namespace"] == "mon"
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "health", "path": "/metrics", "interval": "15s"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    for name in ("weir-of-ours", "weir-of-ours-operator"):
        assert made["PrometheusRule", name]["spec"]["groups"]
    assert made["ConfigMap", "weir-of-ours-dashboard"]["metadata"]["labels"]["a"] == "b"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": "two"}, "replicas"),
        ({"replicas": -1}, "replicas"),
        ({"logLevel": "LOUD"}, "logLevel"),
        ({"watchNamespaces": "shop"}, "watchNamespaces"),
        ({"watchNamespaces": ["Shop_1"]}, "watchNamespaces"),
        ({"image": {"repository": ""}}, "repository"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"provisioning": {"exec": "yes"}}, "exec"),
        ({"crds": {"instal": True}}, "instal"),
        ({"monitoring": {"podMonitor": {"interval": "soon"}}}, "interval"),
        ({"monitoring": {"alert": {}}}, "alert"),
        ({"imagePullSecrets": ["pull"]}, "imagePullSecrets"),
        ({"env": [{"value": "b"}]}, "env"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(helm: Helm, values: Any, named: str) -> None:
    done = helm("template", "shop", str(CHART), VERSION, values=values)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_notes_say_the_first_command_and_the_api_server_takes_it(
    helm: Helm, operator_kubeconfig: str, kubectl: Callable[..., str]
) -> None:
    done = helm(
        "install", "shop", str(CHART), "--dry-run=server", "--output=json", values={"watchNamespaces": ["shop"]}
    )
    assert done.returncode == 0, done.stderr
    notes = json.loads(done.stdout)["info"]["notes"]
    assert "looks after Poolers in shop" in notes
    manifest = notes.partition("kubectl apply -f - <<END\n")[2].partition("  END\n")[0]
    said = kubectl("apply", "--dry-run=server", "--filename=-", stdin=manifest)
    assert "pooler-example-rw" in said
