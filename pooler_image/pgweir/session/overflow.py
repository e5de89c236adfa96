"""Clients beyond max_client_conn: refused, or kept waiting for a place in the order of their arrival.

`client_login` asks as soon as a client has said what it wants (cancels and the console never come here); whoever sees a
client go calls `admit`. The texts are those that people know from PgBouncer, pgpool and PostgreSQL.

PERF: compiled where that is possible (`pgweir.compiled`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pgweir.protocol.errors import TOO_MANY_CONNECTIONS, ClientError, client_error
from pgweir.session.roster import Roster
from pgweir.session.wire import Origin

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler


class Candidate(Protocol):
    """A login, as far as this room and SHOW WAITERS know it."""

    user: str
    database_name: str
    origin: Origin

    def admitted(self) -> None: ...

    def refuse(self, error: ClientError, /) -> None: ...


class Overflow:
    """The queue in front of the door (client_overflow = wait)."""

    __slots__ = ("_admitting", "_pooler", "_roster", "waiting")

    def __init__(self, pooler: Pooler, roster: Roster) -> None:
        self._pooler = pooler
        self._roster = roster
        self.waiting: dict[Candidate, float] = {}  # since when, in the order of arrival
        self._admitting = False

    @property
    def limit(self) -> int:
        settings = self._pooler.settings
        return settings.max_client_conn - settings.reserved_connections

    @property
    def served(self) -> int:
        """Connections that have a place; one that has not said yet what it wants counts too, as in PgBouncer."""
        return self._roster.count() - len(self.waiting)

    def admits(self, login: Candidate) -> bool:
        """Whether there is a place for this login. False: it waits, `admitted` is called in its turn. Raises ClientError."""
        settings = self._pooler.settings
        if not self.waiting and self._roster.count() <= settings.max_client_conn - settings.reserved_connections:
            return True
        if settings.reserved_connections:
            kept = f"and reserved_connections = {settings.reserved_connections} are kept free"
            raise self._refusal("Sorry, too many clients already", kept)
        if settings.client_overflow != "wait":
            raise client_error("no more connections allowed (max_client_conn)", stage="limits")
        if len(self.waiting) >= settings.listen_backlog:
            raise self._refusal(
                "no free child processes", f"and {len(self.waiting)} more clients wait (listen_backlog)"
            )
        self.waiting[login] = self._pooler.clock()
        self.admit()
        return False

    def leave(self, login: Candidate) -> None:
        """It has gone, from the queue or from a place that the next may have."""
        self.waiting.pop(login, None)
        self.admit()

    def admit(self) -> None:
        """Let in whom there is a place for (and, when the pooler shuts down, everybody: to be told)."""
        if not self.waiting or self._admitting:  # one who was let in has left at once: the loop below sees that
            return
        self._admitting = True
        try:
            while self.waiting and (self.served < self.limit or not self._pooler.accepting):
                login = next(iter(self.waiting))
                del self.waiting[login]
                login.admitted()
        finally:
            self._admitting = False

    def tick(self, now: float) -> None:
        """Three times a second: a limit may have been raised, and nobody waits beyond query_wait_timeout."""
        timeout = self._pooler.settings.query_wait_timeout
        for login, since in list(self.waiting.items()):
            if not timeout or now - since <= timeout:
                break  # they stand in the order of their arrival
            if self.waiting.pop(login, None) is not None:  # it may have come in when one before it left
                login.refuse(self._refusal("query_wait_timeout", "and none has become free"))
        self.admit()

    def _refusal(self, message: str, why: str) -> ClientError:
        """The hint has the numbers that somebody needs who wants to change one of them."""
        settings = self._pooler.settings
        hint = (
            f"All {self.limit} places are taken (max_client_conn = {settings.max_client_conn}; pgpool: num_init_children),"
            f" {why}; raise max_client_conn, add instances, or close connections that nobody needs."
        )
        return ClientError(TOO_MANY_CONNECTIONS, message, hint=hint, stage="limits")
