"""Why a connection ended: one vocabulary for the log line, the metric label, the client's message and the test's assertion.

The texts are PgBouncer's where it has one, since people and log parsers know them.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class CloseReason(Enum):
    """One reason for every goodbye. `label` is the metric's label value, `text` what the log says."""

    # The client left, or was asked to.
    CLIENT_CLOSE = ("client_close", "client close request")
    CLIENT_GONE = ("client_gone", "client unexpected eof")
    CLIENT_LOST = ("client_lost", "client vanished, and keep_server_of_lost_client is off")
    CLIENT_IDLE_TIMEOUT = ("client_idle_timeout", "client_idle_timeout")
    CLIENT_IDLE_LIMIT = ("client_idle_limit", "client_idle_limit")
    CLIENT_LOGIN_TIMEOUT = ("client_login_timeout", "client_login_timeout")
    CLIENT_REFUSED = ("client_refused", "login refused")
    CLIENT_PROTOCOL_ERROR = ("client_protocol_error", "protocol violation by the client")
    ADMIN_KILLED = ("admin_killed", "admin forced disconnect")
    PAUSE_TIMEOUT = ("pause_timeout", "admin forced disconnect: the deadline of a pause has passed")
    DATABASE_REMOVED = ("database_removed", "database removed")
    POOLER_SHUTDOWN = ("pooler_shutdown", "pooler is shutting down")

    # A limit on the wait for a server, or on its use.
    QUERY_WAIT_TIMEOUT = ("query_wait_timeout", "query_wait_timeout")
    QUERY_TIMEOUT = ("query_timeout", "query timeout")
    IDLE_TRANSACTION_TIMEOUT = ("idle_transaction_timeout", "idle transaction timeout")
    TRANSACTION_TIMEOUT = ("transaction_timeout", "transaction timeout")
    STATEMENT_MODE = ("statement_mode", "transaction blocks not allowed in statement pooling mode")
    PASSWORD_CHANGED = ("password_changed", "the password has changed; please connect again")
    INVALID_SERVER_PARAMETER = ("invalid_server_parameter", "invalid server parameter")

    # The server left, could not be had, or is no longer wanted.
    SERVER_GONE = ("server_gone", "server conn crashed?")
    SERVER_IDLE_SESSION = ("server_timeout:57P05", "server conn crashed? (idle_session_timeout)")
    SERVER_IDLE_IN_TRANSACTION = ("server_timeout:25P03", "server conn crashed? (idle_in_transaction_session_timeout)")
    SERVER_IN_TRANSACTION = ("server_timeout:25P04", "server conn crashed? (PostgreSQL's transaction_timeout)")
    SERVER_TERMINATED = ("server_terminated:57P01", "server conn crashed? (terminated by an administrator)")
    SERVER_PROTOCOL_ERROR = ("server_protocol_error", "protocol violation by the server")
    SERVER_CONNECT_FAILED = ("server_connect_failed", "connect failed")
    SERVER_CONNECT_TIMEOUT = ("server_connect_timeout", "connect timeout")
    SERVER_LOGIN_FAILED = ("server_login_failed", "login failed")
    SERVER_STANDBY = ("server_standby", "server is in hot standby mode")
    SERVER_IDLE_TIMEOUT = ("server_idle_timeout", "server idle timeout")
    SERVER_LIFETIME = ("server_lifetime", "server lifetime over")
    SERVER_DIRTY = ("server_dirty", "idle server got dirty")
    SERVER_CHECK_FAILED = ("server_check_failed", "server check failed")
    SERVER_RESET_FAILED = ("server_reset_failed", "reset query failed")
    CLIENT_LEFT_SERVER_BUSY = ("client_left_server_busy", "client disconnect while server was not ready")
    CONFIGURATION_CHANGED = ("configuration_changed", "database configuration changed")
    CLOSE_NEEDED = ("close_needed", "close_needed")
    PAUSED = ("paused", "pause mode")
    EVICTED = ("evicted", "evicted")
    POOL_TOO_BIG = ("pool_too_big", "too many servers in the pool")

    def __init__(self, label: str, text: str) -> None:
        self.label = label
        self.text = text

    # PERF: one is counted at every goodbye, and an enumeration's own goes by the name, in Python.
    __hash__ = object.__hash__

    @classmethod
    def of_goodbye(cls, sqlstate: str, otherwise: CloseReason) -> CloseReason:
        """The reason for which PostgreSQL ended a session, where its last word says that."""
        return GOODBYES.get(sqlstate, otherwise)

    def fields(self, **more: object) -> dict[str, dict[str, object]]:
        """`extra` of a log record: its JSON line says the word, and whose connection it was; PgBouncer's text stays as it is."""
        return {"fields": {"close_reason": self.label, **more}}

    def __str__(self) -> str:
        return self.text


GOODBYES: Final = {
    reason.label.partition(":")[2]: reason
    for reason in (
        CloseReason.SERVER_IDLE_SESSION,
        CloseReason.SERVER_IDLE_IN_TRANSACTION,
        CloseReason.SERVER_IN_TRANSACTION,
        CloseReason.SERVER_TERMINATED,
    )
}
