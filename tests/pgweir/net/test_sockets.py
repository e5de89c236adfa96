"""What the tcp_* settings do to a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pgweir.net.sockets import tune, tune_listening
from pgweir.settings import Settings


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        yield client


def option(sock: socket.socket, level: int, name: int) -> int:
    return sock.getsockopt(level, name)


def test_a_socket_is_probed_unless_tcp_keepalive_is_off(sock: socket.socket):
    tune(sock, Settings(tcp_keepalive=False, tcp_keepcnt=7))
    assert option(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    assert option(sock, socket.IPPROTO_TCP, socket.TCP_KEEPCNT) != 7
    tune(sock, Settings())
    assert option(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("tcp_keepcnt", socket.TCP_KEEPCNT, 7),
        ("tcp_keepidle", socket.TCP_KEEPIDLE, 77),
        ("tcp_keepintvl", socket.TCP_KEEPINTVL, 17),
        ("tcp_user_timeout", socket.TCP_USER_TIMEOUT, 7700),
    ],
)
def test_the_probes_and_the_patience_are_as_set(sock: socket.socket, setting: str, name: int, value: int):
    before = option(sock, socket.IPPROTO_TCP, name)
    tune(sock, Settings())
    assert option(sock, socket.IPPROTO_TCP, name) == before, "0 leaves it to the system"
    tune(sock, Settings(**{setting: value}))  # type: ignore[arg-type]
    assert option(sock, socket.IPPROTO_TCP, name) == value


def test_tcp_socket_buffer_is_asked_of_the_kernel_both_ways(sock: socket.socket):
    tune(sock, Settings(tcp_socket_buffer=20_000))
    # The kernel doubles what it is asked for, for its own book-keeping.
    assert option(sock, socket.SOL_SOCKET, socket.SO_SNDBUF) == 40_000
    assert option(sock, socket.SOL_SOCKET, socket.SO_RCVBUF) == 40_000


def test_a_unix_socket_is_left_alone():
    one, two = socket.socketpair()
    with one, two:
        tune(one, Settings(tcp_keepalive=True, tcp_socket_buffer=20_000))
        assert option(one, socket.SOL_SOCKET, socket.SO_SNDBUF) != 40_000


def test_what_a_listening_socket_accepts_has_its_probes_and_its_patience():
    settings = Settings(tcp_keepidle=77, tcp_keepintvl=17, tcp_keepcnt=7, tcp_user_timeout=7700)
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    with socket.create_server(("127.0.0.1", 0)) as server:
        usual = [option(server, socket.IPPROTO_TCP, name) for name in names]
        for wanted, expected, probed in (
            (settings, [77, 17, 7, 7700], 1),
            (Settings(), usual, 1),
            (Settings(tcp_keepalive=False), usual, 0),
        ):
            tune_listening(server, wanted)
            with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
                assert [option(accepted, socket.IPPROTO_TCP, name) for name in names] == expected
                assert option(accepted, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == probed
