"""A manifest file in place of an API server: the Pooler of `pgweir run`, and the Secrets that stand in the same file.

`observe` reads it as it reads a cluster, so that a Pooler means the same here as there.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pgweir_operator import validation
from pgweir_operator.api import names
from pgweir_operator.api.observed import Observed
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.kube.api import Object
from pgweir_operator.observe import observe


class Unusable(Exception):
    """The file cannot be run; the message says every reason, one a line."""


class Given:
    """What the file has: a source for `observe`."""

    def __init__(self, pooler: Pooler, secrets: Mapping[str, Object]) -> None:
        self.pooler = pooler
        self._secrets = secrets

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        if kind == "Secret":
            return self._secrets.get(name)
        if kind == "Service" and name == self.pooler.target_host:
            return {"metadata": {"name": name}}  # that the target exists is for the first connection to say
        return None

    async def items(self, kind: str, namespace: str, *, labels: str | None = None) -> list[Object]:
        return []

    async def knows(self, api_version: str, kind: str) -> bool:
        return False

    async def observed(self) -> Observed:
        return (await observe(self, self.pooler)).observed


def read(file: Path) -> Given:
    """The one Pooler of the file with its Secrets. Raises Unusable."""
    try:
        documents = [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document]
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"{file}: name a file that can be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.YAMLError as error:
        raise Unusable(f"{file}: this is no YAML: {' '.join(str(error).split())}") from None
    objects = [document for document in documents if isinstance(document, dict)]
    poolers = [document for document in objects if document.get("kind") == names.KIND]
    if len(poolers) != 1:
        raise Unusable(f"{file}: write one object of kind {names.KIND} into it; there are {len(poolers)}")
    manifest = poolers[0]
    if manifest.get("apiVersion") != names.API_VERSION:
        raise Unusable(f"{file}: apiVersion is {manifest.get('apiVersion')!r}: write {names.API_VERSION}")
    metadata = {"name": "", "uid": "here", "generation": 1, **(manifest.get("metadata") or {})}
    pooler = validation.parse({"spec": {}, **manifest, "metadata": metadata})
    problems = pooler if isinstance(pooler, list) else validation.validate(pooler)
    if problems or isinstance(pooler, list):
        raise Unusable("\n".join(f"{file}: {problem}" for problem in problems))
    return Given(pooler, {found["metadata"]["name"]: found for found in _secrets(file, objects)})


def _secrets(file: Path, objects: list[dict[str, Any]]) -> list[Object]:
    made = []
    for document in objects:
        if document.get("kind") != "Secret":
            continue
        name = (document.get("metadata") or {}).get("name")
        if not name:
            raise Unusable(f"{file}: a Secret in it has no metadata.name; write one")
        plain = {
            key: base64.b64encode(str(value).encode()).decode()
            for key, value in (document.get("stringData") or {}).items()
        }
        metadata = {"name": name, "resourceVersion": "1"}
        made.append({**document, "metadata": metadata, "data": {**(document.get("data") or {}), **plain}})
    return made
