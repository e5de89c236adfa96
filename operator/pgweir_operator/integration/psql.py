"""A session of the administrator through `psql` in the primary's own pod, where the operator has no superuser's Secret.

One psql for each session, spoken to through its standard input: SQL, then a mark that psql echoes on both of its
outputs, so that it is known where an answer ends and whether it was an error. Nothing but the name of a database is
ever on its command line. Starting a process in a pod is somebody else's business (`Shell.start`). Called by
`provisioning`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import psycopg

from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.integration import sql
from pgweir_operator.integration.login import CONNECT_TIMEOUT, STATEMENT_TIMEOUT_MS

USER: Final = "postgres"
# Above the server's own limit for a statement: whoever is late then is not PostgreSQL.
PATIENCE: Final = STATEMENT_TIMEOUT_MS / 1000 + 10.0
_STDOUT: Final = 1
_NOT_FOUND: Final = ("executable file not found", "no such file or directory")
_NOT_FOUND_CODES: Final = (126, 127)


class Process(Protocol):
    """A process in a pod: see kube.exec."""

    @property
    def ended(self) -> Any: ...
    async def write(self, data: bytes) -> None: ...
    async def close_input(self) -> None: ...
    async def read(self) -> tuple[int, bytes] | None: ...


@dataclass(frozen=True, slots=True)
class Shell:
    """How to start a command beside PostgreSQL. `start` raises a PrerequisiteError where it may not, or cannot."""

    pod: str
    start: Callable[[Sequence[str]], AbstractAsyncContextManager[Process]] = field(repr=False)
    user: str = USER

    def __str__(self) -> str:
        return f"pod {self.pod}"


def command(database: str) -> tuple[str, ...]:
    """psql, without anybody's start-up file, never asking for a password; PGHOST is the container's own."""
    value = database.replace("\\", "\\\\").replace("'", "\\'")
    login = f"dbname='{value}' user={USER} application_name=pgweir-operator connect_timeout={CONNECT_TIMEOUT}"
    return ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password", f"--dbname={login}")


@contextlib.asynccontextmanager
async def session(shell: Shell, database: str) -> AsyncIterator[PsqlSession]:
    """Raises psycopg.Error, by SQLSTATE, as a connection of our own would; and PrerequisiteError where psql cannot run."""
    async with shell.start(command(database)) as process:
        made = PsqlSession(shell, process)
        await made.run("SET statement_timeout = " + str(STATEMENT_TIMEOUT_MS), before="\\encoding UTF8\n")
        await made.run("SET lock_timeout = 5000")
        # A password travels as a verifier, and even that does not belong into a log that others read.
        await made.run("SET log_statement = 'none'")
        yield made
        await made.leave()


class PsqlSession:
    def __init__(self, shell: Shell, process: Process) -> None:
        self._shell = shell
        self._process = process
        self._said = b""
        self._complained = b""
        self.user = shell.user

    async def rows(self, query: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        text = re.sub(r"%\((\w+)\)s", lambda match: sql.literal(parameters[match[1]]), query).strip().rstrip(";")
        # ruff: noqa: S608 (what comes from outside is quoted)
        said = await self._ask(f"SELECT coalesce(pg_catalog.json_agg(x), '[]') FROM ({text}) AS x")
        found: list[dict[str, Any]] = json.loads(said)
        return found

    async def run(self, statement: str, *, before: str = "") -> None:
        await self._ask(statement, before=before)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self.run("BEGIN")
        try:
            yield
        except psycopg.OperationalError:
            raise  # psql is gone, and PostgreSQL has rolled back.
        except BaseException:
            await self.run("ROLLBACK")
            raise
        await self.run("COMMIT")

    async def leave(self) -> None:
        """In psql's own language, since an older API server cannot close its input."""
        await self._process.write(b"\\q\n")
        await self._process.close_input()

    async def _ask(self, statement: str, *, before: str = "") -> str:
        """What psql printed for one statement; its error is raised."""
        mark = f"pgweir-{secrets.token_hex(8)}"
        text = f"{before}{statement};\n\\echo {mark} :ERROR :SQLSTATE\n\\echo :LAST_ERROR_MESSAGE\n\\echo {mark}\n"
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.write(f"{text}\\warn {mark}\n".encode())
                said, complained = await self._until(mark)
        except TimeoutError:
            raise psycopg.OperationalError(f"psql in {self._shell} gave no answer within {PATIENCE:g} s") from None
        answer, verdict, message = _split(said, mark)
        if verdict[:1] == ["false"]:
            return answer
        raise _error(verdict[1] if len(verdict) == 2 else "", message, complained)

    async def _until(self, mark: str) -> tuple[str, str]:
        end = f"{mark}\n".encode()
        # The mark stands twice in what it says, and once in what it complains.
        while self._said.count(mark.encode()) < 2 or not self._said.endswith(end) or end not in self._complained:
            piece = await self._process.read()
            if piece is None:
                raise self._gone()
            if piece[0] == _STDOUT:
                self._said += piece[1]
            else:
                self._complained += piece[1]
        said, self._said = self._said, b""
        complained, self._complained = self._complained, b""
        return said.decode(), complained.decode(errors="replace").removesuffix(f"{mark}\n")

    def _gone(self) -> Exception:
        """psql ended: it could not log in, PostgreSQL went away, or it was never there."""
        ended = self._process.ended
        words = " ".join(line.strip() for line in self._complained.decode(errors="replace").splitlines()).strip()
        why = words or ended.message or f"psql ended with status {ended.code}"
        if ended.code in _NOT_FOUND_CODES or any(sign in ended.message for sign in _NOT_FOUND):
            return PrerequisiteError(
                Reason.NO_ADMIN_ACCESS, f"There is no psql to run in {self._shell}: {why}.", retry_after=60.0
            )
        return psycopg.OperationalError(why.removeprefix("psql: error: "))


def _split(said: str, mark: str) -> tuple[str, list[str], str]:
    """What came before the mark; ERROR and SQLSTATE after it; the message between it and the second one."""
    answer, _, rest = said.partition(mark)
    verdict, _, rest = rest.partition("\n")
    message = rest.removesuffix(f"{mark}\n")
    return answer, verdict.split(), message.strip()


def _error(sqlstate: str, message: str, complained: str) -> psycopg.Error:
    """The class that psycopg would have raised; its detail goes with the message, as far as psql told it."""
    detail = re.search(r"^DETAIL:\s+(.+)$", complained, re.MULTILINE)
    text = f"{message} ({detail[1].rstrip('.')})" if detail else message
    try:
        return psycopg.errors.lookup(sqlstate)(text)
    except KeyError:
        return psycopg.OperationalError(text or complained.strip() or "psql does not say how a statement ended")
