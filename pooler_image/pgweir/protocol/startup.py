"""The first bytes of a client: TLS, cancel or startup; and what its startup parameters ask for.

`StartupReader` knows bytes and nothing of settings; `split_parameters` knows settings and nothing of bytes. Whether a
request is granted (TLS, the database, the user) is the session's business. Called by session/client for every new
connection, before any login.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from pgweir.protocol import messages
from pgweir.protocol.errors import (
    FEATURE_NOT_SUPPORTED,
    INVALID_AUTHORIZATION,
    ClientError,
    ProtocolError,
    bad_packet_header,
    client_error,
    unsupported_startup_option,
    unsupported_startup_parameter,
)

MAX_STARTUP_SIZE: Final = 10_000
"""SPEC: as PostgreSQL's MAX_STARTUP_PACKET_LENGTH: a stranger need not be able to make us keep more."""
MAX_USER_NAME_SIZE: Final = 127
TLS_HANDSHAKE: Final = 0x16
PROTOCOL_OPTION_PREFIX: Final = "_pq_."

_OWN_PARAMETERS: Final = ("user", "database", "replication", "options")  # of the StartupMessage: no settings

StartupParameters = Literal["reject", "ignore", "relay"]


@dataclass(frozen=True, slots=True)
class DirectTls:
    """A TLS ClientHello without an SSLRequest before it (sslnegotiation=direct); `rest` is all of it."""

    rest: bytes


@dataclass(frozen=True, slots=True)
class SslRequest:
    """Anything in `rest` was sent in clear text before TLS began: an injection, to be refused where TLS is granted."""

    rest: bytes


@dataclass(frozen=True, slots=True)
class GssEncRequest:
    rest: bytes


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """`pid_key` is the whole key, pid first: 8 bytes in protocol 3.0, up to 260 in 3.2."""

    pid_key: bytes
    rest: bytes


@dataclass(frozen=True, slots=True)
class Startup:
    """A StartupMessage of protocol 3.`minor`."""

    minor: int
    parameters: dict[str, str]
    rest: bytes


StartupEvent = DirectTls | SslRequest | GssEncRequest | CancelRequest | Startup


class StartupReader:
    """Collects one startup packet; `feed` answers None until it is whole. Then it is ready for the next one (after
    SSLRequest or GSSENCRequest a client sends another)."""

    __slots__ = ("_buffer", "_max_size")

    def __init__(self, max_size: int = MAX_STARTUP_SIZE) -> None:
        self._buffer = bytearray()
        self._max_size = max_size

    def feed(self, data: bytes) -> StartupEvent | None:
        self._buffer += data
        buffer = self._buffer
        if buffer and buffer[0] == TLS_HANDSHAKE:
            return DirectTls(self._take(0)[1])
        if len(buffer) < 8:
            return None
        size = int.from_bytes(buffer[:4], "big")
        code = int.from_bytes(buffer[4:8], "big")
        if not 8 <= size <= self._max_size:
            raise bad_packet_header(bytes(buffer))
        # The code is judged before the body is waited for: noise is turned away after eight bytes.
        fixed_size = code in (messages.SSL_REQUEST_CODE, messages.GSSENC_REQUEST_CODE)
        known = fixed_size or code == messages.CANCEL_REQUEST_CODE or code >> 16 == 3
        if code >> 16 == 2:
            raise ProtocolError("old V2 protocol not supported", FEATURE_NOT_SUPPORTED)
        if not known or (fixed_size and size != 8):
            raise bad_packet_header(bytes(buffer))
        if len(buffer) < size:
            return None
        packet, rest = self._take(size)
        payload = packet[8:]
        if code == messages.SSL_REQUEST_CODE:
            return SslRequest(rest)
        if code == messages.GSSENC_REQUEST_CODE:
            return GssEncRequest(rest)
        if code == messages.CANCEL_REQUEST_CODE:
            if not 8 <= len(payload) <= 260:
                raise bad_packet_header(packet)
            return CancelRequest(payload, rest)
        return Startup(code & 0xFFFF, _parameters(payload), rest)

    def _take(self, size: int) -> tuple[bytes, bytes]:
        packet, rest = bytes(self._buffer[:size]), bytes(self._buffer[size:])
        self._buffer.clear()
        return packet, rest


def _parameters(payload: bytes) -> dict[str, str]:
    """Pairs of NUL-terminated strings, then one NUL, which must be the last byte. A repeated name: the last one
    wins."""
    layout = ProtocolError("invalid startup packet layout: expected terminator as last byte")
    parameters: dict[str, str] = {}
    at = 0
    while True:
        end = payload.find(b"\0", at)
        if end < 0:
            raise layout
        if end == at:
            if end != len(payload) - 1:
                raise layout
            return parameters
        value_end = payload.find(b"\0", end + 1)
        if value_end < 0:
            raise layout
        parameters[messages.decode(payload[at:end])] = messages.decode(payload[end + 1 : value_end])
        at = value_end + 1


def negotiate(startup: Startup) -> tuple[int, bytes]:
    """The minor version that is spoken, and the NegotiateProtocolVersion that is owed before authentication, or b"".

    We speak 3.0 and 3.2 (there is no 3.1: libpq refuses a server that offers it), and no protocol option.
    """
    minor = 2 if startup.minor >= 2 else 0
    options = [name for name in startup.parameters if name.startswith(PROTOCOL_OPTION_PREFIX)]
    if startup.minor == minor and not options:
        return minor, b""
    return minor, messages.negotiate_protocol_version(minor, options)


class Replication(StrEnum):
    """What the `replication` parameter asks for; the empty one is false in a condition."""

    NONE = ""
    PHYSICAL = "physical"
    LOGICAL = "logical"


@dataclass(frozen=True, slots=True)
class StartupPlan:
    """A startup as the pooler understands it.

    `variables` has the tracked parameters under the spelling of the tracked list, those from `options` included.
    `options_verbatim` is set for replication clients alone: the server reads it. `relayed` is what the setting
    startup_parameters = relay passes on to the server; it is part of the pool's key.
    """

    user: str
    database: str
    replication: Replication = Replication.NONE
    application_name: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    options_verbatim: str | None = None
    relayed: dict[str, str] = field(default_factory=dict)


def split_parameters(
    startup: Startup,
    tracked: Collection[str],
    ignored: Collection[str],
    mode: StartupParameters = "reject",
) -> StartupPlan:
    """Sort the parameters by who answers for them; ClientError for the first that nobody does.

    Names are matched without regard to case, as PostgreSQL does. A parameter given by itself beats the same one in
    `options`, as in PostgreSQL.
    """
    parameters = startup.parameters
    user = parameters.get("user", "")
    if not user:
        raise client_error("no username supplied")
    if len(messages.encode(user)) > MAX_USER_NAME_SIZE:
        raise client_error("username too long")
    replication = _replication(parameters.get("replication", ""))
    spelling = {name.lower(): name for name in tracked}
    dropped = {name.lower() for name in ignored}
    variables: dict[str, str] = {}
    relayed: dict[str, str] = {}
    options = parameters.get("options")

    if options is not None and not replication:
        tolerant = mode == "ignore" or "options" in dropped
        try:
            for name, value in parse_options(options):
                if name.lower() in spelling:
                    variables[spelling[name.lower()]] = value
                elif mode == "relay" and name not in _OWN_PARAMETERS and name.lower() not in dropped:
                    relayed[name] = value
                elif name.lower() not in dropped and not tolerant:
                    raise unsupported_startup_option(name)
        except ProtocolError as error:
            if not tolerant:
                raise ClientError(FEATURE_NOT_SUPPORTED, error.message) from None

    for name, value in parameters.items():
        lower = name.lower()
        if name in _OWN_PARAMETERS or name.startswith(PROTOCOL_OPTION_PREFIX):
            continue
        if lower in spelling:
            variables[spelling[lower]] = value
        elif lower == "application_name" or lower in dropped or mode == "ignore":
            continue
        elif mode == "relay":
            relayed[name] = value
        else:
            raise unsupported_startup_parameter(name)

    return StartupPlan(
        user=user,
        database=parameters.get("database") or user,
        replication=replication,
        application_name=variables.get(spelling.get("application_name", ""), parameters.get("application_name")),
        variables=variables,
        options_verbatim=options if replication else None,
        relayed=relayed,
    )


def application_name_with_host(name: str | None, peer: str) -> str:
    """application_name_add_host: `peer` is `host:port`, or `unix(pid@hostname):port`."""
    return f"{name or 'app'} - {peer}"


def _replication(value: str) -> Replication:
    """PostgreSQL's rule: `database`, or a boolean in any of its spellings and their unambiguous beginnings."""
    lower = value.lower()
    if not lower:
        return Replication.NONE
    if lower == "database":
        return Replication.LOGICAL
    if lower in ("on", "1") or "true".startswith(lower) or "yes".startswith(lower):
        return Replication.PHYSICAL
    if lower in ("off", "of", "0") or "false".startswith(lower) or "no".startswith(lower):
        return Replication.NONE
    raise ClientError(INVALID_AUTHORIZATION, f'invalid value for parameter "replication": "{value}"')


def parse_options(text: str) -> Iterator[tuple[str, str]]:
    """The settings in an `options` parameter: `-c k=v`, `-ck=v`, `--k=v`; a backslash takes the next character as it
    is. Anything else is a ProtocolError, raised where it stands: what came before it was given out."""
    words = _words(text)
    for word in words:
        if word == "-c":
            setting = next(words, "")
        elif word.startswith(("-c", "--")):
            setting = word[2:]
        else:
            setting = ""
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise ProtocolError(
                "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed",
                FEATURE_NOT_SUPPORTED,
            )
        # PostgreSQL reads --statement-timeout as statement_timeout.
        yield name.replace("-", "_"), value


def _words(text: str) -> Iterator[str]:
    word: list[str] = []
    started = False
    characters = iter(text)
    for character in characters:
        if character in " \t\n\r\v\f":
            if started:
                yield "".join(word)
            word, started = [], False
            continue
        started = True
        word.append(next(characters, "") if character == "\\" else character)
    if started:
        yield "".join(word)
