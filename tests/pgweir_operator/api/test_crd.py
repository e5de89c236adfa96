"""The CRD: what is checked in is what the models say, and it is structural. (A real API server tries it in e2e.)"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pgweir_operator.worlds import manifest

from pgweir_operator.api import crd
from pgweir_operator.api.one_line import has_line_breaker
from pgweir_operator.api.parameters import PARAMETERS, RESTARTING
from pgweir_operator.api.pooler import Pooler

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


@pytest.mark.parametrize("file", ["crds/poolers.pgweir.io.yaml", "charts/pgweir/files/poolers.pgweir.io.yaml"])
def test_the_files_are_what_the_models_say(file: str) -> None:
    assert (ROOT / file).read_text() == crd.as_yaml(), "run `make crds` and review what changed"


def test_the_file_reads_back_as_the_definition() -> None:
    assert yaml.safe_load(crd.as_yaml()) == crd.custom_resource_definition()


def test_every_node_of_the_schema_has_a_type_and_nothing_the_api_server_refuses() -> None:
    for path, node in nodes(SCHEMA):
        assert "type" in node, path
        assert not node.keys() & {"$ref", "anyOf", "allOf", "title", "const", "$defs"}, path
        assert not ("properties" in node and "additionalProperties" in node), path


def test_every_field_of_the_spec_is_described() -> None:
    undescribed = [
        path
        for path, node in nodes(SPEC)
        if path and not path.endswith("[]") and "description" not in node and ".containers" not in path
    ]
    assert undescribed == []


def test_a_switchover_is_held_unless_the_user_says_otherwise() -> None:
    schema = SPEC["properties"]["switchover"]
    assert schema["default"] == {}
    mode, timeout = schema["properties"]["mode"], schema["properties"]["timeoutSeconds"]
    assert (mode["default"], mode["enum"]) == ("Automatic", ["Automatic", "Off"])
    assert (timeout["default"], timeout["minimum"], timeout["maximum"]) == (60, 1, 600)


def test_autoscalers_find_everything_they_need() -> None:
    version = crd.custom_resource_definition()["spec"]["versions"][0]
    assert version["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.instances",
            "statusReplicasPath": ".status.instances",
            "labelSelectorPath": ".status.selector",
        },
    }
    status = SCHEMA["properties"]["status"]["properties"]
    assert {"instances", "selector"} <= status.keys()


def test_each_parameter_with_a_form_has_a_rule_with_its_path() -> None:
    rules = SPEC["properties"]["pgbouncer"]["properties"]["parameters"]["x-kubernetes-validations"]
    paths = [rule["fieldPath"] for rule in rules if "fieldPath" in rule]
    free_text = {name for name, info in PARAMETERS.items() if f"['{name}']" not in paths}
    assert len(paths) == len(set(paths)) > 50
    assert free_text == {
        "auth_user", "client_tls_ciphers", "client_tls_ecdhcurve", "ignore_startup_parameters", "login_notify_message",
        "server_check_query", "server_reset_query", "server_tls_ciphers", "stats_users", "track_extra_parameters",
        "uncached_databases",
    }  # fmt: skip


def test_what_a_rule_costs_is_bounded() -> None:
    parameters = SPEC["properties"]["pgbouncer"]["properties"]["parameters"]
    assert parameters["maxProperties"] <= 100
    assert parameters["additionalProperties"]["maxLength"] <= 1024
    assert len(crd.as_yaml()) < 200_000, "client-side apply keeps a copy in an annotation of at most 256 KiB"


@pytest.mark.parametrize("breaker", ["\n", "\r", "\x00", "\x7f", "\x85", "\u2028", "\u2029"])
def test_the_schema_and_the_renderer_refuse_the_same_characters(breaker: str) -> None:
    # RE2 writes \x{2028}, Python \u2028: the same class otherwise.
    pattern = re.sub(r"\\x\{([0-9a-f]+)\}", lambda found: f"\\u{int(found[1], 16):04x}", crd.ONE_LINE_PATTERN)
    assert has_line_breaker(f"a{breaker}b")
    assert re.fullmatch(pattern.removeprefix("^").removesuffix("$"), f"a{breaker}b") is None
    assert re.fullmatch(pattern.removeprefix("^").removesuffix("$"), "a\tb ü") is not None


def test_defaults_of_the_schema_are_those_of_the_models() -> None:
    spec = Pooler.from_manifest(manifest()).spec.model_dump(mode="json", by_alias=True)

    def compare(node: dict[str, Any], value: Any, path: str) -> None:
        if node.get("default") not in (None, {}):
            assert node["default"] == value, path
        for name, child in node.get("properties", {}).items():
            if isinstance(value, dict) and value.get(name) is not None:
                compare(child, value[name], f"{path}.{name}")

    compare(SPEC, spec, "spec")
    assert SPEC["properties"]["pgbouncer"]["default"] == {}


def test_kubectl_explain_has_words_for_every_field() -> None:
    silent = [path for path, node in nodes(SCHEMA) if not node.get("description") and not path.endswith("[]")]
    assert silent == [".metadata"], "which Kubernetes describes itself"


def test_the_parameters_that_restart_pods_are_named_where_they_are_set() -> None:
    said = SPEC["properties"]["pgbouncer"]["properties"]["parameters"]["description"]
    assert RESTARTING
    assert f"but for {', '.join(RESTARTING)}: those roll the pods" in said
