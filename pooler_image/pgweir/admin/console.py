"""A console session: PostgreSQL's protocol on one side, `commands` on the other. No I/O of its own.

Simple and extended protocol, so that psql and drivers with their defaults can talk to it; results in text or binary, as
asked. One command at a time: while PAUSE waits, what follows is kept; a cancel request or the end of the connection ends
the wait. `lifecycle` hands `open_console` to the pooler, `client_login` calls it once somebody is in.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pgweir import PGBOUNCER_VERSION
from pgweir.admin import commands
from pgweir.admin.commands import Answer, Cancel, Result
from pgweir.admin.encoding import data_rows, row_description
from pgweir.admin.parameters import UNDEFINED_PARAMETER, bound, parameter_types
from pgweir.admin.parse import SYNTAX_ERROR, Command, ConsoleError, parse
from pgweir.admin.service import Service
from pgweir.pool.records import connection_ids
from pgweir.protocol import messages
from pgweir.protocol.errors import ADMIN_SHUTDOWN, PROTOCOL_VIOLATION, QUERY_CANCELED, ProtocolError
from pgweir.protocol.messages import Body, F
from pgweir.protocol.reader import MessageReader
from pgweir.protocol.reasons import CloseReason
from pgweir.session.client_login import ClientLogin
from pgweir.session.wire import Wire

log = logging.getLogger(__name__)

MAX_MESSAGE: Final = 64 * 1024
MAX_KEPT: Final = 256 * 1024  # bytes of commands behind one that waits
MAX_STATEMENTS: Final = 1000  # prepared ones, and portals

GREETING: Final = (
    ("server_version", f"{PGBOUNCER_VERSION}/bouncer"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A prepared command (None: an empty one) and the types of its parameters."""

    command: Command | None
    types: tuple[int, ...]


@dataclass(slots=True)
class Portal:
    """A command that is ready to run, and what is left of its rows when the client took only some."""

    command: Command | None
    formats: tuple[int, ...] = ()
    rows: deque[bytes] = field(default_factory=deque)
    tag: str = ""


class ConsoleSession:
    """The protocol of a console's wire."""

    def __init__(self, service: Service, login: ClientLogin, wire: Wire, *, admin: bool) -> None:
        pooler = service.pooler
        self.id = next(connection_ids)
        self.user = login.user
        self.origin = login.origin
        self.tls = login.tls
        self._protocol_minor = login.protocol_minor
        self.admin = admin
        self.application_name = ""
        self.connected_at = self.requested_at = pooler.clock()
        self.cancel_key = b""
        self._service = service
        self._wire = wire
        self._reader = MessageReader(MAX_MESSAGE)
        self._queue: deque[Command] = deque()  # of the simple query under way
        self._simple = False  # a simple query is under way: ReadyForQuery follows it
        self._skipping = False  # an error in the extended protocol: everything up to Sync is dropped
        self._running: Command | None = None
        self._starting = False  # inside `commands.run`: an answer now is no late one
        self._cancel: Cancel | None = None  # how to give up the command that waits
        self._portal: Portal | None = None  # the command that runs belongs to; None: to a simple query
        self._most_rows = 0  # that its Execute asked for; 0: all
        self._statements: dict[str, Statement] = {}
        self._portals: dict[str, Portal] = {}
        self._in_transaction = False
        self._blocked = False  # the peer does not take what was written
        self._over = False

    def __repr__(self) -> str:
        return f"<ConsoleSession {self.id} {self.user}@{self.origin} admin={self.admin}>"

    def start(self, rest: bytes) -> None:
        """Greet, and take what came behind the login."""
        service = self._service
        service.consoles.sessions.add(self)
        service.consoles.stats.client_login_count += 1
        cancels = service.pooler.cancels
        self.cancel_key = cancels.new_key(self._protocol_minor)
        cancels.console_keys.add(self.cancel_key, self.cancel)
        self._wire.write(
            messages.authentication_ok()
            + b"".join(messages.parameter_status(name, value) for name, value in GREETING)
            + messages.backend_key_data(int.from_bytes(self.cancel_key[:4], "big"), self.cancel_key[4:])
            + messages.ready_for_query(b"I")
        )
        log.info("C-%d: login attempt: db=pgbouncer user=%s tls=%s", self.id, self.user, self.tls or "no")
        if rest:
            self.data_received(rest)

    # --- the transport's side ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        more = self._reader.feed(data)
        if self._running is None and not self._blocked:
            self._read(more)
        elif len(self._reader.rest) > MAX_KEPT:
            self._wire.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._go_on()

    def cancel(self) -> None:
        """A CancelRequest: give up the command that waits, and undo it."""
        if self._cancel is not None:
            cancel, self._cancel = self._cancel, None
            cancel(True)
            self._answer(ConsoleError("canceling statement due to user request", QUERY_CANCELED))

    # --- messages --------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if not self._over and self._running is None and not self._blocked:
            self._wire.resume_reading()
            self._read(self._reader.feed(b""))

    def _read(self, stream: Iterator[tuple[int, bytes]]) -> None:
        try:
            while not self._over and self._running is None and not self._blocked:
                found = next(stream, None)
                if found is None:
                    return
                self._message(*found)
        except ProtocolError as error:
            self._wire.write(messages.error_response("FATAL", error.sqlstate, error.message))
            self._close()

    def _message(self, kind: int, body: bytes) -> None:
        if kind == F.TERMINATE:
            self._close()
        elif kind == F.SYNC:
            self._skipping = False
            if not self._in_transaction:
                self._portals.clear()
            self._ready()
        elif self._skipping:
            return
        elif kind == F.QUERY:
            self._query(messages.parse_query(body))
        elif kind == F.FLUSH:
            pass
        else:
            step = _EXTENDED.get(kind)
            if step is None:
                raise ProtocolError(f"unknown pkt: '{chr(kind)}'", PROTOCOL_VIOLATION)
            try:
                step(self, Body(body, _NAMES[kind]))
            except ConsoleError as error:
                self._error(error)
                self._skipping = True

    def _query(self, text: str) -> None:
        self._simple = True
        try:
            self._queue.extend(parse(text))
        except ConsoleError as error:
            self._error(error)
        else:
            if not self._queue:
                self._wire.write(messages.empty_query_response())
        self._next()

    def _next(self) -> None:
        """The next command of a simple query, or its end."""
        while self._queue:
            command = self._queue.popleft()
            if command.holes:
                self._error(ConsoleError(f"there is no parameter ${max(command.holes)}", UNDEFINED_PARAMETER))
                self._queue.clear()
                break
            self._run(command, None)
            if self._running is not None or self._over:
                return
        self._simple = False
        self._ready()

    def _ready(self) -> None:
        self._wire.write(messages.ready_for_query(b"T" if self._in_transaction else b"I"))

    # --- the extended protocol ---------------------------------------------------------------------------------------------

    def _parse(self, body: Body) -> None:
        name, text = body.cstring(), body.cstring()
        declared = [body.uint32() for _ in range(body.uint16())]
        found = parse(text)
        if len(found) > 1:
            raise ConsoleError("cannot insert multiple commands into a prepared statement", SYNTAX_ERROR)
        if name and name in self._statements:
            raise ConsoleError(f'prepared statement "{name}" already exists', "42P05")
        if len(self._statements) >= MAX_STATEMENTS:
            raise ConsoleError("too many prepared statements on this console", "53000")
        command = found[0] if found else None
        self._statements[name] = Statement(command, parameter_types(command, declared))
        self._wire.write(messages.PARSE_COMPLETE)

    def _bind(self, body: Body) -> None:
        name, statement = body.cstring(), self._statement(body.cstring())
        forms = [body.uint16() for _ in range(body.uint16())]
        values = [body.value() for _ in range(body.uint16())]
        formats = tuple(body.uint16() for _ in range(body.uint16()))
        if len(self._portals) >= MAX_STATEMENTS:
            raise ConsoleError("too many portals on this console", "53000")
        self._portals[name] = Portal(bound(statement.command, statement.types, forms, values), formats)
        self._wire.write(messages.BIND_COMPLETE)

    def _describe(self, body: Body) -> None:
        kind, name = body.byte(), body.cstring()
        formats: tuple[int, ...] = ()
        if kind == ord("S"):
            statement = self._statement(name)
            command, types = statement.command, statement.types
            described = struct.pack(f"!H{len(types)}I", len(types), *types)
            self._wire.write(messages.message(messages.B.PARAMETER_DESCRIPTION, described))
        else:
            portal = self._named_portal(name)
            command, formats = portal.command, portal.formats
        table = None
        if command is not None and command.verb in ("SHOW", "SELECT"):
            table = commands.show(self._service, command).table
        self._wire.write(messages.NO_DATA if table is None else row_description(table, formats))

    def _execute(self, body: Body) -> None:
        portal = self._named_portal(body.cstring())
        self._most_rows = max(0, body.int32())
        if portal.command is None:
            self._wire.write(messages.empty_query_response())
        elif portal.rows:
            self._wire.write(b"".join(self._taken(portal)))
        else:
            self._run(portal.command, portal)

    def _taken(self, portal: Portal) -> list[bytes]:
        """As many rows as were asked for, and how it ends: with the tag, or suspended."""
        count = min(self._most_rows or len(portal.rows), len(portal.rows))
        parts = [portal.rows.popleft() for _ in range(count)]
        parts.append(messages.PORTAL_SUSPENDED if portal.rows else messages.command_complete(portal.tag))
        return parts

    def _close_named(self, body: Body) -> None:
        kind, name = body.byte(), body.cstring()
        if kind == ord("S"):
            self._statements.pop(name, None)
        else:
            self._portals.pop(name, None)
        self._wire.write(messages.CLOSE_COMPLETE)

    def _statement(self, name: str) -> Statement:
        try:
            return self._statements[name]
        except KeyError:
            raise ConsoleError(f'prepared statement "{name}" does not exist', "26000") from None

    def _named_portal(self, name: str) -> Portal:
        try:
            return self._portals[name]
        except KeyError:
            raise ConsoleError(f'portal "{name}" does not exist', "34000") from None

    # --- running ---------------------------------------------------------------------------------------------------------

    def _run(self, command: Command, portal: Portal | None) -> None:
        self.requested_at = self._service.pooler.clock()
        self._running = command
        self._portal = portal
        stats = self._service.consoles.stats
        stats.query_count += 1
        stats.xact_count += 1
        self._starting = True
        cancel = commands.run(self._service, command, admin=self.admin, done=self._answer)
        self._starting = False
        if self._running is not None:
            self._cancel = cancel

    def _answer(self, answer: Answer) -> None:
        """A command is done: now, or after it waited."""
        command, self._running, self._cancel = self._running, None, None
        if self._over or command is None:
            return
        if isinstance(answer, ConsoleError):
            self._error(answer)
            self._queue.clear()
            self._skipping = not self._simple
        else:
            self._succeed(command, answer)
        if not self._starting:
            if self._simple:
                self._next()
            self._go_on()

    def _succeed(self, command: Command, result: Result) -> None:
        if command.verb in ("BEGIN", "START"):
            self._in_transaction = True
        elif command.verb in ("COMMIT", "END", "ROLLBACK", "ABORT"):
            self._in_transaction = False
        elif command.verb == "SET" and command.argument == "application_name":
            self.application_name = command.arguments[1]
        parts: list[bytes] = []
        if result.notice is not None:
            parts.append(messages.notice_response("NOTICE", "00000", *result.notice))
        portal = self._portal
        if portal is not None:
            portal.tag = result.tag
            portal.rows.extend(data_rows(result.table, portal.formats) if result.table is not None else ())
            parts += self._taken(portal)
        else:
            if result.table is not None:
                parts.append(row_description(result.table, ()))
                parts += data_rows(result.table, ())
            parts.append(messages.command_complete(result.tag))
        self._wire.write(b"".join(parts))

    def _error(self, error: ConsoleError) -> None:
        self._wire.write(messages.error_response("ERROR", error.sqlstate, error.message, error.detail, error.hint))

    # --- the end -----------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """KILL_CLIENT, by somebody else or by this very console."""
        reason = CloseReason.ADMIN_KILLED
        self._wire.write(messages.error_response("FATAL", ADMIN_SHUTDOWN, reason.text))
        self._close()

    def _close(self) -> None:
        self._end()
        self._wire.close()

    def _end(self) -> None:
        """The console goes. A PAUSE that it waited for stays: whoever pauses by a script must not resume by its crash."""
        if self._over:
            return
        self._over = True
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel(False)
        self._service.consoles.sessions.discard(self)
        self._service.pooler.cancels.console_keys.remove(self.cancel_key)


_EXTENDED: Final[dict[int, Callable[[ConsoleSession, Body], None]]] = {
    F.PARSE: ConsoleSession._parse,
    F.BIND: ConsoleSession._bind,
    F.DESCRIBE: ConsoleSession._describe,
    F.EXECUTE: ConsoleSession._execute,
    F.CLOSE: ConsoleSession._close_named,
}
_NAMES: Final = {F.PARSE: "Parse", F.BIND: "Bind", F.DESCRIBE: "Describe", F.EXECUTE: "Execute", F.CLOSE: "Close"}


def open_console(service: Service, login: ClientLogin, wire: Wire, admin: bool) -> ConsoleSession:
    """Greet somebody who may look (or, as an admin, act)."""
    console = ConsoleSession(service, login, wire, admin=admin)
    console.start(login.rest)
    return console
