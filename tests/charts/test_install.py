"""The chart and install.yaml: the same rights, the same CRD, nothing that is not asked for. (Helm itself runs in e2e.)"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pgweir"


def installed(kind: str) -> list[dict[str, Any]]:
    documents = yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text())
    return [document for document in documents if document["kind"] == kind]


def chart_file(name: str) -> Any:
    return yaml.safe_load((CHART / name).read_text())


def rules(kind: str, name: str) -> Any:
    (role,) = (role for role in installed(kind) if role["metadata"]["name"] == name)
    return role["rules"]


def test_install_yaml_grants_what_the_chart_grants() -> None:
    assert rules("ClusterRole", "pgweir") == chart_file("files/rules.yaml"), "run `make manifests`"
    assert rules("Role", "pgweir-leader") == chart_file("files/leader-rules.yaml"), "run `make manifests`"


def test_install_yaml_holds_the_crd_as_it_is() -> None:
    (crd,) = installed("CustomResourceDefinition")
    assert crd == yaml.safe_load((ROOT / "crds" / "poolers.pgweir.io.yaml").read_text()), "run `make manifests`"


@pytest.mark.parametrize("rule", chart_file("files/rules.yaml") + chart_file("files/leader-rules.yaml"))
def test_every_verb_and_every_resource_is_named(rule: dict[str, Any]) -> None:
    assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    assert "deletecollection" not in rule["verbs"]


def test_secrets_are_never_listed_and_pods_never_touched() -> None:
    for rule in chart_file("files/rules.yaml"):
        if "secrets" in rule["resources"]:
            assert "list" not in rule["verbs"]
        if any(resource.startswith("pods") for resource in rule["resources"]):
            assert set(rule["verbs"]) == {"get", "list", "watch"}


def test_exec_is_granted_on_request_alone_and_nothing_more_with_it() -> None:
    assert yaml.safe_load((CHART / "values.yaml").read_text())["provisioning"] == {"exec": False}
    assert chart_file("files/exec-rules.yaml") == [
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]}
    ]
    template = (CHART / "templates" / "rbac.yaml").read_text()
    assert template.count("exec-rules.yaml") == 1
    assert 'if .Values.provisioning.exec }}\n  {{- .Files.Get "files/exec-rules.yaml"' in template


def test_the_operator_would_pass_pod_security_restricted() -> None:
    (namespace,) = installed("Namespace")
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    (deployment,) = installed("Deployment")
    spec = deployment["spec"]["template"]["spec"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }


def test_the_images_are_of_the_charts_version() -> None:
    version = chart_file("Chart.yaml")["appVersion"]
    (deployment,) = installed("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert container["image"] == f"pgweir-operator:{version}"
    assert environment["PGWEIR_POOLER_IMAGE"] == f"pgweir-pooler:{version}"
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()


def test_the_crd_stays_when_the_chart_goes() -> None:
    template = (CHART / "templates" / "crd.yaml").read_text()
    (searched,) = re.findall(r'replace "((?:[^"\\]|\\.)*)"', template)
    assert json.loads(f'"{searched}"') in (CHART / "files" / "poolers.pgweir.io.yaml").read_text()
    assert "helm.sh/resource-policy: keep" in template


def test_every_value_has_its_place_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: dict[str, Any], node: dict[str, Any], path: str) -> None:
        for name, value in values.items():
            assert name in node["properties"], f"{path}.{name}"
            child = node["properties"][name]
            if isinstance(value, dict) and child.get("properties"):
                compare(value, child, f"{path}.{name}")

    compare(chart_file("values.yaml"), schema, "values")
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("file", sorted((ROOT / "manifests" / "samples").glob("*.yaml")), ids=lambda path: path.name)
def test_a_sample_is_a_pooler_of_the_current_version(file: Path) -> None:
    sample = yaml.safe_load(file.read_text())
    assert (sample["apiVersion"], sample["kind"]) == ("pgweir.io/v1", "Pooler")


def test_what_is_for_monitoring_is_switched_off_until_somebody_asks() -> None:
    monitoring = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]
    assert [monitoring[name]["enabled"] for name in ("dashboard", "alerts")] == [False, False]
    assert monitoring["dashboard"]["labels"] == {"grafana_dashboard": "1"}
    assert not installed("PrometheusRule")


def test_the_dashboard_asks_for_metrics_that_exist_and_its_panels_do_not_overlap() -> None:
    """(That they yield series is tried with a real Prometheus: tests/monitoring.)"""
    panels = json.loads((CHART / "files" / "dashboard.json").read_text())["panels"]
    known = set(re.findall(r"\| `(pgweir_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    asked = {
        name for panel in panels for target in panel["targets"] for name in re.findall(r"\bpgweir_\w+", target["expr"])
    }
    assert asked
    assert {re.sub("_bucket$", "", name) for name in asked} <= known
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
