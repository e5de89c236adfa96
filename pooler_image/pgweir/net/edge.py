"""The edge that sessions act through: the event loop's clock, connections to servers, TLS upgrades, cancel requests.

Everything that takes time is a task of this object, held until it is done; results go back by a call into the session.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from pgweir.hba import is_address
from pgweir.ldap import LdapOptions, LdapOutcome
from pgweir.net.resolver import Resolver, connect
from pgweir.net.sockets import tune
from pgweir.net.stream import Stream
from pgweir.net.streams import Streams, wanted
from pgweir.net.tls import TlsContexts, failure_stage, speaks_postgresql, tls_info
from pgweir.net.workers import Workers
from pgweir.pool.records import ServerState
from pgweir.protocol import messages
from pgweir.protocol.errors import CONNECTION_FAILURE
from pgweir.session.client_login import ClientLogin
from pgweir.session.pooler import Pooler
from pgweir.session.server import ServerSession
from pgweir.session.server_login import ServerLogin
from pgweir.session.turns import SLICE
from pgweir.session.wire import TlsInfo

log = logging.getLogger(__name__)

LDAP_TIMEOUT: Final = 10.0  # seconds for each step of a question to a directory
CANCEL_TIMEOUT: Final = 10.0  # seconds that a cancel connection may live
READ_AHEAD: Final = 64  # bytes of the answer to an SSLRequest, which is one byte and no more
RESOLVE_TIMEOUT: Final = 5.0  # seconds to find the addresses of peers

_NO_POSTGRESQL: Final = "direct TLS without the protocol name 'postgresql'"


class NetworkEdge:
    """Implements `session.wire.Edge` on the running loop. `pooler` is set right after both exist."""

    def __init__(self, contexts: TlsContexts) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: dict[ServerSession, asyncio.Task[None]] = {}
        self._resolver = Resolver(self._loop)
        self.contexts = contexts
        self.streams = Streams(self._loop) if wanted(self._loop) else None  # None: connections are the loop's own
        self.round: Callable[[], int] = _slice if self.streams is None else self.streams.round
        self._workers = Workers()

    @property
    def pooler(self) -> Pooler:
        assert self._resolver.pooler is not None
        return self._resolver.pooler

    @pooler.setter
    def pooler(self, pooler: Pooler) -> None:
        self._resolver.pooler = pooler

    clock = staticmethod(time.monotonic)
    random = staticmethod(os.urandom)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._loop.call_later(seconds, action)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._resolver.close()
        self._workers.close()
        if self.streams is not None:
            self.streams.close()

    def refresh_names(self) -> None:
        """Follow the names of servers; `lifecycle` asks for it with each tick."""
        self._resolver.refresh()

    # --- work that would hold up the loop ------------------------------------------------------------------------------

    def compute(self, run: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._workers.compute(run, done)

    def ask_ldap(self, options: LdapOptions, user: str, password: str, done: Callable[[LdapOutcome], None]) -> None:
        timeout = min(self.pooler.settings.client_login_timeout or LDAP_TIMEOUT, LDAP_TIMEOUT)
        self._workers.ask_ldap(options, user, password, timeout, done)

    # --- TLS towards clients -------------------------------------------------------------------------------------------

    def client_tls_available(self) -> bool:
        return self.contexts.client is not None

    def start_client_tls(self, login: ClientLogin, first_bytes: bytes) -> None:
        context = self.contexts.client  # that of now: a RELOAD may change it while the handshake is under way
        assert context is not None
        wire: Any = login.wire
        if isinstance(wire, Stream):
            agreed = partial(self._client_agreed, login, bool(first_bytes))
            wire.secure(context, agreed, server_side=True, early=first_bytes)
            return
        # Nothing may be read before the handshake owns the socket: the rest of a ClientHello that came in two packets would be
        # lost to it, and what comes in clear would pass for decrypted.
        wire.pause_reading()
        self._start(self._loops_client_tls(login, context, first_bytes))

    def _client_agreed(self, login: ClientLogin, is_direct: bool, failed: BaseException | None) -> None:
        """The handshake of a stream is done, or has failed."""
        wire: Any = login.wire
        if failed is None and is_direct and not speaks_postgresql(wire):
            failed = ConnectionError(_NO_POSTGRESQL)
        if failed is None:
            login.tls_started(wire, tls_info(wire))
            return
        wire.abort()
        self._count_tls_failure("client", failed)
        login.tls_failed(str(failed))

    async def _loops_client_tls(self, login: ClientLogin, context: ssl.SSLContext, first_bytes: bytes) -> None:
        """The same by the loop's own transport."""
        wire: Any = login.wire
        protocol: Any = login  # has the methods of a protocol without being one of asyncio's
        timeout = self.pooler.settings.client_login_timeout or None
        upgrade = None
        try:
            if login.is_over or wire.is_closing():
                raise ConnectionError("the client left before the handshake")
            upgrade = self._loop.create_task(
                self._loop.start_tls(wire, protocol, context, server_side=True, ssl_handshake_timeout=timeout)
            )
            if first_bytes:
                # Direct TLS: its first bytes were read to find that out. Two turns of the loop, and the TLS protocol stands
                # on the wire and has been told of its connection.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                tls = wire.get_protocol()
                if tls is not None:  # else the connection is over, which `upgrade` says
                    _feed(tls, first_bytes)
            transport = await upgrade
            if transport is None:
                raise ConnectionError("the client left during the handshake")
            info = tls_info(transport)
            if first_bytes and not speaks_postgresql(transport):
                transport.abort()
                raise ConnectionError(_NO_POSTGRESQL)
        except (OSError, ssl.SSLError) as error:
            wire.abort()
            self._count_tls_failure("client", error)
            login.tls_failed(str(error))
            return
        finally:
            del (
                upgrade
            )  # its error holds this frame: together they would wait for the collector, with all that they hold
        login.tls_started(transport, info)

    # --- connections to servers ----------------------------------------------------------------------------------------

    def connect(self, server: ServerSession) -> None:
        task = self._connecting[server] = self._start(self._connect(server))
        task.add_done_callback(lambda _: self._connecting.pop(server, None))

    def abandon(self, server: ServerSession) -> None:
        task = self._connecting.pop(server, None)
        if task is not None and task is not asyncio.current_task():  # else it reports its own failure
            task.cancel()

    async def _connect(self, server: ServerSession) -> None:
        pooler = self.pooler
        database = pooler.databases.get(server.pool.database)
        if database is None:  # removed meanwhile, and the server with it
            return
        server.host, server.port = database.host(pooler.config, self.clock()), database.settings.port
        timeout = server.pool.policy.connect_timeout or None
        deadline = None if timeout is None else self._loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                transport, info = await self._open(server.host, server.port, self._server_tls())
        except TimeoutError:
            pooler.opening.failed(server, "connect timeout", CONNECTION_FAILURE, answered=False)
            return
        except socket.gaierror as error:
            pooler.opening.failed(
                server, f"server DNS lookup failed: {error.strerror}", CONNECTION_FAILURE, answered=False
            )
            return
        except (OSError, ssl.SSLError) as error:
            pooler.opening.failed(server, f"connect failed: {_cause(error)}", CONNECTION_FAILURE, answered=False)
            return
        except Exception as error:  # a host name that cannot be encoded, …: else the pool would wait for this for ever
            log.exception("connecting to %r:%d", server.host, server.port)
            pooler.opening.failed(server, f"connect failed: {error}", CONNECTION_FAILURE, answered=False)
            return
        if server.state is not ServerState.LOGIN:  # not wanted any more (a pause)
            transport.abort()
            return
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            server.address = str(peer[0])
        local = transport.get_extra_info("sockname")
        if isinstance(local, tuple):
            server.local_address, server.local_port = local[0], local[1]
        login = server.connected(transport, server.host, server.port, info)
        assert isinstance(login, ServerLogin)
        transport.set_protocol(login)
        if transport.is_closing():  # lost before `login` could hear of it
            login.connection_lost(None)
            return
        login.start()
        if deadline is not None:
            login.deadline = self._loop.call_at(deadline, login.time_out)

    def _server_tls(self) -> _Tls:
        settings = self.pooler.settings
        return _Tls(
            self.contexts.server,
            optional=settings.server_tls_sslmode in ("allow", "prefer"),
            direct=settings.server_tls_sslnegotiation == "direct",
        )

    async def _open(self, host: str, port: int, tls: _Tls) -> tuple[Any, TlsInfo | None]:
        """TCP or Unix, and TLS as asked. Errors are OSError or SSLError."""
        if host.startswith(("/", "@")):
            path = f"{host}/.s.PGSQL.{port}"
            path = "\0" + path[1:] if host.startswith("@") else path
            sock = await connect(self._loop, socket.socket(socket.AF_UNIX), path)
            return await self._transport(sock, self.streams), None
        sock = await self._resolver.connect(host, port)
        try:
            tune(sock, self.pooler.settings)
            context = tls.context
            if context is None:
                return await self._transport(sock, self.streams), None
            if not tls.direct:
                await self._loop.sock_sendall(sock, messages.ssl_request())
                reply = await self._loop.sock_recv(sock, READ_AHEAD)
                if reply == b"N" and tls.optional:
                    return await self._transport(sock, self.streams), None
                if reply != b"S":
                    # More than one byte would be data injected before the handshake (CVE-2021-23222).
                    raise ConnectionError(
                        "server refused SSL" if reply in (b"N", b"") else "unexpected answer to SSLRequest"
                    )
        except BaseException as error:
            sock.close()
            if tls.context is not None and isinstance(error, OSError):  # SSLError is one, too
                self._count_tls_failure("server", error)
            raise
        transport = await self._transport(sock, self.streams)
        try:
            name = tls.name or host
            name = name if context.check_hostname or not is_address(name) else ""
            upgraded = await self._upgraded(transport, context, name or None)
            info = tls_info(upgraded)
            if tls.direct and not speaks_postgresql(upgraded):
                # SPEC: "SSL Session Encryption": whoever did not agree on that may be no PostgreSQL at all (ALPACA).
                upgraded.abort()
                raise ConnectionError("direct TLS, but the server did not agree to speak the protocol 'postgresql'")
            return upgraded, info
        except BaseException as error:
            transport.abort()
            if isinstance(error, OSError):  # SSLError is one, too
                self._count_tls_failure("server", error)
            raise

    async def _upgraded(self, transport: Any, context: ssl.SSLContext, name: str | None) -> Any:
        """A connection to a server, behind its handshake."""
        if isinstance(transport, Stream):
            agreed: asyncio.Future[None] = self._loop.create_future()
            transport.secure(context, partial(_settle, agreed), server_side=False, name=name)
            try:
                await agreed
            finally:
                del agreed  # its error holds this frame
            return transport
        upgraded = await self._loop.start_tls(transport, asyncio.Protocol(), context, server_hostname=name)
        if upgraded is None:
            raise ConnectionError("server closed the connection during the TLS handshake")
        return upgraded

    async def _transport(self, sock: socket.socket, streams: Streams | None) -> Any:
        """On a socket that is connected: a stream, or the loop's own transport."""
        if streams is not None:
            stream = Stream(streams, sock.detach())
            stream.begin(asyncio.Protocol())
            return stream
        is_unix = sock.family == socket.AF_UNIX
        create: Any = self._loop.create_unix_connection if is_unix else self._loop.create_connection
        return (await create(asyncio.Protocol, sock=sock))[0]

    def _count_tls_failure(self, side: str, error: BaseException) -> None:
        counts, key = self.pooler.tls_failures, (side, failure_stage(error))
        counts[key] = counts.get(key, 0) + 1

    # --- cancel requests -------------------------------------------------------------------------------------------------

    def send_cancel(self, server: ServerSession, done: Callable[[], None]) -> None:
        # The address is taken now: the server's own connection may be closed before the task runs.
        # A key that came through TLS leaves through TLS, whatever whoever is in between says now; and the certificate
        # is still that of the server's name.
        tls = replace(
            self._server_tls(), context=self.contexts.server if server.tls else None, optional=False, name=server.host
        )
        self._start(self._cancel(_same_address(server), server.port, tls, server.cancel_key, done))

    async def _cancel(self, host: str, port: int, tls: _Tls, key: bytes, done: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(self.pooler.settings.cancel_wait_timeout or CANCEL_TIMEOUT):
                transport, _info = await self._open(host, port, tls)
                await _say_cancel(transport, key)
        except (OSError, ssl.SSLError):
            pass  # the query goes on; SPEC: a cancel request is never answered
        finally:
            done()

    def send_cancel_to_peer(
        self, host: str, port: int, key: bytes, sent: Callable[[], None], done: Callable[[], None]
    ) -> None:
        self._start(self._cancel_at_peer(host, port, key, sent, done))

    async def _cancel_at_peer(
        self, host: str, port: int, key: bytes, sent: Callable[[], None], done: Callable[[], None]
    ) -> None:
        # Peers have the clients that we have, and so the same idea of when these must use TLS.
        tls = _Tls(self.contexts.peer, optional=self.pooler.settings.client_tls_sslmode in ("allow", "prefer"))
        try:
            async with asyncio.timeout(self.pooler.settings.cancel_wait_timeout or CANCEL_TIMEOUT):
                transport, _info = await self._open(host, port, tls)
                sent()
                await _say_cancel(transport, key)
        except (OSError, ssl.SSLError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
            log.info("a cancel request could not be handed on to %s:%d: %s", host, port, error or type(error).__name__)
        finally:
            done()

    def resolve(self, name: str, found: Callable[[tuple[str, ...]], None]) -> None:
        self._start(self._resolve(name, found))

    async def _resolve(self, name: str, found: Callable[[tuple[str, ...]], None]) -> None:
        addresses: dict[str, None] = {}
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                for *_, address in await self._loop.getaddrinfo(name, None, type=socket.SOCK_STREAM):
                    addresses[str(address[0])] = None
        except (OSError, UnicodeError) as error:
            log.warning("the addresses of the peers at %r are not known: %s", name, error or type(error).__name__)
        finally:
            found(tuple(addresses))


@dataclass(frozen=True, slots=True)
class _Tls:
    """Whether a connection that we open asks for TLS."""

    context: ssl.SSLContext | None  # None: it does without
    optional: bool  # and it also does when the other side says no
    direct: bool = False  # it begins with the handshake, without asking first
    name: str = ""  # that its certificate should bear; empty: the host's


def _settle(waited_for: asyncio.Future[None], failed: BaseException | None) -> None:
    """A handshake is done, or has failed; perhaps nobody waits for that any more."""
    if waited_for.done():
        return
    if failed is None:
        waited_for.set_result(None)
    else:
        waited_for.set_exception(failed)


def _slice() -> int:
    """uvloop tells nobody of its turns."""
    return int(time.monotonic() / SLICE)


async def _say_cancel(transport: Any, key: bytes) -> None:
    """Say it, and wait until the other side hangs up: it has done then what it can."""
    closed = _Closed()
    transport.set_protocol(closed)
    transport.write(messages.cancel_request(key))
    try:
        if not transport.is_closing():
            await closed.lost
    finally:
        transport.close()


class _Closed(asyncio.Protocol):
    """Waits for the end of a connection."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


def _feed(protocol: Any, data: bytes) -> None:
    while data:
        buffer = protocol.get_buffer(len(data))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]


def _same_address(server: ServerSession) -> str:
    """The very machine that the server is on: a name may mean another one by now."""
    wire: Any = server.wire
    peer = wire.get_extra_info("peername") if wire is not None else None
    if isinstance(peer, tuple) and not server.host.startswith(("/", "@")):
        return str(peer[0])
    return server.host


def _cause(error: OSError | ssl.SSLError) -> str:
    return error.strerror or str(error)
