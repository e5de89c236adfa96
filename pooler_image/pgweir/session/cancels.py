"""Cancel requests: whose key it is, and how the cancel reaches the server that works for it and nobody else's.

A key that nobody here has may belong to another process of the group: `peers` has the rest. Called by client_login (a
request; a key for a greeting), the console (its keys) and pooler (a client or server that goes).

PERF: compiled where that is possible (`pgweir.compiled`): every login is given a key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pgweir.pool.records import ServerState
from pgweir.protocol import cancel_keys, framing
from pgweir.protocol.cancel_keys import KeyRing, make_key
from pgweir.session.peers import Peers

if TYPE_CHECKING:
    from pgweir.session.client import ClientSession
    from pgweir.session.pooler import Pooler
    from pgweir.session.server import ServerSession


NOISE: Final = 512  # random bytes that are asked for at once

_NO_PROCESS: Final = bytes(4)


class Cancels:
    """The keys that clients were given, and the cancels under way."""

    __slots__ = ("_noise", "_noise_at", "_pooler", "console_keys", "keys", "peers")

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._noise = b""  # random bytes,
        self._noise_at = 0  # of which so many are used
        self.peers = Peers(pooler)
        self.keys = KeyRing()  # the owners are ClientSessions
        self.console_keys = KeyRing()  # and here callables: a console that waits (PAUSE) is told

    def new_key(self, minor: int) -> bytes:
        """A key that nobody has, of the length that protocol 3.`minor` allows."""
        size = cancel_keys.LONG_KEY if minor >= 2 else cancel_keys.SHORT_KEY
        while True:
            key = make_key(self._random(size), self.peers.own_id)
            # Drivers take the first four bytes for a process id, and 0 for none.
            if not key.startswith(_NO_PROCESS) and not self.keys.has(key) and not self.console_keys.has(key):
                return key

    def random(self, size: int) -> bytes:
        """For the salts and nonces of logins. WHY two: a C method, as `_random` is, cannot be given away to be called."""
        return self._random(size)

    def _random(self, size: int) -> bytes:
        """PERF: the kernel is asked for many at once. No byte is used twice: a process that serves does not fork, so the block is
        nobody else's."""
        start = self._noise_at
        if start + size > len(self._noise):
            self._noise = self._pooler.edge.random(NOISE)
            start = 0
        self._noise_at = start + size
        return framing.cut(self._noise, start, self._noise_at)

    def give_key(self, client: ClientSession, minor: int) -> bytes:
        key = client.cancel_key = self.new_key(minor)
        self.keys.add(key, client)
        return key

    def request(self, key: bytes, done: Callable[[], None]) -> None:
        """Pass a CancelRequest on to the server that works for the client with this key; `done` in any case.

        A server that is given back meanwhile is not used again before the cancel has run its course, so that a late
        one never hits the next client. SPEC: PgBouncer's cancel rules.
        """
        cancel_console: Callable[[], None] | None = self._find(self.console_keys, key)
        if cancel_console is not None:
            cancel_console()
            done()
            return
        client: ClientSession | None = self._find(self.keys, key)
        if client is None:
            self.peers.forward(key, done)
            return
        server = client.server
        if server is None or not server.query_open or not server.cancel_key:
            done()
            return
        if server.cancel_waiters is not None:
            server.cancel_waiters.append(done)  # one is under way to this server already
            return
        self._send(server, [done])

    def _find(self, ring: KeyRing, key: bytes) -> Any:
        """Whose it is; peers count in a key how often it was handed on."""
        owner = ring.find(key)
        if owner is None and self.peers.own_id:
            owner = ring.find(cancel_keys.as_given(key))
        return owner

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
