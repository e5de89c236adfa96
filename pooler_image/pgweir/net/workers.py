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
DIRECTORY_QUEUE: Final = 256  # logins that may wait for a directory; one more is told that it cannot be asked


class Workers:
    """Threads that live as long as the process; none is started before it is needed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # OpenSSL lets go of the interpreter's lock while it computes: half the processors leave the loop its own.
        threads = max(1, min(4, len(os.sched_getaffinity(0)) // 2))
        self._computing = ThreadPoolExecutor(threads, thread_name_prefix="pbkdf2")
        self._asking = ThreadPoolExecutor(DIRECTORY_THREADS, thread_name_prefix="ldap")
        self._asked = 0

    def compute(self, run: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run it, then call `done` with its result, on the loop."""
        self._computing.submit(run).add_done_callback(lambda future: self._hand_back(future, done))

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

        future = self._asking.submit(_ask, options, user, password, timeout)
        future.add_done_callback(lambda future: self._hand_back(future, answered))

    def close(self) -> None:
        """What is under way is left to end by itself; its result is wanted by nobody."""
        self._computing.shutdown(wait=False, cancel_futures=True)
        self._asking.shutdown(wait=False, cancel_futures=True)

    def _hand_back(self, future: Future[Any], done: Callable[[Any], None]) -> None:
        """Called in the thread that did the work (or by `close`)."""
        if not future.cancelled() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, future, done)


def _ask(options: LdapOptions, user: str, password: str, timeout: float) -> LdapOutcome:
    # The library takes a tenth of a second and some megabytes: only those pay who have a directory.
    from pgweir.net import directory

    return directory.ask(options, user, password, timeout)


def _deliver(future: Future[Any], done: Callable[[Any], None]) -> None:
    error = future.exception()
    if error is not None:
        # Whoever waits is ended by client_login_timeout or server_connect_timeout.
        log.error("work for a login failed", exc_info=error)
        return
    done(future.result())
