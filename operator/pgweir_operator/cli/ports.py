"""Ports on 127.0.0.1 for servers of our own, that nobody else takes between the asking and the listening.

A port that the kernel picks is free only at that moment: a server needs a second to get to it, and meanwhile any connection
that leaves this machine, and any other process that asks the same way, may be given the same number. Whoever then looks
whether "its" server listens finds somebody else's. So a process claims a block of ports below those that the kernel hands
out, and walks through it. Used by the demo and by the tests; it never listens itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FIRST: Final = 12_000
END: Final = 30_000  # from here on live the NodePorts of a Kubernetes on this machine
BLOCK: Final = 400  # so many others are given out before a port comes round again
_KERNEL_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port on which nobody listens, and which nobody else is given for as long as this process lives."""
    block = _block(os.getpid())  # a forked process walks through a block of its own
    if block is not None:
        for port in itertools.islice(block, BLOCK):
            if _is_free(port):
                return port
    return _any_port()


@functools.cache
def _block(_pid: int) -> Iterator[int] | None:
    """The ports of this process, round and round; None where blocks cannot be claimed, or all are."""
    if sys.platform != "linux":
        return None
    try:
        low = int(_KERNEL_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        return None
    # Where the kernel hands out all ports above 1024, a block has at least no other process of ours in it.
    for first in sorted(range(FIRST, END - BLOCK + 1, BLOCK), key=lambda first: first + BLOCK > low):
        # An abstract name is one process's at a time, in the same network namespace as the ports, and goes with it.
        claim = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            claim.bind(f"\0pgweir-ports-{first}")
            atexit.register(claim.close)
            return itertools.cycle(range(first, first + BLOCK))
        claim.close()
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections that are over but not forgotten do not count, listeners do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
