"""Every trigger of the operator, one call each: the table of contents.

All of them do the same: wake the Pooler that is concerned. kopf watches and calls; it stores nothing on any object (only
raw events are asked for, so it needs neither annotations nor a finalizer of its own). Called by main.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import kopf

from pgweir_operator.api import names
from pgweir_operator.kube.connection import Access, kopf_connection
from pgweir_operator.kube.watches import Change, Named, ObjectWatches
from pgweir_operator.reconcile import Outcome
from pgweir_operator.switchover import Switchovers
from pgweir_operator.workers import Key, Workers

CHILD_KINDS = (("apps", "v1", "deployments"), ("", "v1", "services"), ("", "v1", "pods"))


def registry(workers: Workers, switchovers: Switchovers, access: Access) -> kopf.OperatorRegistry:
    """What wakes a Pooler: itself, its children, its pods. (Its Secrets are watched one by one: `settled`.)"""
    table = kopf.OperatorRegistry()
    seen: dict[str, object] = {}

    @kopf.on.startup(registry=table)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)

    @kopf.on.login(registry=table)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await kopf_connection(access)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=table)
    async def pooler(event: Mapping[str, Any], body: kopf.Body, **_: Any) -> None:
        key, state = _key(body["metadata"], "name"), _what_counts(body)
        # What its annotations ask for does not wait for a pass.
        switchovers.saw_pooler(key, None if event["type"] == "DELETED" else body["metadata"].get("annotations") or {})
        if event["type"] != "DELETED" and seen.get(body["metadata"]["uid"]) == state:
            return  # Our own status, written a moment ago.
        seen[body["metadata"]["uid"]] = state
        if event["type"] == "DELETED":
            seen.pop(body["metadata"]["uid"], None)
        workers.wake(key, "the Pooler")

    for group, version, plural in CHILD_KINDS:

        @kopf.on.event(group, version, plural, labels={names.POOLER_LABEL: kopf.PRESENT}, registry=table, id=plural)
        async def child(body: kopf.Body, resource: kopf.Resource, **_: Any) -> None:
            key = body["metadata"]["namespace"], body["metadata"]["labels"][names.POOLER_LABEL]
            workers.wake(key, f"{resource.kind} {body['metadata']['name']}", known_only=True)

    return table


def own_secrets(watches: ObjectWatches[Key], namespaces: Sequence[str]) -> None:
    """The Secrets of all Poolers by their label: three for each, and one watch for all of them."""
    watches.want(("", ""), [Named("Secret", place, label=names.POOLER_LABEL) for place in namespaces or ("",)])


def concerned(key: Key, change: Change) -> Key:
    """Whom a change of a Secret wakes: who asked for it by name, or whose it is."""
    if change.what.name:
        return key
    metadata = change.object["metadata"]
    return metadata["namespace"], metadata["labels"][names.POOLER_LABEL]


def settled(watches: ObjectWatches[Key], key: Key, outcome: Outcome) -> None:
    """After each pass: watch exactly the Secrets of others that concern this Pooler."""
    if outcome.gone:
        watches.forget(key)
    else:
        watches.want(key, [Named("Secret", key[0], name) for name in outcome.secrets])


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.posting.enabled = False  # Our Events say what a person can use (kube/events.py).
    settings.peering.standalone = True  # A Lease decides who leads; kopf's peers of equal priority would all freeze.
    settings.scanning.disabled = True  # No right to list namespaces and CRDs is needed; main waits for our CRD.
    settings.persistence.finalizer = f"kopf.{names.GROUP}/unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{names.GROUP}")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{names.GROUP}")
    # A connection that died in silence must not leave us blind: the server ends each watch, and the client a bit later.
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    # WHY on the server: a cluster's other pods and Services would all pass through this process otherwise.
    for group, version, plural in CHILD_KINDS:
        settings.watching.label_selectors[group, version, plural] = names.POOLER_LABEL


def _what_counts(body: kopf.Body) -> tuple[object, ...]:
    """Everything of a Pooler but its status."""
    metadata = body["metadata"]
    finalizers = tuple(metadata.get("finalizers") or ())
    return metadata.get("generation"), metadata.get("deletionTimestamp"), finalizers


def _key(metadata: Mapping[str, Any], name: str) -> Key:
    return metadata["namespace"], metadata[name]
