"""One client after its login: its bytes to whichever server it holds, and the queue when it holds none.

`server.data_received` carries the other direction. Most reads are handed on whole; only headers are looked at, and only
messages that name a prepared statement are rewritten (`rewriting`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pgweir.pool.records import ClientState
from pgweir.protocol import framing, messages, prepared
from pgweir.protocol.errors import ADMIN_SHUTDOWN, PROTOCOL_VIOLATION, ProtocolError
from pgweir.protocol.framing import (
    BIND,
    CLOSE,
    COPY_DATA,
    COPY_DONE,
    COPY_FAIL,
    DESCRIBE,
    EXECUTE,
    FLUSH,
    FUNCTION_CALL,
    PARSE,
    QUERY,
    SYNC,
    TERMINATE,
)
from pgweir.protocol.prepared import Statement
from pgweir.protocol.reasons import CloseReason
from pgweir.protocol.replay import REPLAY_LIMIT
from pgweir.session.holder import Holder, SessionPool
from pgweir.session.rewriting import MAX_NAME, UNCHANGED, rewrite, size_needed
from pgweir.session.server import check_out
from pgweir.session.wire import Origin, TlsInfo, Wire, close_in_time, printable

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler
    from pgweir.session.server import ServerSession

HELD_LIMIT: Final = 64 * 1024  # bytes kept of a client that has to wait; beyond that it is not read

_PORTAL: Final = ord("P")  # in Describe and Close
_D: Final = ord("d")
# PERF: a member of an enumeration costs a look-up in its class.
_CLIENT_IDLE: Final = ClientState.IDLE
_CLIENT_CLOSE: Final = CloseReason.CLIENT_CLOSE

_IDLE_READY: Final = messages.ready_for_query(b"I")


class ClientSession(Holder):
    """A client connection; its transport's protocol from ReadyForQuery on."""

    __slots__ = (
        "address",
        "application_name",
        "cancel_key",
        "close_reason",
        "database",
        "discard",
        "held",
        "login",
        "origin",
        "pooler",
        "reading_paused",
        "rewrites",
        "statements",
        "tls",
        "user",
        "wanted",
    )

    wire: Wire

    def __init__(
        self,
        pooler: Pooler,
        pool: SessionPool,
        wire: Wire,
        origin: Origin,
        user: str,
        tls: TlsInfo | None,
        now: float,
    ) -> None:
        self._begin_holder(pool, now)
        self.pooler = pooler
        self.wire = wire
        self.origin = origin
        self.user = user
        self.database = pool.database
        self.tls = tls
        self.application_name = ""
        self.statements: dict[bytes, Statement] = {}
        self.cancel_key = b""
        self.held: bytes | bytearray = b""  # not looked at yet: no server, or a message that must be seen whole
        self.wanted = 0  # how much `held` must have before it is looked at again
        self.discard = 0  # bytes to come of a message that nobody wants
        self.reading_paused = False
        self.close_reason: CloseReason | None = None
        self.login: Callable[[], None] | None = None  # completes the login, when it waits for the pool's first server
        self.policy_changed()

    def policy_changed(self) -> None:
        """The pool's policy is new to this client."""
        mode = self.pool.policy.mode
        self.keeps_server = mode == "session"
        self.rewrites = mode != "session" and self.pooler.settings.max_prepared_statements > 0

    def __repr__(self) -> str:
        return f"<ClientSession {self.id} {self.database}/{self.user}@{self.origin} {self.state.value}>"

    def name(self) -> str:
        """How a client is called in the log (PgBouncer's form)."""
        return printable(f"C-{self.id}: {self.database}/{self.user}@{self.origin}")

    # --- bytes from the client -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.pool.stats.received += len(data)
        if self.held:
            if self.wanted > HELD_LIMIT and type(self.held) is bytes:
                self.held = bytearray(self.held)  # a big message in many reads: no copy of it all for each of them
            self.held += data
            if len(self.held) < self.wanted:
                return
            if self.stalled or (self.server is None and self.state is not _CLIENT_IDLE):
                if len(self.held) > HELD_LIMIT:
                    self.pause_reading()
                return
            data = self._take_held()
        server = self.server
        try:
            if server is None:
                if self.state is not _CLIENT_IDLE:  # waiting, or its server is being prepared
                    self.held = data
                    return
                data = self._without_server(data)
                if not data:
                    return
                server = check_out(self.pooler, self)
                if server is None:
                    self.held = data
                    return
            self._forward(data, server)
        except ProtocolError as error:
            self.disconnect(CloseReason.CLIENT_PROTOCOL_ERROR, error.message, error.sqlstate)

    def granted(self, server: ServerSession) -> None:
        """A server at last: what was held goes on."""
        if not server.write_paused:
            self.resume_reading()  # before anything is written: that may pause it again
        if self.held and len(self.held) >= self.wanted:
            self._forward_held(server)

    def go_on(self, server: ServerSession) -> None:
        self.stalled = False
        self.granted(server)

    def _take_held(self) -> bytes:
        """PERF: what was kept of one read is that very object; a concatenation and a copy cost as much as `_forward`."""
        held, self.held, self.wanted = self.held, b"", 0
        return held if type(held) is bytes else bytes(held)

    def _forward_held(self, server: ServerSession) -> None:
        data = self._take_held()
        try:
            self._forward(data, server)
        except ProtocolError as error:
            self.disconnect(CloseReason.CLIENT_PROTOCOL_ERROR, error.message, error.sqlstate)

    def _without_server(self, data: bytes) -> bytes:
        """What needs no server is dealt with here; the answer is the rest, which does."""
        if data[0] == QUERY and len(data) >= 5 and not self.discard:
            return data
        size = len(data)
        pos = self.discard
        if pos >= size:
            self.discard = pos - size
            return b""
        self.discard = 0
        replies: list[bytes] | None = None  # ours; one write for all of them, or 50,000 Syncs in one read take seconds
        leaves = False
        while pos < size:
            if size - pos < 5:
                self.held += data[pos:]
                pos = size
                break
            kind, length = framing.unpack_header(data, pos)
            end = pos + length + 1
            if kind == TERMINATE:
                leaves = True
                break
            if kind in (COPY_DATA, COPY_DONE, COPY_FAIL) and length >= 4:
                # SPEC: "COPY Operations": after a failed COPY the backend drops what the frontend still sends.
                self.discard = max(0, end - size)
            elif kind == SYNC and length == 4:
                replies = replies or []
                replies.append(_IDLE_READY)
            elif kind == FLUSH and length == 4:
                pass
            elif kind == CLOSE and self.rewrites and 6 <= length <= MAX_NAME:
                if size < end:
                    self.held += data[pos:]
                    self.wanted = end - pos
                    pos = size
                    break
                target, name = prepared.split_target(data[pos + 5 : end], "broken Close packet")
                if target != b"S" or not name:
                    break
                self.statements.pop(name, None)
                replies = replies or []
                replies.append(messages.CLOSE_COMPLETE)
            elif self.rewrites and size < end and 4 <= length <= self.pooler.max_packet_size:
                if (
                    kind == DESCRIBE
                    or (kind == PARSE and data[pos + 5 : pos + 6] != b"\0")
                    or (kind == BIND and prepared.bind_names_end(data, pos + 5, end)[1] < 0)
                ):  # it must be seen whole before it can go on: no server is kept waiting for that
                    self.wanted = size_needed(kind, end - pos, data[pos:])
                    self.held += data[pos:]
                    pos = size
                break
            else:
                break
            pos = end
        if replies:
            self._reply(b"".join(replies))
        if leaves:
            self.disconnect(_CLIENT_CLOSE)
            return b""
        return data[pos:] if pos else data

    def _reply(self, data: bytes) -> None:
        """An answer of our own. A client that does not take what it is told is not read either: of a server's answers the
        server stops itself, but ours would pile up."""
        self.wire.write(data)
        if self.write_paused:
            self.pause_reading()

    def _forward(self, data: bytes, server: ServerSession) -> None:
        """Pass bytes on to the server, noting what it will owe.

        PERF: the usual read is one whole Query and costs one header; everything else walks headers.
        """
        assert server.wire is not None
        exchange = server.exchange
        pooler = self.pooler
        size = len(data)
        pos = self.need
        if not server.query_open:
            server.query_open = True
            now = server.query_started = pooler.clock()
            if not server.transaction_started:
                server.transaction_started = now
        if pos:
            if pos >= size:
                self.need = pos - size
                server.wire.write(data)
                if not self.need and exchange.settled:
                    server.settle_again()
                return
        elif size >= 5:
            kind, length = framing.unpack_header(data, 0)
            if (
                kind == QUERY
                and length + 1 == size
                and length <= pooler.max_packet_size
                and not exchange.saw_error
                and not pooler.disable_pqexec
            ):
                # PERF: one whole Query, the usual read (0.3 µs less than the walk below, which does the same).
                exchange.unsynced = False
                owed = exchange.owed
                owed.append(QUERY)
                if len(owed) > 1:
                    exchange.wary = exchange.doubtful = True
                server.wire.write(data)
                return
        exchange.spoken = data if size <= REPLAY_LIMIT and self.rewrites and not pos else b""
        longest = pooler.max_packet_size
        start = 0  # of the span that goes on as it is
        pieces: list[bytes] | None = None  # what stands before it, when something was rewritten
        while pos < size:
            if size - pos < 5:
                self.held += data[pos:]
                size = pos
                break
            kind, length = framing.unpack_header(data, pos)
            end = pos + length + 1
            if length < 4 or length > longest:
                raise ProtocolError(f"bad packet header: '{data[pos : pos + 5].hex()}'")
            if kind == QUERY:
                if pooler.disable_pqexec:
                    raise ProtocolError("PQexec disallowed", "0A000")
                exchange.expect(QUERY)
            elif kind == SYNC or kind == EXECUTE:
                exchange.expect(kind)
            elif kind == COPY_DATA:
                pass
            elif kind == DESCRIBE and pos + 5 < size and data[pos + 5] == _PORTAL:
                exchange.expect(DESCRIBE)  # PERF: of a portal, the usual one; nothing to rewrite
            elif kind == PARSE or kind == BIND or kind == DESCRIBE or kind == CLOSE:
                if not self.rewrites:
                    exchange.expect(kind)
                elif (
                    (owed := exchange.owed)
                    and (exchange.special or exchange.wary or owed[exchange.ticked] == QUERY)
                    and exchange.in_doubt
                ):
                    self.held += data[pos:]
                    self.stalled = True
                    size = pos
                    break
                elif kind == BIND and length >= 6 and pos + 6 < size and not (data[pos + 5] or data[pos + 6]):
                    exchange.expect(BIND)  # PERF: of the unnamed statement; nothing to rewrite
                elif kind == PARSE and length > 6 and pos + 6 < size and not data[pos + 5] and data[pos + 6] | 32 != _D:
                    exchange.expect(PARSE)  # PERF: of the unnamed statement, and no DEALLOCATE or DISCARD
                else:
                    rewritten = rewrite(kind, data, pos, end, self.statements, server)
                    if rewritten is None:  # cut off where it must not be: wait for more
                        self.held += data[pos:]
                        self.wanted = size_needed(kind, end - pos, data[pos:size])
                        size = pos
                        break
                    if rewritten is not UNCHANGED:
                        if pieces is None:
                            pieces = []
                        if pos > start:
                            pieces.append(framing.cut(data, start, pos))
                        before, start, reply = rewritten
                        pieces.append(before)
                        if reply:
                            self._reply(reply)
            elif kind == FLUSH:
                pass  # nothing is owed for it, and behind a Sync (psycopg's pipelines) it leaves the server ready
            elif kind == COPY_DONE or kind == COPY_FAIL:
                exchange.expect(COPY_DONE)
            elif kind == FUNCTION_CALL:
                exchange.expect(FUNCTION_CALL)
            elif kind == TERMINATE:
                self.need = 0
                self._send(server, pieces, data[start:pos])
                self.disconnect(_CLIENT_CLOSE)
                return
            else:
                raise ProtocolError(f"unknown pkt: '{chr(kind)}'")
            pos = end
        # Not before: a client that is refused in the middle of this has left the server in the middle of a message.
        self.need = pos - size if pos > size else 0
        if start == 0 and size == len(data):
            server.wire.write(data)
        else:
            self._send(server, pieces, framing.cut(data, start, size))
        if not exchange.owed and exchange.settled and not self.need:
            server.settle_again()  # nothing that will be answered went to the server

    def _send(self, server: ServerSession, pieces: list[bytes] | None, last: bytes) -> None:
        if pieces:
            pieces.append(last)
        whole = b"".join(pieces) if pieces else last
        if whole:
            assert server.wire is not None
            server.wire.write(whole)

    # --- prepared statements -----------------------------------------------------------------------------------------

    def forget_statements(self, kept: Mapping[bytes, Statement]) -> None:
        self.statements.clear()
        self.statements.update(kept)

    def with_own_names(self, data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
        return prepared.with_own_names(data, spans, self.statements)

    def say_again(self, spoken: bytes, server: ServerSession) -> None:
        self.held = spoken + self.held
        self.granted(server)

    # --- flow control ------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        if not self.reading_paused and not self.wire.is_closing():
            self.reading_paused = True
            self.wire.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused and not self.wire.is_closing():
            self.reading_paused = False
            self.wire.resume_reading()

    def pause_writing(self) -> None:
        """The client does not take more: its server must not be read."""
        self.write_paused = True
        server = self.server
        if server is not None:
            server.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        server = self.server
        if server is not None:
            server.resume_reading()
        if server is None or not server.write_paused:
            self.resume_reading()

    # --- the end -------------------------------------------------------------------------------------------------------

    def disconnect(
        self,
        reason: CloseReason,
        message: str | None = None,
        sqlstate: str = PROTOCOL_VIOLATION,
        *,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Say goodbye (with an error, when there is something to say) and go."""
        if self.close_reason is not None:
            return
        self.close_reason = reason
        if message is not None:
            self.pooler.log_pooler_error(self, message)
            self.wire.write(messages.error_response("FATAL", sqlstate, message, detail, hint))
        close_in_time(self.pooler.edge, self.wire)
        self.pooler.roster.left(self, reason, message)

    def leave(self) -> None:
        if not self.held and not self.discard:  # else it has asked for something already, and gets that first
            self.disconnect(CloseReason.POOLER_SHUTDOWN, CloseReason.POOLER_SHUTDOWN.text, ADMIN_SHUTDOWN)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.close_reason is None:
            self.close_reason = CloseReason.CLIENT_GONE
            self.pooler.roster.left(self, CloseReason.CLIENT_GONE, None)
