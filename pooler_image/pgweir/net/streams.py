"""Our own transport for plain TCP and Unix sockets: accepted or connected, read, written to and closed, all in here.

A `Stream` has the methods of an asyncio transport that sessions and the console use, and calls its protocol as one would.
All streams stand in one epoll, and `Streams.turn` waits there in the event loop's place (`libuv`): it serves whoever has
something, and leaves when the loop has, whose own descriptor stands beside theirs. TLS, timers, names and HTTP stay the loop's;
a connection that is to speak TLS is handed over before the first byte of it (`Stream.detach`). `listener` and `edge` make
streams; without a compiler, or with PGWEIR_TRANSPORT=uvloop, there are none, and uvloop's transports do the same
(`tests/pgweir/net/test_transports.py` holds one against the other).

PERF: compiled where that is possible (`pgweir.compiled`). Reads go to the session as they come, writes to the kernel at once;
only what the kernel refuses is kept.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from pgweir import compiled
from pgweir.net import calls, delivery, libuv

VARIABLE: Final = "PGWEIR_TRANSPORT"

READ_SIZE: Final = 256 * 1024  # taken from the kernel at once
HIGH_WATER: Final = 64 * 1024  # bytes kept for a peer that does not take them; then the protocol is told to pause
LOW_WATER: Final = 16 * 1024  # and from here on to go on
ACCEPTS: Final = 8  # in one round: those who are in wait for no storm of newcomers
RETRY: Final = 0.1  # seconds until a listening socket is asked again for which there was no memory

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
_NO_MEMORY: Final = (errno.ENOBUFS, errno.ENOMEM)


def wanted(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether connections are ours, or the event loop's: PGWEIR_TRANSPORT says (own, uvloop), or else the form that runs."""
    word = os.environ.get(VARIABLE, "")
    if word not in ("", "own", "uvloop"):
        raise ValueError(f"{VARIABLE} = {word!r}: own or uvloop; or leave it away")
    return word == "own" or (not word and compiled.FORM == "compiled" and libuv.is_there(loop))


class Streams:
    """All streams and listening sockets on one loop."""

    __slots__ = (
        "_buffer",
        "_ending",
        "_epoll",
        "_found",
        "_in_turn",
        "_is_told",
        "_loops",
        "_members",
        "_number",
        "_place",
        "_round",
        "_spare",
        "loop",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._round = 0  # how often it was asked who has something
        self._epoll = select.epoll()
        self._number = self._epoll.fileno()
        self._buffer = bytearray(READ_SIZE)
        self._found = bytearray(calls.ROOM)  # what has happened
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


class Stream(Member):
    """One connection. Nothing is read before `begin`."""

    __slots__ = (
        "_error",
        "_is_closing",
        "_is_over",
        "_is_reading",
        "_is_stalled",
        "_kept",
        "_protocol",
        "_queue",
        "_sent",
    )

    def __init__(self, streams: Streams, number: int) -> None:
        super().__init__(streams, number)
        self._protocol: Any = None
        self._queue: deque[bytes] | None = None  # what the kernel has not taken
        self._sent = 0  # of the first of them, it has
        self._kept = 0  # bytes in the queue, without those
        self._is_reading = False
        self._is_stalled = False  # the protocol was told to pause
        self._is_closing = False
        self._is_over = False  # the protocol is about to hear the last of it, or has
        self._error: BaseException | None = None

    def begin(self, protocol: Any) -> None:
        self._protocol = protocol
        self.resume_reading()

    def __repr__(self) -> str:
        return f"<Stream {self._number}{' closing' if self._is_closing else ''}>"

    # --- reading -----------------------------------------------------------------------------------------------------

    def happened(self, events: int) -> None:
        if self._is_over:
            return
        if self._is_reading and events != _OUT:
            self._read()
        if self._queue and events != _IN and not self._is_over:
            self._flush()

    def _read(self) -> bool:
        """Whether there may be more."""
        try:
            data = calls.receive(self._number, self._streams._buffer)
        except OSError as error:
            self._is_reading = False
            self._end(error)
            return False
        if data is None:
            return False
        try:
            if data:
                delivery.deliver(self._protocol, data)
                return True
            if not self._is_over:
                self._ended()
        except Exception as error:
            self._failed(error)
        return False

    def _ended(self) -> None:
        """The peer has said its last."""
        if self._protocol.eof_received():
            self.pause_reading()
        else:
            self.close()

    def pause_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            if not self._is_over:
                self._watch(self._watched & ~_IN)

    def resume_reading(self) -> None:
        if not self._is_reading and not self._is_closing:
            self._is_reading = True
            self._watch(self._watched | _IN)

    def is_reading(self) -> bool:
        return self._is_reading

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._is_closing or not data:
            return
        whole = data if type(data) is bytes else bytes(data)
        size = len(whole)
        if not self._queue:
            try:
                sent = calls.send(self._number, whole, 0)
            except OSError as error:
                self._end(error)
                return
            if sent == size:
                return
            self._queue = deque()
            self._sent = sent
            size -= sent
            self._watch(self._watched | _OUT)
        assert self._queue is not None
        self._queue.append(whole)
        self._kept += size
        if self._kept > HIGH_WATER and not self._is_stalled:
            self._is_stalled = True
            self._protocol.pause_writing()

    def _flush(self) -> None:
        queue = self._queue
        assert queue is not None
        try:
            while queue:
                sent = calls.send(self._number, queue[0], self._sent)
                self._kept -= sent
                self._sent += sent
                if self._sent < len(queue[0]):
                    break
                queue.popleft()
                self._sent = 0
        except OSError as error:
            self._end(error)
            return
        if not queue:
            self._queue = None
            if self._is_closing:
                self._end(None)
                return
            self._watch(self._watched & ~_OUT)
        if self._is_stalled and self._kept <= LOW_WATER and not self._is_closing:
            self._is_stalled = False
            try:
                self._protocol.resume_writing()
            except Exception as error:
                self._failed(error)

    def get_write_buffer_size(self) -> int:
        return self._kept

    # --- the end -----------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """What is kept still goes out, then it closes."""
        self._is_reading = False
        if self._is_closing:
            return
        self._is_closing = True
        if self._queue:
            self._watch(_OUT)
        else:
            self._end(None)

    def abort(self) -> None:
        self._is_reading = False
        self._end(None)

    def _failed(self, error: BaseException) -> None:
        self._streams.report("a session stumbled; its connection is closed", error)
        self._is_reading = False
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = self._is_closing = True
        self._error = error
        self._queue = None
        self._kept = 0
        self._streams.end(self)

    def finish(self) -> None:
        """The last callback, once; then the descriptor is free."""
        # A peer that hung up has broken our write, and may have said why before that (PostgreSQL's FATAL).
        while self._is_reading and self._read():
            pass
        protocol, self._protocol = self._protocol, None
        try:
            if protocol is not None:
                protocol.connection_lost(self._error)
        except Exception as error:
            self._streams.report("a session stumbled over its end", error)
        self._error = None
        if self._number >= 0:
            # PERF: what is closed is in no epoll any more, without a call to say so. (WHY that is certain: nobody else has
            # this connection; what other programs inherit is closed in them, too, and an event too many does no harm.)
            self._watched = 0
            os.close(self._release())

    def detach(self) -> socket.socket:
        """The bare socket, for a transport that speaks TLS; this stream is over, and nobody hears of it."""
        if self._is_over or self._queue:
            raise ConnectionError("the connection is lost")
        self._is_over = self._is_closing = True
        self._is_reading = False
        self._protocol = None
        return socket.socket(fileno=self._release())

    # --- who is there ------------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if self._number < 0:
            return default
        sock = Borrowed(fileno=self._number)
        if name == "socket":
            return sock
        try:
            if name == "peername":
                return sock.getpeername()
            if name == "sockname":
                return sock.getsockname()
        except OSError:  # it is not connected any more
            pass
        return default


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


class Borrowed(socket.socket):
    """A stream's socket, to ask it something or to set its options. It closes nothing."""

    def close(self) -> None:
        self.detach()

    def __del__(self) -> None:
        self.detach()
