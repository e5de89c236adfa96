"""A random workload in PostgreSQL's protocol: whatever a client may say, from one seed, the same every time.

A `Speaker` is one client: it makes turns, and a turn is what is sent before the client waits for its ReadyForQuery.
Most of it works, some of it fails, as SQL from people does. Everything lies in a schema of the speaker's own, so that
speakers never wait for each other; and nothing depends on time, chance at the server or process numbers, so that two
servers that started alike answer alike, to the byte.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.pooler.wire import close, copy_data, copy_done, copy_fail, describe, execute, flush, message, query, sync

Mode = Literal["transaction", "session"]

# A type, and values of it as literals; a value that is none is the last of some.
TYPES: dict[str, tuple[str, ...]] = {
    "int4": ("0", "-1", "2147483647", "'12'", "NULL"),
    "int8": ("9223372036854775807", "-5", "NULL"),
    "numeric": ("1.50", "'NaN'", "12345678901234567890.00001", "NULL"),
    "float8": ("0.1", "'-Infinity'", "1e300", "NULL"),
    "text": ("'plain'", "'Grüße 🐘'", "''", "E'tab\\tnew\\nline'", "repeat('long ', 300)", "NULL"),
    "varchar(10)": ("'short'", "'much too long for ten'"),
    "bool": ("true", "false", "NULL"),
    "date": ("'2026-02-28'", "'infinity'", "'2026-02-30'"),
    "timestamptz": ("'2026-02-28 12:00:00+02'", "'epoch'", "NULL"),
    "interval": ("'1 mon 2 days 03:04:05.6'", "'-1 year'"),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'no uuid'"),
    "jsonb": ("""'{"a": [1, null, "ü"]}'""", "'{broken'", "NULL"),
    "bytea": (r"'\x00ff27'", "decode(repeat('ab', 2000), 'hex')"),
    "int4[]": ("'{1,NULL,3}'", "ARRAY[]::int4[]"),
    "inet": ("'192.168.0.1/24'", "'::1'"),
    "point": ("'(1.5,-2)'",),
    "int4range": ("'[1,5)'", "'empty'"),
}

# Statements with parameters, and for each parameter its type; they use nothing that is ever altered.
PARAMETERISED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("SELECT $1::int4 + $2::int4 AS sum", ("int4", "int4")),
    ("SELECT $1::text || '!' AS t, length($1::text)", ("text",)),
    ("SELECT * FROM {schema}.kept WHERE id <= $1 ORDER BY id", ("int4",)),
    ("INSERT INTO {schema}.kept (id, t) VALUES ($1, $2) RETURNING *", ("int4", "text")),
    ("INSERT INTO {schema}.kept (id, t) VALUES ($1, $2)", ("int4", "text")),
    ("UPDATE {schema}.kept SET t = $2 WHERE id = $1", ("int4", "text")),
    ("DELETE FROM {schema}.kept WHERE id = $1", ("int4",)),
    ("SELECT i, repeat('r', $2::int4) FROM generate_series(1, $1::int4) i", ("int4", "small")),
    ("SELECT 100 / (SELECT $1::int4)", ("int4",)),  # (else the plan decides whether Bind or Execute fails)
    ("SELECT encode($1::bytea, 'hex'), $2::bool", ("bytea", "bool")),
    ("SELECT $1::int8, $2::float8, $1::int8 * 2", ("int8", "float8")),
    ("SELECT 'no parameters'", ()),
    ("SELECT nothing_of_this_name", ()),
    ("SELEKT", ()),
    ("", ()),
    ("CREATE TABLE {schema}.extended (x int)", ()),
    ("DROP TABLE {schema}.extended", ()),
    ("SHOW TimeZone", ()),
)


@dataclass
class Turn:
    """What is sent at once, how many ReadyForQuery it will bring, and what it is, for people."""

    data: bytes
    ready: int
    what: str


@dataclass
class Speaker:
    """One client's side of the workload. `in_transaction` and `failed` are told by the caller, from ReadyForQuery."""

    schema: str
    chance: random.Random
    mode: Mode
    in_transaction: bool = False
    failed: bool = False  # that transaction
    tables: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=lambda: [f"stmt{i}" for i in range(9)])
    prepared: dict[str, int] = field(default_factory=dict)  # as far as we know: a rollback keeps them, an error may not
    given: dict[str, set[int]] = field(default_factory=dict)  # what each name was given to at any time

    def setup(self) -> Turn:
        """Before anything else: the schema, and what is never altered."""
        sql = f"CREATE SCHEMA {self.schema}; CREATE TABLE {self.schema}.kept (id int PRIMARY KEY, t text);"
        sql += f"INSERT INTO {self.schema}.kept SELECT i, 'row ' || i FROM generate_series(1, 20) i"
        return Turn(query(sql), 1, sql)

    def farewell(self) -> Turn:
        """At the end: out of any transaction, and everything that is left, for comparison."""
        sql = f"ROLLBACK; SELECT * FROM {self.schema}.kept ORDER BY id"
        return Turn(query(sql), 1, sql)

    def turn(self, *, may_begin: bool) -> Turn:
        """The next thing this client says. `may_begin`: it may open a transaction."""
        kinds: list[tuple[int, Callable[[], Turn]]] = [
            (30, lambda: self._simple(self.statement())),
            (8, lambda: self._simple("; ".join(self.statement() for _ in range(self.chance.randint(2, 4))))),
            (25, self._extended),
            (15, self._pipeline),
            (4, self._copy_in),
            (3, self._copy_out),
            (3, self._odd),
        ]
        if self.in_transaction:
            kinds += [(12, self._leave), (8, self._savepoint), (4, self._cursor), (3, self._portal)]
        elif may_begin:
            kinds.append((18, self._begin))
        if not self.in_transaction or self.mode == "session":
            kinds.append((3, self._setting))
        return self.chance.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]()

    # -- one statement ----------------------------------------------------------------------------------------

    def statement(self) -> str:
        pick = self.chance.choice
        table = f"{self.schema}.t{self.chance.randint(1, 5)}"
        columns = self.tables.get(table, ["int4", "text"])
        kind = self.chance.randrange(22)
        if kind == 0:
            columns = [pick(list(TYPES)) for _ in range(self.chance.randint(1, 5))]
            self.tables.setdefault(table, columns)
            body = ", ".join(f"c{i} {name}" for i, name in enumerate(columns))
            return f"CREATE TABLE {pick(('', 'IF NOT EXISTS '))}{table} ({body})"
        if kind == 1:
            self.tables.pop(table, None)
            return f"DROP TABLE {pick(('', 'IF EXISTS '))}{table}"
        if kind == 2:
            return f"ALTER TABLE {table} ADD COLUMN extra{self.chance.randint(1, 3)} {pick(list(TYPES))}"
        if kind == 3:
            return f"CREATE INDEX ON {table} (c0)"
        if kind in (4, 5, 6):
            values = ", ".join(pick(TYPES[name]) for name in columns)
            return f"INSERT INTO {table} VALUES ({values}){pick(('', ' RETURNING *'))}"
        if kind == 7:
            return f"UPDATE {table} SET c0 = {pick(TYPES[columns[0]])}"
        if kind == 8:
            return f"DELETE FROM {table} WHERE c0 IS NULL"
        if kind in (9, 10):
            return f"SELECT * FROM {table} AS x ORDER BY x::text"
        if kind in (11, 12):
            name = pick(list(TYPES))
            return f"SELECT {pick(TYPES[name])}::{name} AS value, pg_typeof({pick(TYPES[name])}::{name})"
        if kind == 13:
            rows, width = pick(((3, 10), (200, 50), (3000, 5), (5, 30_000)))
            return f"SELECT i, repeat('v', {width}) FROM generate_series(1, {rows}) i"
        if kind == 14:
            broken = ("SELECT 1/0", "SELECT nope", "SELEKT 1", "SELECT 'x'::int", "SELECT * FROM nowhere", "SELECT (")
            return pick(broken)
        if kind == 15:
            return f"DO $do$ BEGIN RAISE {pick(('NOTICE', 'WARNING', 'INFO', 'EXCEPTION'))} 'said %', 'ü'; END $do$"
        if kind == 16:
            return "EXPLAIN (COSTS OFF) SELECT count(*) FROM generate_series(1, 3) i WHERE i > 1"
        if kind == 17:
            return f"INSERT INTO {self.schema}.kept VALUES ({self.chance.randint(1, 40)}, 'simple') RETURNING id"
        if kind == 18:
            return f"SELECT jsonb_agg(k ORDER BY id) FROM {self.schema}.kept k"
        if kind == 19:
            return pick(("", " ", "-- nothing", "/* nothing */ ;;"))
        if kind == 20:
            return f"TRUNCATE {table}"
        return pick(("SHOW DateStyle", "SHOW client_encoding", "SELECT current_user, session_user", "VALUES (1), (2)"))

    # -- turns ------------------------------------------------------------------------------------------------

    def _simple(self, sql: str) -> Turn:
        return Turn(query(sql), 1, sql)

    def _begin(self) -> Turn:
        return self._simple(self.chance.choice(("BEGIN", "BEGIN", "START TRANSACTION READ ONLY", "BEGIN; SELECT 1")))

    def _leave(self) -> Turn:
        if self.chance.random() < 0.25:
            end = self.chance.choice(("COMMIT", "ROLLBACK"))
            return Turn(_parse("", end) + _bind("", "", []) + execute() + sync(), 1, f"extended {end}")
        return self._simple(self.chance.choice(("COMMIT", "COMMIT", "ROLLBACK", "END; SELECT 'after'")))

    def _savepoint(self) -> Turn:
        return self._simple(self.chance.choice(("SAVEPOINT a", "ROLLBACK TO SAVEPOINT a", "RELEASE SAVEPOINT a")))

    def _cursor(self) -> Turn:
        return self._simple(
            self.chance.choice(
                (
                    f"DECLARE cur CURSOR FOR SELECT * FROM {self.schema}.kept ORDER BY id",
                    "FETCH 3 FROM cur",
                    "MOVE 2 IN cur; FETCH ALL FROM cur",
                    "CLOSE cur",
                    "CREATE TEMPORARY TABLE brief ON COMMIT DROP AS SELECT 1 AS x",
                    "SET LOCAL work_mem = '1MB'; SHOW work_mem",
                    "SET LOCAL TimeZone = 'Asia/Tokyo'; SHOW TimeZone",
                )
            )
        )

    def _setting(self) -> Turn:
        choices = [
            "SET TimeZone = 'Europe/Berlin'",
            "SET TimeZone = 'UTC'",
            "SET DateStyle = 'German'",
            "SET DateStyle = 'ISO, MDY'",
            "SET application_name = 'wörk load'",
            "SET standard_conforming_strings = off",
            "SET standard_conforming_strings = on",
            "SET TimeZone = 'Nowhere/Land'",
            "DEALLOCATE ALL",
            "DISCARD ALL",
        ]
        if self.mode == "session":
            choices += ["SET work_mem = '2MB'", "SHOW work_mem", "RESET ALL", "CREATE TEMPORARY TABLE own (x int)"]
            choices += ["PREPARE sqlway AS SELECT 1", "EXECUTE sqlway", "DEALLOCATE sqlway"]
        sql = self.chance.choice(choices)
        if sql in ("DEALLOCATE ALL", "DISCARD ALL"):
            self.prepared.clear()
        return self._simple(sql)

    def _extended(self) -> Turn:
        """One statement, with one Sync: unnamed, or prepared under a name earlier or now."""
        data, what = self._group(alone=True)
        return Turn(data + sync(), 1, what)

    def _pipeline(self) -> Turn:
        """Several groups, with a Sync after some of them, and always one at the end."""
        data, said, ready = b"", [], 1
        for _ in range(self.chance.randint(2, 8)):
            more, what = self._group()
            data += more
            said.append(what)
            if self.chance.random() < 0.4:
                data += sync()
                said.append("S")
                ready += 1
            elif self.chance.random() < 0.2:
                data += flush()
        return Turn(data + sync(), ready, " | ".join(said))

    def _portal(self) -> Turn:
        """A portal that is read in pieces; inside a transaction it outlives its Sync."""
        sql, count = f"SELECT * FROM {self.schema}.kept ORDER BY id", self.chance.randint(1, 5)
        again = self.chance.random() < 0.5
        data = b"" if again else _parse("", sql) + close("pieces", "P") + _bind("pieces", "", [])
        for _ in range(self.chance.randint(1, 3)):
            data += execute("pieces", count)
        return Turn(data + sync(), 1, f"portal by {count}{' again' if again else ''}")

    def _group(self, *, alone: bool = False) -> tuple[bytes, str]:
        """Some of Parse, Describe, Bind, Execute, Close, with one statement. `alone`: nothing else is in this turn."""
        if self.chance.random() < 0.4:
            sql, kinds = self.chance.choice(PARAMETERISED)
            name, data = "", _parse("", sql.format(schema=self.schema))
            what = f"unnamed {sql}"
        else:
            name = self.chance.choice(self.names)
            number = self.prepared.get(name)
            if number is None or self.chance.random() < 0.03:  # a name that is taken, at times
                number = self.chance.randrange(len(PARAMETERISED))
                sql, kinds = PARAMETERISED[number]
                data = _parse(name, sql.format(schema=self.schema))
                self.prepared.setdefault(name, number)
                self.given.setdefault(name, set()).add(number)
                what = f"{name} = {sql}"
            else:
                sql, kinds = PARAMETERISED[number]
                data, what = b"", f"{name} ({sql})"
                if self.chance.random() < 0.08:
                    del self.prepared[name]
                    return close(name, "S"), f"close {name}"
        # In a failed transaction a server describes what it has, and a pooler cannot prepare what it has not.
        may_fail_first = self.failed or (self.in_transaction and not alone)
        if self.chance.random() < 0.3 and not (name and may_fail_first):
            data += describe(name, "S")
        if self.chance.random() < 0.06:
            return data, f"{what}, not executed"
        data += self._bind_some(name, kinds)
        if self.chance.random() < 0.7:
            data += describe("", "P")
        data += execute("", self.chance.choice((0, 0, 0, 2)))
        return data, what

    def _bind_some(self, name: str, kinds: tuple[str, ...]) -> bytes:
        values: list[bytes | None] = []
        formats = []
        for kind in kinds:
            binary = self.chance.random() < 0.4
            formats.append(int(binary))
            values.append(self._value(kind, binary))
        if self.chance.random() < 0.03:
            values.append(b"one too many")
            formats.append(0)
        result = self.chance.choice(((), (0,), (1,)))
        return _bind("", name, values, formats, result)

    def _value(self, kind: str, binary: bool) -> bytes | None:
        number = self.chance.choice((0, 1, 7, 30, self.chance.randint(1, 60)))
        if self.chance.random() < 0.05:
            return None
        if self.chance.random() < 0.04:
            return b"rubbish"
        if kind == "text":
            return self.chance.choice(("", "text", "ünïcode 🐘", "x" * 5000)).encode()
        if kind == "bytea":
            return b"\x00\xff'" if binary else rb"\x00ff27"
        if kind == "bool":
            return b"\x01" if binary else b"t"
        if kind == "int8":
            return struct.pack("!q", number << 40) if binary else str(number << 40).encode()
        if kind == "float8":
            return struct.pack("!d", number / 8) if binary else str(number / 8).encode()
        return struct.pack("!i", number) if binary else str(number).encode()

    def _copy_in(self) -> Turn:
        target = self.chance.choice((f"{self.schema}.kept", f"{self.schema}.kept", f"{self.schema}.nowhere"))
        sql = f"COPY {target} FROM STDIN"
        start = self.chance.randint(100, 100_000)
        rows = [f"{start + i}\tcopied {i}\n".encode() for i in range(self.chance.choice((0, 3, 300)))]
        if self.chance.random() < 0.3:
            rows.insert(self.chance.randint(0, len(rows)), b"no number\tx\n")
        data = b"".join(copy_data(row) for row in rows)
        end = copy_fail("enough") if self.chance.random() < 0.15 else copy_done()
        if self.chance.random() < 0.3:
            return Turn(_parse("", sql) + _bind("", "", []) + execute() + data + end + sync(), 1, f"extended {sql}")
        return Turn(query(sql) + data + end, 1, sql)

    def _copy_out(self) -> Turn:
        rows = self.chance.choice((0, 5, 5000))
        sql = f"COPY (SELECT i, 'c' || i FROM generate_series(1, {rows}) i) TO STDOUT {self.chance.choice(('', 'CSV'))}"
        if self.chance.random() < 0.3:
            return Turn(_parse("", sql) + _bind("", "", []) + execute() + sync(), 1, f"extended {sql}")
        return self._simple(sql)

    def _odd(self) -> Turn:
        """What few clients say, and PostgreSQL answers all the same."""
        return self.chance.choice(
            (
                lambda: Turn(sync(), 1, "Sync alone"),
                lambda: Turn(sync() * 3, 3, "three Syncs"),
                lambda: Turn(execute("no such portal") + sync(), 1, "a portal that is not there"),
                lambda: Turn(_bind("", "no such statement", []) + sync(), 1, "a statement that is not there"),
                lambda: Turn(describe("no such statement") + sync(), 1, "describe a statement that is not there"),
                lambda: Turn(close("no such statement") + sync(), 1, "close a statement that is not there"),
                lambda: Turn(_function_call(177, (20, 22)), 1, "FunctionCall int4pl"),
                lambda: Turn(_function_call(4_000_000, ()), 1, "FunctionCall of nothing"),
                lambda: Turn(query("SELECT 1") + query("SELECT 2") + query("SELECT nope"), 3, "three Queries at once"),
                lambda: Turn(query(self.statement()) + sync() + query("SELECT 'and on'"), 3, "Query, Sync, Query"),
            )
        )()


# -- messages that wire.py makes only in their usual form -----------------------------------------------------------


def _parse(name: str, sql: str) -> bytes:
    return message("P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def _bind(
    portal: str,
    statement: str,
    values: list[bytes | None],
    formats: list[int] | None = None,
    result: tuple[int, ...] = (),
) -> bytes:
    formats = formats or []
    body = portal.encode() + b"\0" + statement.encode() + b"\0"
    body += struct.pack(f"!h{len(formats)}hh", len(formats), *formats, len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return message("B", body + struct.pack(f"!h{len(result)}h", len(result), *result))


def _function_call(oid: int, numbers: tuple[int, ...]) -> bytes:
    body = struct.pack("!ihhh", oid, 1, 1, len(numbers))
    body += b"".join(struct.pack("!ii", 4, number) for number in numbers)
    return message("F", body + struct.pack("!h", 1))
