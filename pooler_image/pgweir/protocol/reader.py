"""Whole messages out of a stream, for logins and the console, where each message is looked at and small.

It never sees ordinary traffic: when the login is over, `rest` is handed to framing.py and this reader is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgweir.protocol import framing
from pgweir.protocol.errors import ProtocolError, bad_packet_header
from pgweir.protocol.framing import HEADER_SIZE


class MessageReader:
    """`feed` gives every message that is complete; a length beyond `max_size` is refused as soon as its header is
    there."""

    __slots__ = ("_buffer", "_max_size")

    def __init__(self, max_size: int = 64 * 1024) -> None:
        self._buffer = bytearray()
        self._max_size = max_size

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Taking the iterator step by step is safe: a caller that stops early leaves what follows in `rest`."""
        # Not a generator itself, so that the bytes are kept even if nobody iterates.
        self._buffer += data
        return self._messages()

    def only(self, data: bytes, type_: int) -> bytes | None:
        """The body, when this read is one message of this type, whole, and nothing waits before it; else None, and `feed` it.
        PERF: so come nearly all messages of a login."""
        size = len(data)
        if self._buffer or not HEADER_SIZE <= size <= self._max_size:
            return None
        found, length = framing.unpack_header(data, 0)
        return framing.cut(data, HEADER_SIZE, size) if found == type_ and length + 1 == size else None

    @property
    def is_empty(self) -> bool:
        return not self._buffer

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        while len(self._buffer) >= HEADER_SIZE:
            size = int.from_bytes(self._buffer[1:HEADER_SIZE], "big") + 1
            if size < HEADER_SIZE or self._buffer[0] == 0:
                raise bad_packet_header(bytes(self._buffer))
            if size > self._max_size:
                raise ProtocolError(
                    f"message of {size} bytes is too large here: at most {self._max_size} bytes are allowed"
                )
            if len(self._buffer) < size:
                return
            type_, body = self._buffer[0], bytes(self._buffer[HEADER_SIZE:size])
            del self._buffer[:size]
            yield type_, body

    @property
    def rest(self) -> bytes:
        """What was fed and not yet given out."""
        return bytes(self._buffer)
