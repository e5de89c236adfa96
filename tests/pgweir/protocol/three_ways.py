"""One helper for every parse: whole, one byte at a time, and with the next message behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

NEXT = b"\x00the next message, whatever it is"


def three_ways(read: Callable[[list[bytes]], tuple[T, bytes]], packet: bytes) -> T:
    """`read` feeds the chunks to a fresh reader and gives (what it read, what it left over).

    All three readings must agree; the reading is the answer.
    """
    whole, left = read([packet])
    assert left == b""
    bytewise, left = read([packet[at : at + 1] for at in range(len(packet))])
    assert (bytewise, left) == (whole, b"")
    followed, left = read([packet + NEXT])
    assert (followed, left) == (whole, NEXT)
    return whole
