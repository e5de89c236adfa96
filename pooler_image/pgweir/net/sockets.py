"""Options of TCP sockets, and who is at the other end of one."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from typing import Any, Final

from pgweir.session.wire import Origin
from pgweir.settings import Settings

_PATIENCE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)


def tune(sock: Any, settings: Settings) -> None:
    """Keepalive, TCP_USER_TIMEOUT and buffers as the tcp_* settings say. A node can vanish without a word."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _probe(sock, settings)
    tune_buffers(sock, settings)


def tune_listening(sock: socket.socket, settings: Settings) -> None:
    """The same for a socket that listens; whatever it accepts inherits that, at no cost.

    A RELOAD may ask for less than before: first everything is again as the system has it. Not the buffers: once a size was
    set, the kernel never goes back to choosing it itself, so each connection gets its own (`tune_buffers`).
    """
    with socket.socket(sock.family, socket.SOCK_STREAM) as untouched:
        for level, option in _PATIENCE:
            usual = untouched.getsockopt(level, option)
            if sock.getsockopt(level, option) != usual:
                sock.setsockopt(level, option, usual)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _probe(sock, settings)


def tune_buffers(sock: Any, settings: Settings) -> None:
    if settings.tcp_socket_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.tcp_socket_buffer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.tcp_socket_buffer)


def _probe(sock: Any, settings: Settings) -> None:
    if settings.tcp_keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, settings.tcp_keepidle),
            (socket.TCP_KEEPINTVL, settings.tcp_keepintvl),
            (socket.TCP_KEEPCNT, settings.tcp_keepcnt),
        ):
            if value:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if settings.tcp_user_timeout:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.tcp_user_timeout)


def unix_origin_of(sock: Any, listen_port: int) -> Origin:
    """Who is at the other end of an accepted Unix socket."""
    pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return Origin(None, listen_port, peer_user=_user_name(uid), peer_pid=pid, is_own_uid=uid == os.geteuid())


def origin_of(transport: Any) -> Origin:
    """Where an accepted TCP connection comes from."""
    peer = transport.get_extra_info("peername") or ("?", 0)
    return origin(peer[0], peer[1], transport.get_extra_info("sockname"))


def origin(host: str, port: int, local: Any) -> Origin:
    """The same, from addresses that are known."""
    own = local or (None, 0)
    return Origin(plain(host), port, local_address=plain(own[0]), local_port=own[1])


def is_wildcard(address: str) -> bool:
    """A socket that listens on it accepts connections to more than one address."""
    return address in ("0.0.0.0", "::")


def plain(address: Any) -> Any:
    """An IPv4 client of an IPv6 socket is an IPv4 client."""
    return address.removeprefix("::ffff:") if isinstance(address, str) and "." in address else address


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # an arbitrary uid, as OpenShift gives them
        return None
