"""What would hold up the loop runs here, in threads: PBKDF2, and questions to an LDAP directory.

Two rooms, so that a directory that is slow never delays a password. Each is bounded: in threads, and in how much may wait.
The edge owns one of these; answers come back on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from pgweir.ldap import LdapFailed, LdapOptions, LdapOutcome

log = logging.getLogger(__name__)

DIRECTORY_THREADS: Final = 8
LINGER: Final = 1.0  # seconds that a thread waits for more
DIRECTORY_QUEUE: Final = 256  # logins that may wait for a directory; one more is told that it cannot be asked


class _Room:
    """Threads, while there is work for them and for LINGER after it.

    PERF: as long as there is no other thread, the loop waits without giving the interpreter's lock away and asking for it
    again, which is a tenth of what a transaction takes in the pooler's own code (`calls.wait`).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int, name: str) -> None:
        self._loop = loop
        self._size = threads
        self._name = name
        self._threads: ThreadPoolExecutor | None = None
        self._at_work = 0
        self._rest: asyncio.TimerHandle | None = None

    def begin(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """`ended` follows, on the loop."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, thread_name_prefix=self._name)
        self._at_work += 1
        return self._threads.submit(work, *arguments)

    def ended(self) -> None:
        self._at_work -= 1
        if not self._at_work and self._threads is not None:
            self._rest = self._loop.call_later(LINGER, self.close)

    def close(self) -> None:
        """What is under way is left to end by itself; its result is wanted by nobody."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


class Workers:
    """The two rooms; no thread is started before it is needed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # OpenSSL lets go of the interpreter's lock while it computes: half the processors leave the loop its own.
        threads = max(1, min(4, len(os.sched_getaffinity(0)) // 2))
        self._computing = _Room(self._loop, threads, "pbkdf2")
        self._asking = _Room(self._loop, DIRECTORY_THREADS, "ldap")
        self._asked = 0

    def compute(self, run: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run it, then call `done` with its result, on the loop."""
        future = self._computing.begin(run)
        future.add_done_callback(lambda future: self._hand_back(self._computing, future, done))

    def ask_ldap(
        self, options: LdapOptions, user: str, password: str, timeout: float, done: Callable[[LdapOutcome], None]
    ) -> None:
        if self._asked >= DIRECTORY_QUEUE:
            done(LdapFailed(f"{self._asked} logins wait for it already"))
            return
        self._asked += 1

        def answered(outcome: LdapOutcome) -> None:
            self._asked -= 1
            done(outcome)

        future = self._asking.begin(_ask, options, user, password, timeout)
        future.add_done_callback(lambda future: self._hand_back(self._asking, future, answered))

    def close(self) -> None:
        self._computing.close()
        self._asking.close()

    def _hand_back(self, room: _Room, future: Future[Any], done: Callable[[Any], None]) -> None:
        """Called in the thread that did the work (or by `close`)."""
        if not future.cancelled() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, room, future, done)


def _ask(options: LdapOptions, user: str, password: str, timeout: float) -> LdapOutcome:
    # The library takes a tenth of a second and some megabytes: only those pay who have a directory.
    from pgweir.net import directory

    return directory.ask(options, user, password, timeout)


def _deliver(room: _Room, future: Future[Any], done: Callable[[Any], None]) -> None:
    room.ended()
    error = future.exception()
    if error is not None:
        # Whoever waits is ended by client_login_timeout or server_connect_timeout.
        log.error("work for a login failed", exc_info=error)
        return
    done(future.result())
