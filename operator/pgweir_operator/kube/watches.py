"""Watching objects by name, one watch each, or all that bear a label; and only while somebody asks for it.

WHY never all: a watch of all Secrets would take every password of a namespace through this process, and a list of them
is a right that nobody gives lightly. Called by handlers (Secrets) and switchover (Clusters).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from pgweir_operator.kube.api import Kube, Object
from pgweir_operator.kube.errors import ApiError

logger = logging.getLogger(__name__)

RECONNECT = 1.0
# Little, since a Cluster that is not watched announces nothing.
RECONNECT_MAXIMUM = 5.0

Watcher = TypeVar("Watcher", bound=Hashable)


class Named(NamedTuple):
    """An object, by the word for its kind in kube/api.py; or, without a name, each that bears a label."""

    kind: str
    namespace: str
    name: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """An event of a watch."""

    what: Named
    type: str
    object: Object = field(repr=False)


class ObjectWatches(Generic[Watcher]):
    """Who wants to hear of which object. `heard` is called with the watcher, once for every change."""

    def __init__(self, kube: Kube, heard: Callable[[Watcher, Change], None]) -> None:
        self._kube = kube
        self._heard = heard
        self._wanted: dict[Named, set[Watcher]] = {}
        self._tasks: dict[Named, asyncio.Task[None]] = {}

    def want(self, watcher: Watcher, wanted: Iterable[Named]) -> None:
        """From now on exactly these: watches that nobody wants any more end."""
        keys = set(wanted)
        for key in keys - self._tasks.keys():
            self._tasks[key] = asyncio.create_task(self._watch(key), name=f"watch of {' '.join(key)}")
        for key in keys:
            self._wanted.setdefault(key, set()).add(watcher)
        for key, watchers in list(self._wanted.items()):
            if key not in keys:
                watchers.discard(watcher)
            if not watchers:
                del self._wanted[key]
                self._tasks.pop(key).cancel()

    def is_watched(self, key: Named) -> bool:
        return key in self._wanted

    def forget(self, watcher: Watcher) -> None:
        self.want(watcher, ())

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._wanted.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, key: Named) -> None:
        versions: dict[str, str] = {}
        pause = RECONNECT
        while True:
            begun = time.monotonic()
            try:
                async for event in self._kube.changes(*key):
                    pause = RECONNECT
                    metadata = event["object"]["metadata"]
                    uid, seen = metadata.get("uid", ""), metadata["resourceVersion"]
                    # A watch without a version begins with what is there: no news after a reconnect.
                    if versions.get(uid) == seen:
                        continue
                    versions[uid] = seen
                    if event["type"] == "DELETED":
                        del versions[uid]
                    change = Change(key, event["type"], event["object"])
                    for watcher in tuple(self._wanted.get(key, ())):
                        self._heard(watcher, change)
                # The server ends every watch after a while: that is no trouble, and nothing is to be missed.
                wait = 0.0 if time.monotonic() - begun > RECONNECT else pause
            except ApiError as error:
                logger.warning("%s %s/%s%s cannot be watched: %s", *key, error.message)
                wait = pause = min(pause * 2, RECONNECT_MAXIMUM)
            except Exception:
                # A listener that stumbles, or an event of a shape that we do not know, must not make us deaf.
                logger.exception("%s %s/%s%s: the watch stumbled and begins anew", *key)
                wait = pause = min(pause * 2, RECONNECT_MAXIMUM)
            await asyncio.sleep(wait)
