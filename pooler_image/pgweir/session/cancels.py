"""Cancel requests: whose key it is, and how the cancel reaches the server that works for it and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgweir.pool.records import ServerState

if TYPE_CHECKING:
    from pgweir.session.client import ClientSession
    from pgweir.session.pooler import Pooler
    from pgweir.session.server import ServerSession


class Cancels:
    """The keys that clients were given, and the cancels under way."""

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self.keys: dict[bytes, ClientSession] = {}
        self.console_keys: dict[bytes, Callable[[], None]] = {}  # a console that waits (PAUSE) is told

    def new_key(self, client: ClientSession) -> bytes:
        """Eight random bytes; the first four read as a positive number, which drivers take for a process id."""
        while True:
            key = self._pooler.edge.random(8)
            key = bytes((key[0] & 0x7F,)) + key[1:]
            if key not in self.keys and any(key[:4]):
                self.keys[key] = client
                client.cancel_key = key
                return key

    def request(self, key: bytes, done: Callable[[], None]) -> None:
        """Pass a CancelRequest on to the server that works for the client with this key; `done` in any case.

        A server that is given back meanwhile is not used again before the cancel has run its course, so that a late
        one never hits the next client. SPEC: PgBouncer's cancel rules.
        """
        cancel_console = self.console_keys.get(key)
        if cancel_console is not None:
            cancel_console()
        client = self.keys.get(key)
        server = client.server if client is not None else None
        if client is None or server is None or not server.query_open or not server.cancel_key:
            done()
            return
        if server.cancel_waiters is not None:
            server.cancel_waiters.append(done)  # one is under way to this server already
            return
        self._send(server, [done])

    def _send(self, server: ServerSession, waiters: list[Callable[[], None]]) -> None:
        server.cancel_waiters = waiters
        served = len(waiters)
        self._pooler.edge.send_cancel(server, lambda: self._done(server, served))

    def _done(self, server: ServerSession, served: int) -> None:
        waiters, server.cancel_waiters = server.cancel_waiters or [], None
        if server.state is ServerState.ACTIVE and server.query_open and len(waiters) > served:
            # Asked for while the first was under way, which may have ended the query before this one.
            for done in waiters[:served]:
                done()
            self._send(server, waiters[served:])
            return
        for done in waiters:
            done()
        if server.state is ServerState.BEING_CANCELED:
            self._pooler.check_in(server, self._pooler.clock())
