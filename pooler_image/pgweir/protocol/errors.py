"""What goes wrong in the protocol, and what a client is told about it.

An error carries its SQLSTATE from the place that knows it; nobody downstream translates again. PgBouncer says 08P01
for everything, which drivers take for a broken server; here the message texts are PgBouncer's, because tools read
them, and the codes are PostgreSQL's meaning. Nothing is sent from here: the session layer turns an error into bytes
with `messages.error_response`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PROTOCOL_VIOLATION: Final = "08P01"
CONNECTION_FAILURE: Final = "08006"
FEATURE_NOT_SUPPORTED: Final = "0A000"
INVALID_TRANSACTION_STATE: Final = "25000"
IDLE_IN_TRANSACTION_SESSION_TIMEOUT: Final = "25P03"
TRANSACTION_TIMEOUT: Final = "25P04"
INVALID_SQL_STATEMENT_NAME: Final = "26000"
INVALID_AUTHORIZATION: Final = "28000"
INVALID_PASSWORD: Final = "28P01"  # noqa: S105 (an SQLSTATE)
INVALID_CATALOG_NAME: Final = "3D000"
UNDEFINED_OBJECT: Final = "42704"
DUPLICATE_PREPARED_STATEMENT: Final = "42P05"
TOO_MANY_CONNECTIONS: Final = "53300"
OBJECT_NOT_IN_PREREQUISITE_STATE: Final = "55000"
LOCK_NOT_AVAILABLE: Final = "55P03"
QUERY_CANCELED: Final = "57014"
ADMIN_SHUTDOWN: Final = "57P01"
CANNOT_CONNECT_NOW: Final = "57P03"
DATABASE_DROPPED: Final = "57P04"
IDLE_SESSION_TIMEOUT: Final = "57P05"
CONFIG_FILE_ERROR: Final = "F0000"


class ProtocolError(Exception):
    """The peer sent bytes that the protocol does not allow; the connection is beyond repair."""

    def __init__(self, message: str, sqlstate: str = PROTOCOL_VIOLATION) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate


class ClientError(Exception):
    """A client is refused: exactly what it is told (FATAL), and beside it what only our log may know.

    `stage` is where in the login it happened (hba, password, auth_query, tls, console, limits); `reason` is
    PgBouncer's wording or the true cause for the log, where the client must not learn it (an unknown user looks like a
    wrong password).
    """

    def __init__(
        self,
        sqlstate: str,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        stage: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.stage = stage
        self.reason = reason if reason is not None else message

    def __repr__(self) -> str:
        return f"ClientError({self.sqlstate} {self.message!r}, stage={self.stage}, reason={self.reason!r})"


class ServerLoginError(Exception):
    """PostgreSQL did not let us in, or asked for something that we cannot or must not answer."""

    def __init__(self, message: str, sqlstate: str = CONNECTION_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate


# PgBouncer's fixed texts, with the code that says to a driver what it may do next: 53300 and 57P01 mean "try again",
# 57014 means "this statement took too long", 08006 means "the connection is lost, the outcome is unknown".
SQLSTATES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bouncer config error": CONFIG_FILE_ERROR,
        "no more connections allowed (max_client_conn)": TOO_MANY_CONNECTIONS,
        "client connections exceeded (max_db_client_connections)": TOO_MANY_CONNECTIONS,
        "client connections exceeded (max_user_client_connections)": TOO_MANY_CONNECTIONS,
        "SASL authentication failed": INVALID_PASSWORD,
        '"trust" authentication failed': INVALID_AUTHORIZATION,
        "no such user": INVALID_PASSWORD,
        "empty password returned by client": INVALID_PASSWORD,
        "client selected an invalid SASL authentication mechanism": PROTOCOL_VIOLATION,
        "not allowed": INVALID_AUTHORIZATION,
        "username too long": INVALID_AUTHORIZATION,
        "password too long": INVALID_PASSWORD,
        "no username supplied": INVALID_AUTHORIZATION,
        "SSL required": INVALID_AUTHORIZATION,
        "received unencrypted data after SSL request": PROTOCOL_VIOLATION,
        "received unencrypted data after GSSAPI encryption request": PROTOCOL_VIOLATION,
        "client re-sent startup pkt": PROTOCOL_VIOLATION,
        "client password pkt before startup packet": PROTOCOL_VIOLATION,
        "query_wait_timeout": TOO_MANY_CONNECTIONS,
        "query_timeout": QUERY_CANCELED,
        "query timeout": QUERY_CANCELED,
        "client_login_timeout": CONNECTION_FAILURE,
        "client_login_timeout (server down)": CANNOT_CONNECT_NOW,
        "server shutting down": ADMIN_SHUTDOWN,
        "pooler is shutting down": ADMIN_SHUTDOWN,
        "admin forced disconnect": ADMIN_SHUTDOWN,
        "database configuration changed": ADMIN_SHUTDOWN,
        "suspend_timeout": ADMIN_SHUTDOWN,
        "database removed": DATABASE_DROPPED,
        "idle transaction timeout": IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        "transaction timeout": TRANSACTION_TIMEOUT,
        "client_idle_timeout": IDLE_SESSION_TIMEOUT,
        "server conn crashed?": CONNECTION_FAILURE,
        "unexpected eof": CONNECTION_FAILURE,
        "server connection closed": CONNECTION_FAILURE,
        "login failed": CONNECTION_FAILURE,
        "server refused SSL": CONNECTION_FAILURE,
        "connect failed": CONNECTION_FAILURE,
        "connect timeout": CONNECTION_FAILURE,
        "server DNS lookup failed": CONNECTION_FAILURE,
        "unknown pkt": PROTOCOL_VIOLATION,
        "failed to parse packet": PROTOCOL_VIOLATION,
        "PQexec disallowed": FEATURE_NOT_SUPPORTED,
        "prepared statement name is already in use": DUPLICATE_PREPARED_STATEMENT,
        "prepared statement did not exist": INVALID_SQL_STATEMENT_NAME,
        "transaction blocks not allowed in statement pooling mode": FEATURE_NOT_SUPPORTED,
        "invalid server parameter": CONNECTION_FAILURE,
        "old V2 protocol not supported": FEATURE_NOT_SUPPORTED,
    }
)


def client_error(
    message: str, *, stage: str | None = None, detail: str | None = None, hint: str | None = None
) -> ClientError:
    """The refusal with one of PgBouncer's fixed texts, under its SQLSTATE; a text that is not in the table is a
    protocol violation."""
    return ClientError(SQLSTATES.get(message, PROTOCOL_VIOLATION), message, stage=stage, detail=detail, hint=hint)


def no_such_database(name: str) -> ClientError:
    return ClientError(INVALID_CATALOG_NAME, f"no such database: {name}")


def database_disabled(name: str) -> ClientError:
    return ClientError(CANNOT_CONNECT_NOW, f'database "{name}" is disabled')


def auth_database_disabled(name: str) -> ClientError:
    return ClientError(CANNOT_CONNECT_NOW, f'authentication database "{name}" is disabled')


def password_authentication_failed(
    user: str, reason: str = "password authentication failed", stage: str = "password"
) -> ClientError:
    """PostgreSQL's own words whatever went wrong: an unknown role must look like a wrong password. `reason` and `stage`
    are for our log."""
    return ClientError(
        INVALID_PASSWORD, f'password authentication failed for user "{user}"', stage=stage, reason=reason
    )


def no_hba_entry(address: str | None, user: str, database: str, tls: bool) -> ClientError:
    where = _whence(address, user, database, tls)
    reason = f"no authentication method is found: {where}"
    return ClientError(INVALID_AUTHORIZATION, f"no pg_hba.conf entry for {where}", stage="hba", reason=reason)


def hba_rejects(address: str | None, user: str, database: str, tls: bool) -> ClientError:
    where = _whence(address, user, database, tls)
    return ClientError(
        INVALID_AUTHORIZATION,
        f"pg_hba.conf rejects connection for {where}",
        stage="hba",
        reason=f"login rejected: {where}",
    )


def _whence(address: str | None, user: str, database: str, tls: bool) -> str:
    encryption = "SSL encryption" if tls else "no encryption"
    return f'host "{address or "[local]"}", user "{user}", database "{database}", {encryption}'


def peer_authentication_failed(user: str, reason: str) -> ClientError:
    reason = f"unix socket login rejected: {reason}"
    return ClientError(
        INVALID_AUTHORIZATION, f'Peer authentication failed for user "{user}"', stage="peer", reason=reason
    )


def certificate_authentication_failed(user: str, reason: str) -> ClientError:
    message = f'certificate authentication failed for user "{user}"'
    return ClientError(INVALID_AUTHORIZATION, message, stage="cert", reason=f"{message}: {reason}")


def ldap_authentication_failed(user: str, reason: str) -> ClientError:
    """The same for ldap, whether the user, the password or the directory was wrong."""
    return ClientError(
        INVALID_AUTHORIZATION, f'LDAP authentication failed for user "{user}"', stage="ldap", reason=reason
    )


def unsupported_startup_parameter(name: str) -> ClientError:
    return ClientError(FEATURE_NOT_SUPPORTED, f"unsupported startup parameter: {name}")


def unsupported_startup_option(name: str) -> ClientError:
    return ClientError(FEATURE_NOT_SUPPORTED, f"unsupported startup parameter in options: {name}")


def bad_packet_header(data: bytes) -> ProtocolError:
    """`bad packet header: 'hex'`, with the eight bytes that PgBouncer shows."""
    return ProtocolError(f"bad packet header: '{data[:8].hex()}'")


def broken_packet(name: str) -> ProtocolError:
    """`broken Parse packet` and its like: the length fits, the inside does not."""
    return ProtocolError(f"broken {name} packet")
