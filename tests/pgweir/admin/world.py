"""A pooler without a network: recorders instead of wires, a clock that is set by hand, clients and servers put in by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.pooler.wire import Message

from pgweir.admin.console import ConsoleSession, open_console
from pgweir.admin.nodes import Address, Nodes
from pgweir.admin.service import Consoles, Reloads
from pgweir.bundle import Bundle
from pgweir.config import Config, ConfigError, load
from pgweir.net.descriptors import Descriptors
from pgweir.pool.records import ClientState, ServerState
from pgweir.pool.stats import Timings
from pgweir.protocol.reader import MessageReader
from pgweir.session.client import ClientSession
from pgweir.session.operations import Operations
from pgweir.session.pooler import Pooler
from pgweir.session.server import ServerSession
from pgweir.session.wire import Origin

INI = """
[databases]
app = host=10.0.0.1 port=5433 pool_size=1
two = host=10.0.0.1,10.0.0.2 dbname=other user=forced
[users]
alice = pool_size=4 max_user_connections=7
[pgbouncer]
auth_type = trust
pool_mode = transaction
admin_users = admin
stats_users = stats
max_client_conn = 50
"""


class Recorder:
    """A wire that remembers what was written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: Any) -> None: ...

    def messages(self) -> list[Message]:
        """What was written since the last time."""
        found = [Message(chr(kind), body) for kind, body in MessageReader(1 << 24).feed(bytes(self.written))]
        self.written.clear()
        return found


class HandEdge:
    """The edge, with the time in `now` and nothing ever happening."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.connects: list[ServerSession] = []
        self.peer_cancels: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self._random = itertools.count(1)

    def clock(self) -> float:
        return self.now

    def random(self, size: int) -> bytes:
        return next(self._random).to_bytes(4, "big") + bytes(size - 4)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, action))

    def client_tls_available(self) -> bool:
        return False

    def start_client_tls(self, login: Any, first_bytes: bytes) -> None: ...

    def connect(self, server: ServerSession) -> None:
        self.connects.append(server)

    def abandon(self, server: ServerSession) -> None: ...

    def send_cancel(self, server: ServerSession, done: Callable[[], None]) -> None:
        done()

    def send_cancel_to_peer(
        self, host: str, port: int, key: bytes, sent: Callable[[], None], done: Callable[[], None]
    ) -> None:
        self.peer_cancels.append((sent, done))

    def resolve(self, name: str, found: Callable[[tuple[str, ...]], None]) -> None:
        found(())


class HandNodes(Nodes):
    """Nodes of which the test says whether they are up."""

    def __init__(self) -> None:
        super().__init__()
        self.down: set[str] = set()
        self.now = 1_700_000_000.0

    def look(self, addresses: Iterable[Address], done: Callable[[], None]) -> Callable[[], None]:
        for address in addresses:
            self.note(address, address[0] not in self.down, self.now)
        done()
        return lambda: None


class HandService:
    """What the rooms of `admin` see as the process."""

    def __init__(self, folder: Path, ini: str = INI) -> None:
        self.config_path = folder / "pgbouncer.ini"
        self.config_path.write_text(ini)
        self.edge = HandEdge()
        self.pooler = Pooler(load(self.config_path), self.edge)
        self.operations = Operations(self.pooler)
        self.consoles = Consoles()
        self.nodes = HandNodes()
        self.version = "9.9.9"
        self.started_at = 0.0
        self.bundle: Bundle | None = None
        self.store: Any = None
        self.options = SimpleNamespace(control_dir=None, metrics_prefix="cnp_pgbouncer")
        self.stopping = False
        self.listening = True
        self.descriptors = Descriptors()
        self.reloads = Reloads()
        self.loop_lag = Timings()
        self.shutdowns: list[str] = []
        self.applied: list[Config] = []
        self.refuses: str | None = None

    @property
    def state(self) -> Any:
        if self.stopping:
            return "draining"
        if not self.pooler.paused:
            return "active"
        return "pausing" if self.operations.held_servers() else "paused"

    def reload(self) -> None:
        self.apply(load(self.config_path))

    def apply(self, config: Config) -> None:
        if self.refuses is not None:
            raise ConfigError("pgbouncer.ini", 3, "client_tls_cert_file", "x", self.refuses)
        self.applied.append(config)
        self.operations.apply(config)

    def shutdown(self, mode: str) -> None:
        self.shutdowns.append(mode)

    # --- put in by hand --------------------------------------------------------------------------------------------------

    def client(self, database: str = "app", user: str = "alice", application_name: str = "") -> ClientSession:
        entry = self.pooler.database(database)
        assert entry is not None
        pool = self.pooler.pool(entry, entry.pool_user(user))
        client = ClientSession(
            self.pooler, pool, Recorder(), origin=Origin("10.9.9.9", 4444), user=user, tls=None, now=self.edge.now
        )
        client.state = ClientState.IDLE
        client.application_name = application_name
        self.pooler.roster.entered(client)
        return client

    def server(self, database: str = "app", user: str = "alice", pid: int = 4242) -> ServerSession:
        """An idle server of that pool."""
        entry = self.pooler.database(database)
        assert entry is not None
        pool = self.pooler.pool(entry, entry.pool_user(user))
        server = ServerSession(self.pooler, pool, self.edge.now)
        server.wire = Recorder()
        server.pid, server.host, server.port = pid, "10.0.0.1", 5433
        pool.open(server)
        pool.login_succeeded({})
        pool.place(server, ServerState.IDLE)
        return server

    def begin(self, client: ClientSession) -> None:
        """The client asks for a server, gets it, and opens a transaction."""
        client.data_received(b"Q\0\0\0\x0aBEGIN\0")
        server = client.server
        assert server is not None
        server.query_open, server.in_transaction = False, True

    def console(self, *, user: str = "admin", admin: bool = True) -> ConsoleTalk:
        return ConsoleTalk(self, user=user, admin=admin)


class ConsoleTalk:
    """A console, and what is said on it."""

    def __init__(self, service: HandService, *, user: str, admin: bool) -> None:
        self.wire = Recorder()
        origin = Origin("10.1.1.1", 5555, "10.0.0.9", 6432)
        login: Any = SimpleNamespace(user=user, origin=origin, tls=None, protocol_minor=0, rest=b"")
        self.session: ConsoleSession = open_console(service, login, self.wire, admin)
        self.greeting = self.wire.messages()

    def say(self, *data: bytes) -> list[Message]:
        for each in data:
            self.session.data_received(each)
        return self.wire.messages()

    def ask(self, text: str) -> list[Message]:
        return self.say(b"Q" + (len(text) + 5).to_bytes(4, "big") + text.encode() + b"\0")

    def error(self, text: str) -> tuple[str, str]:
        """SQLSTATE and message of a command that must fail."""
        found = self.ask(text)
        assert [message.type for message in found] == ["E", "Z"], found
        return found[0].fields["C"], found[0].fields["M"]

    def tag(self, text: str) -> str:
        found = [message for message in self.ask(text) if message.type == "C"]
        return found[-1].body.rstrip(b"\0").decode()
