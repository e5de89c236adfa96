"""Named prepared statements that outlive a server connection (PgBouncer's `max_prepared_statements`).

A statement that clients prepared under names of their own gets one name for the whole process. Each client keeps a map from its
names, each server keeps the set it has, in the order of use. `session.rewriting` rewrites Parse, Bind, Describe and Close with
these, and notes what is `Owed`, with which `exchange` undoes an entry when the server refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import count
from typing import Final
from weakref import WeakValueDictionary

from pgweir.protocol import framing, messages
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.messages import message

CLEARING_SIZE: Final = 64  # bytes of a Parse in which DEALLOCATE ALL and DISCARD ALL are looked for
NAME_PREFIX: Final = b"PGBOUNCER_"  # PgBouncer's, since people look for it in pg_prepared_statements
# The errors in which PostgreSQL names a statement: it is not there, it is there already, its Bind has too many values.
_NAMING_STATES: Final = (b"\0C26000\0", b"\0C42P05\0", b"\0C08P01\0")


class Statement:
    """What was prepared: the Parse message behind its name (query, parameter types), and its name on every server."""

    __slots__ = ("__weakref__", "body", "name")

    def __init__(self, name: bytes, body: bytes) -> None:
        self.name = name
        self.body = body

    def __repr__(self) -> str:
        return f"<Statement {self.name.decode()} {self.body[:40]!r}>"

    def parse_message(self) -> bytes:
        return message(framing.PARSE, self.name + b"\0" + self.body)

    def close_message(self) -> bytes:
        return message(framing.CLOSE, b"S" + self.name + b"\0")

    def describe_message(self) -> bytes:
        return message(framing.DESCRIBE, b"S" + self.name + b"\0")


class StatementRegistry:
    """All statements that any client or server of this process still holds; forgotten when nobody does."""

    __slots__ = ("_by_body", "_numbers")

    def __init__(self) -> None:
        self._by_body: WeakValueDictionary[bytes, Statement] = WeakValueDictionary()
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._by_body)

    def intern(self, body: bytes) -> Statement:
        statement = self._by_body.get(body)
        if statement is None:
            statement = Statement(NAME_PREFIX + b"%d" % next(self._numbers), body)
            self._by_body[body] = statement
        return statement


class ServerStatements:
    """What one server connection has prepared, least recently used first.

    A *stale* statement may still be there, but must not be used: its plan is out of date, or the server has lost it. It is closed
    and prepared anew before its next use.
    """

    __slots__ = ("_order", "_stale")

    def __init__(self) -> None:
        # PERF: to put an entry of a dict behind all others it is taken out and put in, which costs a Bind half of what
        # `OrderedDict.move_to_end` does.
        self._order: dict[Statement, None] = {}
        self._stale: dict[Statement, None] = {}

    def __len__(self) -> int:
        return len(self._order) + len(self._stale)

    def __contains__(self, statement: Statement) -> bool:
        return statement in self._order

    def __iter__(self) -> Iterator[Statement]:
        yield from self._stale
        yield from self._order

    def touch(self, statement: Statement) -> bool:
        """Note a use; False when the server does not have the statement, or not one that may be used."""
        if statement not in self._order:
            return False
        del self._order[statement]
        self._order[statement] = None
        return True

    def is_stale(self, statement: Statement) -> bool:
        return statement in self._stale

    def add(self, statement: Statement, limit: int) -> list[Statement]:
        """Note that the statement is being prepared there; answer what must be closed to stay within `limit`."""
        self._order.pop(statement, None)
        self._order[statement] = None
        evicted = []
        while len(self) > limit:
            shelf = self._stale or self._order
            oldest = next(iter(shelf))
            del shelf[oldest]
            evicted.append(oldest)
        return evicted

    def add_stale(self, statement: Statement) -> None:
        """The server has it, or may have it; whether it can be used is not worth knowing."""
        self._stale[statement] = None

    def mistrust(self) -> None:
        """Everything is stale: what one statement met (DDL, DISCARD in a function) the others have met, too."""
        self._stale.update(self._order)
        self._order.clear()

    def discard(self, statement: Statement) -> None:
        self._order.pop(statement, None)
        self._stale.pop(statement, None)

    def clear(self) -> None:
        self._order.clear()
        self._stale.clear()


class Action(Enum):
    """What becomes of a reply that needs more than being passed on."""

    FORWARD = "forward"
    SKIP = "skip"
    FAKE = "fake"


class Owed:
    """A reply that concerns prepared statements. (A plain one is just its message type, an int.)"""

    __slots__ = ("action", "kind", "name", "names", "statement")

    def __init__(
        self,
        kind: int,
        action: Action,
        statement: Statement | None,
        names: dict[bytes, Statement] | None = None,
        name: bytes = b"",
    ) -> None:
        self.kind = kind
        self.action = action
        self.statement = statement
        self.names = names  # the client's own map, when the entry stands for a message of the client
        self.name = name

    def __repr__(self) -> str:
        return f"<Owed {chr(self.kind)} {self.action.value} {self.name!r}>"

    def fake_reply(self) -> bytes:
        return messages.PARSE_COMPLETE if self.kind == framing.PARSE else messages.CLOSE_COMPLETE

    def undo(self, statements: ServerStatements) -> None:
        """The server, which has `statements`, never did (or never will do) what this stands for."""
        statement, names = self.statement, self.names
        if self.kind == framing.PARSE:
            if statement is not None and self.action is not Action.FAKE:
                statements.discard(statement)
            self.forget_name()
        elif statement is not None:
            if self.action is Action.SKIP:  # it was to make room, or to be prepared anew: the server still has it
                statements.add_stale(statement)
            elif names is not None:
                names.setdefault(self.name, statement)

    def forget_name(self) -> None:
        """The client's Parse came to nothing."""
        if self.names is not None and self.names.get(self.name) is self.statement:
            del self.names[self.name]


def split_parse(body: bytes) -> tuple[bytes, bytes]:
    """The name in a Parse message, and what stands behind it."""
    return _split_name(body, 0, "broken Parse packet")


def clears_statements(rest: bytes) -> bool:
    """Whether this Parse (behind its name) is DEALLOCATE ALL or DISCARD ALL. A comment in front of it hides that."""
    if len(rest) > CLEARING_SIZE:
        return False
    words = rest[: rest.find(b"\0")].upper().replace(b";", b" ").split()
    return len(words) >= 2 and words[0] in (b"DEALLOCATE", b"DISCARD") and words[-1] == b"ALL"


def split_target(body: bytes, complaint: str) -> tuple[bytes, bytes]:
    """The kind (`S` or `P`) and the name in a Describe or Close message."""
    if len(body) < 2 or body[-1] != 0:
        raise ProtocolError(complaint)
    return body[:1], body[1:-1]


def bind_names_end(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the portal's and the statement's terminators stand in a Bind from `start` to `end`; -1 for one that is cut off."""
    portal_end = framing.find_zero(data, start, end)
    return portal_end, framing.find_zero(data, portal_end + 1, end) if portal_end >= 0 else -1


def names_statement(error: bytes) -> bool:
    """Whether this ErrorResponse's body names a statement as the server knows it."""
    return NAME_PREFIX in error and any(state in error for state in _NAMING_STATES)


def with_own_names(data: bytes, spans: Sequence[tuple[int, int]], names: Mapping[bytes, Statement]) -> bytes:
    """Replies, in which the ErrorResponses at `spans` name statements as their client does (`names`).

    A statement that has several names there gets the first. One that has none (its Close came in the same flight) keeps ours.
    """
    own: dict[bytes, bytes] = {}
    for name, statement in names.items():
        own.setdefault(statement.name, name)
    pieces: list[bytes] = []
    start = 0
    for at, end in spans:
        fields = data[at + 5 : end].split(b"\0")
        renamed = [
            re.sub(NAME_PREFIX + rb"\d+", lambda found: own.get(found[0], found[0]), field)
            if field[:1] == b"M"
            else field
            for field in fields
        ]
        pieces += (data[start:at], message(framing.ERROR_RESPONSE, b"\0".join(renamed)))
        start = end
    return b"".join([*pieces, data[start:]])


def _split_name(body: bytes, start: int, complaint: str) -> tuple[bytes, bytes]:
    end = body.find(b"\0", start)
    if end < 0:
        raise ProtocolError(complaint)
    return body[start:end], body[end + 1 :]
