"""A PostgreSQL that says exactly what the test wants, for what a real one cannot be made to do.

Each connection runs the test's script in a thread of its own; a script is a plain function over a `Session`, read
from top to bottom. What goes wrong in a script is raised in the test when the fake is closed.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from tests.pooler.wire import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    SSL_REQUEST,
    Message,
    PeerClosed,
    WireClient,
    command_complete,
    data_row,
    error_fields,
    message,
    parameter_status,
    ready,
    row_description,
)

PARAMETERS = {
    "server_version": "16.0 (fake)",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "integer_datetimes": "on",
    "application_name": "",
}


class Session(WireClient):
    """The server's side of one connection: the same words as a WireClient, and a few of a server's."""

    def __init__(self, connection: socket.socket, number: int, timeout: float) -> None:
        self.socket = connection
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self.startup: dict[str, str] = {}
        self.parameters = {}
        self.pid, self.key = 1000 + number, 77

    def read_startup(self) -> None:
        """Up to the StartupMessage; TLS and GSS are declined."""
        while True:
            (length,) = struct.unpack("!i", self.read(4))
            body = self.read(length - 4)
            (code,) = struct.unpack_from("!i", body)
            if code in (SSL_REQUEST, GSSENC_REQUEST):
                self.say(b"N")
                continue
            if code == CANCEL_REQUEST:
                raise PeerClosed("a cancel request")
            words = body[4:].rstrip(b"\0").split(b"\0")
            pairs = zip(words[::2], words[1::2], strict=False)
            self.startup = {name.decode(): value.decode() for name, value in pairs}
            return

    def accept_login(self) -> None:
        """Trust whoever comes."""
        self.read_startup()
        self.say(*self.welcome())

    def welcome(self) -> tuple[bytes, ...]:
        key = message("K", struct.pack("!ii", self.pid, self.key))
        return message("R", struct.pack("!i", 0)), parameter_status(PARAMETERS), key, ready()

    def refuse(self, sqlstate: str, text: str) -> None:
        self.say(message("E", error_fields(S="FATAL", V="FATAL", C=sqlstate, M=text)))

    def answer(self, value: str = "1") -> None:
        """One row of one column."""
        self.say(row_description("value"), data_row(value), command_complete("SELECT 1"), ready())

    def requests(self) -> Iterator[Message]:
        """What the client says, until it leaves."""
        while True:
            try:
                heard = self.hear()
            except (PeerClosed, ConnectionError):
                return
            if heard.type == "X":
                return
            yield heard

    def serve(self) -> None:
        """Answer every simple query with one row until the client leaves."""
        for heard in self.requests():
            if heard.type == "Q":
                self.reply(heard)

    def reply(self, heard: Message) -> None:
        sql = heard.body.rstrip(b"\0").decode()
        if sql.strip() == "":
            self.say(message("I"), ready())
        elif sql.upper().startswith("SELECT"):
            self.answer()
        else:
            self.say(command_complete(sql.split()[0].upper()), ready())


Script = Callable[[Session], None]


def obliging(session: Session) -> None:
    """The script of a server with nothing special about it."""
    session.accept_login()
    session.serve()


class FakePostgres:
    """Listens on a free port of 127.0.0.1 (or where it is told) and runs a script for each connection."""

    def __init__(
        self, script: Script = obliging, *, timeout: float = 60.0, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.script = script
        self.timeout = timeout
        self.sessions: list[Session] = []
        self.errors: list[BaseException] = []
        self._closing = False
        self._listener = socket.create_server((host, port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if error is None and self.errors:
            raise self.errors[0]

    def close(self) -> None:
        self._closing = True
        self._listener.close()
        for session in self.sessions:
            try:
                session.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(5)
        for session in self.sessions:
            session.socket.close()

    def _accept(self) -> None:
        # A thread blocked in accept() does not notice that its socket was closed: it looks around now and then.
        self._listener.settimeout(0.1)
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            session = Session(connection, len(self.sessions), self.timeout)
            self.sessions.append(session)
            thread = threading.Thread(target=self._run, args=(session,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, session: Session) -> None:
        try:
            self.script(session)
        except (PeerClosed, ConnectionError, TimeoutError, OSError) as error:
            # The pooler may drop a connection at any time: not a fault of the script, unless the test says so.
            session.parameters["ended by"] = repr(error)
        except BaseException as error:
            if not self._closing:
                self.errors.append(error)
        finally:
            try:
                session.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
