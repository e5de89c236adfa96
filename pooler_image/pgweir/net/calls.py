"""The system calls of our own transport, each made at once and never waited for. `streams` calls.

PERF: `calls.pxd` has the same functions in C, put in line by the compiled form of `streams`: between a session and the kernel
then stands no object but the bytes. This file is the plain form, and says what each does.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import Any, Final

MOST: Final = 64  # events that are taken at once
_NOT_NOW: Final = (errno.EAGAIN, errno.EINTR)


def wait(epoll: select.epoll, _number: int) -> list[int]:
    """What has happened: for each, the descriptor above the 32 bits of its events. `_number` is the epoll's descriptor."""
    return [number << 32 | events for number, events in epoll.poll(0, MOST)]


def receive(number: int, buffer: bytearray) -> bytes | None:
    """What has come, as much as there is room for in the buffer; b"" at the end, None when there is nothing yet."""
    sock = socket.socket(fileno=number)
    try:
        size = sock.recv_into(buffer, len(buffer), socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return None
    finally:
        sock.detach()
    return bytes(memoryview(buffer)[:size])


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
