"""The two sides joined: who gets which server, and what becomes of one that is free.

`Pooler` owns everything that lives while the process serves: databases, pools, clients. It decides with the ledgers of `pool`
and acts through the `Edge`. Operators' verbs (PAUSE, RELOAD, SHUTDOWN, …) are in `operations`, clients' logins in
`client_login`, new servers in `opening`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pgweir.config import Config
from pgweir.pool.ledger import Pool
from pgweir.pool.records import ServerState
from pgweir.pool.stats import Stats, Timings
from pgweir.protocol import framing, messages
from pgweir.protocol.auth.scram import ScramCache
from pgweir.protocol.errors import (
    ADMIN_SHUTDOWN,
    CONNECTION_FAILURE,
    FEATURE_NOT_SUPPORTED,
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    IDLE_SESSION_TIMEOUT,
    PROTOCOL_VIOLATION,
    QUERY_CANCELED,
    TOO_MANY_CONNECTIONS,
    TRANSACTION_TIMEOUT,
)
from pgweir.protocol.prepared import StatementRegistry
from pgweir.protocol.reasons import GOODBYES, CloseReason
from pgweir.protocol.variables import Tracker, set_statement
from pgweir.session.cancels import Cancels
from pgweir.session.client import ClientSession
from pgweir.session.client_login import ClientLogin, accepted
from pgweir.session.credentials import ServerCredentials
from pgweir.session.database import Database
from pgweir.session.holder import Holder, SessionPool, pool_key
from pgweir.session.holds import Holds
from pgweir.session.lookup import Lookups
from pgweir.session.names import Names
from pgweir.session.opening import Opening
from pgweir.session.overflow import Overflow
from pgweir.session.parts import Parts
from pgweir.session.probe import Probe
from pgweir.session.replication import policy_for
from pgweir.session.roster import Roster
from pgweir.session.server import ServerSession
from pgweir.session.turns import Turns
from pgweir.session.wire import Edge, Origin, Wire, close_in_time, printable

log = logging.getLogger(__name__)

# What a client is told when one of these ends its connection. (Texts are PgBouncer's.)
CLOSE_SQLSTATES: Final = {
    CloseReason.QUERY_WAIT_TIMEOUT: TOO_MANY_CONNECTIONS,
    CloseReason.QUERY_TIMEOUT: QUERY_CANCELED,
    CloseReason.IDLE_TRANSACTION_TIMEOUT: IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    CloseReason.TRANSACTION_TIMEOUT: TRANSACTION_TIMEOUT,
    CloseReason.CLIENT_IDLE_TIMEOUT: IDLE_SESSION_TIMEOUT,
    CloseReason.CLIENT_IDLE_LIMIT: IDLE_SESSION_TIMEOUT,
    CloseReason.STATEMENT_MODE: FEATURE_NOT_SUPPORTED,
    CloseReason.SERVER_PROTOCOL_ERROR: PROTOCOL_VIOLATION,
    CloseReason.ADMIN_KILLED: ADMIN_SHUTDOWN,
    CloseReason.PAUSE_TIMEOUT: ADMIN_SHUTDOWN,
}

_FAILED_TO_ANSWER: Final = (CloseReason.SERVER_GONE, CloseReason.SERVER_CHECK_FAILED, *GOODBYES.values())


class Pooler(Parts):
    """Everything that lives while the process serves."""

    def __init__(self, config: Config, edge: Edge) -> None:
        self.edge = edge
        self.clock = edge.clock
        self.config = config
        self.settings = config.settings
        self.tracker = Tracker(config.settings.track_extra_parameters)
        self.statements = StatementRegistry()
        self.scram_cache = ScramCache()
        self.mock_key = edge.random(32)
        self.databases = {}
        self.pools = {}
        self.credentials = ServerCredentials(self)
        self.opening = Opening(self)
        self.roster = Roster(self)
        self.clients, self.logins = self.roster.clients, self.roster.logins
        self.startups = {}
        self.turns = Turns(edge)
        self.cancels = Cancels(self)
        self.lookups = Lookups(self)
        self.overflow = Overflow(self, self.roster)
        self.names = Names()
        self.paused = False
        self.holds = Holds()  # beside `paused`: neither ends the other
        self.probe: Probe | None = None  # of a hold that ends when PostgreSQL has restarted, or moved
        self.draining = False
        self.accepting = True
        self.closed_counts = {}
        self.auth_failures = {}
        self.tls_failures: dict[tuple[str, str], int] = {}  # by side (client, server) and stage
        self.server_login_errors: dict[str, int] = {}  # by SQLSTATE
        self.client_logins = Timings()
        self.server_logins = Timings()
        self.standbys: dict[tuple[str, int], bool] = {}  # by host and port: what in_hot_standby said at the last login
        self.on_server_gone: list[Callable[[], None]] = []  # PAUSE, WAIT_CLOSE and SHUTDOWN wait for this
        self.open_console = None
        self.max_packet_size = 0
        self.disable_pqexec = config.settings.disable_pqexec  # restart-class
        self.apply_settings(config)

    def apply_settings(self, config: Config) -> None:
        """Take a configuration (the first, or one that RELOAD found good)."""
        self.config = config
        self.settings = config.settings
        self.lookups.forget()
        self.startups.clear()
        self.max_packet_size = min(config.settings.max_packet_size, 0x7FFFFFFF)
        for pool in self.pools.values():
            pool.policy = policy_for(config, pool.database, pool.user, pool.relayed)
        for client in self.clients:
            client.policy_changed()

    # --- databases and pools -----------------------------------------------------------------------------------------

    def database(self, name: str, *, keep: bool = True) -> Database | None:
        """The entry for this name, made from the `*` template on first use. `keep`: False for somebody who is not proved yet;
        a stranger may ask for any number of names."""
        known = self.databases.get(name)
        if known is not None:
            return known
        settings = self.config.database(name)
        if settings is None:
            return None
        is_auto = name not in self.config.databases
        database = Database(settings, is_auto=is_auto, now=self.clock())
        if is_auto and not keep:
            return database
        if is_auto:
            log.info("registered new auto-database: %s", printable(name))
        self.databases[name] = database
        return database

    def pool(self, database: Database, user: str, relayed: Mapping[str, str] | None = None) -> SessionPool:
        """The pool for this database, this (pool) user and these startup parameters (startup_parameters=relay, or
        replication)."""
        key = pool_key(database.name, user, relayed or {})
        pool = self.pools.get(key)
        if pool is None:
            policy = policy_for(self.config, *key)
            pool = Pool[ServerSession, Holder](database.name, user, policy, key[2])
            self.pools[key] = pool
            if self.is_stopped(database.name):
                pool.pause(self.clock())
        return pool

    def is_stopped(self, database: str) -> bool:
        """No server is assigned there: everything or this database is paused, or a hold stands."""
        return self.paused or self.holds.current is not None or self.databases[database].paused

    def server_startup_parameters(self, pool: SessionPool) -> dict[str, str]:
        settings = self.databases[pool.database].settings
        parameters = {"user": pool.user, "database": settings.dbname or pool.database, **dict(pool.relayed)}
        for name, value in (
            ("client_encoding", settings.client_encoding),
            ("DateStyle", settings.datestyle),
            ("TimeZone", settings.timezone),
            ("application_name", settings.application_name),
        ):
            if value is not None:
                parameters[name] = value
        return parameters

    def stats(self, database: Database) -> Stats:
        return Stats.total([database.past, *(p.stats for p in self.pools.values() if p.database == database.name)])

    def servers(self) -> Iterator[ServerSession]:
        for pool in self.pools.values():
            yield from pool.servers()

    # --- a client asks for a server, and gets one ------------------------------------------------------------------------

    def link(self, holder: Holder, server: ServerSession) -> bool:
        """Join the two; False when the server's variables have to be set first (`granted` follows)."""
        changes = self.tracker.difference(holder.values, server.values) if holder.values is not None else []
        if not changes:
            server.join(holder)
            return True
        server.client = holder
        holder.linking = server

        def done(failed: bool) -> None:
            holder.linking = None
            if failed:
                self.drop_server(server, CloseReason.INVALID_SERVER_PARAMETER)
                return
            # The server's spelling becomes the client's, or the same SET would be sent for ever.
            assert holder.values is not None
            names = {name for name, _ in changes}
            holder.values = self.tracker.updated(
                holder.values, [item for item in self.tracker.items(server.values) if item[0] in names]
            )
            server.join(holder)
            holder.granted(server)

        server.run_internal(set_statement(changes), done)
        return False

    # --- a server is given back, goes ---------------------------------------------------------------------------

    def check_in(self, server: ServerSession, now: float) -> None:
        """A server is free: reset it, give it to the next, keep it, or let it go."""
        pool = server.pool
        policy = pool.policy
        server.released_at = server.checked_at = now
        server.query_open = server.in_transaction = False
        server.transaction_started = 0.0
        if server.cancel_waiters is not None:
            pool.place(server, ServerState.BEING_CANCELED)
            return
        if server.close_needed or policy.single_use:
            refused = policy.primary_only and server.in_hot_standby
            self.drop_server(server, CloseReason.SERVER_STANDBY if refused else CloseReason.CLOSE_NEEDED)
        elif pool.is_outlived(server, now):
            self.drop_server(server, CloseReason.SERVER_LIFETIME)
            self.opening.wake(pool)
        elif policy.check_query and policy.check_delay == 0 and not policy.reset_queries:
            pool.place(server, ServerState.USED)
            self.opening.wake(pool)
        elif policy.reset_queries:
            pool.place(server, ServerState.TESTED)
            self._reset(server, policy.reset_queries)
        else:
            self.offer(server, now)

    def _reset(self, server: ServerSession, queries: tuple[str, ...]) -> None:
        """One message for each: several in one are one transaction to PostgreSQL, in which DISCARD ALL may not be."""
        first, rest = queries[0], queries[1:]
        server.run_internal(
            first,
            lambda failed: self._reset(server, rest) if rest and not failed else self._tested(server, failed),
        )

    def _tested(self, server: ServerSession, failed: bool) -> None:
        if server.state is ServerState.CLOSED:
            return
        if failed or server.exchange.status != framing.STATUS_IDLE:
            self.drop_server(server, CloseReason.SERVER_RESET_FAILED)
            self.opening.wake(server.pool)
            return
        now = self.clock()
        server.checked_at = now
        self.offer(server, now)

    def offer(self, server: ServerSession, now: float) -> None:
        """A clean server: to the oldest waiter, or on the shelf."""
        pool = server.pool
        if pool.paused:
            self.drop_server(server, CloseReason.PAUSED)
            return
        holder = pool.next_waiter(server, now)
        if holder is None:
            if pool.policy.size and pool.server_count > pool.policy.size + pool.policy.reserve_size:
                self.drop_server(server, CloseReason.POOL_TOO_BIG)
            else:
                pool.place(server, ServerState.IDLE)
            return
        if self.link(holder, server):
            holder.granted(server)

    def drop_server(self, server: ServerSession, reason: CloseReason, detail: str = "") -> None:
        """Close a server connection; whoever holds it is told."""
        if server.state is ServerState.CLOSED:
            return
        pool = server.pool
        if reason is CloseReason.SERVER_LIFETIME:
            pool.aged_out_at = self.clock()
        holder, server.client = server.client, None
        # The client has said nothing to it yet: another server will do, and nobody need be told.
        replaceable = server.own_query and reason in _FAILED_TO_ANSWER
        had_said_goodbye = server.exchange.fatal
        mid_message = server.exchange.need > 0
        if self.settings.log_disconnections:
            age = self.clock() - server.connected_at
            log.info(
                "%s closing because: %s (age=%ds)%s",
                server.log_name(),
                reason,
                age,
                f" {detail}" if detail else "",
                extra=reason.fields(server_pid=server.pid, client_id=holder.id if holder is not None else None),
            )
        self.shelve(server, reason)
        if reason is CloseReason.SERVER_GONE and pool.server_count == len(pool.logging_in):
            pool.proven = False
        if holder is not None and replaceable:
            holder.server = holder.linking = None
            pool.requeue(holder)
        elif holder is not None:
            # No error in the middle of a message, nor a second one behind PostgreSQL's own.
            message = "" if mid_message or (had_said_goodbye and holder.linking is None) else reason.text
            holder.server = None
            holder.linking = None
            holder.disconnect(reason, message or None, CLOSE_SQLSTATES.get(reason, CONNECTION_FAILURE))
        for waiting in list(self.on_server_gone):
            waiting()
        if pool.waiting or pool.waiting_login:
            self.opening.wake(pool)

    def shelve(self, server: ServerSession, reason: CloseReason) -> None:
        self.closed_counts[reason] = self.closed_counts.get(reason, 0) + 1
        server.pool.place(server, ServerState.CLOSED, self.clock())
        server.internal = None
        server.own_query = False
        waiters, server.cancel_waiters = server.cancel_waiters, None
        for done in waiters or ():
            done()
        self.hang_up(server, say_goodbye=reason is not CloseReason.SERVER_GONE)

    def hang_up(self, server: ServerSession, *, say_goodbye: bool) -> None:
        if server.wire is None:
            self.edge.abandon(server)
        elif not server.wire.is_closing():
            if say_goodbye:
                server.wire.write(messages.terminate())
            close_in_time(self.edge, server.wire)

    def refuse_transaction_block(self, server: ServerSession) -> None:
        """Statement mode, and the server says that a transaction is open."""
        self.drop_server(server, CloseReason.STATEMENT_MODE)

    # --- clients come and go -------------------------------------------------------------------------------------------

    def accept(self, wire: Wire, origin: Origin) -> ClientLogin:
        """A new connection; the answer is its protocol until the login is over."""
        return accepted(self, wire, origin)

    @property
    def waiting_count(self) -> int:
        """Clients in the queues of all pools."""
        return sum(pool.waiting_count for pool in self.pools.values())

    def left_behind(self, server: ServerSession, client: ClientSession, reason: CloseReason) -> None:
        """A server whose client went away while holding it."""
        server.client = None
        is_busy = server.query_open and not server.own_query and not server.exchange.settled
        if reason is CloseReason.CLIENT_GONE and is_busy:
            # Nobody will read the answer, and PostgreSQL would not notice before it writes one, in an hour perhaps.
            self.edge.send_cancel(server, lambda: None)
        if reason is CloseReason.CLIENT_GONE and not self.settings.keep_server_of_lost_client:
            self.drop_server(server, CloseReason.CLIENT_LOST)
            return
        server.resume_reading()
        exchange = server.exchange
        # WHY `need`: half a Flush or CopyData owes nothing, and yet swallows what the next client says.
        if server.internal is not None or client.need > 0 or not exchange.settled:
            self.drop_server(server, CloseReason.CLIENT_LEFT_SERVER_BUSY)
        elif exchange.status == framing.STATUS_IDLE:
            self.check_in(server, self.clock())
        else:
            server.pool.place(server, ServerState.TESTED)
            server.run_internal("ROLLBACK", lambda failed: self._rolled_back(server, failed))

    def _rolled_back(self, server: ServerSession, failed: bool) -> None:
        if failed or server.exchange.status != framing.STATUS_IDLE:
            self.drop_server(server, CloseReason.SERVER_RESET_FAILED)
        else:
            self.check_in(server, self.clock())

    # --- what upkeep and operations ask for ---------------------------------------------------------------------------

    def check_used(self, pool: SessionPool) -> None:
        server = pool.used[-1]
        pool.place(server, ServerState.TESTED)
        server.run_internal(pool.policy.check_query, lambda failed: self._tested(server, failed))

    def close_unused(self, pool: SessionPool, reason: CloseReason) -> None:
        """Close the servers that nobody uses, and the logins under way."""
        for server in [*pool.idle, *pool.used, *pool.logging_in]:
            self.drop_server(server, reason)

    def end_holder(self, server: ServerSession, reason: CloseReason) -> None:
        """Cancel what runs, tell the client, and (when nothing runs) keep the server."""
        holder = server.client
        if server.query_open:
            self.edge.send_cancel(server, lambda: None)
            self.drop_server(server, reason)
        elif isinstance(holder, ClientSession):
            holder.disconnect(reason, reason.text, CLOSE_SQLSTATES[reason])

    # --- words for the log ---------------------------------------------------------------------------------------------

    def log_pooler_error(self, client: ClientSession, message: str) -> None:
        if self.settings.log_pooler_errors:
            log.warning("%s pooler error: %s", client.name(), message)
