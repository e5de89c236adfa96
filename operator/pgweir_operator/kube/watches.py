"""Watching objects by name, one watch each, or all of a kind (that bear a label); and keeping what the watches brought.

WHY never all Secrets: that would take every password of a namespace through this process, and a list of them is a right
that nobody gives lightly. What is kept is kept as text: a tenth of the memory that dictionaries take, and whoever asks
gets a copy of his own. Called by handlers, switchover (Clusters) and cache.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pgweir_operator.kube.api import RESOURCES, Kube, Object
from pgweir_operator.kube.errors import ApiError

logger = logging.getLogger(__name__)

RECONNECT = 1.0
# Little, since a Cluster that is not watched announces nothing.
RECONNECT_MAXIMUM = 5.0
# Kinds that may not be listed: a watch of them begins with what is there, and is known to be whole at the first bookmark.
NEVER_LISTED: Final = frozenset({"Secret"})
GONE: Final = 410
# After so many failures in a row a watch begins anew, whatever the API server says: its history may be another one.
LAST_TRY: Final = 5
# What moves with every write, whoever writes; and what stands in a list is said without its kind.
_OF_NOBODY: Final = frozenset({"resourceVersion", "generation", "managedFields", "apiVersion", "kind"})

Watcher = TypeVar("Watcher", bound=Hashable)
Place = tuple[str, str]
"""Namespace and name."""


class Named(NamedTuple):
    """An object, by the word for its kind in kube/api.py; without a name, each that bears a label; without one, all."""

    kind: str
    namespace: str
    name: str = ""
    label: str = ""

    def __str__(self) -> str:
        which = self.name or (f"those with the label {self.label}" if self.label else "all")
        return f"{self.kind} {self.namespace or '*'}/{which}"


@dataclass(frozen=True, slots=True)
class Change:
    """An event of a watch."""

    what: Named
    type: str
    object: Object = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    version: str
    uid: str
    label: str
    """The value of the label that the watch asks for."""
    text: bytes = field(repr=False)

    def object(self) -> Object:
        found: Object = json.loads(self.text)
        return found


@dataclass(slots=True)
class _Watch:
    """What one watch has brought. `version`: where it goes on; empty: it begins anew. `seen`: the newest that it brought."""

    key: Named
    task: asyncio.Task[None] | None = None
    kept: dict[Place, _Kept] = field(default_factory=dict)
    unconfirmed: dict[Place, _Kept] = field(default_factory=dict)
    """What was there before a new beginning, until it is known whether it still is."""
    version: str = ""
    seen: str = ""
    is_open: bool = False
    is_whole: bool = False
    """Everything there was has come."""

    @property
    def is_listed(self) -> bool:
        return not self.key.name and self.key.kind not in NEVER_LISTED

    def saw(self, version: str) -> None:
        if not self.seen or _is_newer(version, self.seen):
            self.seen = version


class ObjectWatches(Generic[Watcher]):
    """Who wants to hear of which object. `heard` is called with the watcher, once for every change that is news: what is
    already kept in this version (a reconnect) is none, and of a write of our own only what others changed before it."""

    def __init__(self, kube: Kube, heard: Callable[[Watcher, Change], None]) -> None:
        self._kube = kube
        self._heard = heard
        self._wanted: dict[Named, set[Watcher]] = {}
        self._watches: dict[Named, _Watch] = {}
        self._wide: dict[Named, _Watch] = {}
        """Those of them that are not of one object."""

    def want(self, watcher: Watcher, wanted: Iterable[Named]) -> list[Named]:
        """From now on exactly these: watches that nobody wants any more end. Answers with those that others wanted before:
        what they have brought is told to nobody once more."""
        keys = set(wanted)
        joined = [key for key in keys & self._watches.keys() if watcher not in self._wanted[key]]
        for key in keys - self._watches.keys():
            watch = self._watches[key] = _Watch(key)
            watch.task = asyncio.create_task(self._work(watch), name=f"watch of {key}")
            if not key.name:
                self._wide[key] = watch
        for key in keys:
            self._wanted.setdefault(key, set()).add(watcher)
        for key, watchers in list(self._wanted.items()):
            if key not in keys:
                watchers.discard(watcher)
            if not watchers:
                del self._wanted[key]
                self._wide.pop(key, None)
                _cancel(self._watches.pop(key))
        return joined

    def is_watched(self, key: Named) -> bool:
        return key in self._wanted

    def forget(self, watcher: Watcher) -> None:
        self.want(watcher, ())

    async def close(self) -> None:
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        self._watches.clear()
        self._wide.clear()
        self._wanted.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what is known -----------------------------------------------------------------------------------------------

    def are_whole(self) -> bool:
        """Whether all that list what they watch have it."""
        return all(watch.is_whole for watch in self._watches.values() if watch.is_listed)

    def are_alive(self) -> bool:
        return not any(watch.task is not None and watch.task.done() for watch in self._watches.values())

    def find(self, kind: str, namespace: str, name: str) -> tuple[bool, Object | None]:
        """Whether it is known, and what: None where it is known not to exist."""
        absent = False
        for watch in self._covering(kind, namespace, name):
            if not watch.is_open:
                continue
            if (kept := watch.kept.get((namespace, name))) is not None:
                return True, kept.object()
            # What does not bear the label may be there all the same.
            absent = absent or (watch.is_whole and not watch.key.label)
        return absent, None

    def is_down(self, kind: str, namespace: str, name: str) -> bool:
        """Whether something is watched that is not heard of just now."""
        return any(not watch.is_open for watch in self._covering(kind, namespace, name))

    def items(self, kind: str, namespace: str, label: str = "", value: str | None = None) -> list[Object] | None:
        """All of a kind that bear a label (of this value); None where that is not known."""
        for key in (Named(kind, namespace, label=label), Named(kind, "", label=label)):
            watch = self._watches.get(key)
            if watch is not None and watch.is_open and watch.is_whole:
                return [
                    kept.object()
                    for (place, _), kept in watch.kept.items()
                    if namespace in {"", place} and value in {None, kept.label}
                ]
        return None

    def answered(self, document: Object, written: Mapping[str, Any]) -> None:
        """What the API server said to a write of ours is known at once, and no news when the watch brings it.

        WHY what we have written is looked at: the answer may hold what somebody else has written a moment before, and the
        watch brings that too late to be news. It is told now.
        """
        if document.get("kind") == "Status":
            uid = (document.get("details") or {}).get("uid")
            for watch in self._watches.values() if uid else ():
                for place in [place for place, kept in watch.kept.items() if kept.uid == uid]:
                    del watch.kept[place]
            return
        metadata = document.get("metadata") or {}
        kind, place = document.get("kind"), (metadata.get("namespace") or "", metadata.get("name") or "")
        version = metadata.get("resourceVersion")
        if not (kind and place[1] and version):
            return
        for watch in self._covering(kind, *place):
            before = watch.kept.get(place) or watch.unconfirmed.get(place)
            if watch.key.label and watch.key.label not in (metadata.get("labels") or {}):
                continue
            # What the watch has brought since is newer, and may be that the object is gone.
            if any(than and not _is_newer(version, than) for than in (watch.seen, before.version if before else "")):
                continue
            watch.unconfirmed.pop(place, None)
            watch.kept[place] = _kept(watch.key, document)
            if before is not None and _has_others_changes(before.object(), document, written):
                self._tell(Change(watch.key, "MODIFIED", document))

    def _covering(self, kind: str, namespace: str, name: str) -> Iterator[_Watch]:
        if (named := self._watches.get(Named(kind, namespace, name))) is not None:
            yield named
        for key, watch in self._wide.items():
            if key.kind == kind and key.namespace in {"", namespace}:
                yield watch

    # --- one watch ---------------------------------------------------------------------------------------------------

    async def _work(self, watch: _Watch) -> None:
        pause = RECONNECT
        trouble, failures = "", 0
        while True:
            begun = time.monotonic()
            try:
                if not watch.version:
                    await self._begin(watch)
                async for event in self._kube.changes(*watch.key, since=watch.version):
                    watch.is_open = True
                    pause, failures = RECONNECT, 0
                    if trouble:
                        logger.info("%s: watched again", watch.key)
                        trouble = ""
                    self._take(watch, event)
                # The server ends every watch after a while: that is no trouble, and nothing is to be missed.
                wait = 0.0 if time.monotonic() - begun > RECONNECT else pause
            except ApiError as error:
                failures += 1
                # Where it was cannot be gone back to (any more).
                if not error.may_pass or failures == LAST_TRY:
                    watch.version = ""
                if error.status != GONE and error.message != trouble:
                    logger.warning("%s cannot be watched: %s", watch.key, error.message)
                    trouble = error.message
                wait = pause = min(pause * 2, RECONNECT_MAXIMUM)
            except Exception:
                # A listener that stumbles, or an event of a shape that we do not know, must not make us deaf.
                logger.exception("%s: the watch stumbled and begins anew", watch.key)
                watch.version = ""
                wait = pause = min(pause * 2, RECONNECT_MAXIMUM)
            watch.is_open = False
            await asyncio.sleep(wait)

    async def _begin(self, watch: _Watch) -> None:
        """Anew: from what is there."""
        watch.unconfirmed |= watch.kept
        watch.kept = {}
        watch.is_whole = False
        watch.seen = ""
        if not watch.is_listed:
            return
        key = watch.key
        found, version = await self._kube.listed(key.kind, key.namespace, labels=key.label or None)
        # What a write of ours was answered with meanwhile stands in the list if it is older, unless it is gone.
        for place in [place for place, kept in watch.kept.items() if not _is_newer(kept.version, version)]:
            watch.unconfirmed[place] = watch.kept.pop(place)
        resource = RESOURCES[key.kind]
        for item in found:
            # What stands in a list does not say what it is.
            self._put(watch, "ADDED", {"apiVersion": resource.api_version, "kind": resource.kind, **item})
        self._whole(watch)
        watch.version = watch.seen = version

    def _take(self, watch: _Watch, event: Mapping[str, Any]) -> None:
        if event["type"] == "OPENED":
            return
        version = event["object"]["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK":
            if not watch.is_whole:
                self._whole(watch)
        else:
            self._put(watch, event["type"], event["object"])
        watch.saw(version)
        # WHY not before it is whole: until then the versions are those of the objects, in no order.
        if watch.is_whole:
            watch.version = version

    def _put(self, watch: _Watch, kind: str, found: Object) -> None:
        metadata = found["metadata"]
        place = metadata.get("namespace") or "", metadata.get("name") or ""
        version = metadata["resourceVersion"]
        before, answered = watch.unconfirmed.pop(place, None), watch.kept.get(place)
        if kind == "DELETED":
            if answered is not None and answered.uid != metadata.get("uid") and _is_newer(answered.version, version):
                return  # Made anew meanwhile, by us.
            watch.kept.pop(place, None)
        else:
            if answered is not None and answered.version != version and not _is_newer(version, answered.version):
                return  # Older than what a write of ours was answered with, which held it.
            watch.kept[place] = _kept(watch.key, found)
            if version in {kept.version for kept in (before, answered) if kept is not None}:
                return
        self._tell(Change(watch.key, kind, found))

    def _whole(self, watch: _Watch) -> None:
        """What has not come again is gone."""
        watch.is_whole = True
        gone, watch.unconfirmed = watch.unconfirmed, {}
        for kept in gone.values():
            self._tell(Change(watch.key, "DELETED", kept.object()))

    def _tell(self, change: Change) -> None:
        for watcher in tuple(self._wanted.get(change.what, ())):
            self._heard(watcher, change)


def _cancel(watch: _Watch) -> None:
    if watch.task is not None:
        watch.task.cancel()


def _kept(key: Named, found: Object) -> _Kept:
    metadata = {name: value for name, value in found["metadata"].items() if name != "managedFields"}
    return _Kept(
        version=metadata["resourceVersion"],
        uid=metadata.get("uid") or "",
        label=(metadata.get("labels") or {}).get(key.label, "") if key.label else "",
        text=json.dumps({**found, "metadata": metadata}, separators=(",", ":")).encode(),
    )


def _is_newer(version: str, than: str) -> bool:
    """SPEC: resource versions of one API server are whole numbers that grow (Kubernetes' API concepts)."""
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return version != than


def _has_others_changes(before: Mapping[str, Any], now: Mapping[str, Any], written: Mapping[str, Any]) -> bool:
    """Whether anything differs that we have not written. (Lists are ours or others' as a whole.)"""
    for key in (before.keys() | now.keys()) - _OF_NOBODY:
        old, new, ours = before.get(key), now.get(key), written.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if (key not in written or isinstance(ours, Mapping)) and _has_others_changes(old, new, ours or {}):
                return True
        elif key not in written:
            return True
    return False
