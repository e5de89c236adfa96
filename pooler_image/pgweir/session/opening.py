"""How a pool grows: whether another server may be opened, its first steps in the pool, and what a failure means.

`pool.ledger` decides, the `Edge` connects, `session.server` logs in; here the results come together. What becomes of a server
afterwards is `pooler`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from pgweir.pool.ledger import Limit, Open
from pgweir.pool.records import ClientState, ServerState
from pgweir.protocol.errors import CANNOT_CONNECT_NOW, INVALID_PASSWORD, TOO_MANY_CONNECTIONS
from pgweir.protocol.reasons import CloseReason
from pgweir.session.client import ClientSession
from pgweir.session.holder import SessionPool
from pgweir.session.holds import HASTE
from pgweir.session.server import ServerSession

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler

log = logging.getLogger(__name__)

_AUTHORIZATION_CLASS: Final = "28"
# Limits over several pools: a server of another pool may make room.
_SHARED: Final = (Limit.MAX_DB_CONNECTIONS, Limit.MAX_USER_CONNECTIONS, Limit.MAX_SERVER_CONNECTIONS)
# Server errors at login that say "not now": those who wait go on waiting. (53300 and its class, 57P01–57P03, 08…)
_TRANSIENT_CLASSES: Final = ("08", "53", "57")


class Opening:
    """Opens servers for those who wait."""

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._greeting: set[SessionPool] = set()  # whose next clients wait for their turn

    def wake(self, pool: SessionPool) -> Limit | Open:
        """Open what servers the pool's clients need and its limits allow. Answers the last decision."""
        if self._pooler.credentials.lost(pool):
            return Limit.CREDENTIALS
        while pool.used and not pool.paused and len(pool.waiting) > len(pool.logging_in) + len(pool.tested):
            self._pooler.check_used(pool)
        while True:
            decision = pool.may_open(
                self._pooler.clock(),
                database_servers=self._database_servers(pool),
                user_servers=self._user_servers(pool),
                all_servers=self._all_servers(pool),
            )
            if isinstance(decision, Limit):
                if decision in _SHARED and self._evict_for(pool, decision):
                    continue
                return decision
            if decision is Open.RESERVE:
                log.warning("taking connection from reserve_pool: %s/%s", pool.database, pool.user)
            self.open(pool, for_client=decision is not Open.MIN_SIZE)

    def go_on(self, pool: SessionPool) -> None:
        """A pause or a hold is over."""
        pool.resume(self._pooler.clock())
        self.greet_waiting_logins(pool)
        self.wake(pool)

    def open(self, pool: SessionPool, *, for_client: bool = True) -> None:
        server = ServerSession(self._pooler, pool, self._pooler.clock())
        pool.open(server, for_client=for_client)
        self._pooler.edge.connect(server)

    def _database_servers(self, pool: SessionPool) -> int:
        if not pool.policy.max_db_connections:
            return 0
        return sum(p.server_count for p in self._pooler.pools.values() if p.database == pool.database)

    def _user_servers(self, pool: SessionPool) -> int:
        if not pool.policy.max_user_connections:
            return 0
        return sum(p.server_count for p in self._pooler.pools.values() if p.user == pool.user)

    def _all_servers(self, pool: SessionPool) -> int:
        if not pool.policy.max_server_connections:
            return 0
        return sum(p.server_count for p in self._pooler.pools.values())

    def keep_within(self, limit: int) -> None:
        """max_server_connections was lowered: the most idle servers go, then busy ones as they are given back."""
        pools = self._pooler.pools.values()
        excess = sum(pool.server_count for pool in pools) - limit
        if excess <= 0:
            return
        idle = [server for pool in pools for server in (*pool.used, *pool.idle)]
        for server in sorted(idle, key=lambda server: server.released_at)[:excess]:
            self._pooler.drop_server(server, CloseReason.EVICTED)
            excess -= 1
        busy = [server for pool in pools for server in pool.active]
        excess -= sum(server.close_needed for server in busy)
        for server in [server for server in busy if not server.close_needed][: max(0, excess)]:
            server.close_needed = True

    def _evict_for(self, pool: SessionPool, limit: Limit) -> bool:
        """Close the most idle server of another pool under the same limit."""
        others = self._pooler.pools.values()
        return self._evict_from([other for other in others if other is not pool and _share(limit, pool, other)])

    def _make_room(self, pool: SessionPool) -> None:
        """PostgreSQL is full, perhaps of ours: of the servers that are kept for pools in which nobody is, the most idle one
        goes before the next attempt."""
        if not pool.waiting_count:
            return
        others = [other for other in self._pooler.pools.values() if other is not pool and not other.clients]
        self._evict_from([other for other in others if not (other.policy.min_size_always and other.policy.min_size)])

    def _evict_from(self, pools: Iterable[SessionPool]) -> bool:
        """Close the most idle server of these; False where none of them has one that is free."""
        idle = [server for pool in pools for server in (*pool.used, *pool.idle)]
        if not idle:
            return False
        self._pooler.drop_server(min(idle, key=lambda s: s.released_at), CloseReason.EVICTED)
        return True

    # --- how it went ---

    def has_a_question(self, server: ServerSession, parameters: dict[str, str]) -> bool:
        """Its login has to ask what PostgreSQL did not say: older ones than 14 do not report whether they are a standby."""
        probe = self._pooler.probe
        if probe is not None and server.pool is probe.pool:
            return True
        return server.pool.policy.primary_only and "in_hot_standby" not in parameters

    def logged_in(self, server: ServerSession, parameters: dict[str, str], answer: Sequence[bytes | None] = ()) -> None:
        """Its first ReadyForQuery: it joins the pool. `answer`: to the question, if there was one."""
        pooler = self._pooler
        assert server.wire is not None
        pool = server.pool
        server.in_hot_standby = parameters.get("in_hot_standby") == "on" or answer[:1] == [b"t"]
        if "in_hot_standby" in parameters or answer:
            pooler.standbys[server.host, server.port] = server.in_hot_standby
        if pooler.probe is not None and pool is pooler.probe.pool:
            pooler.probe.logged_in(server, answer)
            return
        if pool.policy.primary_only and server.in_hot_standby:
            self.failed(server, CloseReason.SERVER_STANDBY.text, CANNOT_CONNECT_NOW, answered=False)
            return
        server.wire.set_protocol(server)
        now = pooler.clock()
        pooler.server_logins.observe(now - server.connected_at)
        server.connected_at = now
        if pooler.settings.log_connections:
            log.info("%s new connection to server (pid %d)", server.log_name(), server.pid)
        pool.login_succeeded(parameters)
        pooler.databases[pool.database].host_answered(server.host)
        pool.place(server, ServerState.TESTED)
        connect_query = pooler.databases[pool.database].settings.connect_query
        if connect_query and not pool.policy.single_use:
            server.run_internal(connect_query, lambda failed: self._joined(server))
        else:
            self._joined(server)

    def _joined(self, server: ServerSession) -> None:
        pooler, pool = self._pooler, server.pool
        self.greet_waiting_logins(pool)
        now = pooler.clock()
        server.released_at = server.checked_at = now
        pooler.offer(server, now)
        self.wake(pool)

    def standby_changed(self, server: ServerSession, in_hot_standby: bool) -> None:
        """It says so while it is connected: a promotion, or (behind another pooler) the opposite."""
        server.in_hot_standby = in_hot_standby
        self._pooler.standbys[server.host, server.port] = in_hot_standby
        if not (in_hot_standby and server.pool.policy.primary_only):
            return
        server.close_needed = True
        if server.state in (ServerState.IDLE, ServerState.USED):
            self._pooler.drop_server(server, CloseReason.SERVER_STANDBY)

    def greet_waiting_logins(self, pool: SessionPool) -> None:
        """Complete the logins that waited for the pool's first server, if there is (or was) one; some in each turn."""
        while pool.welcome is not None and pool.alive(self._pooler.clock()) and pool.waiting_login:
            if not self._pooler.turns.take():
                if pool not in self._greeting:
                    self._greeting.add(pool)
                    self._pooler.turns.wait(lambda: self._greet_on(pool))
                return
            client = pool.waiting_login.popleft()
            client.waiting_since = 0.0
            client.state = ClientState.IDLE
            if isinstance(client, ClientSession) and client.login is not None:
                login, client.login = client.login, None
                login()

    def _greet_on(self, pool: SessionPool) -> None:
        self._greeting.discard(pool)
        self.greet_waiting_logins(pool)

    def failed(self, server: ServerSession, message: str, sqlstate: str, *, answered: bool) -> None:
        """Connect or login failed. `answered`: PostgreSQL itself said no (then sqlstate and message are its own)."""
        if server.state is ServerState.CLOSED:
            return
        pooler, pool = self._pooler, server.pool
        now = pooler.clock()
        if pooler.probe is not None and pool is pooler.probe.pool:
            pooler.probe.failed(server, sqlstate, answered=answered)
            return
        pooler.server_login_errors[sqlstate] = pooler.server_login_errors.get(sqlstate, 0) + 1
        reason = _reason(server, message)
        extra = reason.fields(sqlstate=sqlstate)
        # Several times a second, while PostgreSQL comes back: what was said already is said at `verbose` alone.
        known = pooler.holds.in_haste(now) and pool.failed_at is not None and pool.failure == message
        level = logging.DEBUG if known else logging.WARNING
        log.log(level, "%s server login failed: %s (%s)", server.log_name(), message, sqlstate, extra=extra)
        single_use = pool.policy.single_use  # nobody else's server will be free for the client that waits
        passing = not answered or (sqlstate.startswith(_TRANSIENT_CLASSES) and not single_use)
        pool.login_failed(message, sqlstate, now, for_good=not passing)
        pooler.shelve(server, reason)
        if sqlstate == TOO_MANY_CONNECTIONS and answered:
            self._make_room(pool)
        if server.address:
            pooler.names.connection_failed(server.host, server.address)
        if passing:
            database = pooler.databases[pool.database]
            if database.host_failed(server.host, now, pool.policy.login_retry, pooler.config):
                pool.retry_at = now  # at another host
                self.wake(pool)
            elif pooler.holds.in_haste(now):
                pool.retry_at = min(pool.retry_at, now + HASTE)
                pooler.edge.later(HASTE, lambda: self._try_again(pool))
        elif sqlstate != INVALID_PASSWORD or not pooler.credentials.refused(server):
            self.refuse_waiting(pool)

    def _try_again(self, pool: SessionPool) -> None:
        if self._pooler.pools.get((pool.database, pool.user, pool.relayed)) is pool:
            self.wake(pool)

    def refuse_waiting(self, pool: SessionPool) -> None:
        """PostgreSQL said no for good; whoever waits is told so, unless there are servers to wait for."""
        if pool.server_count > len(pool.logging_in) and not pool.policy.single_use:
            return
        if pool.failure_sqlstate.startswith(_AUTHORIZATION_CLASS) and pool.waiting_login:
            counts, refused = self._pooler.auth_failures, len(pool.waiting_login)
            counts["server"] = counts.get("server", 0) + refused
            log.warning("%s/%s: PostgreSQL refuses %d logins auth_stage=server", pool.database, pool.user, refused)
        for client in [*pool.waiting, *pool.waiting_login]:
            client.disconnect(CloseReason.SERVER_LOGIN_FAILED, pool.failure, pool.failure_sqlstate)


def _share(limit: Limit, one: SessionPool, other: SessionPool) -> bool:
    """Whether servers of both count for this limit."""
    match limit:
        case Limit.MAX_DB_CONNECTIONS:
            return one.database == other.database
        case Limit.MAX_USER_CONNECTIONS:
            return one.user == other.user
    return True


def _reason(server: ServerSession, message: str) -> CloseReason:
    """How far it came."""
    if message == CloseReason.SERVER_STANDBY.text:
        return CloseReason.SERVER_STANDBY
    if message == CloseReason.SERVER_CONNECT_TIMEOUT.text:
        return CloseReason.SERVER_CONNECT_TIMEOUT
    return CloseReason.SERVER_CONNECT_FAILED if server.wire is None else CloseReason.SERVER_LOGIN_FAILED
