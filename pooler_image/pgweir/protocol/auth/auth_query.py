"""auth_query: ask PostgreSQL for a user's stored secret. The messages to send, and the reading of the answer.

The connection it runs on (a pool of auth_user) and what is done with the secret are the session's business. No
parameter of the client is applied there: the look-up runs with the rights of auth_user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from pgweir.protocol import messages
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.messages import B


@lru_cache(maxsize=256)
def auth_query_messages(query: str, user: str) -> bytes:
    """One write: unnamed Parse, Bind with $1 = the user's name as text, Describe, Execute, Sync."""
    return b"".join(
        (
            messages.parse("", query),
            messages.bind("", "", [messages.encode(user)]),
            messages.describe("P", ""),
            messages.execute(),
            messages.sync(),
        )
    )


@dataclass(frozen=True, slots=True)
class Found:
    """`secret` is "" where the query gave NULL: a user whom no password lets in."""

    name: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoSuchUser:
    """The query ran and gave no row."""


@dataclass(frozen=True, slots=True)
class LookupFailed:
    """The client is told `bouncer config error`; this is for the log."""

    message: str
    sqlstate: str | None = None


AuthQueryOutcome = Found | NoSuchUser | LookupFailed


class AuthQueryResult:
    """Feed it the server's messages; it answers None until ReadyForQuery, and then the outcome."""

    __slots__ = ("_failure", "_found")

    def __init__(self) -> None:
        self._found: Found | None = None
        self._failure: LookupFailed | None = None

    def receive(self, type_: int, body: bytes) -> AuthQueryOutcome | None:
        match type_:
            case B.ROW_DESCRIPTION:
                columns = messages.parse_row_description(body)
                if len(columns) != 2:
                    self._fail(f"auth_query must give exactly 2 columns (name, secret), it gives {len(columns)}")
            case B.NO_DATA:
                self._fail("auth_query must be a query that gives 2 columns (name, secret), it gives none")
            case B.DATA_ROW:
                self._row(messages.parse_data_row(body))
            case B.ERROR_RESPONSE:
                error = messages.parse_error(body)
                self._fail(error.message, error.sqlstate)
            case B.READY_FOR_QUERY:
                return self._failure or self._found or NoSuchUser()
            case (
                B.PARSE_COMPLETE
                | B.BIND_COMPLETE
                | B.COMMAND_COMPLETE
                | B.EMPTY_QUERY_RESPONSE
                | B.NOTICE_RESPONSE
                | B.PARAMETER_STATUS
                | B.NOTIFICATION_RESPONSE
            ):
                pass
            case _:
                raise ProtocolError(f"unexpected message {chr(type_)!r} in the answer to auth_query")
        return None

    def _row(self, values: list[bytes | None]) -> None:
        if len(values) != 2 or values[0] is None:
            self._fail("auth_query must give a name and a secret")
            return
        name, secret = values[0], values[1]
        found = Found(messages.decode(name), "" if secret is None else messages.decode(secret))
        if self._found is not None and self._found != found:
            # Which of two secrets is the right one is not ours to guess.
            self._fail("auth_query gives different rows for one user")
        self._found = found

    def _fail(self, message: str, sqlstate: str | None = None) -> None:
        """The first failure is the cause of those behind it."""
        if self._failure is None:
            self._failure = LookupFailed(message, sqlstate)
