"""kopf, in a thread with an event loop of its own.

WHY not in ours: kopf takes every task that began while it ran for its own, and cancels them all when it ends. It ends where the
API server fails while it looks around; a Pooler that had come since would have lost who looks after it, and nobody would
have known. It takes no signals in a thread, either: those are ours, since we have a Lease to hand on. Called by main.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from pgweir_operator import handlers
from pgweir_operator.kube.connection import Access

logger = logging.getLogger("pgweir_operator")

RETRY = 1.0
# kopf takes seconds to end; nothing of ours waits for it any longer than this.
FAREWELL = 10.0

_NO_SIGNALS = "OS signals are ignored"


async def watch_poolers(access: Access, namespaces: Sequence[str], heard: handlers.Heard) -> None:
    """Until cancelled. `heard` is called in this loop, in the order of the events. WHY again and again: see above."""
    logging.getLogger("kopf._core.reactor.running").addFilter(_is_worth_saying)
    here = asyncio.get_running_loop()
    while True:
        thread = _Thread(access, namespaces, lambda kind, body: here.call_soon_threadsafe(heard, kind, body))
        try:
            await asyncio.wait({thread.ended})
        except asyncio.CancelledError:
            thread.end()
            await asyncio.wait({thread.ended}, timeout=FAREWELL)
            raise
        ended = thread.ended.result()
        logger.warning("kopf watches no Poolers any more, and begins anew: %s", ended or type(ended).__name__)
        await asyncio.sleep(RETRY)


class _Thread:
    """One life of kopf's. `ended`: with what (None: it just did)."""

    def __init__(
        self, access: Access, namespaces: Sequence[str], heard: Callable[[str, Mapping[str, Any]], object]
    ) -> None:
        self._access = access
        self._namespaces = namespaces
        self._heard = heard
        self._home = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self.ended: asyncio.Future[BaseException | None] = self._home.create_future()
        self._thread.start()

    def end(self) -> None:
        """It begins to."""
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            pass  # its loop is closed already

    def _cancel(self) -> None:
        self._is_ending = True
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        ended: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._operate())
        except BaseException as error:  # whatever it was: nobody else hears of it in a thread
            ended = error
        try:
            self._home.call_soon_threadsafe(self._tell, ended)
        except RuntimeError:
            pass  # nobody is there any more

    async def _operate(self) -> None:
        self._task = asyncio.current_task()
        if self._is_ending:
            return
        await kopf.operator(
            registry=handlers.registry(self._heard, self._access),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )

    def _tell(self, ended: BaseException | None) -> None:
        if not self.ended.done():
            self.ended.set_result(ended)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NO_SIGNALS)
