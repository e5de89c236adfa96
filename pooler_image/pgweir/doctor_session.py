"""A client's connection as the doctor makes it: looked up, connected, encrypted and logged in, with the time of each stage.

Standard library and our own protocol room, nothing else; blocking, since it measures one thing after the other. Passwords never
leave in an answer. `doctor_probe` says what is done with it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pgweir.protocol import messages
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import ProtocolError, ServerLoginError
from pgweir.protocol.messages import B
from pgweir.protocol.reader import MessageReader

Json = dict[str, Any]

MAX_MESSAGE: Final = 16 * 2**20
SSLMODES_WITHOUT_TLS: Final = ("disable", "allow")


class Failed(Exception):
    """A connection that went no further: the stage, and why."""

    def __init__(self, stage: str, message: str, *, kind: str = "error", sqlstate: str = "") -> None:
        super().__init__(message)
        self.stage = stage
        self.kind = kind  # refused, timeout or error
        self.sqlstate = sqlstate

    def document(self) -> Json:
        return {"stage": self.stage, "kind": self.kind, "error": str(self), "sqlstate": self.sqlstate}


# --- names and ports ---------------------------------------------------------------------------------------------------------


def look_up(name: str, timeout: float) -> Json:
    """The addresses of a name. The system's resolver knows no deadline, so it is asked in a thread that may be left behind."""
    found: Json = {"name": name, "addresses": [], "error": "", "seconds": 0.0}
    started = time.monotonic()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answer: Json = {"error": getattr(error, "strerror", None) or str(error)}
        else:
            answer = {"addresses": list(dict.fromkeys(str(each[4][0]) for each in answers))}
        found.update(answer, seconds=time.monotonic() - started)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        return {**found, "error": f"no answer within {timeout:g} s", "seconds": time.monotonic() - started}
    return found


def reach(address: str, port: int, timeout: float) -> Json:
    """Whether a port takes a connection. It is closed at once: a pooler counts that as nobody."""
    started = time.monotonic()
    found: Json = {"address": address, "port": port, "kind": "", "error": ""}
    try:
        _connect(address, port, timeout).close()
    except Failed as error:
        found.update(kind=error.kind, error=str(error))
    return {**found, "seconds": time.monotonic() - started}


def _connect_to_one(addresses: Sequence[str], port: int, timeout: float) -> socket.socket:
    """The first that takes a connection, as libpq does it."""
    for address in addresses[:-1]:
        with contextlib.suppress(Failed):
            return _connect(address, port, timeout)
    return _connect(addresses[-1], port, timeout)


def _connect(address: str, port: int, timeout: float) -> socket.socket:
    local = address.startswith("/")
    family = socket.AF_UNIX if local else socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(timeout)
    try:
        made.connect(f"{address}/.s.PGSQL.{port}" if local else (address, port))
    except TimeoutError:
        made.close()
        raise Failed("tcp", f"no answer within {timeout:g} s", kind="timeout") from None
    except OSError as error:
        made.close()
        kind = "refused" if isinstance(error, (ConnectionRefusedError, FileNotFoundError)) else "error"
        raise Failed("tcp", error.strerror or str(error), kind=kind) from None
    if not local:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def accept_queue(port: int, folder: Path = Path("/proc/net")) -> Json:
    """Connections that the kernel has and nobody has accepted, here, and how often such a queue ran over (of all sockets)."""
    queued: int | None = None
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in (folder / name).read_text().splitlines()[1:]:
                words = line.split()
                # SPEC: proc(5): local_address, state 0A = LISTEN, tx_queue:rx_queue; of a listener, rx is what waits.
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    queued = max(queued or 0, int(words[4].partition(":")[2], 16))
    overflows = 0
    with contextlib.suppress(OSError, ValueError):
        lines = [line.split() for line in (folder / "netstat").read_text().splitlines() if line.startswith("TcpExt:")]
        overflows = int(dict(zip(*lines, strict=True))["ListenOverflows"])
    return {"queued": queued, "overflows": overflows}


# --- a connection ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom. `address` is what is connected to, `host` the name that is looked up and that a certificate
    must have."""

    host: str
    port: int
    user: str
    database: str
    password: str | None = field(default=None, repr=False)
    address: str = ""
    sslmode: str = "prefer"
    ca: str = ""  # PEM

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Target:
        return cls(**{name: document[name] for name in cls.__slots__ if document.get(name) is not None})


class Session:
    """A client's connection, with the time that each stage took."""

    def __init__(
        self, target: Target, timeout: float, application_name: str, *, stuck: Callable[[Session], None] | None = None
    ) -> None:
        """`stuck` is called when a login has no answer in time, while it still waits."""
        self.stages: dict[str, float] = {}
        self.tls = ""
        self._timeout = timeout
        self._reader = MessageReader(MAX_MESSAGE)
        self._stream: Iterator[tuple[int, bytes]] = iter(())
        addresses = [target.address or target.host]
        if not target.host.startswith("/"):
            found = self._timed("dns", lambda: look_up(target.host, timeout))
            if found["error"]:
                raise Failed("dns", found["error"])
            addresses = [target.address] if target.address else found["addresses"]
        self._socket = self._timed("tcp", lambda: _connect_to_one(addresses, target.port, timeout))
        try:
            if target.sslmode not in SSLMODES_WITHOUT_TLS and not target.host.startswith("/"):
                self._timed("tls", lambda: self._start_tls(target))
            self._timed("auth", lambda: self._log_in(target, application_name))
        except BaseException as error:
            if stuck is not None and isinstance(error, Failed) and error.kind == "timeout":
                stuck(self)
            self._socket.close()
            raise

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        try:
            return work()
        finally:
            self.stages[stage] = time.monotonic() - started

    def _start_tls(self, target: Target) -> None:
        try:
            self._socket.sendall(messages.ssl_request())
            answer = self._socket.recv(1)
        except TimeoutError:
            raise Failed("tls", f"no answer within {self._timeout:g} s", kind="timeout") from None
        except OSError as error:
            raise Failed("tls", error.strerror or str(error)) from None
        if answer == b"N" and target.sslmode == "prefer":
            return
        if answer != b"S":
            raise Failed("tls", "it does not offer TLS" if answer == b"N" else "it closed the connection")
        try:
            self._socket = _context(target).wrap_socket(self._socket, server_hostname=target.host)
        except (OSError, ValueError) as error:
            raise Failed("tls", getattr(error, "verify_message", None) or str(error)) from None
        self.tls = self._socket.version() or ""

    @property
    def local_address(self) -> str:
        """As the pooler's tables have it."""
        if self._socket.family == socket.AF_UNIX:
            return ""
        address, port = self._socket.getsockname()[:2]
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    @property
    def certificate(self) -> str:
        """The server's, as DER in base64; "" without TLS."""
        shown = self._socket.getpeercert(binary_form=True) if isinstance(self._socket, ssl.SSLSocket) else None
        return base64.b64encode(shown).decode() if shown else ""

    def _log_in(self, target: Target, application_name: str) -> None:
        parameters = {"user": target.user, "database": target.database, "application_name": application_name}
        self._send("auth", messages.startup_message(parameters))
        proof = ServerAuthentication(target.user, password=target.password, scram_keys=None, random=os.urandom)
        while True:
            kind, body = self._message("auth")
            try:
                if kind == B.AUTHENTICATION:
                    if answer := done_at_once(proof.receive(body)):
                        self._send("auth", answer)
                elif kind == B.ERROR_RESPONSE:
                    said = messages.parse_error(body)
                    raise Failed("auth", said.message, kind="refused", sqlstate=said.sqlstate)
                elif kind == B.READY_FOR_QUERY:
                    return
            except (ProtocolError, ServerLoginError) as error:
                raise Failed("auth", str(error)) from None

    def rows(self, sql: str, timeout: float | None = None) -> list[dict[str, str | None]]:
        """The rows of one statement. Raises Failed."""
        if timeout is not None:
            self._socket.settimeout(timeout)
        self._send("query", messages.query(sql))
        names: list[str] = []
        found: list[dict[str, str | None]] = []
        trouble: Failed | None = None
        while True:
            kind, body = self._message("query")
            if kind == B.ROW_DESCRIPTION:
                names = [name for name, _ in messages.parse_row_description(body)]
            elif kind == B.DATA_ROW:
                values = (None if v is None else v.decode(errors="replace") for v in messages.parse_data_row(body))
                found.append(dict(zip(names, values, strict=True)))
            elif kind == B.ERROR_RESPONSE:
                said = messages.parse_error(body)
                trouble = Failed("query", said.message, kind="refused", sqlstate=said.sqlstate)
                if said.severity == "FATAL":
                    raise trouble
            elif kind == B.READY_FOR_QUERY:
                if trouble is not None:
                    raise trouble
                return found

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(messages.terminate())
        self._socket.close()

    def _send(self, stage: str, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Failed(stage, f"the connection is lost: {error.strerror or error}") from None

    def _message(self, stage: str) -> tuple[int, bytes]:
        while True:
            try:
                if (found := next(self._stream, None)) is not None:
                    return found
                data = self._socket.recv(65536)
            except TimeoutError:
                raise Failed(stage, "no answer in time", kind="timeout") from None
            except ProtocolError as error:
                raise Failed(stage, f"what answers does not speak PostgreSQL's protocol: {error}") from None
            except OSError as error:
                raise Failed(stage, f"the connection is lost: {error.strerror or error}") from None
            if not data:
                raise Failed(stage, "the other side closed the connection")
            self._stream = self._reader.feed(data)


def _context(target: Target) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = target.sslmode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if target.sslmode.startswith("verify") else ssl.CERT_NONE
    if target.ca:
        context.load_verify_locations(cadata=target.ca)
    elif context.verify_mode is ssl.CERT_REQUIRED:
        context.load_default_certs()
    return context
