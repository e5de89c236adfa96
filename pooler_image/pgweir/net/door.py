"""A listening socket in the epoll of `streams`: whoever comes is let in, at once and one by one. `listener` makes them.

PERF: compiled where that is possible (`pgweir.compiled`).
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Final

from pgweir.net import calls
from pgweir.net.streams import Member, Streams

ACCEPTS: Final = 8  # in one round: those who are in wait for no storm of newcomers
RETRY: Final = 0.1  # seconds until a listening socket is asked again for which there was no memory

_IN: Final = select.EPOLLIN
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
_NO_MEMORY: Final = (errno.ENOBUFS, errno.ENOMEM)


class Door(Member):
    """A listening socket. `accepted` is told of each connection: its descriptor, the peer's address and port."""

    __slots__ = ("_accepted", "_most", "_round", "_sock")

    def __init__(self, streams: Streams, sock: socket.socket, accepted: Callable[[int, str, int], None]) -> None:
        super().__init__(streams, sock.fileno())
        self._sock: socket.socket | None = sock  # None: closed
        self._accepted = accepted
        self._most = 1  # that are let in at once
        self._round = 0  # in which somebody came last, and not alone
        streams.spare()
        self._watch(_IN)

    def happened(self, events: int) -> None:
        """PERF: most come alone, and asking whether there is another is a system call; whoever else is there is told of in the
        next round. If so, there are perhaps many."""
        now = self._streams._round
        self._most = min(2 * self._most, ACCEPTS) if now == self._round + 1 else 1
        self._round = now
        for _ in range(self._most):
            if self._sock is None:
                return
            try:
                found = calls.accept(self._number)
            except OSError as error:
                self._refused(error.errno)
                return
            if found is None:
                self._round = 0
                return
            try:
                self._accepted(*found)
            except Exception as error:
                self._streams.report("a connection could not be accepted", error)
                self._streams.leave(found[0])

    def _refused(self, number: int | None) -> None:
        """There is no descriptor: the client hears that by being hung up on, and does not stay at the door for ever."""
        if number in _NO_DESCRIPTOR and self._streams.use_spare():
            try:
                found = calls.accept(self._number)
                if found is not None:
                    os.close(found[0])
            except OSError:
                pass
            self._streams.spare()
        elif number in _NO_DESCRIPTOR or number in _NO_MEMORY:
            self._watch(0)
            self._streams.loop.call_later(RETRY, self._look_again)

    def _look_again(self) -> None:
        if self._sock is not None:
            self._streams.spare()
            self._watch(_IN)

    def close(self) -> None:
        if self._sock is not None:
            self._release()
            self._sock.close()
            self._sock = None

    def abort(self) -> None:
        self.close()

    def finish(self) -> None: ...
