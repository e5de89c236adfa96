"""A pooler with no network: recorder wires, a fake edge, a clock that the test moves.

The test says what the client says, hands on as much of the servers' replies as it likes, and reads what everybody heard. When a
conversation is over, `balance` checks that the pooler's books agree with each other.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.pgweir.mini_postgres import MiniPostgres

from pgweir.config import Config
from pgweir.ldap import LdapOptions, LdapOutcome
from pgweir.pool.records import ClientState, ServerState
from pgweir.protocol import messages
from pgweir.protocol.errors import CONNECTION_FAILURE
from pgweir.session import upkeep
from pgweir.session.client import ClientSession
from pgweir.session.operations import Operations
from pgweir.session.pooler import Pooler
from pgweir.session.server import ServerSession
from pgweir.session.turns import SLICE
from pgweir.session.wire import Origin
from pgweir.settings import DatabaseSettings, Settings


class RecorderWire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.reading = True
        self.untaken = 0  # bytes that the peer does not take
        self.aborted = False
        self.protocol: Any = None

    def write(self, data: bytes, /) -> None:
        assert not self.closed, f"write after close: {data!r}"
        self.written += data

    def set_protocol(self, protocol: Any, /) -> None:
        self.protocol = protocol

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.untaken

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed without a pause"
        self.reading = True


class ServerWire(RecorderWire):
    """A server's wire with a PostgreSQL behind it, whose replies wait until the test hands them on."""

    def __init__(self, postgres: MiniPostgres) -> None:
        super().__init__()
        self.postgres = postgres
        self.replies = b""

    def write(self, data: bytes, /) -> None:
        super().write(data)
        self.replies += self.postgres.feed(data)

    def deliver(self, size: int | None = None) -> bool:
        """Hand on that many bytes of what PostgreSQL said; False when there was nothing."""
        if self.closed or not self.replies or not self.reading:
            return False
        size = len(self.replies) if size is None else max(1, size)
        data, self.replies = self.replies[:size], self.replies[size:]
        self.protocol.data_received(data)
        return True

    def say(self, data: bytes) -> None:
        """Something that nobody asked for."""
        self.protocol.data_received(data)

    def lose(self) -> None:
        self.closed = True
        self.protocol.connection_lost(None)


@dataclass
class PeerCancel:
    """A cancel request that a peer is to be told."""

    host: str
    port: int
    key: bytes
    sent: Callable[[], None]
    done: Callable[[], None]


class FakeEdge:
    """The clock, and what sessions have asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.connecting: list[ServerSession] = []
        self.cancels: list[tuple[ServerSession, Callable[[], None]]] = []
        self.peer_cancels: list[PeerCancel] = []
        self.resolving: list[tuple[str, Callable[[tuple[str, ...]], None]]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.work: list[Callable[[], None]] = []
        self.holds_work = False  # True: heavy work is kept in `work` until a test does it
        self.ldap_questions: list[tuple[LdapOptions, str, str, Callable[[LdapOutcome], None]]] = []
        self._numbers = itertools.count(1)

    def clock(self) -> float:
        return self.now

    def round(self) -> int:
        return int(self.now / SLICE)

    def random(self, size: int, /) -> bytes:
        if size <= 64:
            return next(self._numbers).to_bytes(4, "big") + bytes(size - 4)
        return b"".join(next(self._numbers).to_bytes(4, "big") for _ in range(size // 4))  # to be cut into pieces

    def later(self, seconds: float, action: Callable[[], None], /) -> None:
        self.timers.append((self.now + seconds, action))

    def move(self, now: float) -> None:
        """Time passes; what was to be done meanwhile is done in its order."""
        while due := min((timer for timer in self.timers if timer[0] <= now), key=lambda timer: timer[0], default=None):
            self.timers.remove(due)
            self.now = max(self.now, due[0])
            due[1]()
        self.now = now

    def client_tls_available(self) -> bool:
        return False

    def start_client_tls(self, login: Any, first_bytes: bytes, /) -> None:
        raise AssertionError("no TLS here")

    def compute(self, run: Callable[[], Any], done: Callable[[Any], None], /) -> None:
        if self.holds_work:
            self.work.append(lambda: done(run()))
        else:
            done(run())

    def ask_ldap(self, options: LdapOptions, user: str, password: str, done: Callable[[LdapOutcome], None], /) -> None:
        self.ldap_questions.append((options, user, password, done))

    def connect(self, server: ServerSession, /) -> None:
        self.connecting.append(server)

    def abandon(self, server: ServerSession, /) -> None:
        if server in self.connecting:
            self.connecting.remove(server)

    def send_cancel(self, server: ServerSession, done: Callable[[], None], /) -> None:
        self.cancels.append((server, done))

    def send_cancel_to_peer(
        self, host: str, port: int, key: bytes, sent: Callable[[], None], done: Callable[[], None], /
    ) -> None:
        self.peer_cancels.append(PeerCancel(host, port, key, sent, done))

    def resolve(self, name: str, found: Callable[[tuple[str, ...]], None], /) -> None:
        self.resolving.append((name, found))


class Client:
    """A client and what it heard."""

    def __init__(self, world: World, wire: RecorderWire) -> None:
        self.world = world
        self.wire = wire

    @property
    def session(self) -> ClientSession:
        assert isinstance(self.wire.protocol, ClientSession)
        return self.wire.protocol

    @property
    def state(self) -> ClientState:
        return self.session.state

    def says(self, *data: bytes) -> Client:
        """One read of the pooler, in a turn of its own."""
        self.world.edge.move(self.world.edge.now)
        self.wire.protocol.data_received(b"".join(data))
        return self

    def query(self, sql: str) -> bytes:
        """A simple query and all that comes of it."""
        self.hears()
        self.says(messages.query(sql))
        self.world.run()
        return self.hears()

    def hears(self) -> bytes:
        """What came since the last call."""
        heard, self.wire.written = self.wire.written, b""
        return heard

    def leaves(self) -> None:
        self.wire.closed = True
        self.wire.protocol.connection_lost(None)


class World:
    """A pooler and everything around it."""

    def __init__(
        self,
        databases: dict[str, DatabaseSettings] | None = None,
        *,
        config: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        settings = {"pool_mode": "transaction", "auth_type": "trust", "server_check_query": "", **settings}
        self.config = Config(
            settings=Settings(**settings),
            databases=databases or {"shop": DatabaseSettings(name="shop", dbname="shop", host="db", port=5432)},
            userlist={"alice": "secret", "bob": "secret"},
            **(config or {}),
        )
        self.edge = FakeEdge()
        self.pooler = Pooler(self.config, self.edge)
        self.operations = Operations(self.pooler)
        self.servers: list[ServerWire] = []
        self.clients: list[Client] = []

    def starts_login(
        self,
        database: str = "shop",
        user: str = "alice",
        *,
        protocol: int = messages.PROTOCOL_3_0,
        **parameters: str,
    ) -> Client:
        wire = RecorderWire()
        wire.protocol = self.pooler.accept(wire, Origin("10.0.0.1", 40000 + len(self.clients)))
        client = Client(self, wire)
        self.clients.append(client)
        client.says(messages.startup_message({"user": user, "database": database, **parameters}, protocol))
        return client

    def strangers(self, count: int) -> list[tuple[RecorderWire, Origin]]:
        """Connections that have said nothing yet."""
        return [(RecorderWire(), Origin("10.0.0.2", 50000 + number)) for number in range(count)]

    def client(
        self,
        database: str = "shop",
        user: str = "alice",
        *,
        protocol: int = messages.PROTOCOL_3_0,
        **parameters: str,
    ) -> Client:
        """A client that is in."""
        client = self.starts_login(database, user, protocol=protocol, **parameters)
        self.run()
        assert client.hears().endswith(messages.ready_for_query(b"I"))
        return client

    def accept(self, postgres: MiniPostgres | None = None) -> ServerWire:
        """The first connection that the pooler asked for comes about."""
        server = self.edge.connecting.pop(0)
        wire = ServerWire(postgres or MiniPostgres(100 + len(self.servers), greeted=False))
        self.servers.append(wire)
        login: Any = server.connected(wire, "db", 5432, None)
        wire.protocol = login
        login.start()
        return wire

    def fails_to_connect(self, message: str = "connect failed: refused") -> None:
        self.pooler.opening.failed(self.edge.connecting.pop(0), message, CONNECTION_FAILURE, answered=False)

    def run(self) -> None:
        """Connections come about and replies are handed on, until nothing moves."""
        while True:
            self.edge.move(self.edge.now)
            self.edge.connecting = [s for s in self.edge.connecting if s.state is ServerState.LOGIN]
            moved = False
            if self.edge.connecting:
                self.accept()
                moved = True
            for server in list(self.servers):
                moved = server.deliver() or moved
            if not moved:
                return

    def sleep(self, seconds: float) -> None:
        """Time passes, tick by tick."""
        end = self.edge.now + seconds
        while self.edge.now < end:
            self.edge.move(min(end, self.edge.now + 1 / 3))
            upkeep.tick(self.pooler)

    @property
    def pool(self) -> Any:
        (pool,) = self.pooler.pools.values()
        return pool

    def alive(self) -> list[ServerWire]:
        return [server for server in self.servers if not server.closed]

    def balance(self) -> None:
        """Every book agrees with every other."""
        pooler = self.pooler
        for pool in pooler.pools.values():
            shelves = {
                ServerState.ACTIVE: pool.active,
                ServerState.IDLE: pool.idle,
                ServerState.USED: pool.used,
                ServerState.TESTED: pool.tested,
                ServerState.BEING_CANCELED: pool.being_canceled,
                ServerState.LOGIN: pool.logging_in,
            }
            assert pool.server_count == sum(map(len, shelves.values())), pool
            seen = [server for shelf in shelves.values() for server in shelf]
            assert len(set(seen)) == len(seen), "a server on two shelves"
            for state, shelf in shelves.items():
                for server in shelf:
                    assert server.state is state, (server, state)
                    if state is ServerState.ACTIVE:
                        assert server.client is not None
                        assert server in (server.client.server, server.client.linking), server
                    else:
                        assert server.client is None, server
                    if server.wire is not None:
                        assert not server.wire.is_closing()
                        if state is ServerState.IDLE:
                            assert not server.reading_paused
                            assert server.exchange.settled
            for waiting in (*pool.waiting, *pool.waiting_login):
                assert waiting.state in (ClientState.WAITING, ClientState.WAITING_LOGIN)
            assert not (pool.idle and pool.waiting), "idle servers and waiting clients"
            assert ClientState.CLOSED not in {client.state for client in pool.clients}
        assert set(pooler.cancels.keys) <= pooler.clients
        assert pooler.roster.of_database == Counter(client.database for client in pooler.clients)
        assert pooler.roster.of_user == Counter(client.user for client in pooler.clients)
        for client in pooler.clients:
            assert client.state is not ClientState.CLOSED
            assert (client.state is ClientState.ACTIVE) == (client.server is not None or client.linking is not None)
            assert not client.wire.is_closing()

    def empty(self) -> None:
        """Everybody leaves; nothing of them may stay."""
        for client in self.clients:
            if not client.wire.closed:
                client.leaves()
        self.run()
        self.balance()
        pooler = self.pooler
        assert not pooler.clients
        assert not pooler.logins
        assert not pooler.cancels.keys
        for pool in pooler.pools.values():
            assert not pool.clients
            assert not pool.active
            assert not pool.tested
            assert not pool.waiting
            assert not pool.waiting_login
