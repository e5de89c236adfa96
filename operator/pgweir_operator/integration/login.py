"""Logging in to the target, as the administrator or as the auth role, and saying in a condition's words why not.

The only place of the operator that opens a PostgreSQL connection. Keys that libpq wants as files live in a private
temporary folder for as long as the connection. Called by `provisioning`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.integration.certificates import KeyPair

CONNECT_TIMEOUT = 5
# In all: a name may have many addresses, and finding them takes as long as the resolver likes.
REACH_TIMEOUT = 20.0
# libpq's first version that can be told which ways to log in are none.
_KNOWS_REQUIRE_AUTH = 160000
_BESIDE_THE_POINT = ("Multiple connection attempts", "- host:", "Is the server running")
_ASKED_IN_CLEAR = "requested a cleartext password"
STATEMENT_TIMEOUT_MS = 15_000
# PostgreSQL's own timeouts end what PostgreSQL can end. One that hangs, or whose machine has vanished, would keep a Pooler's
# pass for hours, and every change of that Pooler with it.
ANSWER_TIMEOUT = 20.0


class Connection(AsyncConnection[dict[str, Any]]):
    """One that waits for no answer for ever."""

    async def wait(self, *arguments: Any, **more: Any) -> Any:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await super().wait(*arguments, **more)
        except TimeoutError:
            raise psycopg.OperationalError(f"it gave no answer within {ANSWER_TIMEOUT:g} s") from None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where PostgreSQL listens, and the CA that proves it (None: TLS if offered, unproved)."""

    host: str
    port: int
    ca: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in, and with what. At most one of password and certificate is used."""

    user: str
    password: str | None = field(default=None, repr=False)
    certificate: KeyPair | None = field(default=None, repr=False)


@contextlib.asynccontextmanager
async def session(endpoint: Endpoint, credentials: Credentials, database: str) -> AsyncIterator[Connection]:
    """A connection with autocommit; raises psycopg.Error as it comes (see `explained`)."""
    with tempfile.TemporaryDirectory(prefix="pgweir-") as folder:
        options = _options(endpoint, credentials, Path(folder))
        try:
            async with asyncio.timeout(REACH_TIMEOUT):
                connection = await Connection.connect(
                    host=endpoint.host,
                    port=endpoint.port,
                    user=credentials.user,
                    dbname=database,
                    application_name="pgweir-operator",
                    connect_timeout=CONNECT_TIMEOUT,
                    autocommit=True,
                    row_factory=dict_row,
                    **options,
                )
        except TimeoutError:
            raise psycopg.OperationalError(f"it could not be reached within {REACH_TIMEOUT:g} s") from None
    # WHY `async with` only here: the files are needed for the handshake and not a moment longer.
    async with connection:
        # Set after login: a pooler or an old server in between may refuse startup options.
        await connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        await connection.execute("SET lock_timeout = 5000")
        # WHY: a password travels as a verifier, and even that does not belong into a log that others read.
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            await connection.execute("SET log_statement = 'none'")
        yield connection


def _options(endpoint: Endpoint, credentials: Credentials, folder: Path) -> dict[str, Any]:
    # An empty sslcert keeps libpq from reading ~/.postgresql; gssencmode saves a round trip in every cluster.
    options: dict[str, Any] = {"sslmode": "prefer", "sslcert": str(folder / "none"), "gssencmode": "disable"}
    if endpoint.ca is not None:
        options |= {"sslmode": "verify-ca", "sslrootcert": _file(folder / "ca.crt", endpoint.ca)}
    if credentials.certificate is not None:
        options["sslcert"] = _file(folder / "tls.crt", credentials.certificate.certificate)
        options["sslkey"] = _file(folder / "tls.key", credentials.certificate.key)
        if endpoint.ca is None:
            options["sslmode"] = "require"
    if credentials.password is not None:
        options["password"] = credentials.password
        if endpoint.ca is None and psycopg.pq.version() >= _KNOWS_REQUIRE_AUTH:
            # WHY: whoever answers in PostgreSQL's place may ask for it in clear text. SCRAM and md5 do not give it away.
            options["require_auth"] = "!password"
    else:
        options["passfile"] = str(folder / "none")
    return options


def _file(path: Path, content: bytes) -> str:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return str(path)


def explained(
    error: psycopg.Error,
    endpoint: object,
    user: str,
    *,
    advice: str = "Check the Secret with the superuser's username and password",
) -> PrerequisiteError:
    """The administrator's trouble as a condition. libpq's texts name host and user and never a password."""
    words = _words(error)
    if error.sqlstate is None:
        if _ASKED_IN_CLEAR in words:
            return PrerequisiteError(
                Reason.ADMIN_LOGIN_FAILED,
                f"{endpoint} asks for {user}'s password in clear text, and nothing proves that it is PostgreSQL: it was not"
                " sent. Name the CA in pgbouncer.serverCASecret, or let pg_hba.conf say scram-sha-256.",
                retry_after=60.0,
            )
        if is_refused_login(words):
            return PrerequisiteError(
                Reason.ADMIN_LOGIN_FAILED,
                f"PostgreSQL at {endpoint} does not let {user} in: {words}. {advice}.",
                retry_after=30.0,
            )
        return PrerequisiteError(
            Reason.TARGET_UNAVAILABLE, f"PostgreSQL at {endpoint} cannot be reached: {words}.", retry_after=10.0
        )
    if error.sqlstate.startswith(("08", "57P")):
        return PrerequisiteError(
            Reason.TARGET_UNAVAILABLE, f"PostgreSQL at {endpoint} went away: {words}.", retry_after=5.0
        )
    if error.sqlstate == "25006":
        return PrerequisiteError(
            Reason.TARGET_UNAVAILABLE, f"PostgreSQL at {endpoint} is read-only: {words}.", retry_after=10.0
        )
    if error.sqlstate == "42501":
        return PrerequisiteError(
            Reason.NO_ADMIN_ACCESS,
            f"{user} may not provision at {endpoint}: {words}. It takes a superuser, since the lookup reads pg_authid.",
            retry_after=60.0,
        )
    return PrerequisiteError(
        Reason.PROVISIONING_FAILED,
        f"PostgreSQL at {endpoint} refused: {words} (SQLSTATE {error.sqlstate}).",
        retry_after=30.0,
    )


def is_refused_login(words: str) -> bool:
    """libpq gives no SQLSTATE for a failed login: its words tell a wrong password from a server that is away."""
    return any(
        sign in words
        for sign in (
            "authentication failed",
            "no password supplied",
            "no pg_hba.conf entry",
            "pg_hba.conf rejects",
            "certificate authentication",
            "does not exist",
            "is not permitted to log in",
            "permission denied for database",
        )
    )


def _words(error: psycopg.Error) -> str:
    """One line: the server's own message where there is one, else libpq's without its question and its repetitions."""
    if error.diag.message_primary:
        return error.diag.message_primary
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(_BESIDE_THE_POINT))
    return (text.removeprefix("connection failed: ") or type(error).__name__).rstrip(".")
