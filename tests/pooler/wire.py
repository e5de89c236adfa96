"""PostgreSQL's protocol, byte by byte, for what no driver would say.

A `WireClient` says messages and expects messages, in the order of a conversation. It is blocking and every wait ends:
a silent peer is a test failure, not a hang.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

# Only a failure waits so long, and a busy machine takes some of it. Half of what is waited for in vain is PgBouncer's to do, and
# known to be so.
PATIENCE = 6.0 if os.environ.get("PGWEIR_TEST_POOLER") == "pgbouncer" else 60.0

PROTOCOL_3_0 = 196608
CANCEL_REQUEST = 80877102
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104


@dataclass(frozen=True)
class Message:
    """One message as it came: its type letter and what follows the length."""

    type: str
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        """What an ErrorResponse or a NoticeResponse says: S severity, C SQLSTATE, M message, …"""
        parts = self.body.rstrip(b"\0").split(b"\0")
        return {part[:1].decode(): part[1:].decode() for part in parts if part}

    @property
    def values(self) -> list[bytes | None]:
        """The columns of a DataRow."""
        (count,) = struct.unpack_from("!h", self.body)
        offset, found = 2, []
        for _ in range(count):
            (length,) = struct.unpack_from("!i", self.body, offset)
            offset += 4
            found.append(None if length < 0 else self.body[offset : offset + length])
            offset += max(length, 0)
        return found

    def __str__(self) -> str:
        return f"{self.type} {self.body[:60]!r}"


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def startup(**parameters: str) -> bytes:
    return startup_packet(PROTOCOL_3_0, parameters)


def startup_packet(code: int, parameters: Mapping[str, str]) -> bytes:
    pairs = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
    return _untyped(struct.pack("!i", code) + pairs + b"\0")


def ssl_request() -> bytes:
    return _untyped(struct.pack("!i", SSL_REQUEST))


def gssenc_request() -> bytes:
    return _untyped(struct.pack("!i", GSSENC_REQUEST))


def cancel_request(pid: int, key: int) -> bytes:
    return cancel_packet(struct.pack("!ii", pid, key))


def cancel_packet(key: bytes) -> bytes:
    """With the key as BackendKeyData had it, of whatever length."""
    return _untyped(struct.pack("!i", CANCEL_REQUEST) + key)


def _untyped(body: bytes) -> bytes:
    return struct.pack("!i", len(body) + 4) + body


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def query(sql: str) -> bytes:
    return message("Q", _text(sql))


def parse(name: str, sql: str, types: Sequence[int] = ()) -> bytes:
    return message("P", _text(name) + _text(sql) + struct.pack(f"!h{len(types)}i", len(types), *types))


def bind(statement: str, values: Sequence[str | None] = (), portal: str = "") -> bytes:
    body = _text(portal) + _text(statement) + struct.pack("!hh", 0, len(values))
    for value in values:
        data = None if value is None else value.encode()
        body += struct.pack("!i", -1) if data is None else struct.pack("!i", len(data)) + data
    return message("B", body + struct.pack("!h", 0))


def describe(name: str, kind: str = "S") -> bytes:
    return message("D", kind.encode() + _text(name))


def execute(portal: str = "", limit: int = 0) -> bytes:
    return message("E", _text(portal) + struct.pack("!i", limit))


def close(name: str, kind: str = "S") -> bytes:
    return message("C", kind.encode() + _text(name))


def copy_data(data: bytes) -> bytes:
    return message("d", data)


def copy_done() -> bytes:
    return message("c")


def copy_fail(reason: str) -> bytes:
    return message("f", _text(reason))


def sync() -> bytes:
    return message("S")


def flush() -> bytes:
    return message("H")


def terminate() -> bytes:
    return message("X")


def password(value: str | bytes) -> bytes:
    return message("p", value + b"\0" if isinstance(value, bytes) else _text(value))


class PeerClosed(AssertionError):
    """The other side hung up where a message was expected."""


class LoginRefused(AssertionError):
    """An ErrorResponse came in the middle of a login."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(f"login refused: {fields}")
        self.fields = fields


class WireClient:
    """One connection to a pooler (or to PostgreSQL)."""

    def __init__(
        self, port: int, host: str = "127.0.0.1", *, timeout: float = PATIENCE, unix: str | None = None
    ) -> None:
        if unix is not None:
            self.socket: socket.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(f"{unix}/.s.PGSQL.{port}")
        else:
            self.socket = socket.create_connection((host, port), timeout=timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parameters: dict[str, str] = {}
        self.pid = 0
        self.key = 0
        self.cancel_key = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up without a word."""
        self.socket.close()

    # -- saying -----------------------------------------------------------------------------------------------

    def say(self, *messages: bytes) -> None:
        """All in one packet, as far as the kernel allows."""
        self.socket.sendall(b"".join(messages))

    def start_tls(self, context: ssl.SSLContext | None = None, server_hostname: str = "localhost") -> None:
        self.say(ssl_request())
        answer = self.read(1)
        assert answer == b"S", f"TLS refused: {answer!r}"
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket, server_hostname=server_hostname)

    # -- hearing ----------------------------------------------------------------------------------------------

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise PeerClosed(f"closed after {len(data)} of {size} bytes: {data!r}")
            data += part
        return data

    def hear(self) -> Message:
        """The next message, whatever it is."""
        head = self.read(5)
        return Message(chr(head[0]), self.read(struct.unpack("!i", head[1:])[0] - 4))

    def expect(self, kinds: str) -> list[Message]:
        """Exactly these messages, in this order: expect("TDCZ"). NoticeResponse and ParameterStatus count."""
        heard: list[Message] = []
        for kind in kinds:
            try:
                heard.append(self.hear())
            except (PeerClosed, TimeoutError) as error:
                raise AssertionError(f"expected {kinds}, heard {_script(heard)}, then {error or 'silence'}") from error
            assert heard[-1].type == kind, f"expected {kinds}, heard {_script(heard)}"
        return heard

    def until(self, kind: str) -> list[Message]:
        """Everything up to and including the first message of that type."""
        heard = [self.hear()]
        while heard[-1].type != kind:
            heard.append(self.hear())
        return heard

    def expect_error(self, sqlstate: str | None = None, text: str = "") -> Message:
        """An ErrorResponse is next, with this SQLSTATE and this in its message."""
        (error,) = self.expect("E")
        assert sqlstate is None or error.fields["C"] == sqlstate, error.fields
        assert text in error.fields["M"], error.fields
        return error

    def expect_closed(self) -> None:
        """The peer has hung up, having said nothing more."""
        try:
            data = self.socket.recv(1000)
        except ConnectionResetError:
            return
        assert data == b"", f"expected the end, got {data!r}"

    def until_closed(self) -> list[Message]:
        """Whatever is still said, to the end."""
        heard: list[Message] = []
        try:
            while True:
                heard.append(self.hear())
        except (PeerClosed, ConnectionResetError):
            return heard

    def expect_silence(self, seconds: float = 0.3) -> None:
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1000)
        except TimeoutError:
            return
        finally:
            self.socket.settimeout(before)
        raise AssertionError(f"expected silence, got {data!r}")

    # -- whole exchanges --------------------------------------------------------------------------------------

    def log_in(self, user: str, database: str, secret: str | None = None, **parameters: str) -> Self:
        """Startup to the first ReadyForQuery, with whatever authentication is asked for."""
        self.say(startup(user=user, database=database, **parameters))
        self.authenticate(user, secret or "")
        for heard in self.until("Z"):
            self.take_in(heard)
        return self

    def authenticate(self, user: str, secret: str) -> None:
        while True:
            heard = self.hear()
            if heard.type == "E":
                raise LoginRefused(heard.fields)
            assert heard.type == "R", f"expected an authentication request, heard {heard}"
            (kind,) = struct.unpack_from("!i", heard.body)
            if kind == 0:
                return
            if kind == 3:
                self.say(password(secret))
            elif kind == 5:
                self.say(password(md5_answer(user, secret, heard.body[4:8])))
            elif kind == 10:
                self._scram(secret)
            else:
                raise AssertionError(f"unexpected authentication request {kind}")

    def login_error(self, user: str, secret: str) -> dict[str, str]:
        """Answer what is asked, after a startup packet, until the login is refused; the error's fields."""
        try:
            self.authenticate(user, secret)
        except LoginRefused as refused:
            return refused.fields
        return self.until("E")[-1].fields

    def take_in(self, heard: Message) -> None:
        if heard.type == "S":
            name, value, _ = heard.body.split(b"\0")
            self.parameters[name.decode()] = value.decode()
        elif heard.type == "K":
            self.cancel_key = heard.body
            self.pid, self.key = struct.unpack_from("!ii", heard.body)

    def ask(self, sql: str) -> list[list[bytes | None]]:
        """A simple query's rows; an error is an assertion."""
        self.say(query(sql))
        heard = self.until("Z")
        errors = [item.fields for item in heard if item.type == "E"]
        assert not errors, errors
        return [item.values for item in heard if item.type == "D"]

    def _scram(self, secret: str) -> None:
        nonce = base64.b64encode(os.urandom(18)).decode()
        first = f"n=,r={nonce}"
        initial = f"n,,{first}".encode()
        self.say(message("p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(initial)) + initial))
        challenge = self._sasl(11).decode()
        parts = dict(item.split("=", 1) for item in challenge.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        final = f"c=biws,r={parts['r']}"
        signed = f"{first},{challenge},{final}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        self.say(message("p", f"{final},p={proof}".encode()))
        self._sasl(12)

    def _sasl(self, wanted: int) -> bytes:
        heard = self.hear()
        if heard.type == "E":
            raise LoginRefused(heard.fields)
        assert (heard.type, struct.unpack_from("!i", heard.body)[0]) == ("R", wanted), str(heard)
        return heard.body[4:]


def say_to_the_end(sock: socket.socket, noise: bytes) -> None:
    """Say all of it and no more, and listen until the other side hangs up; it need not hear us out."""
    with contextlib.suppress(ConnectionError):
        sock.sendall(noise)
        with contextlib.suppress(OSError):  # it has hung up already
            sock.shutdown(socket.SHUT_WR)
        while sock.recv(10_000):
            pass


def md5_answer(user: str, secret: str, salt: bytes) -> str:
    inner = hashlib.md5(secret.encode() + user.encode()).hexdigest()
    return "md5" + hashlib.md5(inner.encode() + salt).hexdigest()


def error_fields(**fields: str) -> bytes:
    """The body of an ErrorResponse: error_fields(S="FATAL", C="57P01", M="bye")."""
    return b"".join(name.encode() + _text(value) for name, value in fields.items()) + b"\0"


def parameter_status(values: Mapping[str, str]) -> bytes:
    return b"".join(message("S", _text(name) + _text(value)) for name, value in values.items())


def row_description(*names: str) -> bytes:
    columns = b"".join(_text(name) + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0) for name in names)
    return message("T", struct.pack("!h", len(names)) + columns)


def data_row(*values: str | None) -> bytes:
    body = struct.pack("!h", len(values))
    for value in values:
        data = None if value is None else value.encode()
        body += struct.pack("!i", -1) if data is None else struct.pack("!i", len(data)) + data
    return message("D", body)


def command_complete(tag: str) -> bytes:
    return message("C", _text(tag))


def ready(status: str = "I") -> bytes:
    return message("Z", status.encode())


def _script(heard: Sequence[Message]) -> str:
    return " | ".join(str(item) if item.type != "E" else f"E {item.fields}" for item in heard) or "nothing"
