"""The other Poolers of the same PostgreSQL: they share the role and the function, and the last one takes both away.

Called by reconcile and farewell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pgweir_operator.api import names
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.control_secrets import PASSWORD_KEY
from pgweir_operator.integration import scram
from pgweir_operator.observe import Source, is_controlled_by, secret_facts
from pgweir_operator.validation import parse


async def automatic_siblings(kube: Source, pooler: Pooler, namespaces: Sequence[str]) -> list[Mapping[str, Any]]:
    """Every automatic Pooler of the same target that is not going, this one included, the oldest first.

    A cluster is in its Pooler's namespace; a plain target may have Poolers in every namespace that we serve.
    """
    places = [pooler.namespace] if pooler.spec.target is None else list(namespaces) or [""]
    found: list[Mapping[str, Any]] = []
    for place in places:
        found += [
            manifest
            for manifest in await kube.items(names.KIND, place)
            if _points_to(manifest.get("spec") or {}, pooler)
            and isinstance(other := parse({"kind": names.KIND, **manifest}), Pooler)
            and not other.deleting
            and other.is_automatic
            and _target(other) == _target(pooler)
        ]
    return sorted(found, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["uid"]))


async def shared_password(kube: Source, siblings: Sequence[Mapping[str, Any]], own: str | None) -> str:
    """The auth role's one password: the oldest sibling's that has one, so that two never set it in turns."""
    for sibling in siblings:
        metadata = sibling["metadata"]
        name = names.control_ca_secret_name(metadata["name"])
        secret = await kube.get("Secret", metadata["namespace"], name)
        if secret is None or not is_controlled_by(secret, metadata["uid"]):
            continue
        facts = secret_facts(secret)
        if facts is not None and facts.data.get(PASSWORD_KEY):
            return facts.data[PASSWORD_KEY].decode()
    return own or scram.new_password()


def _points_to(spec: Mapping[str, Any], pooler: Pooler) -> bool:
    """At first sight: most Poolers of a namespace are no siblings, and need not be read for that."""
    if pooler.spec.target is not None:
        return str((spec.get("target") or {}).get("host", "")).lower() == pooler.spec.target.host.lower()
    return (spec.get("cluster") or {}).get("name") == pooler.cluster_name


def _target(pooler: Pooler) -> tuple[str, ...]:
    if pooler.spec.target is not None:
        return (pooler.spec.target.host.lower(), str(pooler.spec.target.port))
    return (pooler.namespace, pooler.cluster_name or "", "cluster")
