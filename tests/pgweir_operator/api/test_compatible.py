"""A Pooler of CloudNativePG works after its apiVersion is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pgweir_operator.api import rules
from pgweir_operator.api.parameters import PARAMETERS
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.validation import parse, validate

POOLERS = list(yaml.safe_load_all((Path(__file__).parent / "cloudnativepg.yaml").read_text()))


def parsed(manifest: dict[str, Any]) -> Pooler:
    found = parse(manifest)
    assert isinstance(found, Pooler), found
    return found


@pytest.mark.parametrize("manifest", POOLERS, ids=lambda manifest: manifest["metadata"]["name"])
def test_nothing_in_it_is_refused(manifest: dict[str, Any]) -> None:
    assert validate(parsed(manifest)) == []


def test_every_field_of_it_is_a_field_here() -> None:
    """What a strict client would call an unknown field."""

    def unknown(model: BaseModel, given: dict[str, Any], path: str) -> list[str]:
        fields = {info.alias or name: name for name, info in type(model).model_fields.items()}
        found = [f"{path}.{key}" for key in given if key not in fields]
        for key, value in given.items():
            inner = getattr(model, fields[key]) if key in fields else None
            if isinstance(inner, BaseModel):
                found += unknown(inner, value, f"{path}.{key}")
        return found

    for manifest in POOLERS:
        assert unknown(parsed(manifest).spec, manifest["spec"], "spec") == []


def test_the_only_parameters_that_cannot_be_carried_over_say_so() -> None:
    used = POOLERS[-1]["spec"]["pgbouncer"]["parameters"]
    # Python's TLS has no say in the ciphers of TLS 1.3.
    assert {"client_tls13_ciphers", "server_tls13_ciphers"} <= PARAMETERS.keys() - used.keys()
    assert len(used) == 58 - 2


def test_an_image_catalog_is_refused_with_a_sentence() -> None:
    spec = {
        "cluster": {"name": "shop"},
        "pgbouncer": {"imageCatalogRef": {"kind": "ImageCatalog", "name": "all", "key": "16"}},
    }
    found = validate(parsed({"metadata": {"name": "pooler"}, "spec": spec}))
    assert [problem.message for problem in found] == [rules.NO_CATALOG]
