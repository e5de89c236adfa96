"""A PostgreSQL of a hundred lines: enough of the wire protocol to say what a real one would have said.

Bytes in, bytes out, no I/O. Its SQL is a handful of words; its prepared statements, transactions, errors and COPY FROM STDIN
follow "Message Flow". It stands behind the pooler in conversation tests, and beside it as the judge of what a client sees.
"""

from __future__ import annotations

import re

from pgweir.protocol import framing, messages

PARAMETERS = {
    "server_version": "16.1",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "application_name": "",
}


class MiniPostgres:
    """One backend. `greeted=False`: its first message is a StartupMessage."""

    def __init__(self, pid: int = 1, *, greeted: bool = True, key: bytes = b"") -> None:
        self.pid = pid
        self.key = key or b"key%d" % (pid % 10)
        self.startup = None if not greeted else b""
        self.status = b"I"
        self.statements: dict[bytes, bytes] = {}
        self.outdated: set[bytes] = set()  # prepared before DDL changed what they return
        self.portal: bytes | None = None
        self.skipping = False  # an error: up to the next Sync
        self.copying: str | None = None  # "simple" or "extended"
        self.copied = 0
        self.queries: list[str] = []  # every simple query, in order
        self.terminated = False
        self.refusal: tuple[str, str] | None = None  # the login's end: sqlstate, message
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        out = b""
        if self.startup is None:
            if len(self._buffer) < 4 or len(self._buffer) < int.from_bytes(self._buffer[:4], "big"):
                return b""
            size = int.from_bytes(self._buffer[:4], "big")
            self.startup, self._buffer = self._buffer[8:size], self._buffer[size:]
            out += self._greeting()
        while len(self._buffer) >= 5:
            size = int.from_bytes(self._buffer[1:5], "big") + 1
            if len(self._buffer) < size:
                break
            kind, body = self._buffer[:1], self._buffer[5:size]
            self._buffer = self._buffer[size:]
            out += self._message(kind, body)
        return out

    def _greeting(self) -> bytes:
        if self.refusal is not None:
            return messages.error_response("FATAL", *self.refusal)
        parts = [messages.authentication_ok()]
        parts += [messages.parameter_status(name, value) for name, value in PARAMETERS.items()]
        parts += [messages.backend_key_data(self.pid, self.key), messages.ready_for_query(b"I")]
        return b"".join(parts)

    def _message(self, kind: bytes, body: bytes) -> bytes:
        if kind == b"X":
            self.terminated = True
            return b""
        if self.copying is not None:
            return self._copy(kind, body)
        if kind == b"S":
            self.skipping = False
            if self.status == b"I":
                self.portal = None
            return messages.ready_for_query(self.status)
        if self.skipping or kind in (b"d", b"c", b"f", b"H"):
            return b""
        if kind == b"Q":
            return self._query(body[:-1].decode())
        if kind == b"F":
            return messages.message(ord("V"), b"\xff\xff\xff\xff") + messages.ready_for_query(self.status)
        return self._extended(kind, body)

    def alter_table(self) -> None:
        """Somebody's DDL: whatever is prepared by now has another result than before."""
        self.outdated.update(self.statements)

    def lose_statements(self) -> None:
        """A function has run DISCARD ALL: no command tag tells."""
        self.statements.clear()
        self.outdated.clear()

    # --- simple queries ------------------------------------------------------------------------------------------------

    def _query(self, sql: str) -> bytes:
        self.queries.append(sql)
        self.portal = None
        if not sql.strip(" ;"):
            return messages.empty_query_response() + messages.ready_for_query(self.status)
        out = b""
        for statement in filter(None, (part.strip() for part in sql.split(";"))):
            answer, ended = self._run(statement, "simple")
            out += answer
            if ended:
                return out if self.copying else out + messages.ready_for_query(self.status)
        return out + messages.ready_for_query(self.status)

    def _run(self, sql: str, how: str) -> tuple[bytes, bool]:
        """What running this says, and whether it ends the query (an error, or COPY)."""
        word = sql.split()[0].upper()
        if self.status == b"E" and word not in ("ROLLBACK", "COMMIT"):
            return self._error("25P02"), True
        if word in ("FAIL", "SYNTAX"):
            return self._error("22012" if word == "FAIL" else "42601"), True
        if word == "SELECT":
            rows = int(sql.split()[1]) if len(sql.split()) > 1 else 1
            row = messages.data_row([b"x" * 20])
            head = messages.row_description([("c", 25)]) if how == "simple" else b""
            return head + row * rows + messages.command_complete(f"SELECT {rows}"), False
        if word == "COPY":
            self.copying, self.copied = how, 0
            return messages.message(ord("G"), b"\0\0\1\0\0"), True
        if word == "BEGIN":
            self.status = b"T"
        elif word in ("COMMIT", "ROLLBACK"):
            word = "ROLLBACK" if self.status == b"E" else word
            self.status = b"I"
        elif sql.upper() in ("DISCARD ALL", "DEALLOCATE ALL"):
            self.lose_statements()
            return messages.command_complete(sql.upper()), False
        elif word == "SET":
            name, value = re.match(r"SET (\S+?)\s*=\s*E?'(.*)'$", sql).groups()  # type: ignore[union-attr]
            if value == "bad":
                return self._error("22023"), True
            canonical = {"ISO": "ISO, MDY"}.get(value, value)
            return messages.parameter_status(name, canonical) + messages.command_complete("SET"), False
        return messages.command_complete(word), False

    def _error(self, sqlstate: str, more: str = "") -> bytes:
        if self.status == b"T":
            self.status = b"E"
        return messages.error_response("ERROR", sqlstate, f"error {sqlstate}{more}")

    # --- extended queries ----------------------------------------------------------------------------------------------

    def _fail(self, sqlstate: str, name: bytes = b"") -> bytes:
        self.skipping = True
        return self._error(sqlstate, f' in statement "{name.decode()}"' if name else "")

    def _outdated(self) -> bytes:
        self._fail("0A000")
        fields = b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0RRevalidateCachedQuery\0\0"
        return messages.message(framing.ERROR_RESPONSE, fields)

    def _extended(self, kind: bytes, body: bytes) -> bytes:
        if kind == b"P":
            name, sql = body.split(b"\0")[:2]
            if name and name in self.statements:
                # A real one finds a syntax error first. The pooler has it say 42P05 in any case: an error is an error.
                return self._fail("42P05")
            if sql.startswith(b"SYNTAX"):
                return self._fail("42601")
            # A real one refuses Parse in a failed transaction. The pooler may answer for it; then Bind is refused.
            self.statements[name] = sql
            self.outdated.discard(name)
            return messages.message(framing.PARSE_COMPLETE, b"")
        if kind == b"B":
            name = body.split(b"\0")[1]
            if name not in self.statements:
                return self._fail("26000", name)
            if name in self.outdated and self.status != b"E":
                return self._outdated()
            if self.status == b"E" and self.statements[name] not in (b"ROLLBACK", b"COMMIT"):
                return self._fail("25P02")
            self.portal = self.statements[name]
            return messages.message(framing.BIND_COMPLETE, b"")
        if kind == b"D":
            described = self.statements.get(body[1:-1]) if body[:1] == b"S" else self.portal
            if described is None:
                return self._fail("26000", body[1:-1]) if body[:1] == b"S" else self._fail("34000")
            parameters = messages.message(ord("t"), b"\0\0") if body[:1] == b"S" else b""
            if body[:1] == b"S" and body[1:-1] in self.outdated:
                return parameters + self._outdated()
            if described.startswith(b"SELECT"):
                return parameters + messages.row_description([("c", 25)])
            return parameters + messages.message(framing.NO_DATA, b"")
        if kind == b"C":
            if body[:1] == b"S":
                self.statements.pop(body[1:-1], None)
                self.outdated.discard(body[1:-1])
            else:
                self.portal = None
            return messages.message(framing.CLOSE_COMPLETE, b"")
        if kind == b"E":
            if self.portal is None:
                return self._fail("34000")
            if not self.portal.strip():
                return messages.empty_query_response()
            portal = self.portal
            if b"ALL" in portal.upper() or portal.startswith(b"COPY"):
                self.portal = None  # a command that has run cannot be run again (a real one says 55000)
            answer, _ = self._run(portal.decode(), "extended")
            if answer[:1] == b"E":
                self.skipping = True
            return answer
        raise AssertionError(f"the pooler sent {kind!r} to a PostgreSQL")

    # --- COPY FROM STDIN -------------------------------------------------------------------------------------------------

    def _copy(self, kind: bytes, body: bytes) -> bytes:
        how = self.copying
        if kind in (b"S", b"H"):
            return b""  # "ignore Flush/Sync for the convenience of client libraries"
        if kind == b"d":
            if body != b"bad":
                self.copied += 1
                return b""
            answer = self._error("22P02")
        elif kind == b"c":
            answer = messages.command_complete(f"COPY {self.copied}")
        elif kind == b"f":
            answer = self._error("57014")
        else:  # PostgreSQL stops in the middle of reading the message, and ends the connection: "synchronization was lost"
            raise ValueError(f"unexpected message type {kind!r} during COPY from stdin")
        self.copying = None
        if how == "simple":
            return answer + messages.ready_for_query(self.status)
        if answer[:1] == b"E":
            self.skipping = True
        return answer
