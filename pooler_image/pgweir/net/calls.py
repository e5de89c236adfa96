"""The system calls of our own transport, of which none but `wait` waits, and libuv's. `streams` and its like, and `libuv`, call.

PERF: `calls.pxd` has the same functions in C, put in line by the compiled form of `streams`: between a session and the kernel
then stands no object but the bytes. This file is the plain form, and says what each does.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

MOST: Final = 64  # events that are taken at once
ROOM: Final = 16 * MOST  # bytes for them
_EVENT: Final = struct.Struct("=II")  # (in C, the kernel's own)
_NOT_NOW: Final = (errno.EAGAIN, errno.EINTR)


def wait(epoll: select.epoll, _number: int, found: bytearray, patience: int) -> int:
    """How much has happened, or happens within so many milliseconds (-1: whenever); `found` has it then. `_number` is the
    epoll's descriptor."""
    events = epoll.poll(None if patience < 0 else patience / 1000, MOST)
    for place, event in enumerate(events):
        _EVENT.pack_into(found, place * _EVENT.size, *event)
    return len(events)


def whose(found: bytearray, place: int) -> int:
    """The descriptor to which it happened."""
    number: int = _EVENT.unpack_from(found, place * _EVENT.size)[0]
    return number


def what(found: bytearray, place: int) -> int:
    """The events."""
    events: int = _EVENT.unpack_from(found, place * _EVENT.size)[1]
    return events


def fill(number: int, buffer: bytearray) -> int:
    """Take what has come into the buffer, as much as there is room for: how much; 0 at the end, -1 when there is nothing yet."""
    sock = socket.socket(fileno=number)
    try:
        return sock.recv_into(buffer, len(buffer), socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return -1
    finally:
        sock.detach()


def cut(buffer: bytearray, size: int) -> bytes:
    """So much of its beginning."""
    if not 0 <= size <= len(buffer):
        raise ValueError("no such place in the buffer")
    return bytes(memoryview(buffer)[:size])


def receive(number: int, buffer: bytearray) -> bytes | None:
    """What has come, by way of the buffer; b"" at the end, None when there is nothing yet."""
    size = fill(number, buffer)
    return cut(buffer, size) if size >= 0 else None


def send(number: int, data: bytes, start: int) -> int:
    """How much of the data from `start` on the kernel takes."""
    sock = socket.socket(fileno=number)
    try:
        return sock.send(memoryview(data)[start:], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except (BlockingIOError, InterruptedError):
        return 0
    finally:
        sock.detach()


def accept(number: int) -> tuple[int, str, int] | None:
    """The next connection's descriptor, its peer's address and port ("" and 0 where it has none); None: there is none."""
    listening: Any = socket.socket(fileno=number)
    try:
        found, address = listening._accept()
    except (BlockingIOError, InterruptedError):
        return None
    finally:
        listening.detach()
    host, port = address[:2] if isinstance(address, tuple) else ("", 0)
    return found, host, port


# --- libuv's functions, by their addresses (`libuv`) -------------------------------------------------------------------


def ask(function: int, argument: int) -> int:
    found: int = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(function)(argument)
    return found


def ask_both(function: int, one: int, other: int) -> int:
    found: int = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(function)(one, other)
    return found


def tell(function: int, argument: int) -> None:
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(function)(argument)


def tell_both(function: int, one: int, other: int) -> None:
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(function)(one, other)


def hook(_handle: int, call: Callable[[], None]) -> tuple[int, Any]:
    """What a handle is given so that libuv calls `call`; and what must live as long as it does."""
    callback = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(lambda _: call())
    return ctypes.cast(callback, ctypes.c_void_p).value or 0, callback
