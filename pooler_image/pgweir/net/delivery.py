"""A read is brought to whom it is for: the one call that leads from `stream` into `session`.

PERF: `delivery.pxd` has the same in C, put in line by the compiled form of `stream`: sessions, to whom nearly all reads go, are
found by their place and not by their name.
"""

from __future__ import annotations

from typing import Any


def deliver(protocol: Any, data: bytes) -> None:
    protocol.data_received(data)
