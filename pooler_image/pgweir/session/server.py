"""One connection to PostgreSQL, and whatever passes to the client that holds it. `server_login` comes before.

The pool's book about it is its base class; `pooler` decides what becomes of it when it is free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pgweir.pool.records import ClientState, ServerRecord, ServerState
from pgweir.protocol import framing, messages
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.exchange import Exchange
from pgweir.protocol.framing import STATUS_IDLE
from pgweir.protocol.messages import B
from pgweir.protocol.reader import MessageReader
from pgweir.protocol.reasons import CloseReason
from pgweir.protocol.variables import Values
from pgweir.session.server_login import MAX_LOGIN_MESSAGE, ServerLogin
from pgweir.session.wire import TlsInfo, Wire, printable

if TYPE_CHECKING:
    from pgweir.session.credentials import Credentials
    from pgweir.session.holder import Holder, SessionPool
    from pgweir.session.pooler import Pooler

# PERF: a member of an enumeration costs a look-up in its class each time.
_CLIENT_ACTIVE: Final = ClientState.ACTIVE
_CLIENT_IDLE: Final = ClientState.IDLE


class ServerSession(ServerRecord):
    """A server connection. It is its transport's protocol once `login_done`."""

    __slots__ = (
        "address",
        "application_name",
        "cancel_key",
        "cancel_waiters",
        "client",
        "credentials",
        "exchange",
        "host",
        "in_hot_standby",
        "internal",
        "local_address",
        "local_port",
        "pid",
        "pool",
        "pooler",
        "port",
        "reading_paused",
        "tls",
        "values",
        "wire",
        "write_paused",
    )

    def __init__(self, pooler: Pooler, pool: SessionPool, now: float) -> None:
        super().__init__(now)
        self.pool = pool
        self.pooler = pooler
        self.exchange = Exchange()
        self.client: Holder | None = None
        self.wire: Wire | None = None
        self.internal: Callable[[bool], None] | None = None  # called when a query of our own is done: (failed)
        self.values: Values = pooler.tracker.nothing
        self.cancel_key = b""
        self.pid = 0
        self.cancel_waiters: list[Callable[[], None]] | None = None  # a cancel is under way; whom to tell when done
        self.reading_paused = False
        self.write_paused = False  # it does not take more; its client must not be read
        self.host = ""
        self.address = ""  # what the name `host` meant when it connected; "" on a Unix socket
        self.credentials: Credentials | None = None  # what its login went by, where that is a client's proof
        self.port = 0
        self.local_address: str | None = None
        self.local_port = 0
        self.tls: TlsInfo | None = None
        self.application_name = ""
        self.in_hot_standby = False  # as it said last

    def __repr__(self) -> str:
        return f"<ServerSession {self.id} {self.pool.database}/{self.pool.user} {self.state.value} pid={self.pid}>"

    def log_name(self) -> str:
        """How a server is called in the log (PgBouncer's form)."""
        where = f"{self.host or '(connecting)'}:{self.port}"
        return printable(f"S-{self.id}: {self.pool.database}/{self.pool.user}@{where}")

    # --- login -------------------------------------------------------------------------------------------------------

    def connected(self, wire: Wire, host: str, port: int, tls: TlsInfo | None) -> object:
        """The edge has connected; answers the protocol that takes the wire's bytes during the login."""
        self.wire = wire
        self.host, self.port, self.tls = host, port, tls
        return ServerLogin(self, wire)

    # --- steady state ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        try:
            data = exchange.scan(data)
        except ProtocolError as error:
            self.pooler.drop_server(self, CloseReason.SERVER_PROTOCOL_ERROR, error.message)
            return
        client = self.client
        if exchange.noted:
            data = self._take_note(client, data)
        if self.internal is not None:
            if exchange.settled:
                self._internal_done()
            return
        if client is None:
            self._unsolicited(data)
            return
        if data:
            self.pool.stats.sent += len(data)
            client.wire.write(data)
        if client.stalled and not exchange.in_doubt:
            client.go_on(self)
            return
        if exchange.owed or exchange.unsynced or exchange.need or exchange.copy_in or exchange.tail:
            return
        self._settled(client)

    def _settled(self, client: Holder) -> None:
        """The answer is complete. PERF: once a query; one clock read."""
        exchange = self.exchange
        now = self.pooler.clock()
        stats = self.pool.stats
        if self.query_open:
            self.query_open = False
            stats.query_count += 1
            stats.query_time += now - self.query_started
            stats.queries.observe(now - self.query_started)
        if exchange.transactions:
            stats.xact_count += exchange.transactions
            exchange.transactions = 0
            stats.xact_time += now - (self.transaction_started or now)
            stats.transactions.observe(now - (self.transaction_started or now))
            self.transaction_started = 0.0
        self.settled_at = now
        if exchange.status == STATUS_IDLE:
            self.in_transaction = False
            if not client.keeps_server and not client.need:
                self.release(now)
        else:
            self.in_transaction = True
            if self.pool.one_statement:
                self.pooler.refuse_transaction_block(self)

    def settle_again(self) -> None:
        """Nothing is owed, but not because of a reply: the client has finished a message that came too late, or all of it
        was answered by the pooler."""
        if self.client is None or self.internal is not None:
            return
        if not self.exchange.transactions:
            self.query_open = False  # no query of PostgreSQL's
            if self.exchange.status == STATUS_IDLE:
                self.transaction_started = 0.0
        self._settled(self.client)

    def _take_note(self, client: Holder | None, data: bytes) -> bytes:
        """What the reply means beyond its bytes; answers what the client gets of it."""
        exchange = self.exchange
        exchange.noted = False
        if exchange.naming:
            spans, exchange.naming = exchange.naming, []
            if client is not None and self.internal is None:
                data = client.with_own_names(data, spans)
        if exchange.changed_parameters is not None:
            self._parameters_changed(client, exchange.changed_parameters)
            exchange.changed_parameters = None
        if exchange.deallocated_all:
            exchange.deallocated_all = False
            if client is not None and self.internal is None:
                client.forget_statements(exchange.kept_names)
        if exchange.replay:
            exchange.replay = False
            if client is not None and self.internal is None:
                self._say_again(client)
        return data

    def _say_again(self, client: Holder) -> None:
        """The whole exchange failed because of how we prepared its statements, and the client has heard nothing of it yet."""
        client.server, client.linking = None, self  # until the server is ready again, as while its variables are set
        spoken, self.exchange.spoken = self.exchange.spoken, b""

        def ready(_failed: bool) -> None:
            client.linking = None
            client.server = self
            if client.write_paused:
                self.pause_reading()
            client.say_again(spoken, self)
            self.exchange.spoken = b""  # once

        self.internal = ready

    def _parameters_changed(self, client: Holder | None, changes: list[tuple[str, str]]) -> None:
        tracker = self.pooler.tracker
        self.values = tracker.updated(self.values, changes)
        for name, value in changes:
            if name == "application_name":
                self.application_name = value
            elif name == "in_hot_standby":  # a promotion, while it is connected
                self.pooler.opening.standby_changed(self, value == "on")
        if client is not None and client.values is not None:
            client.values = tracker.updated(client.values, changes)

    def _unsolicited(self, data: bytes) -> None:
        """Something from a server that nobody asked anything."""
        if self.exchange.unsolicited_error or data[:1] == b"N":
            # PostgreSQL says goodbye (57P01, 57P05), or something went wrong that the next client must not meet.
            if self.exchange.last_words:
                self._gone(CloseReason.SERVER_DIRTY)
            else:
                self.pooler.drop_server(self, CloseReason.SERVER_DIRTY, _words(data))

    # --- given to a holder, and given back ---------------------------------------------------------------------------

    def join(self, holder: Holder) -> None:
        """From now on the two speak to each other."""
        self.client = holder
        holder.server = self
        if holder.write_paused:
            self.pause_reading()

    def release(self, now: float) -> None:
        """The holder's transaction (or session) is over. PERF: once a transaction."""
        holder = self.client
        if holder is not None:
            self.client = None
            holder.server = None
            holder.state = _CLIENT_IDLE
            holder.requested_at = now
            if self.reading_paused:
                self.resume_reading()  # or the next client would wait for ever
            holder.resume_reading()
            if self.pooler.draining:
                holder.leave()
        pool = self.pool
        if (
            pool.hands_over
            and not pool.paused
            and self.cancel_waiters is None
            and not self.close_needed
            and now - self.connected_at < pool.lifetime
        ):
            # PERF: nothing has to be decided about it. What `check_in` would do, in one call instead of five.
            if not pool.waiting:
                if not pool.size or pool.server_count <= pool.size:
                    self.released_at = self.checked_at = now
                    self.query_open = False
                    self.transaction_started = 0.0
                    pool.put_back(self)
                    return
            else:
                first = pool.waiting[0]
                if first.values is self.values:
                    # A busy pool: straight to the oldest waiter.
                    pool.waiting.popleft()
                    stats = pool.stats
                    stats.wait_time += now - first.waiting_since
                    stats.waits.observe(now - first.waiting_since)
                    stats.server_assignment_count += 1
                    first.waiting_since = 0.0
                    first.state = _CLIENT_ACTIVE
                    self.released_at = self.checked_at = self.requested_at = now
                    self.query_open = True  # the waiter's query is what is sent next: this clock reading is its start
                    self.query_started = self.transaction_started = now
                    self.join(first)
                    first.granted(self)
                    return
        self.pooler.check_in(self, now)

    # --- queries of our own --------------------------------------------------------------------------------------------

    def run_internal(self, sql: str, done: Callable[[bool], None]) -> None:
        """Run a simple query whose results nobody gets; `done(failed)` when the server is ready again."""
        assert self.wire is not None
        self.internal = done
        self.own_query = True
        self.exchange.errors = 0
        self.exchange.expect(framing.QUERY)
        self.query_started = self.pooler.clock()
        self.wire.write(messages.query(sql))

    def _internal_done(self) -> None:
        done, self.internal = self.internal, None
        self.own_query = False
        failed = self.exchange.errors > 0
        self.exchange.errors = 0
        self.exchange.transactions = 0
        if done is not None:
            done(failed)

    # --- flow control and the end ------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        if not self.reading_paused and self.wire is not None:
            self.reading_paused = True
            self.wire.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused and self.wire is not None:
            self.reading_paused = False
            self.wire.resume_reading()

    def pause_writing(self) -> None:
        """The server does not take more: its client must wait."""
        self.write_paused = True
        client = self.client
        if client is not None:
            client.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        client = self.client
        if client is not None:
            client.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state is not ServerState.CLOSED:
            self._gone(CloseReason.SERVER_GONE, str(exc) if exc else "")

    def _gone(self, reason: CloseReason, detail: str = "") -> None:
        """PostgreSQL's last words, if there were any, say why: which of its timeouts, or whose command."""
        said = _said(self.exchange.last_words)
        if said is not None:
            reason = CloseReason.of_goodbye(said.sqlstate, reason)
            detail = f"{said.sqlstate}: {said.message}"
        self.pooler.drop_server(self, reason, detail)


def check_out(pooler: Pooler, holder: Holder) -> ServerSession | None:
    """A server that the holder may use at once. None: `holder.granted` will be called, or it will be disconnected.

    PERF: once a transaction, hence here and not in `Pooler`, which is not compiled.
    """
    pool = holder.pool
    server: ServerSession | None = pool.check_out(holder, pooler.clock())
    if server is None:
        # PERF: a pool that is full has nothing to decide before a server comes back; its reserve is the janitor's.
        if pool.used or pool.server_count < pool.size or not pool.size:
            pooler.opening.wake(pool)
        return None
    if server.values is holder.values:  # PERF: the usual case, and then there is no difference
        server.join(holder)
        return server
    return server if pooler.link(holder, server) else None


def _words(data: bytes) -> str:
    """The first error or notice in this, as the log has it."""
    try:
        for type_, body in MessageReader(MAX_LOGIN_MESSAGE).feed(data):
            if type_ in (B.ERROR_RESPONSE, B.NOTICE_RESPONSE):
                said = _said(body)
                return f"{said.sqlstate}: {said.message}" if said is not None else ""
    except ProtocolError:
        pass
    return ""


def _said(body: bytes) -> messages.ErrorFields | None:
    try:
        return messages.parse_error(body) if body else None
    except ProtocolError:
        return None
