"""Every trigger of the operator, one call each: the table of contents.

All of them do the same: wake the Pooler that is concerned. kopf watches the Poolers and calls; it stores nothing on any
object (only raw events are asked for, so it needs neither annotations nor a finalizer of its own). What belongs to Poolers is
watched by kube/watches.py, which keeps it, so that a pass need not ask for what has just been said. Called by main.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from pgweir_operator.api import names
from pgweir_operator.kube.connection import Access, kopf_connection
from pgweir_operator.kube.watches import Change, Named, ObjectWatches
from pgweir_operator.passes import Outcome
from pgweir_operator.switchover import Switchovers
from pgweir_operator.workers import Key, Workers

# All Poolers' children and pods, by their label: one watch for each kind.
CHILD_KINDS = ("Deployment", "Pod", "Secret", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy")
# All there are: a cluster is found by its Services, siblings by their Poolers.
WHOLE_KINDS = ("Service", names.KIND)


Heard = Callable[[str, Mapping[str, Any]], object]
"""Told of what happened to a Pooler: ADDED, MODIFIED or DELETED, and what it is now."""


class Ears:
    """What was heard of Poolers, by kopf or by the watch that keeps them; whoever is first wakes.

    WHY both: kopf ends when the API server fails at the wrong moment, and is started anew; nothing is missed meanwhile.
    """

    def __init__(self, workers: Workers, switchovers: Switchovers) -> None:
        self._workers = workers
        self._switchovers = switchovers
        self._seen: dict[str, object] = {}
        self._is_leading = False

    def lead(self, watches: ObjectWatches[Key], namespaces: Sequence[str]) -> None:
        """One that stood by has heard nothing: from now on everything, and first of every Pooler that is there."""
        self._is_leading = True
        for place in namespaces or ("",):
            for body in watches.items(names.KIND, place) or ():
                self.pooler("ADDED", body)

    def pooler(self, kind: str, body: Mapping[str, Any]) -> None:
        if not self._is_leading:
            return
        metadata = body["metadata"]
        key, uid = _key(metadata, "name"), metadata["uid"]
        is_gone = kind == "DELETED"
        # What its annotations ask for does not wait for a pass.
        self._switchovers.saw_pooler(key, None if is_gone else metadata.get("annotations") or {})
        state = _what_counts(metadata)
        if not is_gone and self._seen.get(uid) == state:
            return  # Our own status, written a moment ago; or the other has been faster.
        if is_gone:
            self._seen.pop(uid, None)
        else:
            self._seen[uid] = state
        self._workers.wake(key, "the Pooler", known_only=is_gone)

    def other(self, key: Key, change: Change) -> None:
        """Whom a change wakes: who asked for the object by name, or whose it is."""
        metadata = change.object["metadata"]
        if change.what.kind == names.KIND:
            self.pooler(change.type, change.object)
            return
        if not change.what.name:
            owner = (metadata.get("labels") or {}).get(names.POOLER_LABEL)
            if owner is None:
                return
            key = metadata["namespace"], owner
        self._workers.wake(key, f"{change.what.kind} {metadata['name']}", known_only=True)


def registry(heard: Heard, access: Access) -> kopf.OperatorRegistry:
    """What wakes a Pooler: itself. (What belongs to it: `watch_children`; the Secrets of others: `settled`.)"""
    table = kopf.OperatorRegistry()

    @kopf.on.startup(registry=table)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)

    @kopf.on.login(registry=table)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await kopf_connection(access)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=table)
    async def pooler(event: Mapping[str, Any], **_: Any) -> None:
        heard(event["type"] or "ADDED", event["object"])

    return table


def watch_children(watches: ObjectWatches[Key], namespaces: Sequence[str]) -> None:
    """What belongs to Poolers, in every namespace that is looked after."""
    places = namespaces or ("",)
    labelled = [Named(kind, place, label=names.POOLER_LABEL) for kind in CHILD_KINDS for place in places]
    watches.want(("", ""), [*labelled, *(Named(kind, place) for kind in WHOLE_KINDS for place in places)])


def settled(watches: ObjectWatches[Key], workers: Workers, key: Key, outcome: Outcome) -> None:
    """After each pass: watch exactly the objects of others that concern this Pooler."""
    if outcome.gone:
        watches.forget(key)
        return
    # WHY: a watch of its own begins with what is there. One that another Pooler has tells of no change a second time, and
    # the pass may have read the object before the last one.
    for joined in watches.want(key, [Named(kind, key[0], name) for kind, name in outcome.watched]):
        is_known, found = watches.find(joined.kind, joined.namespace, joined.name)
        version = found["metadata"]["resourceVersion"] if found is not None else ""
        if not is_known or version != outcome.watched[joined.kind, joined.name]:
            workers.wake(key, f"{joined.kind} {joined.name}", known_only=True)


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


def _what_counts(metadata: Mapping[str, Any]) -> tuple[object, ...]:
    """Everything of a Pooler but its status."""
    finalizers = tuple(metadata.get("finalizers") or ())
    return metadata.get("generation"), metadata.get("deletionTimestamp"), finalizers


def _key(metadata: Mapping[str, Any], name: str) -> Key:
    return metadata["namespace"], metadata[name]
