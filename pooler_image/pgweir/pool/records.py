"""What the ledger knows about a connection. `session` builds its connections on these, so no second book is kept."""

from __future__ import annotations

from enum import Enum
from itertools import count
from typing import Final

connection_ids = count(1)  # one counter for clients and servers, never reused (SHOW CLIENTS/SERVERS `id`)


class ServerState(Enum):
    """A server connection's place in its pool; the values are SHOW SERVERS' words."""

    LOGIN = "new"
    IDLE = "idle"
    ACTIVE = "active"
    USED = "used"  # idle for longer than server_check_delay: to be checked before use
    TESTED = "tested"  # running the reset query or the check query
    BEING_CANCELED = "being_canceled"  # released, but a cancel for its last client may still be under way
    CLOSED = "closed"


class ClientState(Enum):
    """A client connection's place in its pool; the values are SHOW CLIENTS' words."""

    LOGIN = "login"
    WAITING_LOGIN = "waiting_login"  # proved itself; waits for the pool's first server login
    IDLE = "idle"  # logged in, holds no server
    WAITING = "waiting"
    ACTIVE = "active"
    CLOSED = "closed"


_CLIENT_LOGIN: Final = ClientState.LOGIN  # PERF: a member of an enumeration costs a look-up in its class


class ServerRecord:
    """The bookkeeping part of a server connection. Times are seconds of the monotonic clock."""

    __slots__ = (
        "checked_at",
        "close_needed",
        "connected_at",
        "id",
        "in_transaction",
        "opened_for_client",
        "own_query",
        "query_open",
        "query_started",
        "released_at",
        "requested_at",
        "settled_at",
        "state",
        "transaction_started",
    )

    def __init__(self, now: float) -> None:
        self.id = next(connection_ids)
        self.state = ServerState.LOGIN
        self.connected_at = now
        self.opened_for_client = False  # not to keep min_pool_size
        self.requested_at = 0.0  # last time it was given to a client; 0: never yet
        self.released_at = now  # last time it was given back
        self.checked_at = now  # last time it was known to answer
        self.close_needed = False
        self.own_query = False  # runs a query of the pooler's: a reset, a check, a client's variables
        # While a client holds it:
        self.query_open = False  # something was sent that is not answered yet
        self.query_started = 0.0
        self.in_transaction = False  # the last ReadyForQuery said T or E
        self.transaction_started = 0.0  # 0: none
        self.settled_at = 0.0  # last time an answer was complete


class ClientRecord:
    """The bookkeeping part of a client connection. Times are seconds of the monotonic clock."""

    __slots__ = ("connected_at", "id", "notified", "requested_at", "state", "waiting_since")

    def __init__(self, now: float) -> None:
        self._begin_record(now)

    def _begin_record(self, now: float) -> None:
        """What `__init__` does. PERF: for those who inherit: `super` makes an object, and looks a name up in it."""
        self.id = next(connection_ids)
        self.state = _CLIENT_LOGIN
        self.connected_at = now
        self.requested_at = now  # last time it asked for a server
        self.waiting_since = 0.0  # 0: not waiting
        self.notified = False  # got the notice that it is queued
