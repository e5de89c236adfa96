"""Listening sockets: the TCP addresses and the Unix socket that clients connect to.

PERF: compiled where that is possible (`pgweir.compiled`), for the moment between accept and the login.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from pgweir.net.door import Door
from pgweir.net.sockets import is_wildcard, origin, origin_of, plain, tune_buffers, tune_listening, unix_origin_of
from pgweir.net.stream import Borrowed, Stream
from pgweir.net.streams import Streams
from pgweir.session.client_login import accepted
from pgweir.session.pooler import Pooler
from pgweir.session.wire import Origin
from pgweir.settings import Settings

log = logging.getLogger(__name__)


class ListenError(Exception):
    """An address cannot be listened on; the message names the setting."""


class Listeners:
    """All listening sockets of the process. With `streams`, what they accept is our own transport's; else the loop's."""

    def __init__(self, pooler: Pooler, streams: Streams | None = None) -> None:
        self._pooler = pooler
        self._streams = streams
        self._servers: list[tuple[asyncio.AbstractServer | Door, socket.socket]] = []
        self._unix_path: Path | None = None
        self.tcp_addresses: list[tuple[str, int]] = []

    @property
    def listening(self) -> bool:
        return bool(self._servers)

    async def start(self) -> None:
        """Listen on listen_addr and in unix_socket_dir. Raises ListenError; at least one must be there."""
        settings = self._pooler.settings
        # Who finds the port open, most often at 127.0.0.1, finds it open for IPv6 and finds the console, too.
        sockets = sorted(_tcp_sockets(settings), key=lambda sock: sock.family == socket.AF_INET)
        if settings.unix_socket_dir:
            sockets.insert(0, self._unix_socket(settings))
        if not sockets:
            raise ListenError("nothing to listen on: set listen_addr or unix_socket_dir")
        for sock in sockets:
            self._servers.append((await self._listen(sock, settings.listen_backlog), sock))
            if sock.family != socket.AF_UNIX:
                self.tcp_addresses.append(sock.getsockname()[:2])
        _report_backlog(settings.listen_backlog)

    async def _listen(self, sock: socket.socket, backlog: int) -> asyncio.AbstractServer | Door:
        is_unix = sock.family == socket.AF_UNIX
        if self._streams is not None:
            sock.listen(backlog)
            sock.setblocking(False)
            newcomers = _Newcomers(self._pooler, self._streams, sock)
            return Door(self._streams, sock, newcomers.accept_unix if is_unix else newcomers.accept)
        protocol = partial(cast(Callable[..., asyncio.Protocol], _AcceptedUnix if is_unix else _Accepted), self._pooler)
        return await asyncio.get_running_loop().create_server(protocol, sock=sock, backlog=backlog)

    def retune(self) -> None:
        """After RELOAD: what may change about a socket that listens already."""
        settings = self._pooler.settings
        for _, sock in self._servers:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, settings.tcp_defer_accept)
                tune_listening(sock, settings)

    def stop_tcp(self) -> None:
        """No new TCP connections; the Unix socket stays, for the console."""
        for server, sock in list(self._servers):
            if sock.family != socket.AF_UNIX:
                server.close()
                self._servers.remove((server, sock))

    def stop(self) -> None:
        for server, _ in self._servers:
            server.close()
        self._servers.clear()
        if self._unix_path is not None:
            self._unix_path.unlink(missing_ok=True)
            self._unix_path = None

    def _unix_socket(self, settings: Settings) -> socket.socket:
        name = f"{settings.unix_socket_dir}/.s.PGSQL.{settings.listen_port}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if name.startswith("@"):
                sock.bind("\0" + name[1:])
            else:
                self._bind_in_folder(sock, Path(name), settings)
        except BaseException:
            sock.close()
            raise
        return sock

    def _bind_in_folder(self, sock: socket.socket, path: Path, settings: Settings) -> None:
        if path.exists() and _answers(path):
            raise ListenError(
                f"unix_socket_dir: a process already serves {path}; stop it, or choose another listen_port"
            )
        try:
            if os.path.lexists(path):
                if not stat.S_ISSOCK(path.lstat().st_mode):
                    raise ListenError(f"unix_socket_dir: {path} is there and is no socket; move it away")
                path.unlink()  # of a process that is no more
            sock.bind(str(path))
        except OSError as error:
            raise ListenError(f"unix_socket_dir = {settings.unix_socket_dir!r}: {error.strerror}") from None
        self._unix_path = path
        os.chmod(path, settings.unix_socket_mode)
        if settings.unix_socket_group:
            try:
                os.chown(path, -1, grp.getgrnam(settings.unix_socket_group).gr_gid)
            except (KeyError, PermissionError):
                raise ListenError(
                    f"unix_socket_group = {settings.unix_socket_group!r}: no such group, or not a member"
                ) from None


class _Newcomers:
    """What becomes of those who come to one listening socket: streams, with a login each."""

    __slots__ = ("_address", "_pooler", "_port", "_streams")

    def __init__(self, pooler: Pooler, streams: Streams, sock: socket.socket) -> None:
        self._pooler = pooler
        self._streams = streams
        local = sock.getsockname()
        # PERF: the same for all of them, where the socket listens on one address: one system call less for each login.
        one = isinstance(local, tuple) and not is_wildcard(local[0])
        self._address: str | None = plain(local[0]) if one else None
        self._port: int = local[1] if one else 0

    def accept(self, number: int, host: str, port: int) -> None:
        stream = Stream(self._streams, number)
        settings = self._pooler.settings
        if settings.tcp_socket_buffer:
            tune_buffers(stream.get_extra_info("socket"), settings)
        if self._address is not None:
            where = Origin(host, port, self._address, self._port)
        else:
            where = origin(host, port, stream.get_extra_info("sockname"))
        stream.begin(accepted(self._pooler, stream, where))

    def accept_unix(self, number: int, _host: str, _port: int) -> None:
        stream = Stream(self._streams, number)
        where = unix_origin_of(Borrowed(fileno=number), self._pooler.settings.listen_port)
        stream.begin(accepted(self._pooler, stream, where))


class _Accepted:
    """The protocol of a connection for the moment between accept and its login."""

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler

    def connection_made(self, transport: Any) -> None:
        try:
            origin = self.origin_of(transport)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # a client that left before it was accepted
                raise
            transport.abort()
            return
        transport.set_protocol(self._pooler.accept(transport, origin))

    def origin_of(self, transport: Any) -> Origin:
        settings = self._pooler.settings
        if settings.tcp_socket_buffer:
            tune_buffers(transport.get_extra_info("socket"), settings)
        return origin_of(transport)

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class _AcceptedUnix(_Accepted):
    def origin_of(self, transport: Any) -> Origin:
        return unix_origin_of(transport.get_extra_info("socket"), self._pooler.settings.listen_port)


def _tcp_sockets(settings: Settings) -> list[socket.socket]:
    sockets = []
    for address in settings.listen_addr:
        host = None if address == "*" else address
        try:
            found = socket.getaddrinfo(host, settings.listen_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except socket.gaierror as error:
            raise ListenError(f"listen_addr = {address!r}: {error.strerror}") from None
        bound = 0
        problem = ""
        for family, kind, proto, _, sockaddr in found:
            try:
                sockets.append(_tcp_socket(family, kind, proto, sockaddr, settings))
                bound += 1
            except OSError as error:
                problem = f"{error.strerror} (port {settings.listen_port})"
                # With "*" one family will do: there may be no IPv6. A port that somebody has is nobody's wish.
                if address != "*" or error.errno == errno.EADDRINUSE:
                    bound = 0
                    break
        if not bound:
            for sock in sockets:
                sock.close()
            raise ListenError(f"listen_addr = {address!r}: {problem}")
    return sockets


def _tcp_socket(family: int, kind: int, proto: int, sockaddr: Any, settings: Settings) -> socket.socket:
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.so_reuseport:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if settings.tcp_defer_accept:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, settings.tcp_defer_accept)
        tune_listening(sock, settings)
        sock.bind(sockaddr)
    except OSError:
        sock.close()
        raise
    return sock


def _report_backlog(backlog: int, limit_file: Path = Path("/proc/sys/net/core/somaxconn")) -> None:
    """The kernel cuts a longer queue without a word; here is the word."""
    try:
        most = int(limit_file.read_text())
    except (OSError, ValueError):
        return
    if backlog > most:
        log.warning("listen_backlog = %d: the kernel queues %d (net.core.somaxconn); raise that too", backlog, most)


def _answers(path: Path) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(1.0)
        probe.connect(str(path))
    except OSError:
        return False
    finally:
        probe.close()
    return True
