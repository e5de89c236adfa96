"""A peer that does not take its bytes costs the pooler next to nothing, and the others do not notice."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.pooler.process import SECRETS, PoolerProcess, eventually, resident_bytes
from tests.pooler.wire import (
    WireClient,
    bind,
    copy_data,
    execute,
    message,
    parse,
    query,
    ready,
    startup,
    sync,
)
from tests.postgres.certificates import Certificates

MakePooler = Callable[..., PoolerProcess]

MEGABYTE = 2**20
BOUND = 3 * MEGABYTE  # for each stalled connection, both of its sockets counted
ROWS = query("SELECT repeat('x', 1000) FROM generate_series(1, 64000)")


@pytest.fixture(params=["plain", "tls"])
def settings(request: pytest.FixtureRequest, certificates: Certificates) -> dict[str, Any]:
    if request.param == "plain":
        return {}
    pair = certificates.server
    return {
        "client_tls_sslmode": "require",
        "client_tls_cert_file": pair.certificate,
        "client_tls_key_file": pair.key,
    }


def log_in(pooler: PoolerProcess, settings: dict[str, Any], user: str = "alice") -> WireClient:
    client = WireClient(pooler.port)
    if settings:
        client.start_tls()
    return client.log_in(user, "app", SECRETS[user])


@contextlib.contextmanager
def bounded(pooler: PoolerProcess, stalled: int) -> Iterator[None]:
    """What happens inside may keep so many connections waiting, and no more than their share of memory."""
    with pooler.connect("bob") as other:  # what every first query costs is paid before
        other.execute("SELECT repeat('x', 1000000)").fetchall()
    before = resident_bytes(pooler.pid)
    yield
    time.sleep(0.5)
    grown = resident_bytes(pooler.pid) - before
    assert grown < stalled * BOUND, f"{grown / MEGABYTE:.1f} MB for {stalled} stalled connections"


def test_clients_that_do_not_read_their_rows(make_pooler: MakePooler, settings: dict[str, Any]) -> None:
    pooler = make_pooler(default_pool_size=4, **settings)
    clients = [log_in(pooler, settings) for _ in range(4)]
    with bounded(pooler, len(clients)):
        for client in clients:
            client.say(ROWS)
        eventually(lambda: pooler.pool()["sv_active"] == len(clients), "all are served")
        time.sleep(0.5)
        with pooler.connect("bob") as other:
            assert [other.execute("SELECT 1").fetchone() for _ in range(50)] == [(1,)] * 50
    reader = clients.pop()
    heard = reader.until("Z")
    assert [len(row.body) for row in heard if row.type == "D"] == [1006] * 64_000
    with log_in(pooler, settings) as next_one:  # on the server whose reading stood still a moment ago
        assert next_one.ask("SELECT 1") == [[b"1"]]
    reader.close()
    for client in clients:
        client.close()
    eventually(lambda: pooler.pool()["sv_active"] == 0, "who leaves unread rows behind takes the server along")


def takes_nothing_more(session: Session) -> None:
    """A server that answers the first of it, and then reads no further."""
    session.accept_login()
    heard = session.hear()
    while heard.type != "Q" or not heard.body.startswith(b"COPY"):
        if heard.type == "Q":
            session.reply(heard)
        elif heard.type == "P" and b"stall" in heard.body:
            session.say(message("1"), ready())
            break
        heard = session.hear()
    else:
        session.say(message("G", struct.pack("!bh", 0, 1) + b"\0\0"))
    session.socket.settimeout(60)
    stop_reading(session)


def stop_reading(session: Session) -> None:
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while session.socket.fileno() >= 0:
        time.sleep(0.1)
        if session.parameters.get("end"):
            return


def pour(client: WireClient, piece: bytes, most: int) -> int:
    """Send until nobody takes more for half a second; how much was taken."""
    client.socket.settimeout(0.5)
    taken = 0
    try:
        while taken < most:
            taken += client.socket.send(piece)
    except TimeoutError:
        pass
    return taken


@pytest.mark.parametrize("what", ["copy", "query", "bind"])
def test_a_server_that_does_not_take_what_its_clients_send(
    make_pooler: MakePooler, settings: dict[str, Any], what: str
) -> None:
    with contextlib.ExitStack() as held:
        fake = held.enter_context(FakePostgres(takes_nothing_more))
        databases = {"app": f"host=127.0.0.1 port={fake.port}"}
        # Left to itself, a kernel lets the pooler's receive buffers grow to what net.ipv4.tcp_rmem allows: 32 MiB here and there.
        pooler = make_pooler(databases=databases, default_pool_size=4, tcp_socket_buffer=256 * 1024, **settings)
        clients = [held.enter_context(log_in(pooler, settings)) for _ in range(2)]
        with bounded(pooler, len(clients)):
            for client in clients:
                if what == "copy":
                    client.say(query("COPY t FROM STDIN"))
                    client.until("G")
                    piece = copy_data(b"x" * 60_000)
                else:
                    client.say(parse("stall", "SELECT $1 /* and stall */"), sync())
                    client.expect("1")
                    head = query("SELECT 1") if what == "query" else bind("stall", ["1"])
                    client.say(head[:1] + struct.pack("!i", 10**9) + head[5:-1])
                    piece = b"x" * 60_000
                taken = pour(client, piece, 64 * MEGABYTE)
                assert taken < 16 * MEGABYTE, "the kernel's buffers take some, the pooler does not read on"
            with pooler.connect("bob") as other:
                assert other.execute("SELECT 1").fetchone() == ("1",)
        for session in fake.sessions:
            session.parameters["end"] = "now"


def test_a_gigabyte_that_is_announced_before_the_login_is_refused(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with bounded(pooler, 1):
        for first in (struct.pack("!ii", 10**9, 196608), struct.pack("!ii", 2**31 - 1, 196608)):
            with WireClient(pooler.port) as client:
                client.say(first)
                client.expect_error("08P01")
                client.expect_closed()
        with WireClient(pooler.port) as client:
            client.say(startup(user="alice", database="app"))
            client.expect("R")
            client.say(b"p" + struct.pack("!i", 10**9))
            client.expect_error()
            client.expect_closed()


def test_max_packet_size_bounds_what_a_client_may_announce(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_packet_size=100_000)
    with pooler.wire() as client:
        assert client.ask(f"SELECT length('{'x' * 90_000}')") == [[b"90000"]]
        client.say(b"Q" + struct.pack("!i", 100_001))
        client.until_closed()
    with pooler.wire() as client:
        client.say(parse("s", "SELECT 1")[:1] + struct.pack("!i", 10**9), b"s\0", execute())
        client.until_closed()
