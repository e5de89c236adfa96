"""Message headers of the steady state: type byte, big-endian length that counts itself.

Called by `exchange` (bytes from a server) and by `session.client` (bytes from a client). Bodies are never looked at here:
a message is a header and a number of bytes to move on.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

HEADER: Final = Struct("!BI")
HEADER_SIZE: Final = 5
unpack_header: Final = HEADER.unpack_from

# Frontend message types (client to server).
QUERY: Final = ord("Q")
FUNCTION_CALL: Final = ord("F")
PARSE: Final = ord("P")
BIND: Final = ord("B")
DESCRIBE: Final = ord("D")
EXECUTE: Final = ord("E")
CLOSE: Final = ord("C")
SYNC: Final = ord("S")
FLUSH: Final = ord("H")
COPY_DATA: Final = ord("d")
COPY_DONE: Final = ord("c")
COPY_FAIL: Final = ord("f")
TERMINATE: Final = ord("X")

# Backend message types (server to client) that the steady state acts on.
READY_FOR_QUERY: Final = ord("Z")
ERROR_RESPONSE: Final = ord("E")
NOTICE_RESPONSE: Final = ord("N")
PARAMETER_STATUS: Final = ord("S")
COMMAND_COMPLETE: Final = ord("C")
EMPTY_QUERY_RESPONSE: Final = ord("I")
PORTAL_SUSPENDED: Final = ord("s")
DATA_ROW: Final = ord("D")
ROW_DESCRIPTION: Final = ord("T")
NO_DATA: Final = ord("n")
PARSE_COMPLETE: Final = ord("1")
BIND_COMPLETE: Final = ord("2")
CLOSE_COMPLETE: Final = ord("3")
COPY_IN_RESPONSE: Final = ord("G")
COPY_BOTH_RESPONSE: Final = ord("W")

# Transaction status bytes in ReadyForQuery.
STATUS_IDLE: Final = ord("I")
STATUS_TRANSACTION: Final = ord("T")
STATUS_FAILED: Final = ord("E")


def message(type_: int, body: bytes) -> bytes:
    """One whole message."""
    return HEADER.pack(type_, len(body) + 4) + body
