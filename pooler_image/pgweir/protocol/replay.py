"""Errors that a prepared statement meets through no fault of its client, and when the exchange may simply be said again.

PostgreSQL refuses to run a statement whose result has another shape since DDL (0A000, `cached plan must not change result
type`), and one that is gone (26000; a function ran DISCARD ALL). The client cannot cure that: the statement is the pooler's.
`exchange` asks here when an error has come; nothing here runs before that.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from pgweir.protocol.framing import BIND, DESCRIBE, EXECUTE, FLUSH, SYNC, unpack_header
from pgweir.protocol.prepared import NAME_PREFIX, bind_names_end

REPLAY_LIMIT: Final = 16 * 1024  # bytes of an exchange that are remembered for as long as it is not answered


class Trouble(Enum):
    """What the server says about a statement that it was to have."""

    CHANGED = "its result has another shape than when it was prepared"
    LOST = "it is not there"


def statement_trouble(error: bytes) -> Trouble | None:
    """What this ErrorResponse's body says about our statements. Only fields that are never translated are read."""
    if b"\0C0A000\0" in error and b"\0RRevalidateCachedQuery\0" in error:
        return Trouble.CHANGED
    if b"\0C26000\0" in error and NAME_PREFIX in error:
        return Trouble.LOST
    return None


def may_replay(spoken: bytes, owed: Iterable[object], trouble: Trouble) -> bool:
    """Whether `spoken`, the client's last read, is one whole exchange of which nothing was answered, and safe to repeat.

    It starts with the Bind that failed and ends with its only Sync, so outside a transaction block nothing at all has happened.
    With another result shape it is repeated only for a client that asks for that shape with each Bind and takes whatever
    comes: one that goes by an earlier Describe would read the new columns as the old ones.
    """
    kinds: list[int] = []
    named = described = True
    pos, size = 0, len(spoken)
    while pos < size:
        if size - pos < 5:
            return False
        kind, length = unpack_header(spoken, pos)
        body, end = pos + 5, pos + 1 + length
        if length < 4 or end > size or kind not in (BIND, DESCRIBE, EXECUTE, SYNC, FLUSH):
            return False
        if kind == BIND:
            portal_end, statement_end = bind_names_end(spoken, body, end)
            named = named and statement_end > portal_end + 1
            described = described and _takes_any_shape(spoken[body:end])
        elif kind == DESCRIBE:
            described = described and spoken[body : body + 1] == b"P"
        if kind != FLUSH:
            kinds.append(kind)
        pos = end
    if not named or kinds[:1] != [BIND] or kinds.count(SYNC) != 1 or kinds[-1] != SYNC or kinds != list(owed):
        return False
    return trouble is Trouble.LOST or (described and kinds == [BIND, DESCRIBE, EXECUTE] * (len(kinds) // 3) + [SYNC])


def _takes_any_shape(bind: bytes) -> bool:
    """One result format for all columns (or none: text), not one for each column that the client remembers."""
    _, statement_end = bind_names_end(bind, 0, len(bind))
    if statement_end < 0:
        return False
    pos = statement_end + 1
    pos += 2 + 2 * _int(bind, pos, 2)
    parameters = _int(bind, pos, 2)
    pos += 2
    for _ in range(parameters):
        length = _int(bind, pos, 4)
        pos += 4 + (0 if length == 0xFFFFFFFF else length)
    return len(bind) >= pos + 2 and _int(bind, pos, 2) <= 1


def _int(data: bytes, pos: int, size: int) -> int:
    return int.from_bytes(data[pos : pos + size], "big")
