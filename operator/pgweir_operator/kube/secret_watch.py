"""Watching named Secrets, one watch each, and only while somebody asks for it.

WHY by name: a watch of all Secrets would hold every password of a namespace in this process's memory, and would need
the right to list them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from pgweir_operator.kube.api import Kube
from pgweir_operator.kube.errors import ApiError

logger = logging.getLogger(__name__)

RECONNECT = 1.0
RECONNECT_MAXIMUM = 30.0

Watcher = TypeVar("Watcher", bound=Hashable)
_Key = tuple[str, str]


class SecretWatches(Generic[Watcher]):
    """Who wants to hear of which Secret. `heard` is called with the watcher, once for every change."""

    def __init__(self, kube: Kube, heard: Callable[[Watcher, str], None]) -> None:
        self._kube = kube
        self._heard = heard
        self._wanted: dict[_Key, set[Watcher]] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}

    def want(self, watcher: Watcher, namespace: str, names: Iterable[str]) -> None:
        """From now on exactly these: watches that nobody wants any more end."""
        wanted = {(namespace, name) for name in names}
        for key in wanted - self._tasks.keys():
            self._tasks[key] = asyncio.create_task(self._watch(key), name=f"watch of Secret {key[0]}/{key[1]}")
        for key in wanted:
            self._wanted.setdefault(key, set()).add(watcher)
        for key, watchers in list(self._wanted.items()):
            if key not in wanted:
                watchers.discard(watcher)
            if not watchers:
                del self._wanted[key]
                self._tasks.pop(key).cancel()

    def forget(self, watcher: Watcher) -> None:
        self.want(watcher, "", ())

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._wanted.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, key: _Key) -> None:
        namespace, name = key
        version: str | None = None
        pause = RECONNECT
        while True:
            try:
                async for event in self._kube.changes("Secret", namespace, name):
                    pause = RECONNECT
                    seen = event["object"]["metadata"]["resourceVersion"]
                    # A watch without a version begins with what is there: no news after a reconnect.
                    if seen == version:
                        continue
                    version = seen
                    for watcher in tuple(self._wanted.get(key, ())):
                        self._heard(watcher, f"Secret {name}")
            except ApiError as error:
                logger.warning("Secret %s/%s cannot be watched: %s", namespace, name, error.message)
                pause = min(pause * 2, RECONNECT_MAXIMUM)
            await asyncio.sleep(pause)
