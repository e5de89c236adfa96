"""A server connection's login: from StartupMessage to the first ReadyForQuery.

Where a pool must know more than PostgreSQL tells by itself, the login ends with one question of our own (`QUESTION`): what comes
out of it is for `opening`, which also hears of every failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from pgweir.pool.records import ServerState
from pgweir.protocol import framing, messages
from pgweir.protocol.auth.heavy import HeavyStep
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import CONNECTION_FAILURE, ProtocolError, ServerLoginError
from pgweir.protocol.messages import B
from pgweir.protocol.reader import MessageReader
from pgweir.session.wire import Wire

if TYPE_CHECKING:
    from pgweir.session.server import ServerSession

MAX_LOGIN_MESSAGE: Final = 1 << 20
QUESTION: Final = (
    "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_postmaster_start_time(), "
    "pg_catalog.host(pg_catalog.inet_server_addr())"
)
_AFTER_AUTHENTICATION: Final = (B.PARAMETER_STATUS, B.BACKEND_KEY_DATA, B.READY_FOR_QUERY)


class Deadline(Protocol):
    def cancel(self) -> None: ...


class ServerLogin:
    """The protocol of a server's wire from StartupMessage to the first ReadyForQuery, or to that behind a question of ours."""

    __slots__ = ("_answer", "_asked", "_authentication", "_parameters", "_reader", "_server", "_wire", "deadline")

    def __init__(self, server: ServerSession, wire: Wire) -> None:
        self._server = server
        self._wire = wire
        self._reader = MessageReader(MAX_LOGIN_MESSAGE)
        self._authentication: ServerAuthentication = server.pooler.credentials.authentication(server)
        self._parameters: dict[str, str] = {}
        self._asked = False
        self._answer: list[bytes | None] = []
        self.deadline: Deadline | None = None  # when the edge will call `time_out`

    def start(self) -> None:
        self._wire.write(messages.startup_message(self._server.pooler.server_startup_parameters(self._server.pool)))

    def data_received(self, data: bytes) -> None:
        try:
            for type_, body in self._reader.feed(data):
                if self._message(type_, body):
                    break
            else:
                return
            self._forget_deadline()
            if self._reader.rest and self._server.state is not ServerState.CLOSED:
                self._server.data_received(self._reader.rest)  # what came right behind its first ReadyForQuery
        except (ProtocolError, ServerLoginError) as error:
            self._failed(error.message, error.sqlstate)

    def _message(self, type_: int, body: bytes) -> bool:
        """True when this object's work is over."""
        server = self._server
        if type_ in _AFTER_AUTHENTICATION and not self._authentication.completed:
            raise ProtocolError("the server skipped the authentication")  # an impostor might
        match type_:
            case B.AUTHENTICATION:
                answer = self._authentication.receive(body)
                if isinstance(answer, HeavyStep):
                    server.pooler.edge.compute(answer.run, lambda result: self._resume(answer, result))
                elif answer:
                    self._wire.write(answer)
            case B.PARAMETER_STATUS:
                name, value = messages.parse_parameter_status(body)
                self._parameters[name] = value
            case B.BACKEND_KEY_DATA:
                server.cancel_key = messages.parse_backend_key_data(body)
                server.pid = int.from_bytes(server.cancel_key[:4], "big")
            case B.READY_FOR_QUERY if not self._asked and server.pooler.opening.has_a_question(
                server, self._parameters
            ):
                self._asked = True
                self._wire.write(messages.query(QUESTION))
            case B.DATA_ROW if self._asked:
                self._answer = messages.parse_data_row(body)
            case B.READY_FOR_QUERY:
                server.exchange.status = framing.STATUS_IDLE
                server.values = server.pooler.tracker.values(self._parameters)
                server.application_name = self._parameters.get("application_name", "")
                server.pooler.opening.logged_in(server, self._parameters, self._answer)
                return True
            case B.ERROR_RESPONSE if self._asked:
                pass  # it knows no such function, so it is no standby either; if that was its goodbye, it hangs up
            case B.ERROR_RESPONSE:
                error = messages.parse_error(body)
                server.pooler.opening.failed(server, error.message, error.sqlstate or CONNECTION_FAILURE, answered=True)
                return True
            case B.NOTICE_RESPONSE | B.NEGOTIATE_PROTOCOL_VERSION:
                pass
            case _ if not self._asked:
                raise ProtocolError(f"unexpected message {chr(type_)!r} during the login")
        return False

    def _resume(self, step: HeavyStep[bytes], result: object) -> None:
        """The heavy part of our proof is done; the server waits for it."""
        if self._server.state is not ServerState.LOGIN:
            return
        try:
            self._wire.write(step.resume(result))
        except (ProtocolError, ServerLoginError) as error:
            self._failed(error.message, error.sqlstate)

    def _failed(self, message: str, sqlstate: str) -> None:
        self._wire.close()
        self._server.pooler.opening.failed(self._server, message, sqlstate, answered=False)

    def time_out(self) -> None:
        """server_connect_timeout is over."""
        if self._server.state is ServerState.LOGIN:
            self._server.pooler.opening.failed(self._server, "connect timeout", CONNECTION_FAILURE, answered=False)

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def eof_received(self) -> bool:
        return False

    def _forget_deadline(self) -> None:
        """WHY: a login takes milliseconds, and its deadline would keep a server that is dead for seconds."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        if self._server.state is ServerState.LOGIN:
            self._failed("server closed the connection during the login", CONNECTION_FAILURE)
