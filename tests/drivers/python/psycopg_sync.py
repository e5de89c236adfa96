"""The suite in the words of psycopg 3, without asyncio."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
from psycopg import errors
from psycopg.types.json import Jsonb
from suite import BIG, BROKEN_COPY, COPY_LINES, EVERY_BYTE, MODE, VALUES, run, same

Connection = psycopg.Connection[Any]


def connect(**options: Any) -> Connection:
    return psycopg.connect("", **{"autocommit": True, **options})


def raises(kind: type[psycopg.Error], action: Callable[[], object]) -> None:
    try:
        action()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def one(on: Connection, sql: str, *parameters: object, **options: Any) -> Any:
    row = on.execute(sql.encode(), parameters or None, **options).fetchone()
    assert row is not None
    return row[0]


def connects() -> None:
    with connect() as conn:
        same("who", one(conn, "SELECT current_user || '@' || current_database()"), "alice@app")
        same("application", one(conn, "SHOW application_name"), "driver-suite")
    with connect(max_protocol_version="latest") as newer:
        same("asking for protocol 3.2", one(newer, "SELECT 1"), 1)


def commits() -> None:
    with connect(autocommit=False) as conn, connect() as other:
        conn.execute("DROP TABLE IF EXISTS drv_commit")
        conn.execute("CREATE TABLE drv_commit (x int)")
        conn.execute("INSERT INTO drv_commit SELECT generate_series(1, %s)", [3])
        conn.commit()
        same("rows", one(conn, "SELECT count(*) FROM drv_commit"), 3)
        same("rows elsewhere", one(other, "SELECT count(*) FROM drv_commit"), 3)


def rolls_back() -> None:
    with connect() as conn:
        conn.execute("DROP TABLE IF EXISTS drv_rollback")
        conn.execute("CREATE TABLE drv_rollback (x int)")
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        with conn.transaction(force_rollback=True):
            same("isolation", one(conn, "SHOW transaction_isolation"), "serializable")
            conn.execute("INSERT INTO drv_rollback VALUES (1)")
        same("rows", one(conn, "SELECT count(*) FROM drv_rollback"), 0)


def savepoint() -> None:
    with connect() as conn:
        conn.execute("DROP TABLE IF EXISTS drv_savepoint")
        conn.execute("CREATE TABLE drv_savepoint (x int PRIMARY KEY)")
        with conn.transaction():
            conn.execute("INSERT INTO drv_savepoint VALUES (1)")

            def inner() -> None:
                with conn.transaction():
                    conn.execute("INSERT INTO drv_savepoint VALUES (2)")
                    conn.execute("INSERT INTO drv_savepoint VALUES (%s)", [1])

            raises(errors.UniqueViolation, inner)
            conn.execute("INSERT INTO drv_savepoint VALUES (3)")
        same("rows", one(conn, "SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint"), "1,3")


def prepared_reused() -> None:
    with connect() as conn:
        for i in range(50):
            with conn.transaction():
                same("twice", one(conn, "SELECT 2 * %s::int", i, prepare=True), 2 * i)
            same("twice", one(conn, "SELECT 2 * %s::int", -i, prepare=True), -2 * i)
        conn.execute("DEALLOCATE ALL")
        same("after DEALLOCATE ALL", one(conn, "SELECT 2 * %s::int", 4, prepare=True), 8)
        conn.execute("DISCARD ALL")
        same("after DISCARD ALL", one(conn, "SELECT 2 * %s::int", 5, prepare=True), 10)


def prepared_many() -> None:
    with connect() as conn:
        conn.prepared_max = 12
        for turn in range(2):
            for i in range(20):
                same("sum", one(conn, f"SELECT {i * 1000} + %s::int", turn, prepare=True), i * 1000 + turn)


def prepared_elsewhere() -> None:
    with connect() as conn, connect() as first, connect() as second, ExitStack() as second_ends:
        whose = "SELECT pg_backend_pid() + %s::int"
        with first.transaction():
            first.execute("SELECT 1")
            here = one(conn, whose, 0, prepare=True)
            second_ends.enter_context(second.transaction())
            second.execute("SELECT 1")
        there = one(conn, whose, 0, prepare=True)
    assert MODE == "session" or here != there, f"both ran on server {here}"


def prepared_replanned() -> None:
    with connect() as conn, connect() as other:
        conn.execute("DROP TABLE IF EXISTS drv_replanned")
        conn.execute("CREATE TABLE drv_replanned AS SELECT 1 AS a")
        plan = "SELECT a FROM drv_replanned WHERE a = %s"
        same("before", one(conn, plan, 1, prepare=True), 1)
        other.execute("ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'")
        same("after", one(conn, plan, 1, prepare=True), 1)


def values(*, binary: bool) -> None:
    with connect() as conn:
        for kind, text in VALUES:
            same(kind, one(conn, f"SELECT %s::text::{kind}::text", text, binary=binary), text)
        sent: list[object] = [
            -(2**62),
            0.1,
            EVERY_BYTE,
            [3, None],
            datetime.datetime(2026, 2, 28, 23, 59, 59, 123456, datetime.UTC),
            True,
            None,
            Jsonb({"a": [1, None]}),
        ]
        mark = "b" if binary else "t"
        kinds = ("int8", "float8", "bytea", "int4[]", "timestamptz", "bool", "text", "jsonb")
        sql = "SELECT " + ", ".join(f"%{mark}::{kind}" for kind in kinds)
        row = conn.execute(sql.encode(), sent, binary=binary).fetchone()
        same("values", row, (*sent[:7], {"a": [1, None]}))


def copy_in() -> None:
    with connect() as conn, conn.cursor() as cursor:
        conn.execute("DROP TABLE IF EXISTS drv_copy_in")
        conn.execute("CREATE TABLE drv_copy_in (id int8, t text)")
        with cursor.copy("COPY drv_copy_in FROM STDIN") as copy:
            for line in COPY_LINES:
                copy.write(line + "\n")
        same("copied", cursor.rowcount, 10_000)
        with cursor.copy("COPY drv_copy_in FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "text"])
            copy.write_row((10_000, "binary"))
        same("there", one(conn, "SELECT count(*) || ' ' || sum(id) FROM drv_copy_in"), "10001 50005000")


def copy_out() -> None:
    with connect() as conn, conn.cursor() as cursor:
        with cursor.copy("COPY (SELECT i, 'row ' || i FROM generate_series(0, 9999) i) TO STDOUT") as copy:
            lines = b"".join(copy).decode().splitlines()
        same("lines", lines, COPY_LINES)
        same("next", one(conn, "SELECT 1"), 1)


def copy_broken() -> None:
    with connect() as conn, conn.cursor() as cursor:
        conn.execute("DROP TABLE IF EXISTS drv_copy_broken")
        conn.execute("CREATE TABLE drv_copy_broken (id int)")

        def bad_row() -> None:
            with cursor.copy("COPY drv_copy_broken FROM STDIN") as copy:
                for part in BROKEN_COPY:
                    copy.write(part)

        raises(errors.InvalidTextRepresentation, bad_row)
        try:
            with cursor.copy("COPY drv_copy_broken FROM STDIN") as copy:
                copy.write("1\n")
                raise RuntimeError("the file is gone")
        except RuntimeError:
            pass
        same("rows", one(conn, "SELECT count(*) FROM drv_copy_broken"), 0)


def cancels() -> None:
    with connect() as conn:
        for send in (conn.cancel, conn.cancel_safe, conn.cancel_safe):
            timer = threading.Timer(0.2, send)
            timer.start()
            began = time.monotonic()
            raises(errors.QueryCanceled, lambda: conn.execute("SELECT pg_sleep(15)"))
            assert time.monotonic() - began < 8
            timer.join()
            same("next", one(conn, "SELECT 1"), 1)


def pipelines() -> None:
    with connect() as conn:
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int * 3", [i]) for i in range(200)]
            same("answers", [cursor.fetchone() for cursor in cursors], [(i * 3,) for i in range(200)])
        with conn.pipeline() as pipeline:
            cursors = []
            for i in range(50):
                cursors.append(conn.execute("SELECT %s::int", [i], prepare=i % 2 == 0))
                pipeline.sync()
            same("with many syncs", [cursor.fetchone() for cursor in cursors], [(i,) for i in range(50)])


def pipeline_broken() -> None:
    with connect() as conn:
        conn.execute("DROP TABLE IF EXISTS drv_pipeline")
        conn.execute("CREATE TABLE drv_pipeline (x int PRIMARY KEY)")

        def batch() -> None:
            with conn.pipeline():
                for x in (1, 2, 1, 3):
                    conn.execute("INSERT INTO drv_pipeline VALUES (%s)", [x], prepare=True)

        raises(errors.UniqueViolation, batch)
        same("rows", one(conn, "SELECT count(*) FROM drv_pipeline"), 0)

        def skipped() -> None:
            with conn.pipeline() as pipeline:
                conn.execute("SELECT nonsense")
                conn.execute("SELECT 'skipped', %s::int", [1], prepare=True)
                pipeline.sync()

        raises(errors.UndefinedColumn, skipped)
        same("was skipped", one(conn, "SELECT 'skipped', %s::int", 1, prepare=True), "skipped")


def unique_violation() -> None:
    with connect(autocommit=False) as conn:
        conn.execute("DROP TABLE IF EXISTS drv_unique")
        conn.execute("CREATE TABLE drv_unique (x int PRIMARY KEY)")
        conn.commit()
        conn.execute("INSERT INTO drv_unique VALUES (1)")
        raises(errors.UniqueViolation, lambda: conn.execute("INSERT INTO drv_unique VALUES (%s)", [1]))
        raises(errors.InFailedSqlTransaction, lambda: conn.execute("SELECT 1"))
        conn.rollback()
        same("rows", one(conn, "SELECT count(*) FROM drv_unique"), 0)


def syntax_error() -> None:
    with connect() as conn:
        for _ in range(5):
            raises(errors.SyntaxError, lambda: conn.execute("SELEKT 1"))
            raises(errors.SyntaxError, lambda: conn.execute("SELEKT %s", [1]))
            raises(errors.SyntaxError, lambda: conn.execute("SELEKT %s", [1], prepare=True))
            same("next", one(conn, "SELECT 1"), 1)


def large_rows() -> None:
    with connect() as conn:
        rows = conn.execute("SELECT repeat(chr(96 + i), 4000000) FROM generate_series(1, 4) i").fetchall()
        same("large", [text for (text,) in rows], [letter * 4_000_000 for letter in "abcd"])
        cursor = conn.cursor()
        total = sum(i for i, _ in cursor.stream("SELECT i, md5(i::text) FROM generate_series(1, 50000) i"))
        same("sum", total, 50_000 * 50_001 // 2)


def large_parameter() -> None:
    with connect() as conn:
        same("there and back", one(conn, "SELECT %s::text || 'x'", BIG), BIG + "x")


def cursor() -> None:
    with connect() as conn, conn.transaction(), conn.cursor("pieces") as pieces:
        pieces.itersize = 100
        pieces.execute("SELECT generate_series(1, 250)")
        same("rows", sum(1 for _ in pieces), 250)


def notices() -> None:
    heard: list[str | None] = []
    with connect() as conn:
        conn.add_notice_handler(lambda notice: heard.append(notice.message_primary))
        conn.execute("DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$")
    same("notices", heard, ["hear this", "and that"])


def multi_statement() -> None:
    with connect() as conn:
        cursor = conn.execute("SELECT 1; SELECT 'two', 'deux'; SELECT 3 WHERE false")
        results = [cursor.fetchall()]
        while cursor.nextset():
            results.append(cursor.fetchall())
        same("results", results, [[(1,)], [("two", "deux")], []])
        raises(errors.DivisionByZero, lambda: conn.execute("SELECT 1; SELECT 1/0; SELECT 3"))


def tracked_setting() -> None:
    with connect() as conn, connect() as other:
        plain = one(other, "SHOW TimeZone")
        conn.execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(5):
            same("other", one(other, "SHOW TimeZone"), plain)
            same("ours", one(conn, "SHOW TimeZone"), "Asia/Tokyo")
        same("reported", conn.info.parameter_status("TimeZone"), "Asia/Tokyo")


def many_clients() -> None:
    trouble: list[BaseException] = []

    def count() -> None:
        try:
            with connect() as own:
                for _ in range(25):
                    own.execute("UPDATE drv_counter SET n = n + %s", [1])
        except psycopg.Error as error:
            trouble.append(error)

    with connect() as conn:
        conn.execute("DROP TABLE IF EXISTS drv_counter")
        conn.execute("CREATE TABLE drv_counter AS SELECT 0 AS n")
        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same("trouble", trouble, [])
        same("counted", one(conn, "SELECT n FROM drv_counter"), 200)


def session_setting() -> None:
    with connect() as conn:
        conn.execute("SET work_mem = '1234kB'")
        same("work_mem", one(conn, "SHOW work_mem"), "1234kB")


def listens() -> None:
    with connect() as conn, connect() as other:
        conn.execute("LISTEN drv_channel")
        other.execute("SELECT pg_notify('drv_channel', %s)", ["hello"])
        heard = [(said.channel, said.payload) for said in conn.notifies(timeout=10, stop_after=1)]
        same("heard", heard, [("drv_channel", "hello")])


def temporary_table() -> None:
    with connect() as conn:
        conn.execute("CREATE TEMPORARY TABLE drv_temporary AS SELECT 7 AS x")
        same("kept", one(conn, "SELECT x FROM drv_temporary"), 7)


if __name__ == "__main__":
    run(
        {
            "connect": connects,
            "commit": commits,
            "rollback": rolls_back,
            "savepoint": savepoint,
            "prepared_reused": prepared_reused,
            "prepared_many": prepared_many,
            "prepared_elsewhere": prepared_elsewhere,
            "prepared_replanned": prepared_replanned,
            "parameters_text": lambda: values(binary=False),
            "parameters_binary": lambda: values(binary=True),
            "copy_in": copy_in,
            "copy_out": copy_out,
            "copy_broken": copy_broken,
            "cancel": cancels,
            "pipeline": pipelines,
            "pipeline_broken": pipeline_broken,
            "unique_violation": unique_violation,
            "syntax_error": syntax_error,
            "large_rows": large_rows,
            "large_parameter": large_parameter,
            "cursor": cursor,
            "notices": notices,
            "multi_statement": multi_statement,
            "tracked_setting": tracked_setting,
            "many_clients": many_clients,
            "session_setting": session_setting,
            "listen_notify": listens,
            "temporary_table": temporary_table,
        }
    )
