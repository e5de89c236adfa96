"""The reference of the Pooler's fields, written from the models: `python -m pgweir_operator.api.reference > docs/pooler.md`.

Pure; a test compares the page with it. What stands here is the CRD's own schema, so that the page, `kubectl explain`
and the API server never say different things.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pgweir_operator.api import rules
from pgweir_operator.api.crd import Schema, custom_resource_definition

_HEADER: Final = """\
# Fields of a Pooler

Written by `python -m pgweir_operator.api.reference > docs/pooler.md`; do not edit it by hand.

`kubectl explain pooler.spec --recursive` says the same. A field that is not here is refused by `kubectl apply` (strict
validation names it). What may stand under `spec.pgbouncer.parameters` has [a page of its own](settings.md).

A `Pooler` is `apiVersion: pgweir.io/v1`, and lives in the namespace of the cluster that it pools.
"""

_RULES: Final = (
    rules.TARGET_CHOICE,
    rules.CLUSTER_IMMUTABLE,
    rules.ACCOUNT_IMMUTABLE,
    rules.QUERY_NEEDS_SECRET,
    rules.SECRET_NEEDS_QUERY,
    rules.HBA_NEEDS_TYPE,
    rules.NO_CATALOG,
    rules.NAME_FORM,
    rules.NAME_TAKEN,
    rules.CONSOLE_NAME,
)


def pooler_reference() -> str:
    (version,) = custom_resource_definition()["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]
    parts = [
        _HEADER,
        f"## spec\n\n{_table(fields['spec'])}",
        "## What is refused at once\n\nBeside each field's own form, the API server refuses, with these words:\n\n"
        + "".join(f"- {rule}\n" for rule in _RULES),
        "## status\n\nThe operator writes it. It says what was proved: each condition's words stand in "
        f"[conditions and reasons](conditions.md).\n\n{_table(fields['status'])}",
        _columns(version["additionalPrinterColumns"]),
    ]
    return "\n".join(parts)


def _table(schema: Schema) -> str:
    head = "| field | type | default | meaning |\n| --- | --- | --- | --- |\n"
    return head + "".join(f"{row}\n" for row in _rows(schema, ""))


def _rows(schema: Schema, prefix: str) -> Iterator[str]:
    for name, child in schema["properties"].items():
        path = f"{prefix}{name}"
        default = child.get("default")
        shown = "" if default in (None, "", {}, []) else f"`{_plain(default)}`"
        meaning = " ".join(str(child.get("description", "")).split()).replace("|", "\\|").replace("<", "&lt;")
        yield f"| `{path}` | {_type(child)} | {shown} | {meaning} |"
        inner = child.get("items", child)
        if "properties" in inner and not inner.get("x-kubernetes-preserve-unknown-fields"):
            yield from _rows(inner, f"{path}[]." if inner is not child else f"{path}.")


def _plain(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    kind = str(schema.get("type", "object"))
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if kind == "object" and "additionalProperties" in schema:
        return "map of string"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    return kind


def _columns(columns: list[Schema]) -> str:
    rows = (
        f"| {column['name']} | {column['description']} | {'`-o wide`' if column.get('priority') else ''} |\n"
        for column in columns
    )
    return (
        "## Columns of `kubectl get poolers`\n\n| column | what it has | only with |\n| --- | --- | --- |\n"
        f"{''.join(rows)}"
    )


if __name__ == "__main__":
    print(pooler_reference(), end="")
