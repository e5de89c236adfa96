"""Writing the children: dry-run what people template, apply what differs, prune what is no longer desired.

An object that was written before and has not changed since is not written again: a pass that finds everything in place
costs the API server reads alone. Called by reconcile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import ChildReference
from pgweir_operator.kube import InvalidError, Kube
from pgweir_operator.observe import World

Written = dict[tuple[str, str], tuple[str, str]]
"""By kind and name: the digest of the manifest last applied, and the version that the object had then."""


async def apply(kube: Kube, world: World, manifests: Iterable[Mapping[str, Any]], written: Written) -> None:
    """In their order. A Deployment that the API server would refuse stops everything before anything was written."""
    due = [manifest for manifest in manifests if not _stands(world, manifest, written)]
    for manifest in due:
        if manifest["kind"] == "Deployment":
            await _rehearse(kube, manifest)
    for manifest in due:
        made = await kube.apply(manifest)
        written[_key(manifest)] = (_digest(manifest), _version(made))


async def prune(kube: Kube, pooler: Pooler, world: World, unwanted: Iterable[ChildReference], written: Written) -> None:
    """Only what this very Pooler owns, and only the object that was seen."""
    for reference in unwanted:
        if world.is_ours(pooler, reference.kind, reference.name):
            child = world.children[reference.kind, reference.name]
            written.pop((reference.kind, reference.name), None)
            await kube.delete(reference.kind, pooler.namespace, reference.name, uid=child["metadata"]["uid"])


async def _rehearse(kube: Kube, manifest: Mapping[str, Any]) -> None:
    try:
        await kube.apply(manifest, dry_run=True)
    except InvalidError as error:
        raise PrerequisiteError(
            Reason.INVALID_TEMPLATE,
            f"The API server would refuse the Deployment that spec.template makes: {error.message}",
            retry_after=60.0,
        ) from None


def _stands(world: World, manifest: Mapping[str, Any], written: Written) -> bool:
    child = world.children.get(_key(manifest))
    return child is not None and written.get(_key(manifest)) == (_digest(manifest), _version(child))


def _key(manifest: Mapping[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _version(child: Mapping[str, Any]) -> str:
    """What changes when somebody edits the object. WHY not always the resourceVersion: a status moves that too."""
    metadata = child["metadata"]
    if child.get("kind") == "Deployment" or metadata.get("generation"):
        edited = {key: metadata.get(key) for key in ("generation", "labels", "ownerReferences", "uid")}
        return json.dumps(edited, sort_keys=True)
    return str(metadata["resourceVersion"])
