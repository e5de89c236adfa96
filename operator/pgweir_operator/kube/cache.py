"""Reading without asking: what the watches have brought, and what was asked lately.

A pass over a Pooler reads some twenty objects. Most of them are watched, and known; the rest (a PodMonitor, a Cluster, what
does not exist) is asked, and an answer may serve again for as long as the caller allows. Where a watch is down, the API
server is asked as if there were none. Answers `get`, `items` and `knows` as a Kube does; never writes. Called by reconcile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from pgweir_operator.kube.api import RESOURCES, Kube, Object
from pgweir_operator.kube.watches import ObjectWatches

# Kinds of others, which most API servers do not have: whether they are there is asked once for all Poolers.
OPTIONAL: Final = frozenset({"PodMonitor", "Cluster", "EdbCluster"})
# Whether a kind is there is asked no more often than this, for all Poolers together.
KIND_SECONDS: Final = 10.0
# Answers are forgotten when nobody could want them any more.
FORGET_SECONDS: Final = 3600.0
MANY: Final = 10_000

_Question = tuple[str, str, str]


class Cache:
    """One for the whole process."""

    def __init__(self, kube: Kube, *watches: ObjectWatches[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._watches = watches
        self._clock = clock
        self._read: dict[_Question, tuple[float, Object | None]] = {}
        self._kinds: dict[tuple[str, str], tuple[float, bool]] = {}

    def no_older_than(self, seconds: float) -> Reader:
        """Of what is not watched: an answer may be so old. 0: it is asked now."""
        return Reader(self, seconds)

    async def get(self, kind: str, namespace: str, name: str, max_age: float) -> Object | None:
        question = kind, namespace, name
        for watches in self._watches:
            is_known, found = watches.find(*question)
            if is_known:
                # From here on what was asked before is the past, also for when the watch is down.
                self._read.pop(question, None)
                return found
            if watches.is_down(*question):
                max_age = 0.0
        asked, answer = self._read.get(question, (0.0, None))
        if question in self._read and self._clock() - asked < max_age:
            return answer
        if kind in OPTIONAL and not await self.knows(RESOURCES[kind].api_version, RESOURCES[kind].kind):
            return None
        answer = await self._kube.get(kind, namespace, name)
        self._remember(question, answer)
        return answer

    async def items(self, kind: str, namespace: str, labels: str | None) -> list[Object]:
        label, has_value, value = (labels or "").partition("=")
        for watches in self._watches:
            known = watches.items(kind, namespace, label, value if has_value else None)
            if known is not None:
                return known
        return await self._kube.items(kind, namespace, labels=labels)

    async def knows(self, api_version: str, kind: str) -> bool:
        asked, answer = self._kinds.get((api_version, kind), (0.0, False))
        if (api_version, kind) in self._kinds and self._clock() - asked < KIND_SECONDS:
            return answer
        answer = await self._kube.knows(api_version, kind)
        self._kinds[api_version, kind] = self._clock(), answer
        return answer

    def _remember(self, question: _Question, answer: Object | None) -> None:
        now = self._clock()
        if len(self._read) >= MANY:
            self._read = {key: row for key, row in self._read.items() if now - row[0] < FORGET_SECONDS}
        self._read[question] = now, answer


class Reader:
    """A Kube for those who only read."""

    def __init__(self, cache: Cache, max_age: float) -> None:
        self._cache = cache
        self._max_age = max_age

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return await self._cache.get(kind, namespace, name, self._max_age)

    async def items(self, kind: str, namespace: str, *, labels: str | None = None) -> list[Object]:
        return await self._cache.items(kind, namespace, labels)

    async def knows(self, api_version: str, kind: str) -> bool:
        return await self._cache.knows(api_version, kind)
