"""Messages that name a prepared statement, as the server is told them: it knows the statement by the pooler's name, if at all.

Pure but for the server's books (`exchange`) and the counters. `client` walks a client's read and calls `rewrite` for each
Parse, Bind, Describe or Close that may name one; what it answers stands in the place of the message.
SPEC: PgBouncer's max_prepared_statements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgweir.protocol import framing, prepared
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.exchange import Exchange
from pgweir.protocol.framing import BIND, CLOSE, DESCRIBE, PARSE, STATUS_FAILED, STATUS_IDLE
from pgweir.protocol.prepared import Action, Owed, Statement, bind_names_end

if TYPE_CHECKING:
    from pgweir.session.server import ServerSession

MAX_NAME: Final = 64 * 1024  # bytes that the names in a Bind, Describe or Close may take

# What the server is told instead, where the bytes go on as they are, and what the client is told at once.
Rewritten = tuple[bytes, int, bytes]
UNCHANGED: Final[Rewritten] = (b"", -1, b"")


def size_needed(kind: int, message_size: int, have: bytes) -> int:
    """How much of this message must be there before it is looked at again. Only a statement with a name is large."""
    if kind == BIND:
        if len(have) > MAX_NAME:
            raise ProtocolError("broken Bind packet")
        return len(have) + 1
    if kind == PARSE and have[5:6] in (b"", b"\0"):
        return min(message_size, len(have) + 1 if len(have) == 5 else 6 + prepared.CLEARING_SIZE)
    if kind != PARSE and message_size > MAX_NAME:
        raise ProtocolError("broken Describe packet" if kind == DESCRIBE else "broken Close packet")
    return message_size


def rewrite(
    kind: int, data: bytes, pos: int, end: int, statements: dict[bytes, Statement], server: ServerSession
) -> Rewritten | None:
    """What replaces the message at `pos`, and where unchanged bytes go on; `UNCHANGED`; None: more is needed.

    Only messages that name a statement change.
    """
    body = pos + 5
    if kind == BIND:
        portal_end, statement_end = bind_names_end(data, body, end)
        if statement_end < 0:
            if end <= len(data):
                raise ProtocolError("broken Bind packet")
            return None
        if statement_end == portal_end + 1:
            server.exchange.expect(BIND)
            return UNCHANGED
        server.pool.stats.bind_count += 1
        name = framing.cut(data, portal_end + 1, statement_end)
        statement = statements.get(name)
        if statement is None:  # the server knows best what to say about that
            server.exchange.expect(BIND)
            return UNCHANGED
        before = _ensure_prepared(statement, server)
        server.exchange.expect(BIND)
        header = framing.pack_header(BIND, end - pos - 1 - len(name) + len(statement.name))
        return b"".join((before, header, framing.cut(data, body, portal_end + 1), statement.name)), statement_end, b""
    if end > len(data):
        if kind == PARSE and len(data) - body > prepared.CLEARING_SIZE and data[body] == 0:
            server.exchange.expect(PARSE)  # (longer than any that clears statements)
            return UNCHANGED
        return None
    if kind == PARSE:
        return _rewrite_parse(data[body:end], end, statements, server)
    target, name = prepared.split_target(
        data[body:end], "broken Describe packet" if kind == DESCRIBE else "broken Close packet"
    )
    if target != b"S" or not name or name not in statements:
        server.exchange.expect(kind)
        return UNCHANGED
    statement = statements[name]
    if kind == DESCRIBE:
        before = _ensure_prepared(statement, server)
        server.exchange.expect(DESCRIBE)
        return before + statement.describe_message(), end, b""
    del statements[name]
    return b"", end, server.exchange.expect_special(Owed(CLOSE, Action.FAKE, statement, statements, name))


def _rewrite_parse(body: bytes, end: int, statements: dict[bytes, Statement], server: ServerSession) -> Rewritten:
    name, rest = prepared.split_parse(body)
    exchange = server.exchange
    if not name:
        exchange.expect(PARSE)
        if body[1:2] in b"dD" and prepared.clears_statements(rest):
            exchange.wary = exchange.clearing = True
        return UNCHANGED
    server.pool.stats.client_parse_count += 1
    known = statements.get(name)
    if known is not None:
        # The name is taken: take it on the server too, so that PostgreSQL itself says so (42P05), or what else is wrong.
        before = _ensure_prepared(known, server)
        exchange.expect(PARSE)
        return before + Statement(known.name, rest).parse_message(), end, b""
    statement = server.pooler.statements.intern(rest)
    statements[name] = statement
    if (
        statement in exchange.statements
        and exchange.status != STATUS_IDLE
        and (exchange.status == STATUS_FAILED or exchange.owed)
    ):
        # The server has it, and in a failed transaction would refuse to prepare it (25P02): only a Parse lets it say so.
        exchange.statements.discard(statement)
        exchange.statements.add_stale(statement)
    if exchange.statements.touch(statement):
        return b"", end, exchange.expect_special(Owed(PARSE, Action.FAKE, statement, statements, name))
    before = _close_stale(statement, exchange)
    exchange.expect_special(Owed(PARSE, Action.FORWARD, statement, statements, name))
    return before + statement.parse_message() + _note_prepared(statement, server), end, b""


def _ensure_prepared(statement: Statement, server: ServerSession) -> bytes:
    """What must be said to the server first, so that it has the statement."""
    if server.exchange.statements.touch(statement):
        return b""
    before = _close_stale(statement, server.exchange)
    server.exchange.expect_special(Owed(PARSE, Action.SKIP, statement))
    return before + statement.parse_message() + _note_prepared(statement, server)


def _close_stale(statement: Statement, exchange: Exchange) -> bytes:
    """The server may still have it as it was; PostgreSQL does not mind when it has not."""
    if not exchange.statements.is_stale(statement):
        return b""
    exchange.statements.discard(statement)
    exchange.expect_special(Owed(CLOSE, Action.SKIP, statement))  # (puts it back, if an error skips this)
    return statement.close_message()


def _note_prepared(statement: Statement, server: ServerSession) -> bytes:
    """Remember it, and close what falls off the end of the list."""
    exchange = server.exchange
    if exchange.saw_error:  # the server discards all this, up to the next Sync
        return b""
    server.pool.stats.server_parse_count += 1
    evictions = b""
    for evicted in exchange.statements.add(statement, server.pooler.settings.max_prepared_statements):
        exchange.expect_special(Owed(CLOSE, Action.SKIP, evicted))
        evictions += evicted.close_message()
    return evictions
