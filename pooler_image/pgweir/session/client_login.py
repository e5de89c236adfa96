"""A client from its first byte to ReadyForQuery: TLS, startup, proof, limits, and the wait for the pool's first server.

The steps stand in the order in which they happen. Whatever goes wrong ends in `refuse`, with what the client is told and what
only the log may know. Before the login nothing is unbounded: sizes by the readers, time by `client_login_timeout`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from pgweir.pool.records import ClientState
from pgweir.protocol import framing, messages
from pgweir.protocol.auth.client_auth import Succeeded
from pgweir.protocol.cancel_keys import LONG_KEY, SHORT_KEY
from pgweir.protocol.errors import (
    INVALID_AUTHORIZATION,
    ClientError,
    ProtocolError,
    client_error,
    database_disabled,
    no_such_database,
)
from pgweir.protocol.reader import MessageReader
from pgweir.protocol.reasons import CloseReason
from pgweir.protocol.startup import (
    CancelRequest,
    DirectTls,
    GssEncRequest,
    Replication,
    SslRequest,
    Startup,
    StartupReader,
    application_name_with_host,
)
from pgweir.protocol.variables import Values
from pgweir.session.client import HELD_LIMIT, ClientSession
from pgweir.session.client_proof import ClientProof
from pgweir.session.database import Database
from pgweir.session.holder import SessionPool
from pgweir.session.replication import server_parameters
from pgweir.session.startups import KnownStartup, planned
from pgweir.session.wire import Origin, TlsInfo, Wire, printable

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler

log = logging.getLogger(__name__)

CONSOLE_USER: Final = "pgbouncer"
MAX_GREETINGS: Final = 64  # kept for each pool; an application_name of each client's own must not fill the memory

# What the next bytes of a client are.
_STARTUP: Final = 0
_HANDSHAKE: Final = 1
_QUEUED: Final = 2  # it has said who it is, and there is no place
_PROOF: Final = 3
_PROVED: Final = 4  # not greeted yet

# Of BackendKeyData, before the key.
_SHORT_KEY: Final = messages.backend_key(bytes(SHORT_KEY))[: framing.HEADER_SIZE]
_LONG_KEY: Final = messages.backend_key(bytes(LONG_KEY))[: framing.HEADER_SIZE]
_CLIENT_IDLE: Final = ClientState.IDLE  # PERF: a member of an enumeration costs a look-up in its class


class ClientLogin:
    """One login; its transport's protocol until the client is in."""

    __slots__ = (
        "_checked_at",
        "_client",
        "_database",
        "_declined",
        "_early",
        "_paused_for",
        "_proof",
        "_reader",
        "_stage",
        "_startup_reader",
        "_wish",
        "database_name",
        "is_over",
        "is_proved",
        "origin",
        "pooler",
        "protocol_minor",
        "started_at",
        "tls",
        "user",
        "wire",
    )

    def __init__(self, pooler: Pooler, wire: Wire, origin: Origin, now: float) -> None:
        self.pooler = pooler
        self.wire = wire
        self.origin = origin
        self.started_at = self._checked_at = now
        self._paused_for = 0.0
        self.tls: TlsInfo | None = None
        self.user = ""
        self.database_name = ""
        self.protocol_minor = 0
        self._startup_reader: StartupReader | None = None  # as long as nothing was read
        self._declined: tuple[type, ...] = ()  # kinds of encryption that were asked for, and that we have not
        self._reader = MessageReader()
        self._stage = _STARTUP
        self._wish: KnownStartup | None = None
        self._database: Database | None = None
        self._proof: ClientProof | None = None
        self._client: ClientSession | None = None
        self._early = b""
        self.is_over = False
        self.is_proved = False

    def __repr__(self) -> str:
        return f"<ClientLogin {self.name()}>"

    def name(self) -> str:
        return printable(f"C: {self.database_name or '(nodb)'}/{self.user or '(nouser)'}@{self.origin}")

    @property
    def wants_physical_replication(self) -> bool:
        """HBA lets this in by a word of its own."""
        return self._wish is not None and self._wish.plan.replication is Replication.PHYSICAL

    # --- the transport's side ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.is_over:
            return
        try:
            if self._stage == _STARTUP:
                self._receive_startup(data)
            elif self._stage == _PROOF:
                # WHY by a name of its own: a login that succeeds lets its proof go, which is still at work. Compiled, an
                # attribute keeps nothing alive while a method of it runs (`test_compiled` looks for more of this).
                proof = self._proof
                assert proof is not None
                proof.data_received(data)
            elif self._stage == _PROVED:
                self._receive_early(data)
            elif self._stage == _QUEUED:
                self._receive_queued(data)
            else:
                # The handshake has begun, and nothing comes to us in clear: this is decrypted, but came before `tls_started`.
                self._early += data
        except (ClientError, ProtocolError) as error:
            self.refuse(error)

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._client is not None:
            self._client.connection_lost(exc)
        self._end()

    def is_overdue(self, now: float) -> bool:
        """A pause does not count, nor the wait for a place: nobody can get on meanwhile."""
        if self in self.pooler.overflow.waiting or (self._proof is not None and self._proof.is_held_by_pause):
            self._paused_for += now - self._checked_at
        self._checked_at = now
        limit = self.pooler.settings.client_login_timeout
        return limit > 0 and now - self.started_at - self._paused_for > limit

    def time_out(self) -> None:
        self.refuse(client_error("client_login_timeout", stage="startup"), CloseReason.CLIENT_LOGIN_TIMEOUT)

    # --- TLS, cancel, startup ---------------------------------------------------------------------------------------

    def _receive_startup(self, data: bytes) -> None:
        packet = b""  # when it is known to be one packet and nothing else
        if self._startup_reader is None:
            known = self.pooler.startups.get(data)
            if known is not None:
                self._begin(known)
                return
            self._startup_reader = StartupReader()
            packet = data
        event = self._startup_reader.feed(data)
        match event:
            case None:
                return
            case DirectTls(rest):
                if self.tls is not None or not self._tls_offered():
                    self.leave()
                    return
                self._upgrade(rest)
            case SslRequest(rest) if self._tls_offered() and self.tls is None:
                if rest:
                    raise client_error("received unencrypted data after SSL request", stage="tls")
                self.wire.write(b"S")
                self._upgrade(b"")
            case SslRequest():
                if self.tls is not None:
                    raise client_error("SSL request inside TLS", stage="tls")
                self._decline(event)
            case GssEncRequest(rest):
                if rest:
                    raise client_error("received unencrypted data after GSSAPI encryption request", stage="tls")
                self._decline(event)
            case CancelRequest(pid_key=key):
                self.is_over = True
                self.pooler.logins.discard(self)
                self.pooler.cancels.request(key, self.wire.close)
            case Startup(rest=rest):
                if rest:
                    self._reader.feed(rest)
                self._begin(planned(self.pooler, event, b"" if rest else packet))

    def _tls_offered(self) -> bool:
        return not self.origin.is_unix and self.pooler.edge.client_tls_available()

    def _decline(self, request: SslRequest | GssEncRequest) -> None:
        """No; the client goes on without. SPEC: "Message Flow", each is asked for once: more of them in one read would go as
        deep as there are."""
        if type(request) in self._declined:
            raise client_error("encryption was asked for twice", stage="tls")
        self._declined += (type(request),)
        self.wire.write(b"N")
        self._startup_reader = None
        if request.rest:
            self._receive_startup(request.rest)

    def _upgrade(self, first_bytes: bytes) -> None:
        self._stage = _HANDSHAKE
        self.pooler.edge.start_client_tls(self, first_bytes)

    def tls_started(self, wire: Wire, info: TlsInfo) -> None:
        """The handshake is done: start again, inside."""
        self.wire = wire
        self.tls = info
        self._startup_reader = None
        self._stage = _STARTUP
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def tls_failed(self, message: str) -> None:
        """The handshake failed; the edge has closed the connection."""
        if not self.is_over:
            log.info("%s TLS handshake failed: %s", self.name(), message)
            self._count_failure("tls")
        self._end()

    # --- who is it, and what proof is asked -------------------------------------------------------------------------

    def _begin(self, wish: KnownStartup) -> None:
        pooler = self.pooler
        self._wish = wish
        if wish.config is not pooler.config:
            wish.follow(pooler.config)
        pooler.logins.has_started(self)
        self.user = wish.user
        self.database_name = wish.database
        if not wish.is_console and not pooler.accepting:
            raise client_error("pooler is shutting down", stage="limits")
        if wish.needs_tls and self.tls is None and not self.origin.is_unix:
            raise client_error("SSL required", stage="tls")
        if wish.needs_certificate and self.tls is not None and not self.tls.has_certificate:
            raise ClientError(INVALID_AUTHORIZATION, "connection requires a valid client certificate", stage="tls")
        self.protocol_minor = wish.minor
        if wish.negotiation:
            self.wire.write(wish.negotiation)
        if wish.is_console:
            self._begin_console()
            return
        self._stage = _QUEUED
        if pooler.overflow.admits(self):
            self.admitted()

    def admitted(self) -> None:
        """There is a place for this client: on with its proof."""
        try:
            if not self.pooler.accepting:
                raise client_error("pooler is shutting down", stage="limits")
            database = self.pooler.databases.get(self.database_name)
            self._database = database if database is not None else self.pooler.database(self.database_name, keep=False)
            self._ask_for_proof()
        except (ClientError, ProtocolError) as error:
            self.refuse(error)

    def _receive_queued(self, data: bytes) -> None:
        """It waits for a place, and has nothing to say but goodbye."""
        if data[0] != messages.F.TERMINATE:
            raise client_error("client password pkt before startup packet", stage="password")
        self.leave()

    def _begin_console(self) -> None:
        if self.origin.is_own_uid and self.user == CONSOLE_USER:
            self._open_console(admin=True)
            return
        settings = self.pooler.settings
        if self.user not in settings.admin_users and self.user not in settings.stats_users:
            raise client_error("not allowed", stage="console")
        self._ask_for_proof()

    def _ask_for_proof(self) -> None:
        proof = self._proof = ClientProof(self, self._database, self._reader)
        self._stage = _PROOF
        proof.begin()

    # --- in: limits, pool, greeting ---------------------------------------------------------------------------------

    def proved(self, proof: Succeeded) -> None:
        """The client is who it says. Raises ClientError where it may not come in all the same."""
        wish = self._wish
        assert self._proof is not None
        assert wish is not None
        self.is_proved = True
        self._stage = _PROVED
        if wish.is_console:
            self._open_console(admin=self.user in self.pooler.settings.admin_users)
            return
        pooler = self.pooler
        # As it is now: a RELOAD may have taken it away meanwhile.
        database = pooler.databases.get(self.database_name)
        if database is None:
            database = pooler.database(self.database_name)
            if database is None:
                raise no_such_database(self.database_name)
        database.was_entered = True
        if database.disabled:
            raise database_disabled(database.name)
        settings = database.settings
        if settings.user is None and pooler.settings.auth_type == "any":
            raise client_error("bouncer config error", stage="limits")
        if wish.config is not pooler.config:
            wish.follow(pooler.config)
        if wish.settings is not settings:
            wish.find_pool(database)
        self._check_client_limits(wish)
        pool = None if wish.is_replication else pooler.pools.get(wish.pool_key)
        if pool is None:
            peer = str(self.origin) if pooler.settings.application_name_add_host else None
            pool = pooler.pool(database, database.pool_user(self.user), server_parameters(wish.plan, peer))
        if settings.user is None:
            # The client's own proof opens the server, too; a forced user's credentials are never touched by it.
            secret, credentials = self._proof.secret, pooler.credentials
            credentials.learn(pool, proof.password or secret or None, proof.scram_keys, secret)
        now = pooler.clock()
        client = ClientSession(pooler, pool, self.wire, self.origin, self.user, self.tls, now)
        client.connected_at = self.started_at
        self._client = client
        pooler.logins.discard(self)
        pooler.roster.entered(client)
        if pool.welcome is not None and (pool.alive(now) or pool.paused):
            client.state = _CLIENT_IDLE
            self._greet(client, now)
            return
        client.state = ClientState.WAITING_LOGIN
        client.waiting_since = now
        client.login = self._welcome
        pool.waiting_login.append(client)
        pooler.opening.wake(pool)

    def _check_client_limits(self, wish: KnownStartup) -> None:
        limit, roster = wish.clients_of_database, self.pooler.roster
        if limit and roster.of_database.get(self.database_name, 0) >= limit:
            raise client_error("client connections exceeded (max_db_client_connections)", stage="limits")
        limit = wish.clients_of_user
        if limit and roster.of_user.get(self.user, 0) >= limit:
            raise client_error("client connections exceeded (max_user_client_connections)", stage="limits")

    def _receive_early(self, data: bytes) -> None:
        """The client is in, but has not been greeted: what it sends is kept."""
        self._reader.feed(data)
        client = self._client
        if len(self._reader.rest) > HELD_LIMIT and client is not None:
            client.pause_reading()

    def _welcome(self) -> None:
        """The pool's first server is there."""
        assert self._client is not None
        self._greet(self._client, self.pooler.clock())

    def _greet(self, client: ClientSession, now: float) -> None:
        """Everything up to ReadyForQuery in one write; from here on the session has the wire."""
        wish, pooler = self._wish, self.pooler
        assert wish is not None
        self.is_over = True
        requested, key = wish.variables, wish.key
        client.application_name = wish.application_name
        if wish.names_host:
            name = application_name_with_host(wish.plan.application_name, str(self.origin))
            requested = {**requested, "application_name": name}
            key = tuple(requested.items())
            client.application_name = name
        if wish.is_replication:  # its server was opened with what it wants
            client.values, greeting = None, self._greeting(client.pool, {}, ())[1]
        else:
            client.values, greeting, _ = self._greeting(client.pool, requested, key)
        client.requested_at = now
        pooler.client_logins.observe(now - self.started_at)
        self.wire.set_protocol(client)
        cancel_key = pooler.cancels.give_key(client, self.protocol_minor)
        header = _SHORT_KEY if len(cancel_key) == SHORT_KEY else _LONG_KEY
        self.wire.write(b"".join((greeting, header, cancel_key, wish.ending)))
        if wish.is_logged:
            tls = str(self.tls) if self.tls else "no"
            who = printable(f"db={client.database} user={client.user}")
            log.info("C-%d: login attempt: %s tls=%s", client.id, who, tls)
        rest = b"" if self._reader.is_empty else self._reader.rest
        self._let_go()
        client.resume_reading()
        if rest:
            client.data_received(rest)

    def _greeting(
        self, pool: SessionPool, requested: dict[str, str], key: tuple[tuple[str, str], ...]
    ) -> tuple[Values, bytes, int]:
        """The client's variables, and the messages that tell it of them. PERF: clients mostly ask for what others asked for."""
        tracker = self.pooler.tracker
        known = pool.greetings.get(key)
        if known is not None and known[2] == tracker.epoch:
            return known
        assert pool.welcome is not None
        values = tracker.filled(tracker.values(requested), tracker.values(pool.welcome))
        values = tracker.updated(values, ())  # (filling may have made the tracker forget the one before)
        spelled = {name.lower(): value for name, value in tracker.items(values)}
        parts = [messages.authentication_ok()]
        for name, value in pool.welcome.items():
            parts.append(messages.parameter_status(name, spelled.get(name.lower(), value)))
        if len(pool.greetings) >= MAX_GREETINGS:
            pool.greetings.clear()
        pool.greetings[key] = values, b"".join(parts), tracker.epoch
        return pool.greetings[key]

    def _open_console(self, *, admin: bool) -> None:
        self.is_over = True
        self.pooler.logins.discard(self)
        if self.pooler.open_console is None:
            raise client_error("not allowed", stage="console")
        console = self.pooler.open_console(self, self.wire, admin)
        self.wire.set_protocol(console)
        self._let_go()

    @property
    def rest(self) -> bytes:
        """What the client sent behind its proof (the console takes it over)."""
        return self._reader.rest

    # --- out --------------------------------------------------------------------------------------------------------

    def refuse(self, error: ClientError | ProtocolError, reason: CloseReason = CloseReason.CLIENT_REFUSED) -> None:
        if isinstance(error, ProtocolError):
            error = ClientError(error.sqlstate, error.message, stage="startup")
        if self._client is not None:
            self._client.disconnect(reason, error.message, error.sqlstate)
            self._end()
            return
        proof = self._proof
        if proof is not None:
            proof.failed()
        stage = error.stage or "startup"
        self._count_failure(stage)
        if self.pooler.settings.log_pooler_errors:
            extra = reason.fields(auth_stage=stage)
            log.warning("%s closing because: %s auth_stage=%s", self.name(), error.reason, stage, extra=extra)
        if not self.wire.is_closing():  # a handshake that has failed a moment ago: uvloop raises for what is closed
            self.wire.write(messages.fatal(error))
            self.wire.close()
        self.pooler.closed_counts[reason] = self.pooler.closed_counts.get(reason, 0) + 1
        self._end()

    def _count_failure(self, stage: str) -> None:
        counts = self.pooler.auth_failures
        counts[stage] = counts.get(stage, 0) + 1

    def leave(self) -> None:
        """Without a word: there is nobody to tell, or nothing."""
        self._end()
        self.wire.close()

    def _end(self) -> None:
        self.is_over = True
        self.pooler.logins.discard(self)
        self.pooler.overflow.leave(self)
        self._let_go()

    def _let_go(self) -> None:
        """WHY: what holds itself waits for the collector, with its buffers, its transport and its TLS state; logins by the
        thousand would pile up until then."""
        self._proof = None
        self._client = None


def accepted(pooler: Pooler, wire: Wire, origin: Origin) -> ClientLogin:
    """A new connection; the answer is its protocol until the login is over."""
    login = ClientLogin(pooler, wire, origin, pooler.clock())
    pooler.logins.add(login)
    return login
