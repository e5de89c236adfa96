"""Message headers of the steady state: type byte, big-endian length that counts itself.

Called by `exchange` (bytes from a server), by `session.client` (bytes from a client) and by `session.rewriting`. Bodies are never
looked at here: a message is a header and a number of bytes to move on. PERF: what the `.pxd` has of these functions is put in
line by the compiled rooms; a slice, or `bytes.find`, makes three objects there before it begins.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from pgweir.protocol.messages import B, F

HEADER: Final = Struct("!BI")
HEADER_SIZE: Final = 5
unpack_header: Final = HEADER.unpack_from
pack_header: Final = HEADER.pack


def find_zero(data: bytes, start: int, end: int) -> int:
    """Where a string ends that begins at `start`; -1: not before `end`."""
    return data.find(b"\0", start, end)


def cut(data: bytes, start: int, end: int) -> bytes:
    """A slice, of places that are counted from the beginning. PERF: as C has it (`framing.pxd`)."""
    return data[start:end]


# The types that the steady state acts on, under names of their own: a module constant is looked up once, F.QUERY twice.
# Frontend messages (client to server).
QUERY: Final = F.QUERY
FUNCTION_CALL: Final = F.FUNCTION_CALL
PARSE: Final = F.PARSE
BIND: Final = F.BIND
DESCRIBE: Final = F.DESCRIBE
EXECUTE: Final = F.EXECUTE
CLOSE: Final = F.CLOSE
SYNC: Final = F.SYNC
FLUSH: Final = F.FLUSH
COPY_DATA: Final = F.COPY_DATA
COPY_DONE: Final = F.COPY_DONE
COPY_FAIL: Final = F.COPY_FAIL
TERMINATE: Final = F.TERMINATE

# Backend messages (server to client).
READY_FOR_QUERY: Final = B.READY_FOR_QUERY
ERROR_RESPONSE: Final = B.ERROR_RESPONSE
NOTICE_RESPONSE: Final = B.NOTICE_RESPONSE
PARAMETER_STATUS: Final = B.PARAMETER_STATUS
COMMAND_COMPLETE: Final = B.COMMAND_COMPLETE
EMPTY_QUERY_RESPONSE: Final = B.EMPTY_QUERY_RESPONSE
PORTAL_SUSPENDED: Final = B.PORTAL_SUSPENDED
DATA_ROW: Final = B.DATA_ROW
ROW_DESCRIPTION: Final = B.ROW_DESCRIPTION
NO_DATA: Final = B.NO_DATA
PARSE_COMPLETE: Final = B.PARSE_COMPLETE
BIND_COMPLETE: Final = B.BIND_COMPLETE
CLOSE_COMPLETE: Final = B.CLOSE_COMPLETE
COPY_IN_RESPONSE: Final = B.COPY_IN_RESPONSE
COPY_BOTH_RESPONSE: Final = B.COPY_BOTH_RESPONSE

# Transaction status bytes in ReadyForQuery.
STATUS_IDLE: Final = ord("I")
STATUS_TRANSACTION: Final = ord("T")
STATUS_FAILED: Final = ord("E")
