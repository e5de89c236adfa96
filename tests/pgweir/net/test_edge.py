"""The edge on a real loop: whatever goes wrong while connecting is reported, so that no pool waits for it for ever."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.postgres.server import free_port

from pgweir.config import Config, ConfigError
from pgweir.net.edge import NetworkEdge
from pgweir.net.stream import Stream
from pgweir.net.streams import VARIABLE
from pgweir.net.tls import TlsContexts, build_contexts
from pgweir.pool.records import ServerState
from pgweir.protocol.messages import ssl_request
from pgweir.protocol.reasons import CloseReason
from pgweir.session.holder import SessionPool
from pgweir.session.pooler import Pooler
from pgweir.session.server import ServerSession
from pgweir.session.server_login import ServerLogin
from pgweir.session.wire import Origin
from pgweir.settings import DatabaseSettings, Settings


def asks_for_a_server(edge: NetworkEdge, config: Config) -> tuple[Pooler, SessionPool]:
    pooler = edge.pooler = Pooler(config, edge)
    database = pooler.database("shop")
    assert database is not None
    pool = pooler.pool(database, "alice")
    pooler.opening.open(pool)
    return pooler, pool


def outcome(host: str, port: int, until: Callable[[Pooler], bool], **settings: object) -> Pooler:
    """Ask for one server there, and wait until something has come of it."""

    async def run() -> Pooler:
        config = Config(
            settings=Settings(server_tls_sslmode="disable", **settings),  # type: ignore[arg-type]
            databases={"shop": DatabaseSettings(name="shop", dbname="shop", host=host, port=port)},
        )
        edge = NetworkEdge(TlsContexts(client=None, server=None))
        pooler, _ = asks_for_a_server(edge, config)
        async with asyncio.timeout(20):
            while not until(pooler):
                await asyncio.sleep(0.01)
        for server in list(pooler.servers()):
            assert server.wire is not None
            server.wire.close()
        await edge.close()
        await asyncio.sleep(0.05)
        return pooler

    return uvloop.run(run())


def has_failed(pooler: Pooler) -> bool:
    (pool,) = pooler.pools.values()
    return pool.failed_at is not None and pool.server_count == 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "/no/such/folder", "a" * 70 + ".example", "\udcff.example"],
    ids=["nobody-listens", "no-socket", "label-too-long", "not-encodable"],
)
def test_a_server_that_cannot_be_reached_is_reported(host):
    (pool,) = outcome(host, free_port(), has_failed).pools.values()
    assert pool.failure.startswith(("connect failed: ", "server DNS lookup failed"))


def test_a_server_that_hangs_up_during_the_login_is_reported():
    with FakePostgres(lambda session: None) as fake:
        (pool,) = outcome("127.0.0.1", fake.port, has_failed).pools.values()
    assert "during the login" in pool.failure


def test_a_server_that_says_nothing_is_given_up_after_the_timeout():
    def silent(session: Session) -> None:
        session.read_startup()
        session.read(1)

    with FakePostgres(silent) as fake:
        (pool,) = outcome("127.0.0.1", fake.port, has_failed, server_connect_timeout=0.3).pools.values()
    assert pool.failure == "connect timeout"


@pytest.mark.parametrize("transport", ["own", "uvloop"])
@pytest.mark.parametrize("end", ["is silent", "hangs up", "speaks no TLS"])
def test_a_handshake_with_a_server_that_comes_to_nothing_is_reported_and_counted(
    monkeypatch: pytest.MonkeyPatch, transport: str, end: str
) -> None:
    monkeypatch.setenv(VARIABLE, transport)
    problems: list[dict[str, Any]] = []

    async def run() -> tuple[str, dict[tuple[str, str], int]]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        settings = Settings(server_tls_sslmode="require", server_connect_timeout=1.0 if end == "is silent" else 20.0)
        port = listening.getsockname()[1]
        database = DatabaseSettings(name="shop", dbname="shop", host="127.0.0.1", port=port)
        config = Config(settings=settings, databases={"shop": database})
        edge = NetworkEdge(build_contexts(config))
        pooler, pool = asks_for_a_server(edge, config)
        async with asyncio.timeout(20):
            theirs, _ = await loop.sock_accept(listening)
            assert await loop.sock_recv(theirs, 100) == ssl_request()
            await loop.sock_sendall(theirs, b"S")
            assert (await loop.sock_recv(theirs, 1000))[:1] == b"\x16"  # a hello
            if end == "hangs up":
                theirs.close()
            elif end == "speaks no TLS":
                await loop.sock_sendall(theirs, b"E and so on, in clear")
            while not has_failed(pooler):
                await asyncio.sleep(0.01)
        found = pool.failure, dict(pooler.tls_failures)
        theirs.close()
        listening.close()
        await asyncio.sleep(0.05)
        await edge.close()
        return found

    failure, counted = uvloop.run(run())
    gc.collect()
    assert not problems
    if end == "is silent":
        assert (failure, counted) == ("connect timeout", {})
    else:
        assert failure.startswith("connect failed: ")
        assert counted == {("server", "hung_up" if end == "hangs up" else "agreement"): 1}


def test_a_server_that_answers_joins_the_pool():
    seen: list[tuple[int, int]] = []

    def joined(pooler: Pooler) -> bool:
        seen.extend((s.port, s.pid) for s in pooler.servers() if s.state is ServerState.IDLE)
        return bool(seen)

    with FakePostgres() as fake:
        outcome("127.0.0.1", fake.port, joined)
    assert seen == [(fake.port, 1000)]


@pytest.mark.parametrize("end", ["dropped", "abandoned", "gone", "refused"])
@pytest.mark.parametrize("transport", ["own", "uvloop"])
def test_servers_that_come_and_go_leave_nothing_for_the_collector(
    monkeypatch: pytest.MonkeyPatch, transport: str, end: str
) -> None:
    """Neither a circle nor a deadline keeps them: server_connect_timeout is a minute here, and the collector is off."""
    monkeypatch.setenv(VARIABLE, transport)

    def script(session: Session) -> None:
        if end == "refused":
            session.read_startup()
            session.refuse("28000", "no pg_hba.conf entry for you")
        else:
            session.accept_login()
            session.read(1)

    def alive() -> dict[str, int]:
        kinds = (ServerSession, ServerLogin)
        return {kind.__name__: sum(type(found) is kind for found in gc.get_objects()) for kind in kinds}

    async def run(port: int) -> dict[str, int]:
        settings = Settings(server_tls_sslmode="disable", server_connect_timeout=60.0, server_login_retry=0.0)
        database = DatabaseSettings(name="shop", dbname="shop", host="127.0.0.1", port=port)
        edge = NetworkEdge(TlsContexts(client=None, server=None))
        pooler = edge.pooler = Pooler(Config(settings=settings, databases={"shop": database}), edge)
        known = pooler.database("shop")
        assert known is not None
        pool = pooler.pool(known, "alice")
        async with asyncio.timeout(20):
            for _ in range(20):
                pooler.opening.open(pool)
                if end == "abandoned":
                    await asyncio.sleep(0)
                while end != "abandoned" and pool.server_count and not pool.idle:
                    await asyncio.sleep(0.001)
                if end == "gone":
                    fake.sessions[-1].socket.shutdown(socket.SHUT_RDWR)
                    while pool.server_count:
                        await asyncio.sleep(0.001)
                for server in list(pooler.servers()):
                    pooler.drop_server(server, CloseReason.SERVER_LIFETIME)
                    del server
            await asyncio.sleep(0.05)
        found = alive()
        await edge.close()
        return found

    gc.collect()
    before = alive()
    gc.disable()
    try:
        with FakePostgres(script) as fake, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(run(fake.port)) == before
    finally:
        gc.enable()


@pytest.mark.parametrize("transport", ["own", "uvloop"])
@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_goes_while_tls_begins_is_nobodys_exception(
    monkeypatch: pytest.MonkeyPatch, transport: str, turns: int
) -> None:
    """At whatever turn of the loop: hung up on since too many have not said who they are, or since its time is over. (What is
    read in the hope of direct TLS is handed on two turns later, and there was nobody to take it.)"""
    monkeypatch.setenv(VARIABLE, transport)
    problems: list[dict[str, Any]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        edge = NetworkEdge(TlsContexts(client=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server=None))
        pooler = edge.pooler = Pooler(Config(settings=Settings(server_tls_sslmode="disable"), databases={}), edge)
        wire: Any
        if edge.streams is not None:
            wire = Stream(edge.streams, ours.detach())
        else:
            wire, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        login = pooler.accept(wire, Origin("127.0.0.1", 1))
        wire.begin(login) if edge.streams is not None else wire.set_protocol(login)
        login.data_received(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # as much of a hello as one read may have
        for _ in range(turns):
            await asyncio.sleep(0)
        login.leave()
        async with asyncio.timeout(20):
            while edge._tasks:
                await asyncio.sleep(0.001)
        assert not pooler.logins
        await edge.close()
        theirs.close()

    uvloop.run(run())
    gc.collect()  # an error of a task that nobody awaits is told when the task goes
    assert not problems


def test_a_certificate_that_cannot_be_read_is_named():
    config = Config(settings=Settings(client_tls_sslmode="require", client_tls_cert_file="/no/such.crt"))
    with pytest.raises(ConfigError) as refused:
        build_contexts(config)
    assert refused.value.key == "client_tls_cert_file"
