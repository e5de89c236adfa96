"""The part of a pool's book that every transaction and every login touches: a client takes a server, or queues; a server is
put back; a client comes in on the greeting of a server that was there, and goes.

`ledger.Pool` is the whole book and is built on this. PERF: compiled where that is possible (`pgweir.compiled`), which is why it
stands by itself.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from pgweir.pool.policy import PoolPolicy
from pgweir.pool.records import ClientRecord, ClientState, ServerRecord, ServerState
from pgweir.pool.stats import Stats
from pgweir.protocol.variables import Values

# PERF: a member of an enumeration costs a look-up in its class each time.
_SERVER_ACTIVE: Final = ServerState.ACTIVE
_SERVER_IDLE: Final = ServerState.IDLE
_CLIENT_ACTIVE: Final = ClientState.ACTIVE
_CLIENT_WAITING: Final = ClientState.WAITING
_CLIENT_WAITING_LOGIN: Final = ClientState.WAITING_LOGIN

# How long a pool without any server is taken for alive because it was. A login that succeeds says that PostgreSQL is there.
ALIVE_FOR: Final = 30.0


class Turns:
    """Servers that are idle, clients that wait, and how the one gets the other."""

    __slots__ = (
        "_policy",
        "active",
        "clients",
        "emptied_at",
        "greetings",
        "hands_over",
        "idle",
        "lifetime",
        "logging_in",
        "one_statement",
        "paused",
        "proven",
        "round_robin",
        "server_count",
        "size",
        "stats",
        "used",
        "waiting",
        "waiting_login",
        "welcome",
    )

    def __init__(self, policy: PoolPolicy) -> None:
        self.policy = policy
        self.stats = Stats()
        self.idle: deque[Any] = deque()  # the right end was used last
        self.used: deque[Any] = deque()
        self.active: set[Any] = set()
        self.waiting: deque[Any] = deque()
        self.server_count = 0  # in whatever state
        self.paused = False
        self.clients: set[Any] = set()  # everybody logged in, or waiting for that, on this pool
        self.waiting_login: deque[Any] = deque()
        self.logging_in: set[Any] = set()  # servers
        self.welcome: dict[str, str] | None = None  # ParameterStatus of a server that logged in
        # What clients were told on the strength of it, by what they asked for; with the tracker's epoch of that moment.
        self.greetings: dict[tuple[tuple[str, str], ...], tuple[Values, bytes, int]] = {}
        self.proven = False  # a server login succeeded since the last failure: `welcome` may be used, while `alive`
        self.emptied_at = 0.0  # when the last server that was logged in went

    @property
    def policy(self) -> PoolPolicy:
        return self._policy

    @policy.setter
    def policy(self, policy: PoolPolicy) -> None:
        """PERF: what each transaction asks of it stands in the pool itself."""
        self._policy = policy
        self.hands_over = policy.hands_over
        self.one_statement = policy.mode == "statement"
        self.size = policy.size
        self.lifetime = policy.lifetime
        self.round_robin = policy.round_robin

    def alive(self, now: float) -> bool:
        """Clients may be let in on the greeting of an earlier server: one is there, or was a moment ago."""
        return self.proven and (self.server_count > len(self.logging_in) or now - self.emptied_at < ALIVE_FOR)

    def check_out(self, client: Any, now: float) -> Any:
        """A server for this client, or None: it is in the queue then, and `may_open` says what comes next."""
        client.requested_at = now
        if self.idle and not self.waiting and not self.paused:
            server = self.idle.popleft() if self.round_robin else self.idle.pop()
            self.assign(server, client, now)
            return server
        client.state = _CLIENT_WAITING
        client.waiting_since = now
        client.notified = False
        self.waiting.append(client)
        return None

    def assign(self, server: ServerRecord, client: ClientRecord, now: float) -> None:
        """The server, which stands on no shelf, is the client's now."""
        if server.state is not _SERVER_ACTIVE:
            server.state = _SERVER_ACTIVE
            self.active.add(server)
        server.requested_at = now
        client.state = _CLIENT_ACTIVE
        self.stats.server_assignment_count += 1

    def put_back(self, server: ServerRecord) -> None:
        """An active server is idle: the next in use, or the last when it is to be closed."""
        self.active.discard(server)
        server.state = _SERVER_IDLE
        if server.close_needed:
            self.idle.appendleft(server)
        else:
            self.idle.append(server)

    # --- clients -------------------------------------------------------------------------------------------------

    def forget_client(self, client: ClientRecord) -> None:
        """The client is going."""
        self.clients.discard(client)
        self.leave_queue(client)

    def leave_queue(self, client: ClientRecord) -> None:
        if client.state is _CLIENT_WAITING:
            if client in self.waiting:
                self.waiting.remove(client)
        elif client.state is _CLIENT_WAITING_LOGIN and client in self.waiting_login:
            self.waiting_login.remove(client)
