"""A running pooler as the command line sees it: a console to command, or a REST address to look at.

`open_source` reads the one option that says where. Nothing here prints. Called by `look` and by the plugin.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgweir.console_client import NoConnection, find_address
from pgweir_operator.cli.shown import Refused, Shown, Unreachable, Value

DATABASE: Final = "pgbouncer"
CONNECT_TIMEOUT: Final = 10  # seconds
NUMBERS: Final = (20, 23, 1700)  # int8, int4, numeric


class Source(Protocol):
    """Where tables come from."""

    def show(self, words: Sequence[str]) -> Shown:
        """SHOW of these words. Raises Unreachable or Refused."""

    def run(self, command: str) -> Shown:
        """Any command of the console. Raises Unreachable or Refused."""

    def close(self) -> None: ...


def open_source(url: str | None, user: str | None = None, token: str | None = None) -> Source:
    """`url`: http(s)://…, postgresql://…, the folder of a Unix socket (with :PORT where there are several), or None for the
    socket on this machine. Raises Unreachable."""
    if url is not None and url.startswith(("http://", "https://")):
        return RestSource(url, token)
    return ConsoleSource(console_dsn(url, user))


def console_dsn(url: str | None, user: str | None) -> str:
    if url is not None and not url.startswith("/"):
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise Unreachable(
                f"{url}: write http://HOST:PORT, postgresql://USER@HOST:PORT or the folder of a socket ({_first_line(error)})"
            ) from None
        found: dict[str, Any] = {"dbname": DATABASE, "connect_timeout": CONNECT_TIMEOUT, **given}
        return make_conninfo("", **(found if user is None else {**found, "user": user}))
    folder, colon, port = (url or "").rpartition(":")
    if not (colon and port.isdigit()):
        folder, port = url or "", ""
    try:
        host, number = find_address(folder or None, int(port) if port else None)
    except NoConnection as error:
        where = "the folder of a socket (with :PORT), postgresql://USER@HOST:PORT or http://HOST:8080"
        raise Unreachable(f"{error.what}; name the pooler's address with --url: {where}") from None
    return make_conninfo(
        host=host, port=number, dbname=DATABASE, user=user or DATABASE, connect_timeout=CONNECT_TIMEOUT
    )


class ConsoleSource:
    """The console, over libpq: sslmode, PGPASSWORD and ~/.pgpass count as anywhere."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        try:
            self._connection = psycopg.connect(dsn, autocommit=True)
        except psycopg.Error as error:
            raise Unreachable(_first_line(error)) from None
        self._notices: list[str] = []
        self._connection.add_notice_handler(self._note)

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        lines = [f"{notice.severity}:  {notice.message_primary}"]
        self._notices.append("\n".join(lines + ([notice.message_detail] if notice.message_detail else [])))

    def show(self, words: Sequence[str]) -> Shown:
        return self.run(f"SHOW {' '.join(words)}")

    def run(self, command: str) -> Shown:
        self._notices.clear()
        try:
            cursor = self._connection.execute(command.encode())
        except psycopg.OperationalError as error:
            if self._connection.closed:
                raise Unreachable(f"the connection ended: {_first_line(error)}") from None
            raise _refusal(error) from None
        except psycopg.Error as error:
            raise _refusal(error) from None
        tag, notices = cursor.statusmessage or "", tuple(self._notices)
        if cursor.description is None:
            return Shown(notices=notices, tag=tag)
        columns = tuple((column.name, column.type_code in NUMBERS) for column in cursor.description)
        rows = tuple(tuple(_plain(value) for value in row) for row in cursor.fetchall())
        return Shown(columns, rows, notices, tag)

    def close(self) -> None:
        self._connection.close()


def _plain(value: Any) -> Value:
    return int(value) if isinstance(value, Decimal) else value


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n", 1)[0].split())


def _refusal(error: psycopg.Error) -> Refused:
    found = error.diag
    lines = [found.message_primary or str(error)]
    lines += [
        f"{word}:  {text}" for word, text in (("DETAIL", found.message_detail), ("HINT", found.message_hint)) if text
    ]
    return Refused("\n".join(lines), sqlstate=error.sqlstate or "")


Fetch = Callable[[str], tuple[int, bytes]]
"""A path to a status and a body. Raises OSError."""


@dataclass
class RestSource:
    """The REST API, which only looks."""

    url: str
    token: str | None = field(default=None, repr=False)

    def fetch(self, path: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url.rstrip("/").removesuffix("/api/v1") + path)  # noqa: S310 (http or https)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=CONNECT_TIMEOUT) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def show(self, words: Sequence[str]) -> Shown:
        return rest_table(self.fetch, self.url, words)

    def run(self, command: str) -> Shown:
        raise Refused(
            f"{self.url} only shows; give the console's address (a socket's folder or postgresql://…) for {command}"
        )

    def close(self) -> None: ...


def rest_table(fetch: Fetch, where: str, words: Sequence[str]) -> Shown:
    """SHOW over REST, whatever brings the bytes."""
    name = "_".join(words).lower()
    try:
        status, body = fetch(f"/api/v1/show/{urllib.parse.quote(name, safe='')}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        words = getattr(reason, "strerror", None) or str(reason)
        raise Unreachable(
            f"{where} does not answer: {words}; see that the pooler runs there with --http-listen (8080 in a pod), and what "
            "is between"
        ) from None
    try:
        document = json.loads(body)
    except ValueError:
        raise Unreachable(f"{where}: what answers there is no pgweir (status {status})") from None
    if status == 401:
        raise Unreachable(f"{where}: {document.get('error')} (PGWEIR_TOKEN)")
    if status != 200:
        raise Refused(str(document.get("error") or f"status {status}"))
    with suppress(KeyError, TypeError):
        columns = tuple((column["name"], column["type"] == "number") for column in document["columns"])
        return Shown(columns, tuple(tuple(row[name] for name, _ in columns) for row in document["rows"]), tag="SHOW")
    raise Unreachable(f"{where}: what answers there is no pgweir of this version")
