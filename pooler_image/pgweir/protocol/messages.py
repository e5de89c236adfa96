"""The messages of PostgreSQL's protocol 3.0 that the pooler itself makes or reads: builders give bytes, parsers take a
body.

A body is what follows the type byte and the length. Names and values are `str` here and UTF-8 on the wire; bytes that
are not UTF-8 survive the round trip (surrogateescape), because a client may use any encoding before the server knows
which. Traffic between a client and its server never comes through here (framing.py moves it by length); this is for
logins, the console, auth_query, reset queries and errors. A body that does not follow its format is a ProtocolError
and nothing else.
"""

from __future__ import annotations

import builtins
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgweir.protocol.errors import ClientError, broken_packet

PROTOCOL_3_0: Final = 3 << 16
PROTOCOL_3_2: Final = 3 << 16 | 2
CANCEL_REQUEST_CODE: Final = 80877102
SSL_REQUEST_CODE: Final = 80877103
GSSENC_REQUEST_CODE: Final = 80877104

TEXT_OID: Final = 25
INT4_OID: Final = 23
INT8_OID: Final = 20


class F:
    """Type bytes of frontend messages (what clients send)."""

    BIND: Final = 0x42
    CLOSE: Final = 0x43
    COPY_DATA: Final = 0x64
    COPY_DONE: Final = 0x63
    COPY_FAIL: Final = 0x66
    DESCRIBE: Final = 0x44
    EXECUTE: Final = 0x45
    FLUSH: Final = 0x48
    FUNCTION_CALL: Final = 0x46
    PARSE: Final = 0x50
    PASSWORD: Final = 0x70
    """PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share this byte; the login's state tells them
    apart."""
    QUERY: Final = 0x51
    SYNC: Final = 0x53
    TERMINATE: Final = 0x58


class B:
    """Type bytes of backend messages (what servers send)."""

    AUTHENTICATION: Final = 0x52
    BACKEND_KEY_DATA: Final = 0x4B
    BIND_COMPLETE: Final = 0x32
    CLOSE_COMPLETE: Final = 0x33
    COMMAND_COMPLETE: Final = 0x43
    COPY_BOTH_RESPONSE: Final = 0x57
    COPY_DATA: Final = 0x64
    COPY_DONE: Final = 0x63
    COPY_IN_RESPONSE: Final = 0x47
    COPY_OUT_RESPONSE: Final = 0x48
    DATA_ROW: Final = 0x44
    EMPTY_QUERY_RESPONSE: Final = 0x49
    ERROR_RESPONSE: Final = 0x45
    FUNCTION_CALL_RESPONSE: Final = 0x56
    NEGOTIATE_PROTOCOL_VERSION: Final = 0x76
    NO_DATA: Final = 0x6E
    NOTICE_RESPONSE: Final = 0x4E
    NOTIFICATION_RESPONSE: Final = 0x41
    PARAMETER_DESCRIPTION: Final = 0x74
    PARAMETER_STATUS: Final = 0x53
    PARSE_COMPLETE: Final = 0x31
    PORTAL_SUSPENDED: Final = 0x73
    READY_FOR_QUERY: Final = 0x5A
    ROW_DESCRIPTION: Final = 0x54


class Auth:
    """The request codes inside an Authentication message."""

    OK: Final = 0
    CLEARTEXT: Final = 3
    MD5: Final = 5
    SASL: Final = 10
    SASL_CONTINUE: Final = 11
    SASL_FINAL: Final = 12


_length = struct.Struct("!I")
_header = struct.Struct("!BI")
_sasl = struct.Struct("!BII")  # an Authentication message, up to its data
_int16 = struct.Struct("!H")


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def message(type_: int, body: bytes = b"") -> bytes:
    """Any message: type byte, length (which counts itself), body."""
    return _header.pack(type_, len(body) + 4) + body


def cstring(text: str) -> bytes:
    """A name or value as the wire has it. A NUL inside is our own caller's mistake: every text we read came from
    between two NULs."""
    raw = encode(text)
    if 0 in raw:
        raise ValueError(f"a string on the wire cannot hold a NUL: {text!r}")
    return raw + b"\0"


# --- backend messages -----------------------------------------------------------------------------


def _fields(severity: str, sqlstate: str, text: str, detail: str | None, hint: str | None) -> bytes:
    # V repeats the severity for programs: S is translated by real servers, and drivers from 9.6 on read V first.
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", text)]
    if detail is not None:
        fields.append(("D", detail))
    if hint is not None:
        fields.append(("H", hint))
    # WHY replace: a message may quote what a hostile client sent; it must not end the field early.
    return b"".join(code.encode() + cstring(value.replace("\0", "?")) for code, value in fields) + b"\0"


def error_response(
    severity: str, sqlstate: str, text: str, detail: str | None = None, hint: str | None = None
) -> bytes:
    return message(B.ERROR_RESPONSE, _fields(severity, sqlstate, text, detail, hint))


def notice_response(
    severity: str, sqlstate: str, text: str, detail: str | None = None, hint: str | None = None
) -> bytes:
    return message(B.NOTICE_RESPONSE, _fields(severity, sqlstate, text, detail, hint))


def fatal(error: ClientError) -> bytes:
    """What a refused client is told before it is closed."""
    return error_response("FATAL", error.sqlstate, error.message, error.detail, error.hint)


def parameter_status(name: str, value: str) -> bytes:
    return message(B.PARAMETER_STATUS, cstring(name) + cstring(value))


def backend_key_data(pid: int, key: bytes) -> bytes:
    """`pid` as an unsigned 32-bit number; `key` has four bytes in protocol 3.0."""
    return message(B.BACKEND_KEY_DATA, _length.pack(pid & 0xFFFFFFFF) + key)


def backend_key(key: bytes) -> bytes:
    """The same; `key` begins with the pid."""
    return _header.pack(B.BACKEND_KEY_DATA, len(key) + 4) + key


def ready_for_query(status: bytes) -> bytes:
    """`status` is b"I", b"T" or b"E"."""
    return message(B.READY_FOR_QUERY, status)


def authentication_ok() -> bytes:
    return message(B.AUTHENTICATION, _length.pack(Auth.OK))


def authentication_cleartext() -> bytes:
    return message(B.AUTHENTICATION, _length.pack(Auth.CLEARTEXT))


def authentication_md5(salt: bytes) -> bytes:
    return message(B.AUTHENTICATION, _length.pack(Auth.MD5) + salt)


def authentication_sasl(mechanisms: Iterable[str]) -> bytes:
    return message(B.AUTHENTICATION, _length.pack(Auth.SASL) + b"".join(map(cstring, mechanisms)) + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    return _sasl.pack(B.AUTHENTICATION, len(data) + 8, Auth.SASL_CONTINUE) + data


def authentication_sasl_final(data: bytes) -> bytes:
    return _sasl.pack(B.AUTHENTICATION, len(data) + 8, Auth.SASL_FINAL) + data


def negotiate_protocol_version(minor: int, names: Sequence[str]) -> bytes:
    """We speak 3.`minor` at most, and none of the `_pq_.` options named. PostgreSQL 18's libpq reads the whole
    version, 3 << 16 | minor."""
    version = _length.pack(PROTOCOL_3_0 | minor)
    return message(B.NEGOTIATE_PROTOCOL_VERSION, version + _length.pack(len(names)) + b"".join(map(cstring, names)))


def row_description(columns: Iterable[tuple[str, int]]) -> bytes:
    """Columns as (name, type oid), text format, belonging to no table."""
    sizes = {INT4_OID: 4, INT8_OID: 8, 16: 1, 700: 4, 701: 8}
    described = [
        cstring(name) + struct.pack("!IhIhih", 0, 0, type_oid, sizes.get(type_oid, -1), -1, 0)
        for name, type_oid in columns
    ]
    return message(B.ROW_DESCRIPTION, _int16.pack(len(described)) + b"".join(described))


def data_row(values: Sequence[bytes | None]) -> bytes:
    return message(B.DATA_ROW, _int16.pack(len(values)) + b"".join(map(_value, values)))


def command_complete(tag: str) -> bytes:
    return message(B.COMMAND_COMPLETE, cstring(tag))


def empty_query_response() -> bytes:
    return message(B.EMPTY_QUERY_RESPONSE)


PARSE_COMPLETE: Final = message(B.PARSE_COMPLETE)
BIND_COMPLETE: Final = message(B.BIND_COMPLETE)
CLOSE_COMPLETE: Final = message(B.CLOSE_COMPLETE)
NO_DATA: Final = message(B.NO_DATA)
PORTAL_SUSPENDED: Final = message(B.PORTAL_SUSPENDED)


# --- frontend messages ----------------------------------------------------------------------------


def _value(value: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if value is None else _length.pack(len(value)) + value


def _startup_type(code: int, payload: bytes = b"") -> bytes:
    return struct.pack("!II", len(payload) + 8, code) + payload


def startup_message(parameters: Mapping[str, str], protocol: int = PROTOCOL_3_0) -> bytes:
    pairs = b"".join(cstring(name) + cstring(value) for name, value in parameters.items())
    return _startup_type(protocol, pairs + b"\0")


def ssl_request() -> bytes:
    return _startup_type(SSL_REQUEST_CODE)


def gssenc_request() -> bytes:
    return _startup_type(GSSENC_REQUEST_CODE)


def cancel_request(key: bytes) -> bytes:
    """`key` is the whole payload as BackendKeyData gave it: the pid's four bytes and the secret behind them."""
    return _startup_type(CANCEL_REQUEST_CODE, key)


def password_message(password: str) -> bytes:
    return message(F.PASSWORD, cstring(password))


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    return message(F.PASSWORD, cstring(mechanism) + _value(data))


def sasl_response(data: bytes) -> bytes:
    return message(F.PASSWORD, data)


def query(sql: str) -> bytes:
    return message(F.QUERY, cstring(sql))


def parse(name: str, sql: str, oids: Sequence[int] = ()) -> bytes:
    types = b"".join(map(_length.pack, oids))
    return message(F.PARSE, cstring(name) + cstring(sql) + _int16.pack(len(oids)) + types)


def bind(portal: str, statement: str, parameters: Sequence[bytes | None] = ()) -> bytes:
    """All parameters and all results in text format."""
    values = b"".join(map(_value, parameters))
    return message(
        F.BIND, cstring(portal) + cstring(statement) + b"\0\0" + _int16.pack(len(parameters)) + values + b"\0\0"
    )


def describe(kind: str, name: str) -> bytes:
    """`kind` is "S" for a prepared statement, "P" for a portal."""
    return message(F.DESCRIBE, kind.encode("ascii") + cstring(name))


def execute(portal: str = "", max_rows: int = 0) -> bytes:
    return message(F.EXECUTE, cstring(portal) + _length.pack(max_rows))


def close(kind: str, name: str) -> bytes:
    """`kind` is "S" for a prepared statement, "P" for a portal."""
    return message(F.CLOSE, kind.encode("ascii") + cstring(name))


def sync() -> bytes:
    return message(F.SYNC)


def flush() -> bytes:
    return message(F.FLUSH)


def terminate() -> bytes:
    return message(F.TERMINATE)


# --- reading --------------------------------------------------------------------------------------


class Body:
    """A cursor over one message body; reading past its end is a ProtocolError that names the message."""

    __slots__ = ("_at", "_data", "_name")

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._at = 0
        self._name = name

    def bytes(self, count: int) -> builtins.bytes:
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise broken_packet(self._name)
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def byte(self) -> int:
        return self.bytes(1)[0]

    def uint16(self) -> int:
        return int.from_bytes(self.bytes(2), "big")

    def uint32(self) -> int:
        return int.from_bytes(self.bytes(4), "big")

    def int32(self) -> int:
        return int.from_bytes(self.bytes(4), "big", signed=True)

    def cstring(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise broken_packet(self._name)
        taken = self._data[self._at : end]
        self._at = end + 1
        return decode(taken)

    def value(self) -> builtins.bytes | None:
        """A length and that many bytes; length -1 is NULL."""
        length = self.int32()
        return None if length == -1 else self.bytes(length)

    def rest(self) -> builtins.bytes:
        return self.bytes(len(self._data) - self._at)

    def end(self) -> None:
        if self._at != len(self._data):
            raise broken_packet(self._name)


@dataclass(frozen=True, slots=True)
class ErrorFields:
    """An ErrorResponse or NoticeResponse; `fields` has everything, by the field's letter."""

    severity: str
    sqlstate: str
    message: str
    fields: Mapping[str, str]

    @property
    def detail(self) -> str | None:
        return self.fields.get("D")

    @property
    def hint(self) -> str | None:
        return self.fields.get("H")


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """`data` is the md5 salt or the SASL data; `mechanisms` is what an AuthenticationSASL offers."""

    code: int
    data: bytes = b""
    mechanisms: tuple[str, ...] = ()


def parse_error(body: bytes) -> ErrorFields:
    """ErrorResponse and NoticeResponse."""
    reader = Body(body, "ErrorResponse")
    fields: dict[str, str] = {}
    while code := reader.byte():
        fields[chr(code)] = reader.cstring()
    reader.end()
    severity = fields.get("V", fields.get("S", "ERROR"))
    return ErrorFields(severity, fields.get("C", "XX000"), fields.get("M", ""), fields)


def parse_parameter_status(body: bytes) -> tuple[str, str]:
    reader = Body(body, "ParameterStatus")
    pair = reader.cstring(), reader.cstring()
    reader.end()
    return pair


def parse_backend_key_data(body: bytes) -> bytes:
    """The whole key, pid first, just as `cancel_request` takes it: 8 bytes in protocol 3.0, up to 260 in 3.2."""
    if not 8 <= len(body) <= 260:
        raise broken_packet("BackendKeyData")
    return body


def parse_ready_for_query(body: bytes) -> bytes:
    if body not in (b"I", b"T", b"E"):
        raise broken_packet("ReadyForQuery")
    return body


def parse_authentication(body: bytes) -> AuthenticationRequest:
    """Unknown codes pass: whether they can be answered is the login's question."""
    reader = Body(body, "Authentication")
    code = reader.uint32()
    if code == Auth.MD5:
        salt = reader.bytes(4)
        reader.end()
        return AuthenticationRequest(code, salt)
    if code == Auth.SASL:
        mechanisms: list[str] = []
        while mechanism := reader.cstring():
            mechanisms.append(mechanism)
        reader.end()
        return AuthenticationRequest(code, mechanisms=tuple(mechanisms))
    if code in (Auth.OK, Auth.CLEARTEXT):
        reader.end()
        return AuthenticationRequest(code)
    return AuthenticationRequest(code, reader.rest())


def parse_row_description(body: bytes) -> list[tuple[str, int]]:
    """Columns as (name, type oid)."""
    reader = Body(body, "RowDescription")
    columns: list[tuple[str, int]] = []
    for _ in range(reader.uint16()):
        name = reader.cstring()
        reader.bytes(6)  # table oid, column number
        columns.append((name, reader.uint32()))
        reader.bytes(8)  # type length, type modifier, format
    reader.end()
    return columns


def parse_data_row(body: bytes) -> list[bytes | None]:
    reader = Body(body, "DataRow")
    values = [reader.value() for _ in range(reader.uint16())]
    reader.end()
    return values


def parse_command_complete(body: bytes) -> str:
    reader = Body(body, "CommandComplete")
    tag = reader.cstring()
    reader.end()
    return tag


def parse_password(body: bytes) -> str:
    """A PasswordMessage's text."""
    reader = Body(body, "PasswordMessage")
    password = reader.cstring()
    reader.end()
    return password


def parse_sasl_initial_response(body: bytes) -> tuple[str, bytes | None]:
    """The mechanism chosen, and its first data (None: not sent)."""
    name_end = body.find(b"\0")
    at = name_end + 5
    if 5 < at <= len(body) and int.from_bytes(body[name_end + 1 : at], "big") == len(body) - at:
        return decode(body[:name_end]), body[at:]  # PERF: as it should be, which it is at every login
    reader = Body(body, "SASLInitialResponse")
    mechanism = reader.cstring()
    data = reader.value()
    reader.end()
    return mechanism, data


def parse_query(body: bytes) -> str:
    reader = Body(body, "Query")
    sql = reader.cstring()
    reader.end()
    return sql
