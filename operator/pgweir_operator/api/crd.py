"""The CustomResourceDefinition, generated from the models: `python -m pgweir_operator.api.crd` prints it.

Pure but for that print. crds/ and the chart hold what it prints, and a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml
from pydantic import BaseModel

from pgweir.settings import SettingInfo
from pgweir_operator.api import names, rules
from pgweir_operator.api.parameters import (
    DATABASE_PARAMETERS,
    MAX_ENTRY_VALUE_LENGTH,
    MAX_PARAMETERS,
    MAX_VALUE_LENGTH,
    USER_PARAMETERS,
)
from pgweir_operator.api.pooler import PoolerSpec
from pgweir_operator.api.pooler_status import ConditionRow, PoolerStatus

Schema = dict[str, Any]

# RE2's spelling: any text without a line break or control character (render.py refuses the same ones).
ONE_LINE_PATTERN: Final = r"^[^\x00-\x08\x0a-\x1f\x7f\x{85}\x{2028}\x{2029}]*$"

_KEPT: Final = (
    *("type", "format", "description", "default", "enum", "pattern", "minimum", "maximum"),
    *("minLength", "maxLength", "minItems", "maxItems"),
)

_COLUMNS: Final = (
    ("Cluster", "string", ".spec.cluster.name", "The PostgreSQL cluster that is pooled.", 0),
    ("Type", "string", ".spec.type", "Which Service of it.", 0),
    ("Mode", "string", ".spec.pgbouncer.poolMode", "When a server goes back to the pool.", 0),
    ("Instances", "integer", ".spec.instances", "Pods that are wanted.", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "All is as the spec says, and proved.", 0),
    ("Paused", "string", '.status.conditions[?(@.type=="Paused")].status', "No pod holds a server.", 0),
    ("Phase", "string", ".status.phase", "One word.", 0),
    ("Age", "date", ".metadata.creationTimestamp", "Time since it was created.", 0),
    ("Target", "string", ".spec.target.host", "The PostgreSQL that is pooled, where there is no cluster.", 1),
    ("Switchover", "string", ".status.switchover.phase", "How the last switchover went, or how far it is.", 1),
    ("Revision", "integer", ".status.configRevision", "Revision of the configuration.", 1),
    ("Reason", "string", ".status.phaseReason", "The sentence behind the phase.", 1),
)


def custom_resource_definition() -> Schema:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _resource_schema()},
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.instances",
                            "statusReplicasPath": ".status.instances",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                }
            ],
        },
    }


def _column(name: str, kind: str, path: str, description: str, priority: int) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


def _resource_schema() -> Schema:
    return {
        "type": "object",
        "description": "A fleet of connection pooler pods in front of one PostgreSQL.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{names.API_VERSION}: the version of this schema."},
            "kind": {"type": "string", "description": names.KIND},
            "metadata": {
                "type": "object",
                "properties": {
                    "name": {
                        "type": "string",
                        "description": "The Deployment, the Service and the Secret of the pooler are named so, too.",
                        "maxLength": names.MAX_NAME_LENGTH,
                        "pattern": names.DNS_LABEL_PATTERN,
                    }
                },
            },
            "spec": {
                "description": "What is wanted: which PostgreSQL, how many pods, which settings.",
                **_spec_schema(),
            },
            "status": {"description": "What was proved of the pods, and what is in the way.", **_status_schema()},
        },
        "x-kubernetes-validations": list(rules.ROOT),
    }


def _spec_schema() -> Schema:
    schema = structural(PoolerSpec)
    properties = schema["properties"]
    _with_rules(schema, rules.SPEC)
    _with_rules(properties["cluster"], rules.CLUSTER)
    bouncer = properties["pgbouncer"]
    _with_rules(bouncer, rules.PGBOUNCER)
    parameters = bouncer["properties"]["parameters"]
    parameters["maxProperties"] = MAX_PARAMETERS
    parameters["additionalProperties"] = {
        "type": "string",
        "maxLength": MAX_VALUE_LENGTH,
        "pattern": ONE_LINE_PATTERN,
    }
    _with_rules(parameters, rules.parameter_rules())
    _entries(bouncer["properties"]["databases"], DATABASE_PARAMETERS)
    _entries(bouncer["properties"]["users"], USER_PARAMETERS)
    _with_rules(bouncer["properties"]["databases"]["items"]["properties"]["name"], rules.DATABASE_NAME)
    bouncer["properties"]["pg_hba"]["items"]["pattern"] = ONE_LINE_PATTERN
    bouncer["properties"]["authQuery"]["pattern"] = ONE_LINE_PATTERN
    # WHY: templates from CloudNativePG have to carry `containers: []`; ours may leave it out or keep it.
    properties["template"]["properties"]["spec"]["properties"] = {
        "containers": {
            "type": "array",
            "description": "What to change of the container pgbouncer, and containers to run beside it.",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        }
    }
    return schema


def _entries(schema: Schema, catalogue: Mapping[str, SettingInfo]) -> None:
    """A list by name, each item with settings of its own. WHY bounds this tight: a rule costs its most times the items."""
    schema.update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]})
    properties = schema["items"]["properties"]
    properties["name"]["pattern"] = ONE_LINE_PATTERN
    parameters = properties["parameters"]
    parameters["maxProperties"] = len(catalogue)
    parameters["additionalProperties"] = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ENTRY_VALUE_LENGTH,
        "pattern": ONE_LINE_PATTERN,
    }
    _with_rules(parameters, rules.parameter_rules(catalogue))


def _status_schema() -> Schema:
    schema = structural(PoolerStatus, defaults=False)
    properties = schema["properties"]
    properties["conditions"].update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    properties["pods"].update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]})
    properties["pausingSince"]["format"] = "date-time"
    for name in ("startedAt", "heldAt", "endedAt"):
        properties["switchover"]["properties"][name]["format"] = "date-time"
    row = properties["conditions"]["items"]
    assert set(row["required"]) >= {"type", "status"} <= set(ConditionRow.model_fields)
    row["properties"]["status"]["enum"] = ["True", "False", "Unknown"]
    row["properties"]["lastTransitionTime"]["format"] = "date-time"
    return schema


def _with_rules(schema: Schema, added: Iterable[rules.Rule]) -> None:
    schema["x-kubernetes-validations"] = [dict(rule) for rule in added]


def structural(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """A model's JSON schema in the API server's dialect: references put in place, null alternatives and titles gone."""
    document = model.model_json_schema(by_alias=True)
    definitions = document.get("$defs", {})
    return _structural(document, definitions, defaults)


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any], defaults: bool) -> Schema:
    node = _resolved(node, definitions)
    result = {key: node[key] for key in _KEPT if node.get(key) is not None}
    if not defaults or result.get("default") in ([], {}):
        result.pop("default", None)
    if node.get("type") == "integer":
        result["format"] = "int32" if node.get("maximum", 0) <= 2**31 - 1 else "int64"
    if "items" in node:
        result["items"] = _structural(node["items"], definitions, defaults)
    if node.get("type") != "object":
        return result
    if "properties" in node:
        properties = {name: _structural(child, definitions, defaults) for name, child in node["properties"].items()}
        _default_objects(properties)
        result["properties"] = properties
        if node.get("required"):
            result["required"] = sorted(node["required"])
        return result
    values = node.get("additionalProperties", True)
    if values is True:
        result["x-kubernetes-preserve-unknown-fields"] = True
    else:
        result["additionalProperties"] = _structural(values, definitions, defaults)
    return result


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """One flat node: `$ref` and `anyOf: [X, null]` replaced by what they mean, the field's own words winning."""
    own = {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
    if "$ref" in node:
        return {**_resolved(definitions[node["$ref"].rsplit("/", 1)[1]], definitions), **own}
    for alternative in node.get("anyOf", ()):
        if alternative.get("type") != "null":
            return {**_resolved(alternative, definitions), **own}
    return own


def _default_objects(properties: Mapping[str, Schema]) -> None:
    """Defaults inside an object apply only where the object is there, so an absent one is defaulted to an empty one."""
    for child in properties.values():
        inner = child.get("properties", {})
        if "required" not in child and any("default" in grandchild for grandchild in inner.values()):
            child["default"] = {}


def as_yaml() -> str:
    """The file as it stands in crds/."""

    class Dumper(yaml.SafeDumper):
        """Without anchors: the same rule in two places is written twice."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    head = "# Generated from the models by `make crds`; do not edit.\n"
    return head + yaml.dump(custom_resource_definition(), Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
