"""One connection of our own: TCP or a Unix socket, accepted or connected, with TLS or without.

A `Stream` has the methods of an asyncio transport that sessions and the console use, and calls its protocol as one would:
`connection_lost` exactly once, last, and never while whoever ended it is still at work. It waits where all of them do
(`streams`). A connection that is to speak TLS does so from one moment on (`secure`), and stays the same object for its session;
what is sealed and opened is `channel`'s.

PERF: compiled where that is possible (`pgweir.compiled`). Reads go to the session as they come, writes to the kernel at once;
only what the kernel refuses is kept. Of TLS a read is opened as a whole, and then handed on as a whole: nothing that was
taken from the kernel waits for a session that has paused.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from pgweir.net import calls, delivery
from pgweir.net.channel import Channel
from pgweir.net.streams import Member, Streams

HIGH_WATER: Final = 64 * 1024  # bytes kept for a peer that does not take them; then the protocol is told to pause
LOW_WATER: Final = 16 * 1024  # and from here on to go on
UNHEARD: Final = 16 * 1024  # bytes of TLS's own answers that wait behind others; whoever asks for more is a foe

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_LEFT: Final = "the client left during the handshake"
_HUNG_UP: Final = "server closed the connection during the TLS handshake"


class Stream(Member):
    """One connection. Nothing is read before `begin`."""

    __slots__ = (
        "_channel",
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
        self._channel: Channel | None = None  # it speaks TLS
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
        channel = self._channel
        if channel is not None:
            return self._read_sealed(channel)
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
            channel = self._channel
            if channel is not None and (channel.held or channel.is_ended):
                self._streams.loop.call_soon(self._go_on)  # of this the kernel tells nothing

    def is_reading(self) -> bool:
        return self._is_reading

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._is_closing or not data:
            return
        whole = data if type(data) is bytes else bytes(data)
        channel = self._channel
        if channel is not None:
            if not channel.is_agreed:  # the goodbye of whoever gives up waiting: there is no way to say it
                return
            try:
                whole = channel.seal(whole)
            except OSError as error:
                self._end(error)
                return
        self._send(whole)

    def _send(self, whole: bytes) -> None:
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

    # --- TLS ---------------------------------------------------------------------------------------------------------

    def secure(
        self,
        context: ssl.SSLContext,
        agreed: Callable[[BaseException | None], None],
        *,
        server_side: bool,
        name: str | None = None,
        early: bytes = b"",
    ) -> None:
        """From here on it speaks TLS. `agreed` is called once and later: with None when the handshake is done, before any of
        what was said inside; or with what it failed by, before `connection_lost`. `early` was read already; `name` is the one
        that a server's certificate must bear."""
        if self._number < 0:
            raise ConnectionError("the connection is lost")
        channel = Channel(self._streams.bench(), context, agreed, server_side=server_side, name=name)
        self._channel = channel
        if not self._is_closing and (early or not server_side):
            self._open(channel, early)

    def _read_sealed(self, channel: Channel) -> bool:
        """`_read`, of a connection with TLS."""
        streams = self._streams
        if not channel.is_agreed and (self._is_over or not streams.may_shake()):
            return False
        try:
            size = calls.fill(self._number, streams._buffer)
        except OSError as error:
            self._is_reading = False
            self._end(error)
            return False
        if size > 0:
            self._open(channel, streams._view[:size])
            return True
        if size == 0 and not self._is_over:
            try:
                if channel.is_agreed:
                    self._ended()
                else:
                    self.abort()
            except Exception as error:
                self._failed(error)
        return False

    def _open(self, channel: Channel, sealed: Any) -> None:
        """What has come, and what follows from it."""
        try:
            data = channel.unseal(sealed)
            if channel.reply and not self._is_over:
                self._reply(channel)
            if channel.agreed is not None and channel.is_agreed and not self._is_closing:
                agreed, channel.agreed = channel.agreed, None
                agreed(None)
            if channel.held:
                data, channel.held = channel.held + data, b""
            if data and channel.agreed is None:
                if self._is_reading:
                    delivery.deliver(self._protocol, data)
                elif not self._is_closing:
                    channel.held = data
            if channel.error is not None:
                self._is_reading = False
                self._end(channel.error)
            elif channel.is_ended and self._is_reading and not self._is_over:
                channel.is_ended = False
                self._ended()
        except Exception as error:
            self._failed(error)

    def _go_on(self) -> None:
        """With what came during a pause."""
        channel = self._channel
        if channel is not None and self._is_reading and not self._is_over:
            self._open(channel, b"")

    def _reply(self, channel: Channel) -> None:
        """What TLS says by itself. A peer may ask for as much of that as it says itself, and take none of it."""
        reply, channel.reply = channel.reply, b""
        if self._queue:
            channel.unheard += len(reply)
            if channel.unheard > UNHEARD:
                self._end(ConnectionError("TLS was asked for answers that nobody takes"))
                return
        else:
            channel.unheard = 0
        self._send(reply)

    def _part(self, channel: Channel) -> None:
        """Say that nothing follows. WHY a failure is none: whoever does not take it is gone."""
        whole = channel.farewell()
        if self._queue:
            self._queue.append(whole)
            self._kept += len(whole)
            return
        try:
            calls.send(self._number, whole, 0)
        except OSError:
            pass

    # --- the end -----------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """What is kept still goes out, then it closes."""
        self._is_reading = False
        if self._is_closing:
            return
        self._is_closing = True
        channel = self._channel
        if channel is not None and channel.is_agreed:
            self._part(channel)
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
        channel, self._channel = self._channel, None
        protocol, self._protocol = self._protocol, None
        try:
            if channel is not None and channel.agreed is not None:
                agreed, channel.agreed = channel.agreed, None
                agreed(self._error or ConnectionError(_LEFT if channel.is_servers else _HUNG_UP))
        except Exception as error:
            self._streams.report("a session stumbled over its handshake", error)
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

    # --- who is there ------------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if self._number < 0:
            return default
        if name == "ssl_object":
            return default if self._channel is None else self._channel.tls
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


class Borrowed(socket.socket):
    """A stream's socket, to ask it something or to set its options. It closes nothing."""

    def close(self) -> None:
        self.detach()

    def __del__(self) -> None:
        self.detach()
