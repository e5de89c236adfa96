"""Where the pooler listens, and how."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.network import needs_ipv6
from tests.pgweir.session.world import FakeEdge
from tests.postgres.server import free_port

from pgweir.config import Config
from pgweir.net import listener
from pgweir.net.listener import ListenError, Listeners
from pgweir.session.pooler import Pooler
from pgweir.settings import Settings


def listening(look: Callable[[Listeners], Any], **settings: Any) -> Any:
    """What `look` finds while the pooler listens."""
    settings = {"listen_port": free_port(), "unix_socket_dir": "", **settings}

    async def run() -> Any:
        listeners = Listeners(Pooler(Config(settings=Settings(**settings)), FakeEdge()))
        try:
            await listeners.start()
            return look(listeners)
        finally:
            listeners.stop()
            await asyncio.sleep(0)

    return asyncio.run(run())


def kernel_sockets(listeners: Listeners) -> list[socket.socket]:
    return [sock for _, sock in listeners._servers]


def test_it_listens_on_each_address_of_listen_addr_and_on_listen_port():
    port = free_port()
    found = listening(lambda it: it.tcp_addresses, listen_addr=("127.0.0.1", "127.0.0.2"), listen_port=port)
    assert found == [("127.0.0.1", port), ("127.0.0.2", port)]


@needs_ipv6
def test_who_finds_the_port_open_at_127_0_0_1_finds_it_open_at_the_other_family_too():
    families = listening(lambda it: [sock.family for sock in kernel_sockets(it)], listen_addr=("*",))
    assert families == [socket.AF_INET6, socket.AF_INET]


@needs_ipv6
@pytest.mark.parametrize("taken", ["::1", "127.0.0.1"])
def test_a_port_that_somebody_has_in_one_family_is_not_left_to_him(taken: str):
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"Address already in use .port {port}"):
            listening(lambda it: None, listen_addr=("*",), listen_port=port)


def test_without_an_address_and_a_folder_there_is_nothing_to_listen_on():
    with pytest.raises(ListenError, match="set listen_addr or unix_socket_dir"):
        listening(lambda it: None)


def test_so_reuseport_lets_a_second_process_have_the_same_port():
    port = free_port()

    def second(shared: bool) -> Callable[[Listeners], bool]:
        def look(_: Listeners) -> bool:
            with socket.socket() as other:
                if shared:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                with contextlib.suppress(OSError):
                    other.bind(("127.0.0.1", port))
                    other.listen()
                    return True
                return False

        return look

    assert listening(second(True), listen_addr=("127.0.0.1",), listen_port=port, so_reuseport=True)
    assert not listening(second(True), listen_addr=("127.0.0.1",), listen_port=port, so_reuseport=False)


@pytest.mark.parametrize(("seconds", "deferred"), [(0, False), (1, True)])
def test_tcp_defer_accept_waits_for_the_first_byte(seconds: int, deferred: bool):
    def look(listeners: Listeners) -> int:
        (sock,) = kernel_sockets(listeners)
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)

    assert bool(listening(look, listen_addr=("127.0.0.1",), tcp_defer_accept=seconds)) is deferred


def test_tcp_defer_accept_changes_for_a_socket_that_listens_already(tmp_path: Path):
    def look(listeners: Listeners) -> list[bool]:
        found = []
        for seconds in (0, 5, 0):
            listeners._pooler.apply_settings(Config(settings=Settings(tcp_defer_accept=seconds)))
            listeners.retune()
            found += [
                bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT))
                for sock in kernel_sockets(listeners)
                if sock.family == socket.AF_INET
            ]
        return found

    assert listening(look, listen_addr=("127.0.0.1",), unix_socket_dir=str(tmp_path)) == [False, True, False]


def test_the_unix_socket_lies_in_its_folder_with_its_mode_and_group(tmp_path: Path):
    group = grp.getgrgid(os.getgid()).gr_name
    port = free_port()
    path = tmp_path / f".s.PGSQL.{port}"

    def look(_: Listeners) -> tuple[int, int]:
        return stat.S_IMODE(path.stat().st_mode), path.stat().st_gid

    settings = {"listen_port": port, "unix_socket_dir": str(tmp_path)}
    assert listening(look, unix_socket_mode=0o740, unix_socket_group=group, **settings) == (0o740, os.getgid())
    assert listening(look, **settings)[0] == 0o777
    assert not path.exists(), "and is gone with the process"


def test_a_group_that_is_none_is_named(tmp_path: Path):
    with pytest.raises(ListenError, match="unix_socket_group = 'no-such-group'"):
        listening(lambda it: None, unix_socket_dir=str(tmp_path), unix_socket_group="no-such-group")


def test_a_socket_that_another_process_serves_is_left_to_it(tmp_path: Path):
    port = free_port()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / f".s.PGSQL.{port}"))
        other.listen()
        with pytest.raises(ListenError, match="a process already serves"):
            listening(lambda it: None, unix_socket_dir=str(tmp_path), listen_port=port)


def test_the_socket_of_a_process_that_is_no_more_is_replaced(tmp_path: Path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / ".s.PGSQL.6432"))
    left.close()
    assert listening(lambda it: len(kernel_sockets(it)), unix_socket_dir=str(tmp_path), listen_port=6432) == 1


@pytest.mark.parametrize("what", ["file", "folder", "symlink"])
def test_what_is_no_socket_is_left_alone_and_named(tmp_path: Path, what: str):
    place = tmp_path / ".s.PGSQL.6432"
    {
        "file": lambda: place.write_text("precious"),
        "folder": place.mkdir,
        "symlink": lambda: place.symlink_to(tmp_path / "elsewhere"),
    }[what]()
    with pytest.raises(ListenError, match=r"s\.PGSQL\.6432 is there and is no socket; move it away"):
        listening(kernel_sockets, unix_socket_dir=str(tmp_path), listen_port=6432)
    assert os.path.lexists(place)


@pytest.mark.parametrize(("limit", "told"), [("4096\n", False), ("64\n", True), ("nonsense", False), (None, False)])
def test_a_backlog_that_the_kernel_cuts_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: str | None, told: bool
):
    if limit is not None:
        (tmp_path / "somaxconn").write_text(limit)
    with caplog.at_level(logging.WARNING):
        listener._report_backlog(128, tmp_path / "somaxconn")
    assert ("listen_backlog = 128: the kernel queues 64" in caplog.text) is told
