"""One reconcile at a time per Pooler: a task for each, asleep until something wakes it or its time comes.

WHY not kopf's daemons: a daemon puts kopf's finalizer on every Pooler from its first second, and ours may stand only
after something was provisioned. Wakes that come during a pass are joined into one more pass. Called by handlers.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pgweir_operator.reconcile import RECHECK, Memory, Outcome

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name of a Pooler."""

# With many Poolers each is looked at less often, so that at rest the API server hears as little of 300 as of 60. Whatever
# happens wakes its Pooler all the same.
REST_EACH = 0.5
# Seen on a busy machine: 60 passes that all began at once left the Lease no time to be renewed.
AT_ONCE = 24
FIRST_RETRY = 1.0
LAST_RETRY = 60.0

Reconcile = Callable[[str, str, Memory], Awaitable[Outcome]]
Settled = Callable[[Key, Outcome], None]


@dataclass(slots=True)
class _Worker:
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    reasons: set[str] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class Workers:
    """`settled` is told the outcome of every pass. `rest`: a Pooler that is looked at so late has nothing on its way."""

    def __init__(self, reconcile: Reconcile, settled: Settled, *, rest: float = RECHECK) -> None:
        self._reconcile = reconcile
        self._rest = rest
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._settled = settled
        self._workers: dict[Key, _Worker] = {}
        self._closed = False
        self.passes = 0
        self.failures = 0

    def __len__(self) -> int:
        return len(self._workers)

    def wake(self, key: Key, reason: str, *, known_only: bool = False) -> None:
        """Look at this Pooler now. `known_only`: what woke it may be an orphan of a Pooler that never was."""
        worker = self._workers.get(key)
        if worker is None:
            if known_only or self._closed:
                return
            worker = self._workers[key] = _Worker()
            worker.task = asyncio.create_task(self._work(key, worker), name=f"reconcile {key[0]}/{key[1]}")
        worker.reasons.add(reason)
        worker.woken.set()

    async def close(self) -> None:
        """Stop them all; a pass that is under way is cut off, and the next leader takes it up from the world's state."""
        self._closed = True
        tasks = [worker.task for worker in self._workers.values() if worker.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _rested(self, again: float) -> float:
        """Only where nothing is on its way; spread, since all of them began together."""
        if again < self._rest:
            return again
        return max(again, len(self._workers) * REST_EACH) * random.uniform(0.9, 1.1)  # noqa: S311 (as above)

    async def _work(self, key: Key, worker: _Worker) -> None:
        memory = Memory()
        retry = FIRST_RETRY
        again = 0.0
        try:
            while True:
                try:
                    async with asyncio.timeout(again):
                        await worker.woken.wait()
                except TimeoutError:
                    worker.reasons.add("time")
                worker.woken.clear()
                reasons, worker.reasons = worker.reasons, set()
                logger.debug("%s/%s: looking, because of %s", *key, ", ".join(sorted(reasons)))
                try:
                    async with self._turns:
                        outcome = await self._reconcile(*key, memory)
                except Exception as error:
                    # The one place that catches everything: a Pooler that makes us stumble must not stop the others.
                    self.failures += 1
                    again = retry * random.uniform(0.8, 1.2)  # noqa: S311 (spreads retries, guards nothing)
                    retry = min(retry * 2, LAST_RETRY)
                    logger.exception("%s/%s: the pass failed (%s); next in %.1f s", *key, type(error).__name__, again)
                    continue
                self.passes += 1
                self._settled(key, outcome)
                if outcome.gone and not worker.woken.is_set():
                    return
                retry, again = FIRST_RETRY, self._rested(outcome.again)
        finally:
            self._workers.pop(key, None)
            await memory.close()
