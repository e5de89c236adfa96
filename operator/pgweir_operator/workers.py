"""One reconcile at a time per Pooler: a task for each, asleep until something wakes it or its time comes.

WHY not kopf's daemons: a daemon puts kopf's finalizer on every Pooler from its first second, and ours may stand only
after something was provisioned. Wakes that come during a pass are joined into one more pass. Called by handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from pgweir_operator.kube import ApiError
from pgweir_operator.metrics import Metrics
from pgweir_operator.passes import RECHECK, Memory, Outcome

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

# Why a Pooler is looked at where nothing has happened.
BY_TIME = "time"

Reconcile = Callable[[str, str, Memory], Awaitable[Outcome]]
Settled = Callable[[Key, Outcome], None]


@dataclass(slots=True, eq=False)
class _Worker:
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    reasons: set[str] = field(default_factory=set)
    task: asyncio.Task[None] | None = None
    is_at_work: bool = False
    ready: tuple[str, str] = ("Unknown", "NotLookedAt")
    """Status and reason of the condition Ready, as the last pass left it."""
    is_expiring: bool = False


class _Turns:
    """So many passes at once. WHY not a semaphore: passes over Poolers whose target does not answer wait for that, and
    come back again and again; whom something has woken goes before those whose time has come."""

    def __init__(self, many: int) -> None:
        self._free = many
        self._waiting: dict[_Worker, asyncio.Future[None]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, worker: _Worker) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            given = self._waiting[worker] = asyncio.get_running_loop().create_future()
            try:
                await given
            except asyncio.CancelledError:
                if self._waiting.pop(worker, None) is None:
                    self._pass_on()  # It was given in the same moment.
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        # One that has been stopped is still here until it has heard of it.
        waiting = [worker for worker, given in self._waiting.items() if not given.cancelled()]
        woken = (worker for worker in waiting if worker.reasons != {BY_TIME})
        chosen = next(woken, next(iter(waiting), None))
        if chosen is None:
            self._free += 1
        else:
            self._waiting.pop(chosen).set_result(None)


class Workers:
    """`settled` is told the outcome of every pass. `rest`: a Pooler that is looked at so late has nothing on its way."""

    def __init__(
        self, reconcile: Reconcile, settled: Settled, *, rest: float = RECHECK, metrics: Metrics | None = None
    ) -> None:
        self._reconcile = reconcile
        self._metrics = metrics or Metrics()
        self._rest = rest
        self._turns = _Turns(AT_ONCE)
        self._settled = settled
        self._workers: dict[Key, _Worker] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._workers)

    def by_readiness(self) -> Counter[tuple[str, ...]]:
        """How many Poolers there are of each status and reason of the condition Ready."""
        return Counter(worker.ready for worker in self._workers.values())

    def backlog(self) -> int:
        """Poolers that were woken and wait for their turn."""
        return sum(worker.woken.is_set() and not worker.is_at_work for worker in self._workers.values())

    def expiring(self) -> int:
        """Poolers with a certificate that is about to expire, as their last pass found it."""
        return sum(worker.is_expiring for worker in self._workers.values())

    def are_alive(self) -> bool:
        """Each Pooler has somebody who looks after it."""
        return not any(worker.task is not None and worker.task.done() for worker in self._workers.values())

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

    def _rested(self, again: float, *, for_the_first_time: bool) -> float:
        """Only where nothing is on its way; spread, since all of them began together."""
        if again < self._rest:
            return again
        least = 0.3 if for_the_first_time else 0.9
        return max(again, len(self._workers) * REST_EACH) * random.uniform(least, 1.1)  # noqa: S311 (as above)

    async def _work(self, key: Key, worker: _Worker) -> None:
        memory = Memory()
        retry = FIRST_RETRY
        again = 0.0
        settled = False
        try:
            while True:
                try:
                    async with asyncio.timeout(again):
                        await worker.woken.wait()
                except TimeoutError:
                    worker.reasons.add(BY_TIME)
                try:
                    async with self._turns.turn(worker):
                        # What woke us while we waited for the turn is seen in this pass, too.
                        worker.woken.clear()
                        reasons, worker.reasons = worker.reasons, set()
                        was_settled = settled
                        memory.at_rest = was_settled and reasons == {BY_TIME}
                        logger.debug("%s/%s: looking, because of %s", *key, ", ".join(sorted(reasons)))
                        settled = False
                        worker.is_at_work = True
                        with self._metrics.timed(self._metrics.pass_seconds):
                            outcome = await self._reconcile(*key, memory)
                except ApiError as error:
                    self._metrics.passes.labels("failed").inc()
                    again = retry * random.uniform(0.8, 1.2)  # noqa: S311 (as below)
                    retry = min(retry * 2, LAST_RETRY)
                    logger.warning("%s/%s cannot be looked at: %s; next in %.1f s", *key, error.message, again)
                    continue
                except Exception as error:
                    # The one place that catches everything: a Pooler that makes us stumble must not stop the others.
                    self._metrics.passes.labels("failed").inc()
                    again = retry * random.uniform(0.8, 1.2)  # noqa: S311 (spreads retries, guards nothing)
                    retry = min(retry * 2, LAST_RETRY)
                    logger.exception("%s/%s: the pass failed (%s); next in %.1f s", *key, type(error).__name__, again)
                    continue
                finally:
                    worker.is_at_work = False
                self._metrics.passes.labels(outcome.result).inc()
                worker.ready, worker.is_expiring = outcome.ready, outcome.is_expiring
                self._settled(key, outcome)
                if outcome.gone and not worker.woken.is_set():
                    return
                retry, settled = FIRST_RETRY, outcome.settled
                again = self._rested(outcome.again, for_the_first_time=not was_settled)
        finally:
            self._workers.pop(key, None)
            await memory.close()
