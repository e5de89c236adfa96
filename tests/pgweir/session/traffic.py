"""Steady traffic through a pooler with no network: whole transactions, ready to be counted or timed.

The wires take what is written and say nothing; replies are the bytes that PostgreSQL sends to such a transaction.
`test_cost` counts the work of a transaction with it, `bench.path` its time.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from tests.pgweir.session.world import RecorderWire, World

from pgweir.protocol import messages
from pgweir.protocol.auth import scram
from pgweir.session.client import ClientSession
from pgweir.session.server_login import ServerLogin
from pgweir.session.wire import Origin

_ORIGIN: Final = Origin("10.0.0.1", 40000)
_COLUMNS: Final = bytes.fromhex("540000002100013f636f6c756d6e3f00000000000000000000170004ffffffff0000")
_ROW: Final = bytes.fromhex("440000000b0001000000013100"[:24])
_DONE: Final = b"C\0\0\0\x0dSELECT 1\0" + messages.ready_for_query(b"I")
_PARSE: Final = messages.parse("", "SELECT 1;")
_TAIL: Final = b"D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"  # Describe, Execute, Sync


def _bind(name: bytes) -> bytes:
    return b"B" + (12 + len(name)).to_bytes(4, "big") + b"\0" + name + b"\0" + bytes(6)


# What the client says in each transaction, and what the server answers (pgbench's three protocols, and a long result).
TRANSACTIONS: Final = {
    "simple": (messages.query("SELECT 1;"), _COLUMNS + _ROW + _DONE),
    "extended": (_PARSE + _bind(b"") + _TAIL, b"1\0\0\0\x042\0\0\0\x04" + _COLUMNS + _ROW + _DONE),
    "prepared": (_bind(b"stmt") + _TAIL, b"2\0\0\0\x04" + _COLUMNS + _ROW + _DONE),
    "rows": (messages.query("TABLE numbers;"), _COLUMNS + _ROW * 1000 + _DONE),
    "pipeline": (  # twenty queries and one Sync, each way in one read
        (_PARSE + _bind(b"") + _TAIL[:-5]) * 20 + _TAIL[-5:],
        (b"1\0\0\0\x042\0\0\0\x04" + _COLUMNS + _ROW + _DONE[:-6]) * 20 + _DONE[-6:],
    ),
}


class SilentWire(RecorderWire):
    """Takes what is written and forgets it."""

    def write(self, data: bytes, /) -> None:
        pass


class Traffic:
    """Clients that take turns on one server. With more than one of them there is always somebody in the queue."""

    def __init__(self, kind: str, *, clients: int = 4) -> None:
        world = World(default_pool_size=1)
        sessions: list[ClientSession] = [world.client().session for _ in range(clients)]
        (self._server,) = world.pooler.servers()
        self._server.wire = SilentWire()
        for session in sessions:
            session.wire = SilentWire()
            if kind == "prepared":
                session.data_received(messages.parse("stmt", "SELECT 1;") + b"S\0\0\0\x04")
                # The first is answered by the server, the others by the pooler.
                self._server.data_received((b"1\0\0\0\x04" if session is sessions[0] else b"") + _DONE[-6:])
        self.said, self.answered = TRANSACTIONS[kind]
        self._queue = deque(sessions)
        self._waits = clients > 1
        if self._waits:
            for session in sessions:
                session.data_received(self.said)

    def run(self, transactions: int) -> None:
        """That many transactions. One client: it gets its server from the shelf. More: the server goes from hand to hand."""
        for _ in range(transactions):
            session = self._queue[0]
            self._queue.rotate(-1)
            if not self._waits:
                session.data_received(self.said)
            self._server.data_received(self.answered)
            if self._waits:
                session.data_received(self.said)


_CAROLS_KEYS: Final = scram.scram_keys("carol's", b"some salt", scram.DEFAULT_ITERATIONS)
_VERIFIER: Final = scram.verifier_of(_CAROLS_KEYS, b"some salt", scram.DEFAULT_ITERATIONS).format()
_LOOKED_UP: Final = (
    b"1\0\0\0\x042\0\0\0\x04"
    + messages.row_description([("rolname", 19), ("rolpassword", 25)])
    + messages.data_row([b"carol", _VERIFIER.encode()])
    + _DONE
)
_NOISE: Final = bytes(range(1, 252)) * 4
LOGINS: Final[dict[str, dict[str, Any]]] = {
    "trust": {"auth_type": "trust"},
    "scram": {"auth_type": "scram-sha-256"},
    "auth_query": {"auth_type": "scram-sha-256", "auth_user": "bob", "auth_query": "SELECT 1"},
}


class Arrivals:
    """Clients of one user that log in and leave, one after the other. The first two speak to the pooler; what they and PostgreSQL
    say is what all others say too, since the pooler's random numbers are always the same here."""

    def __init__(self, kind: str) -> None:
        self._world = World(log_connections=False, log_disconnections=False, **LOGINS[kind])
        self._world.edge.random = lambda size, /: _NOISE[:size]  # type: ignore[method-assign]
        if kind != "auth_query":
            self._world.config.userlist["carol"] = _VERIFIER  # type: ignore[index]  # a dict
        self._steps: list[tuple[RecorderWire | None, bytes]] = []  # None: the client says it
        self._proves = kind != "trust"
        for _ in range(2):
            self._steps = []
            self._converse()
        for server in self._world.pooler.servers():
            server.wire = SilentWire()

    def _converse(self) -> None:
        self._world.pooler.cancels._noise_at = 0  # the same noise for everybody
        wire = RecorderWire()
        wire.protocol = self._world.pooler.accept(wire, _ORIGIN)

        def says(data: bytes) -> None:
            self._steps.append((None, data))
            self._world.edge.now += 0.01
            wire.written = b""
            wire.protocol.data_received(data)
            self._serve()

        says(messages.startup_message({"user": "carol", "database": "shop", "application_name": "psql"}))
        if self._proves:
            client = scram.ScramClient(nonce=b"nonce", keys=_CAROLS_KEYS)
            says(messages.sasl_initial_response(scram.MECHANISM, client.first()))
            proof = client.final(wire.written[9:])
            assert isinstance(proof, bytes)
            says(messages.sasl_response(proof))
        assert wire.written.endswith(messages.ready_for_query(b"I"))
        says(messages.terminate())

    def _serve(self) -> None:
        while self._world.edge.connecting:
            server = self._world.accept()
            while isinstance(server.protocol, ServerLogin):
                server.deliver()
        if self._world.pooler.lookups:
            server = self._world.servers[0]
            server.replies = b""
            self._steps.append((server, _LOOKED_UP))
            server.say(_LOOKED_UP)

    def come_and_go(self) -> None:
        self._world.pooler.cancels._noise_at = 0  # the same noise for everybody
        wire = SilentWire()
        wire.protocol = self._world.pooler.accept(wire, _ORIGIN)
        for server, data in self._steps:
            self._world.edge.now += 0.01
            (wire if server is None else server).protocol.data_received(data)
        wire.protocol.connection_lost(None)
        wire.protocol = None  # as a transport does
