"""File descriptors: how many there may be, and whether any is left.

A socket that cannot be accepted for want of a descriptor is closed by libuv without a word to anybody. So the process asks the
kernel for one, three times a second, and says so when there is none. `lifecycle` calls; nothing here ends a connection.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from typing import Final

log = logging.getLogger(__name__)

SILENCE: Final = 60.0  # seconds between two warnings
_NONE_LEFT: Final = (errno.EMFILE, errno.ENFILE)


class Descriptors:
    """How many there may be, and a watch for the want of them."""

    def __init__(self) -> None:
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.needed = 0  # as many as the configuration lets clients and servers be
        self.shortages = 0  # looks that found none
        self._silent_until = 0.0

    def look(self, now: float) -> None:
        """Is one to be had? (One system call to take it and one to give it back.)"""
        try:
            os.close(os.dup(0))
        except OSError as error:
            if error.errno in _NONE_LEFT:
                self._none_left(now)

    def _none_left(self, now: float) -> None:
        self.shortages += 1
        if now < self._silent_until:
            return
        self._silent_until = now + SILENCE
        log.warning(
            "no file descriptor is left (limit %d): new clients are turned away, and no server can be connected; raise the"
            " limit (LimitNOFILE, ulimit -n), or lower max_client_conn",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )

    def provide(self, max_clients: int, servers: int) -> None:
        """Raise the soft limit as far as this needs it and the hard one lets it, and say whether it is enough (PgBouncer's
        line). Asked again after a RELOAD, it speaks only when the need is another."""
        needed = max_clients + servers + 12
        if needed == self.needed:
            return
        self.needed = needed
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = needed + max_clients  # as many again may be there that have not said who they are (session/logins)
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        self.limit = soft
        text = "kernel file descriptor limit: %d (hard: %d); max_client_conn: %d, max expected fd use: %d"
        log.info(text, soft, hard, max_clients, needed)
        if soft < needed:
            log.warning("the file descriptor limit of %d is below the %d that max_client_conn asks for", soft, needed)
