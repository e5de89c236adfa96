"""Who is here: connections whose login is not over, clients that are in, and how many of each database and user.

A connection that has not sent its startup packet uses no client slot, so it must be bounded by something else: when too many
are silent, the oldest of them goes. `Pooler.accept` and `client_login` enter people, `client_login` and `client` take them
out, upkeep looks for those that are overdue, limits and console count.

PERF: every login and every goodbye passes here, hence compiled where that is possible (`pgweir.compiled`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pgweir.pool.records import ClientState
from pgweir.protocol.reasons import CloseReason
from pgweir.session.client import ClientSession

if TYPE_CHECKING:
    from pgweir.session.client_login import ClientLogin
    from pgweir.session.pooler import Pooler

log = logging.getLogger(__name__)

SILENT_AT_LEAST: Final = 100  # this many may be silent, however small max_client_conn is
_CLIENT_CLOSED: Final = ClientState.CLOSED


class Logins:
    """A set of logins that knows which are silent."""

    __slots__ = ("_all", "_pooler", "_silent")

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
        if len(self._silent) > SILENT_AT_LEAST and len(self._silent) > self._pooler.settings.max_client_conn:
            oldest = next(iter(self._silent))
            log.debug("%s closing because: too many connections have not said who they are", oldest.name())
            oldest.leave()

    def has_started(self, login: ClientLogin) -> None:
        """Its startup packet came."""
        self._silent.pop(login, None)

    def discard(self, login: ClientLogin) -> None:
        self._all.discard(login)
        self._silent.pop(login, None)


class Roster:
    """The clients that are in, and with `logins` the whole."""

    __slots__ = ("_pooler", "clients", "logins", "of_database", "of_user")

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self.logins = Logins(pooler)
        self.clients: set[ClientSession] = set()
        self.of_database: dict[str, int] = {}  # how many; those without one are not in it
        self.of_user: dict[str, int] = {}

    def count(self) -> int:
        """Connections that use a client slot."""
        return len(self.clients) + self.logins.started

    def entered(self, client: ClientSession) -> None:
        self.clients.add(client)
        self.of_database[client.database] = self.of_database.get(client.database, 0) + 1
        self.of_user[client.user] = self.of_user.get(client.user, 0) + 1
        client.pool.clients.add(client)
        client.pool.stats.client_login_count += 1

    def left(self, client: ClientSession, reason: CloseReason, message: str | None) -> None:
        """The client has left or was told to; its server is cleaned up or closed."""
        if client.state is _CLIENT_CLOSED:
            return
        pooler = self._pooler
        self.clients.discard(client)
        _one_less(self.of_database, client.database)
        _one_less(self.of_user, client.user)
        client.pool.forget_client(client)
        client.state = _CLIENT_CLOSED
        pooler.cancels.keys.remove(client.cancel_key)
        counts = pooler.closed_counts
        counts[reason] = counts.get(reason, 0) + 1
        server = client.server or client.linking
        if pooler.settings.log_disconnections:
            age = pooler.clock() - client.connected_at
            log.info(
                "%s closing because: %s (age=%ds)",
                client.name(),
                message or reason,
                age,
                extra=reason.fields(client_id=client.id, server_pid=server.pid if server is not None else None),
            )
        client.server = client.linking = None
        if server is not None and server.client is client:
            pooler.left_behind(server, client, reason)
        pooler.overflow.admit()


def _one_less(counts: dict[str, int], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
