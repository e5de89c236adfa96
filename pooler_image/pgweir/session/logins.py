"""Connections whose login is not over, and how many of them may say nothing.

A connection that has not sent its startup packet uses no client slot, so it must be bounded by something else: when too many are
silent, the oldest of them goes. `Pooler.accept` adds, a `ClientLogin` takes itself out, upkeep looks for those that are overdue.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pgweir.session.client_login import ClientLogin
    from pgweir.session.pooler import Pooler

log = logging.getLogger(__name__)

SILENT_AT_LEAST: Final = 100  # this many may be silent, however small max_client_conn is


class Logins:
    """A set of logins that knows which are silent."""

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._all: set[ClientLogin] = set()
        self._silent: dict[ClientLogin, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[ClientLogin]:
        return iter(self._all)

    def __contains__(self, login: object) -> bool:
        return login in self._all

    @property
    def started(self) -> int:
        """Those that have said who they are: they count as clients."""
        return len(self._all) - len(self._silent)

    def add(self, login: ClientLogin) -> None:
        self._all.add(login)
        self._silent[login] = None
        if len(self._silent) > max(SILENT_AT_LEAST, self._pooler.settings.max_client_conn):
            oldest = next(iter(self._silent))
            log.debug("%s closing because: too many connections have not said who they are", oldest.name())
            oldest.leave()

    def has_started(self, login: ClientLogin) -> None:
        """Its startup packet came."""
        self._silent.pop(login, None)

    def discard(self, login: ClientLogin) -> None:
        self._all.discard(login)
        self._silent.pop(login, None)
