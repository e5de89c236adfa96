"""One pool's book: its servers by state, its clients, the queue, and the decisions that follow from them.

Nothing is awaited and nothing is sent here. `check_out` (of `turns`) and `place` move a server between client and pool;
`may_open` says whether another server may be opened, or which limit forbids it; the session layer acts and reports back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Final, Generic, TypeVar

from pgweir.pool.policy import PoolPolicy
from pgweir.pool.records import ClientRecord, ClientState, ServerRecord, ServerState
from pgweir.pool.turns import Turns

# How many logins a pool runs at a time, once one has succeeded. PgBouncer runs one: a ramp costs a round trip each.
MAX_CONCURRENT_LOGINS: Final = 4
# The pause after a first failure, in seconds; it doubles up to server_login_retry. A failover should not cost 15 seconds.
FIRST_LOGIN_RETRY: Final = 0.25


Server = TypeVar("Server", bound=ServerRecord)
Client = TypeVar("Client", bound=ClientRecord)


class Open(Enum):
    """A server should be opened, and on what account."""

    WAITER = "a client waits"
    RESERVE = "a client has waited for reserve_pool_timeout"
    MIN_SIZE = "min_pool_size"


class Limit(Enum):
    """Why no server is opened for those who wait (SHOW WAITERS prints it)."""

    NOT_NEEDED = "not needed"
    PAUSED = "paused"
    LOGIN_IN_PROGRESS = "login in progress"
    LOGIN_RETRY = "server_login_retry"
    CREDENTIALS = "the password has changed"
    POOL_SIZE = "pool_size"
    MAX_DB_CONNECTIONS = "max_db_connections"
    MAX_USER_CONNECTIONS = "max_user_connections"
    MAX_SERVER_CONNECTIONS = "max_server_connections"


class Pool(Turns, Generic[Server, Client]):
    """The pool of one (database, user), and of one set of relayed startup parameters."""

    idle: deque[Server]
    used: deque[Server]
    active: set[Server]
    logging_in: set[Server]
    waiting: deque[Client]
    waiting_login: deque[Client]
    clients: set[Client]

    def __init__(self, database: str, user: str, policy: PoolPolicy, relayed: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(policy)
        self.database = database
        self.user = user
        self.relayed = relayed
        self.tested: set[Server] = set()
        self.being_canceled: set[Server] = set()
        self.idle_due: dict[float, float] = {}  # by limit: when the first client can have been idle for that long
        self.opened_for_clients = 0  # those that went unused are taken off again
        self.paused_at = 0.0
        self.failed_at: float | None = None  # of the last connect or login that failed, until one succeeds
        self.retry_at = 0.0  # no server is opened before that, while `failed_at` is set
        self._failures = 0  # in a row
        self.aged_out_at = float("-inf")  # when a server was last closed for its age
        self.unused_since = 0.0  # of a pool without clients and servers; 0: not seen so
        self.failure = ""  # what the server said, or why it could not be reached
        self.failure_sqlstate = ""

    def __repr__(self) -> str:
        return f"<Pool {self.database}/{self.user} active={len(self.active)} idle={len(self.idle)} waiting={len(self.waiting)}>"

    # --- who is where ----------------------------------------------------------------------------------------------

    def servers(self) -> Iterator[Server]:
        for group in (self.active, self.idle, self.used, self.tested, self.being_canceled, self.logging_in):
            yield from group

    @property
    def waiting_count(self) -> int:
        """Clients in either queue: for a server, and for the pool's first login."""
        return len(self.waiting) + len(self.waiting_login)

    def is_outlived(self, server: Server, now: float) -> bool:
        """Older than server_lifetime, and its turn to go: those of one pool, opened together, do not go together."""
        policy = self.policy
        spacing = policy.lifetime / policy.size if policy.size else 0.0
        return now - server.connected_at >= policy.lifetime and now - self.aged_out_at >= spacing

    @property
    def held_count(self) -> int:
        """Servers that a PAUSE has to wait for."""
        return len(self.active) + len(self.tested) + len(self.being_canceled)

    def max_wait(self, now: float) -> float:
        """How long the first in the queue has waited."""
        oldest = min((q[0].waiting_since for q in (self.waiting, self.waiting_login) if q), default=now)
        return max(0.0, now - oldest)

    # --- clients -------------------------------------------------------------------------------------------------

    def next_waiter(self, server: Server, now: float) -> Client | None:
        """The oldest waiter, to whom this free server now belongs; None when nobody waits or the pool is paused."""
        if not self.waiting or self.paused:
            return None
        client = self.waiting.popleft()
        self.stats.wait_time += now - client.waiting_since
        self.stats.waits.observe(now - client.waiting_since)
        client.waiting_since = 0.0
        if server.state is not ServerState.ACTIVE:  # it was tested, or a cancel was awaited
            self._take_off_shelf(server)
        self.assign(server, client, now)
        return client

    def requeue(self, client: Client) -> None:
        """The server it got was no good: it is the first in the queue, and has waited since it asked."""
        client.state = ClientState.WAITING
        client.waiting_since = client.requested_at
        self.waiting.appendleft(client)

    # --- servers -------------------------------------------------------------------------------------------------

    @property
    def misses(self) -> int:
        """Servers that were opened for a client and have been used. Cold: for those who look on."""
        return self.opened_for_clients - sum(s.opened_for_client and not s.requested_at for s in self.servers())

    @property
    def hits(self) -> int:
        """Times that a client was given a server which was there already."""
        return self.stats.server_assignment_count - self.misses

    def open(self, server: Server, *, for_client: bool = True) -> None:
        """A new server is being logged in."""
        server.opened_for_client = for_client
        self.opened_for_clients += for_client
        self.server_count += 1
        self.logging_in.add(server)

    def place(self, server: Server, state: ServerState, now: float = 0.0) -> None:
        """Move a server to another shelf (CLOSED: off the book, and then `now` counts)."""
        if server.state is ServerState.CLOSED:
            return
        was_logged_in = server.state is not ServerState.LOGIN
        self._take_off_shelf(server)
        server.state = state
        match state:
            case ServerState.LOGIN:
                self.logging_in.add(server)
            case ServerState.IDLE:
                if server.close_needed:
                    self.idle.appendleft(server)
                else:
                    self.idle.append(server)
            case ServerState.USED:
                self.used.append(server)
            case ServerState.ACTIVE:
                self.active.add(server)
            case ServerState.TESTED:
                self.tested.add(server)
            case ServerState.BEING_CANCELED:
                self.being_canceled.add(server)
            case ServerState.CLOSED:
                self.server_count -= 1
                self.opened_for_clients -= server.opened_for_client and not server.requested_at
                if was_logged_in and self.server_count == len(self.logging_in):
                    self.emptied_at = now

    def _take_off_shelf(self, server: Server) -> None:
        match server.state:
            case ServerState.ACTIVE:
                self.active.discard(server)
            case ServerState.IDLE:
                if server in self.idle:
                    self.idle.remove(server)
            case ServerState.USED:
                if server in self.used:
                    self.used.remove(server)
            case ServerState.TESTED:
                self.tested.discard(server)
            case ServerState.BEING_CANCELED:
                self.being_canceled.discard(server)
            case ServerState.LOGIN:
                self.logging_in.discard(server)
            case ServerState.CLOSED:
                pass

    # --- opening -------------------------------------------------------------------------------------------------

    def may_open(self, now: float, *, database_servers: int, user_servers: int, all_servers: int = 0) -> Open | Limit:
        """Whether to open one more server now. Counts are those of the whole database, the whole user, the process."""
        policy = self.policy
        demand = len(self.waiting)
        if self.waiting_login and not self.alive(now):
            demand += 1
        on_the_way = len(self.logging_in) + len(self.tested)
        min_size = min(policy.min_size, policy.size or policy.min_size)
        below_min = self.server_count < min_size and (policy.min_size_always or bool(self.clients))
        if demand <= on_the_way and not below_min:
            return Limit.NOT_NEEDED
        if self.paused:
            return Limit.PAUSED
        if self.failed_at is not None and now < self.retry_at:
            return Limit.LOGIN_RETRY
        if len(self.logging_in) >= (MAX_CONCURRENT_LOGINS if self.proven and self.failed_at is None else 1):
            return Limit.LOGIN_IN_PROGRESS
        account = Open.WAITER if demand > on_the_way else Open.MIN_SIZE
        if policy.size and self.server_count >= policy.size:
            waited = self.max_wait(now)
            if not (policy.reserve_size and policy.reserve_timeout and waited >= policy.reserve_timeout):
                return Limit.POOL_SIZE
            if self.server_count >= policy.size + policy.reserve_size:
                return Limit.POOL_SIZE
            account = Open.RESERVE
        if policy.max_db_connections and database_servers >= policy.max_db_connections:
            # min_pool_size never takes a server from another pool: two pools would take turns for ever.
            return Limit.MAX_DB_CONNECTIONS if account is not Open.MIN_SIZE else Limit.NOT_NEEDED
        if policy.max_user_connections and user_servers >= policy.max_user_connections:
            return Limit.MAX_USER_CONNECTIONS if account is not Open.MIN_SIZE else Limit.NOT_NEEDED
        if policy.max_server_connections and all_servers >= policy.max_server_connections:
            return Limit.MAX_SERVER_CONNECTIONS if account is not Open.MIN_SIZE else Limit.NOT_NEEDED
        return account

    def login_succeeded(self, welcome: dict[str, str]) -> None:
        if welcome != self.welcome:
            self.welcome = welcome
            self.greetings.clear()
        self.proven = True
        self.forgive()
        self.failure = self.failure_sqlstate = ""

    def login_failed(self, failure: str, sqlstate: str, now: float, *, for_good: bool = False) -> None:
        """The next attempt comes after a pause that grows up to server_login_retry; `for_good`: after all of that."""
        if self.failed_at is None or now >= self.retry_at:  # several that failed together are one failure
            self._failures = min(self._failures + 1, 20)
        self.failed_at = now
        self.failure = failure
        self.failure_sqlstate = sqlstate
        retry = self.policy.login_retry
        self.retry_at = now + (retry if for_good else min(retry, FIRST_LOGIN_RETRY * 2 ** (self._failures - 1)))
        if self.server_count == len(self.logging_in):
            self.proven = False

    def forgive(self) -> None:
        """Whatever failed may be tried at once."""
        self.failed_at = None
        self._failures = 0

    # --- pausing ---------------------------------------------------------------------------------------------------

    def pause(self, now: float) -> None:
        if not self.paused:
            self.paused = True
            self.paused_at = now

    def resume(self, now: float) -> None:
        """Assign again. The time that clients were held does not count as their wait for a server."""
        if self.paused:
            self.paused = False
            self.forgive()
            for queue in (self.waiting, self.waiting_login):
                for client in queue:
                    client.waiting_since += now - max(client.waiting_since, self.paused_at)
