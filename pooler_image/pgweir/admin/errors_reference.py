"""What clients are told, and why connections end: `python -m pgweir.admin.errors_reference > docs/errors.md`.

Pure. Every close reason has its line here, or the page cannot be written; a test compares the page with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pgweir.protocol.errors import SQLSTATES
from pgweir.protocol.reasons import CloseReason

_HEADER: Final = """\
# Errors and close reasons

Written by `python -m pgweir.admin.errors_reference > docs/errors.md`; do not edit it by hand.

Errors that PostgreSQL sends reach the client as they are. This page has those of the pooler itself: the text, which is
PgBouncer's where it has one, and the SQLSTATE, by which a driver knows what it may do next.

```console
$ kubectl pgweir logs pooler-example-rw --grep close_reason
```
"""

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "08006": (
        "the connection is lost, or none could be made",
        "connect again; what was in flight may or may not be done",
    ),
    "08P01": ("the peer sent what the protocol does not allow", "look at the driver, or at what is in between"),
    "0A000": ("not supported here", "change the client's settings, or the pool mode"),
    "25P03": ("idle in a transaction for too long", "commit sooner"),
    "25P04": ("a transaction took too long", "shorter transactions, or a longer `transaction_timeout`"),
    "26000": ("a prepared statement that this client never made", "prepare it first"),
    "28000": ("this login is not allowed", "the HBA lines, TLS, or a certificate: the log has the stage"),
    "28P01": ("wrong password, or an unknown user", "the pooler's log says which"),
    "3D000": ("no such database", "`databases` in the configuration, or the name"),
    "42P05": ("the name of a prepared statement is taken", "deallocate it, or use another name"),
    "53300": ("no room", "try again later; [Sizing](how-to/sizing.md)"),
    "57014": ("the query was cancelled", "a faster query, or a longer `query_timeout`"),
    "57P01": ("somebody ended this connection", "connect again"),
    "57P03": ("cannot connect now", "try again later"),
    "57P04": ("the database was taken out of the configuration", ""),
    "57P05": ("idle for too long", "connect again"),
    "F0000": ("the pooler's own configuration is wrong", "the pooler's log says where"),
}

NAMED: Final[Mapping[str, str]] = {
    "no such database: NAME": "3D000",
    'database "NAME" is disabled': "57P03",
    'password authentication failed for user "NAME"': "28P01",
    'no pg_hba.conf entry for host "…", user "…", database "…", … encryption': "28000",
    'pg_hba.conf rejects connection for host "…", user "…", database "…", … encryption': "28000",
    "connection requires a valid client certificate": "28000",
    'Peer authentication failed for user "NAME"': "28000",
    'certificate authentication failed for user "NAME"': "28000",
    'LDAP authentication failed for user "NAME"': "28000",
    "unsupported startup parameter: NAME": "0A000",
    "unsupported startup parameter in options: NAME": "0A000",
    "Sorry, too many clients already": "53300",
}
"""Those with a part that changes (protocol/errors.py has a function for each)."""

CLOSED: Final[Mapping[CloseReason, str]] = {
    CloseReason.CLIENT_CLOSE: "the client said goodbye; this is the usual end",
    CloseReason.CLIENT_GONE: "the client's connection broke: it crashed, or something in between cut it",
    CloseReason.CLIENT_LOST: "the server of a client that vanished, closed because you asked for that",
    CloseReason.CLIENT_IDLE_TIMEOUT: "the client was idle for `client_idle_timeout`",
    CloseReason.CLIENT_IDLE_LIMIT: "the client was idle for `client_idle_limit`, inside a transaction or not",
    CloseReason.CLIENT_LOGIN_TIMEOUT: "the login took longer than `client_login_timeout`",
    CloseReason.CLIENT_REFUSED: "the login was refused; `auth_stage` in the same line says by what",
    CloseReason.CLIENT_PROTOCOL_ERROR: "the client sent bytes that make no message",
    CloseReason.ADMIN_KILLED: "KILL or KILL_CLIENT on the console",
    CloseReason.PAUSE_TIMEOUT: "a pause with `onTimeout: Terminate` was held up by this client",
    CloseReason.DATABASE_REMOVED: "the database was taken out of the configuration",
    CloseReason.POOLER_SHUTDOWN: "the pod was asked to go, and `drain` was over",
    CloseReason.QUERY_WAIT_TIMEOUT: "no server came free within `query_wait_timeout`: "
    "[Troubleshooting](how-to/troubleshooting.md)",
    CloseReason.QUERY_TIMEOUT: "the query ran for `query_timeout`",
    CloseReason.IDLE_TRANSACTION_TIMEOUT: "idle in a transaction for `idle_transaction_timeout`",
    CloseReason.TRANSACTION_TIMEOUT: "the transaction was open for `transaction_timeout`",
    CloseReason.STATEMENT_MODE: "BEGIN in statement mode",
    CloseReason.PASSWORD_CHANGED: "the role's password changed, and only a new login can bring it",
    CloseReason.INVALID_SERVER_PARAMETER: "PostgreSQL refused a setting that the client brought",
    CloseReason.SERVER_GONE: "PostgreSQL closed the connection without a word: a crash, a kill, or the network",
    CloseReason.SERVER_IDLE_SESSION: "PostgreSQL's `idle_session_timeout`; the pool's idle connections count as sessions",
    CloseReason.SERVER_IDLE_IN_TRANSACTION: "PostgreSQL's `idle_in_transaction_session_timeout`",
    CloseReason.SERVER_IN_TRANSACTION: "PostgreSQL's own `transaction_timeout`",
    CloseReason.SERVER_TERMINATED: "`pg_terminate_backend`, or PostgreSQL shuts down",
    CloseReason.SERVER_PROTOCOL_ERROR: "PostgreSQL, or what is in between, sent bytes that make no message",
    CloseReason.SERVER_CONNECT_FAILED: "no connection to PostgreSQL: refused, no route, no such name",
    CloseReason.SERVER_CONNECT_TIMEOUT: "no connection within `server_connect_timeout`",
    CloseReason.SERVER_LOGIN_FAILED: "PostgreSQL refused the pooler's login; the log has its words",
    CloseReason.SERVER_STANDBY: "the server was a standby, and a primary is asked for (`target_session_attrs`)",
    CloseReason.SERVER_IDLE_TIMEOUT: "unused for `server_idle_timeout`; nobody was cut",
    CloseReason.SERVER_LIFETIME: "older than `server_lifetime`; nobody was cut",
    CloseReason.SERVER_DIRTY: "PostgreSQL said something that nobody had asked for",
    CloseReason.SERVER_CHECK_FAILED: "an idle server failed `server_check_query`; the client got another one",
    CloseReason.SERVER_RESET_FAILED: "`server_reset_query` failed",
    CloseReason.CLIENT_LEFT_SERVER_BUSY: "the client left in the middle of a query",
    CloseReason.CONFIGURATION_CHANGED: "the database has another address or login now",
    CloseReason.CLOSE_NEEDED: "RECONNECT, or a configuration that asks for new connections",
    CloseReason.PAUSED: "a pause, a hold or a switchover: servers are let go",
    CloseReason.EVICTED: "another pool of the same limit needed the place",
    CloseReason.POOL_TOO_BIG: "the pool's size was lowered",
}


def errors_reference() -> str:
    texts = {**SQLSTATES, **NAMED}
    by_code: dict[str, list[str]] = {}
    for text, code in texts.items():
        by_code.setdefault(code, []).append(text)
    parts = [_HEADER, "## By SQLSTATE\n"]
    rows = "".join(f"| `{code}` | {CODES[code][0]} | {CODES[code][1]} |\n" for code in sorted(by_code))
    parts.append(f"| SQLSTATE | means | what helps |\n| --- | --- | --- |\n{rows}")
    rows = "".join(f"| `{text}` | `{texts[text]}` |\n" for text in sorted(texts, key=str.lower))
    parts.append(f"## By text\n\n| what the client reads | SQLSTATE |\n| --- | --- |\n{rows}")
    rows = "".join(f"| `{reason.label}` | `{reason.text}` | {CLOSED[reason]} |\n" for reason in CloseReason)
    parts.append(
        "## Why a connection ended\n\nEach connection, a client's or a server's, ends with one of these words: `close_reason` in "
        "the log, `reason` in the metric `pgweir_closed_connections_total`.\n\n"
        f"| close reason | in the log's text | means |\n| --- | --- | --- |\n{rows}"
    )
    return "\n".join(parts)


if __name__ == "__main__":
    print(errors_reference(), end="")
