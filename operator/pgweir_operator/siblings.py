"""The other Poolers of the same PostgreSQL: they share the role and the function, and the last one takes both away.

They are found by what their specs call it, as far as two names can be told to mean the same; and where a PostgreSQL turns
out to have a password that is another Pooler's, by that. Called by reconcile and farewell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pgweir.hba import is_address
from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.control_secrets import PASSWORD_KEY
from pgweir_operator.integration import automatic, scram
from pgweir_operator.integration.provisioning import Holder
from pgweir_operator.observe import Source, is_controlled_by, observe, secret_facts
from pgweir_operator.validation import parse

Target = tuple[str, str, str]
"""Host and port, with the namespace where the host is a Service."""

# WHY not whatever comes behind svc: `c1-rw.shop.svc.example.com` may be anybody's.
_OF_SERVICES: Final = (["svc"], ["svc", "cluster", "local"])
_PORT: Final = 5432


async def automatic_siblings(kube: Source, pooler: Pooler, namespaces: Sequence[str]) -> list[Mapping[str, Any]]:
    """Every automatic Pooler of the same target in these namespaces (none given: everywhere) that is not going, this one
    included, the oldest first."""
    spec = pooler.spec
    said = {"host": spec.target.host, "port": spec.target.port} if spec.target is not None else None
    target = _target({"cluster": {"name": pooler.cluster_name}, "target": said}, pooler.namespace)
    found: list[Mapping[str, Any]] = []
    for place in list(namespaces) or [""]:
        found += [
            manifest
            for manifest in await kube.items(names.KIND, place)
            # At first sight: most Poolers are no siblings, and need not be read for that.
            if _target(manifest.get("spec") or {}, manifest["metadata"]["namespace"]) == target
            and isinstance(other := parse({"kind": names.KIND, **manifest}), Pooler)
            and not other.deleting
            and other.is_automatic
        ]
    return sorted(found, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["uid"]))


async def holders(
    kube: Source, pooler: Pooler, namespaces: Sequence[str], verifier: str, *, dial: tuple[str, int] | None
) -> list[Holder]:
    """The other Poolers whose password a verifier is of: those of this namespace first."""
    passwords: dict[str, list[Mapping[str, Any]]] = {}
    for place in list(namespaces) or [""]:
        for manifest in await kube.items(names.KIND, place):
            metadata = manifest["metadata"]
            if metadata["uid"] == pooler.uid or metadata.get("deletionTimestamp"):
                continue
            if password := await _password(kube, manifest):
                passwords.setdefault(password, []).append(manifest)
    right = await asyncio.to_thread(lambda: [text for text in passwords if scram.matches(text, verifier)])
    result = [await _holder(kube, pooler, manifest, text, dial) for text in right for manifest in passwords[text]]
    return sorted((row for row in result if row is not None), key=lambda row: (row.where is not None, row.name))


async def _holder(
    kube: Source, pooler: Pooler, manifest: Mapping[str, Any], password: str, dial: tuple[str, int] | None
) -> Holder | None:
    other = parse({"kind": names.KIND, **manifest})
    if not isinstance(other, Pooler):
        return None
    name = f"{other.namespace}/{other.name}"
    if other.namespace == pooler.namespace:
        return Holder(name, password)
    world = await observe(kube, other)
    return Holder(name, password, automatic.endpoint(other, world.observed, dial=dial))


async def shared_password(kube: Source, siblings: Sequence[Mapping[str, Any]], own: str | None) -> str:
    """The auth role's one password: the oldest sibling's that has one, so that two never set it in turns."""
    for sibling in siblings:
        if password := await _password(kube, sibling):
            return password
    return own or scram.new_password()


async def _password(kube: Source, manifest: Mapping[str, Any]) -> str | None:
    """The one that a Pooler's own Secret has."""
    metadata = manifest["metadata"]
    secret = await kube.get("Secret", metadata["namespace"], names.control_ca_secret_name(metadata["name"]))
    if secret is None or not is_controlled_by(secret, metadata["uid"]):
        return None
    facts = secret_facts(secret)
    return facts.data[PASSWORD_KEY].decode() if facts is not None and facts.data.get(PASSWORD_KEY) else None


def _target(spec: Mapping[str, Any], namespace: str) -> Target | None:
    """What a spec points to. A Service has several names: its cluster's, its own, and its own with the namespace."""
    if cluster := (spec.get("cluster") or {}).get("name"):
        return f"{cluster}-rw", str(_PORT), namespace
    target = spec.get("target") or {}
    host, port = str(target.get("host") or "").lower().rstrip("."), str(target.get("port") or _PORT)
    if not host:
        return None
    name, *rest = host.split(".")
    if host == "localhost" or ":" in host or is_address(host):
        return host, port, ""
    if len(rest) < 2 or rest[1:] in _OF_SERVICES:
        return name, port, rest[0] if rest else namespace
    return host, port, ""
