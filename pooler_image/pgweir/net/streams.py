"""Where our own transports wait, all in one epoll: `stream` (a connection, TLS or not) and `door` (a listening socket).

`Streams.turn` waits there in the event loop's place (`libuv`): it serves whoever has something, and leaves when the loop has,
whose own descriptor stands beside theirs. Timers, names and HTTP stay the loop's. `listener` and `edge` make streams; without a
compiler, or with PGWEIR_TRANSPORT=uvloop, there are none, and uvloop's transports do the same
(`tests/pgweir/net/test_transports.py` holds one against the other).

PERF: compiled where that is possible (`pgweir.compiled`).
"""

from __future__ import annotations

import asyncio
import os
import select
from typing import Any, Final

from pgweir import compiled
from pgweir.net import calls, libuv
from pgweir.net.channel import MOST, Workbench

VARIABLE: Final = "PGWEIR_TRANSPORT"

READ_SIZE: Final = MOST  # taken from the kernel at once
HANDSHAKES: Final = 2  # steps of them in one round, each up to a millisecond: who is in waits for no storm

_IN: Final = select.EPOLLIN


def wanted(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether connections are ours, or the event loop's: PGWEIR_TRANSPORT says (own, uvloop), or else the form that runs."""
    word = os.environ.get(VARIABLE, "")
    if word not in ("", "own", "uvloop"):
        raise ValueError(f"{VARIABLE} = {word!r}: own or uvloop; or leave it away")
    return word == "own" or (not word and compiled.FORM == "compiled" and libuv.is_there(loop))


class Streams:
    """All streams and listening sockets on one loop."""

    __slots__ = (
        "_bench",
        "_buffer",
        "_ending",
        "_epoll",
        "_found",
        "_handshakes",
        "_in_turn",
        "_is_told",
        "_loops",
        "_members",
        "_number",
        "_place",
        "_round",
        "_shook",
        "_spare",
        "_view",
        "loop",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._round = 0  # how often it was asked who has something
        self._epoll = select.epoll()
        self._number = self._epoll.fileno()
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)
        self._found = bytearray(calls.ROOM)  # what has happened
        self._bench: Workbench | None = None  # as long as nobody has spoken TLS
        self._handshakes = 0  # steps of them, in the round `_shook`
        self._shook = -1
        self._members: list[Any] = []  # by descriptor
        self._ending: list[Any] = []  # whose last callback is to come
        self._in_turn = False
        self._is_told = False  # the loop will call `_settle`
        self._spare = -1  # a descriptor kept for the day when there is none
        self._place = libuv.Place(loop, self.turn)
        self._loops = self._place.number
        self._epoll.register(self._loops, _IN)

    def close(self) -> None:
        """End them all, and tell the protocols."""
        for member in self._members:
            if member is not None:
                member.abort()
        self._settle()
        self._place.close()
        self._epoll.close()
        if self._spare >= 0:
            os.close(self._spare)

    def turn(self) -> None:
        """Wait in the loop's place, and serve whoever has something, until the loop has. PERF: once for many events.

        WHY every wait asks anew how long it may last: what was served may have asked something of the loop.
        """
        self._in_turn = True
        self._place.enter()
        try:
            while True:
                patience = self._place.patience()
                self._round += 1
                count = calls.wait(self._epoll, self._number, self._found, patience)
                is_loops = not patience or count <= 0
                for place in range(count):
                    number = calls.whose(self._found, place)
                    if number == self._loops:
                        is_loops = True
                        continue
                    member = self._members[number]
                    if member is not None:
                        member.happened(calls.what(self._found, place))
                if self._ending:
                    self._settle()
                if is_loops:
                    break
        except BaseException as error:
            self.loop.call_soon(_raise, error)  # the loop knows what to do with it
        finally:
            self._place.leave()
            self._in_turn = False

    def round(self) -> int:
        """The number of this round of events: all that is served between two waits."""
        return self._round

    def bench(self) -> Workbench:
        """Where TLS is worked on."""
        if self._bench is None:
            self._bench = Workbench()
        return self._bench

    def may_shake(self) -> bool:
        """Whether one more step of a handshake is due in this round. WHY no list of those who wait: what they have said stays in
        the kernel, which tells of it again in the next round."""
        if self._shook != self._round:
            self._shook = self._round
            self._handshakes = 0
        elif self._handshakes >= HANDSHAKES:
            return False
        self._handshakes += 1
        return True

    def enter(self, member: Any, number: int) -> None:
        while len(self._members) <= number:
            self._members.append(None)
        self._members[number] = member

    def leave(self, number: int) -> None:
        """Nobody wants this connection."""
        member = self._members[number] if number < len(self._members) else None
        if member is not None:
            member.abort()
        else:
            os.close(number)

    def end(self, member: Any) -> None:
        """Its last callback is due. WHY later: not while whoever ended it is still at work; and no descriptor is given to
        another while events of its last owner may be pending."""
        self._ending.append(member)
        if not self._in_turn and not self._is_told:
            self._is_told = True
            self.loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._is_told = False
        while self._ending:
            ending, self._ending = self._ending, []
            for member in ending:
                member.finish()

    def spare(self) -> bool:
        """Have a descriptor in reserve; False when there is none to be had."""
        if self._spare < 0:
            try:
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
        return True

    def use_spare(self) -> bool:
        if self._spare < 0:
            return False
        os.close(self._spare)
        self._spare = -1
        return True

    def report(self, message: str, error: BaseException) -> None:
        self.loop.call_exception_handler({"message": message, "exception": error})


def _raise(error: BaseException) -> None:
    raise error


class Member:
    """A descriptor in the epoll."""

    __slots__ = ("_number", "_streams", "_watched")

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self._number = number
        self._watched = 0  # the events that are asked for
        self._streams.enter(self, number)

    def happened(self, events: int) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError

    def _watch(self, events: int) -> None:
        """WHY unregistered for none: the kernel reports a peer that is gone whether it was asked or not, again and again."""
        if events == self._watched:
            return
        if not events:
            self._streams._epoll.unregister(self._number)
        elif not self._watched:
            self._streams._epoll.register(self._number, events)
        else:
            self._streams._epoll.modify(self._number, events)
        self._watched = events

    def _release(self) -> int:
        """Out of the epoll; the descriptor is whoever's who asks."""
        self._watch(0)
        number, self._number = self._number, -1
        self._streams.enter(None, number)
        return number
