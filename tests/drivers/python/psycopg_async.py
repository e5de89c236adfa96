"""What psycopg 3 does differently under asyncio: waiting, cancelling a task, pipelines, COPY, notifications."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
from psycopg import errors
from suite import BIG, BROKEN_COPY, COPY_LINES, EVERY_BYTE, MODE, VALUES, run_async, same

Connection = psycopg.AsyncConnection[Any]


async def connect(**options: Any) -> Connection:
    return await psycopg.AsyncConnection.connect("", **{"autocommit": True, **options})


async def one(on: Connection, sql: str, *parameters: object, **options: Any) -> Any:
    row = await (await on.execute(sql.encode(), parameters or None, **options)).fetchone()
    assert row is not None
    return row[0]


async def raises(kind: type[psycopg.Error], action: Any) -> None:
    try:
        await action
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


async def connects() -> None:
    async with await connect() as conn:
        same("who", await one(conn, "SELECT current_user || '@' || current_database()"), "alice@app")
        same("application", await one(conn, "SHOW application_name"), "driver-suite")


async def commits() -> None:
    async with await connect() as conn, await connect() as other:
        await conn.execute("DROP TABLE IF EXISTS drv_commit")
        async with conn.transaction():
            await conn.execute("CREATE TABLE drv_commit (x int)")
            await conn.execute("INSERT INTO drv_commit SELECT generate_series(1, %s)", [3])
        same("rows", await one(conn, "SELECT count(*) FROM drv_commit"), 3)
        same("rows elsewhere", await one(other, "SELECT count(*) FROM drv_commit"), 3)


async def rolls_back() -> None:
    async with await connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_rollback")
        await conn.execute("CREATE TABLE drv_rollback (x int)")
        async with conn.transaction(force_rollback=True):
            await conn.execute("INSERT INTO drv_rollback VALUES (1)")
        same("rows", await one(conn, "SELECT count(*) FROM drv_rollback"), 0)


async def savepoint() -> None:
    async with await connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_savepoint")
        await conn.execute("CREATE TABLE drv_savepoint (x int PRIMARY KEY)")

        async def inner() -> None:
            async with conn.transaction():
                await conn.execute("INSERT INTO drv_savepoint VALUES (2)")
                await conn.execute("INSERT INTO drv_savepoint VALUES (%s)", [1])

        async with conn.transaction():
            await conn.execute("INSERT INTO drv_savepoint VALUES (1)")
            await raises(errors.UniqueViolation, inner())
            await conn.execute("INSERT INTO drv_savepoint VALUES (3)")
        same("rows", await one(conn, "SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint"), "1,3")


async def prepared_reused() -> None:
    async with await connect() as conn:
        for i in range(50):
            async with conn.transaction():
                same("twice", await one(conn, "SELECT 2 * %s::int", i, prepare=True), 2 * i)
            same("twice", await one(conn, "SELECT 2 * %s::int", -i, prepare=True), -2 * i)


async def prepared_many() -> None:
    async with await connect() as conn:
        conn.prepared_max = 12
        for turn in range(2):
            for i in range(20):
                same("sum", await one(conn, f"SELECT {i * 1000} + %s::int", turn, prepare=True), i * 1000 + turn)


async def prepared_elsewhere() -> None:
    async with await connect() as conn, await connect() as first, await connect() as second:
        whose = "SELECT pg_backend_pid() + %s::int"
        await first.execute("BEGIN")
        here = await one(conn, whose, 0, prepare=True)
        await second.execute("BEGIN")
        await first.execute("COMMIT")
        there = await one(conn, whose, 0, prepare=True)
        await second.execute("COMMIT")
    assert MODE == "session" or here != there, f"both ran on server {here}"


async def prepared_replanned() -> None:
    async with await connect() as conn, await connect() as other:
        await conn.execute("DROP TABLE IF EXISTS drv_replanned")
        await conn.execute("CREATE TABLE drv_replanned AS SELECT 1 AS a")
        plan = "SELECT a FROM drv_replanned WHERE a = %s"
        same("before", await one(conn, plan, 1, prepare=True), 1)
        await other.execute("ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'")
        same("after", await one(conn, plan, 1, prepare=True), 1)


async def values(*, binary: bool) -> None:
    async with await connect() as conn:
        for kind, text in VALUES:
            same(kind, await one(conn, f"SELECT %s::text::{kind}::text", text, binary=binary), text)
        mark = "b" if binary else "t"
        same("bytea", await one(conn, f"SELECT %{mark}::bytea", EVERY_BYTE, binary=binary), EVERY_BYTE)


async def copy_in() -> None:
    async with await connect() as conn, conn.cursor() as cursor:
        await conn.execute("DROP TABLE IF EXISTS drv_copy_in")
        await conn.execute("CREATE TABLE drv_copy_in (id int8, t text)")
        async with cursor.copy("COPY drv_copy_in FROM STDIN") as copy:
            for line in COPY_LINES:
                await copy.write(line + "\n")
        same("there", await one(conn, "SELECT count(*) || ' ' || sum(id) FROM drv_copy_in"), "10000 49995000")


async def copy_out() -> None:
    async with await connect() as conn, conn.cursor() as cursor:
        async with cursor.copy("COPY (SELECT i, 'row ' || i FROM generate_series(0, 9999) i) TO STDOUT") as copy:
            lines = b"".join([bytes(part) async for part in copy]).decode().splitlines()
        same("lines", lines, COPY_LINES)
        same("next", await one(conn, "SELECT 1"), 1)


async def copy_broken() -> None:
    async with await connect() as conn, conn.cursor() as cursor:
        await conn.execute("DROP TABLE IF EXISTS drv_copy_broken")
        await conn.execute("CREATE TABLE drv_copy_broken (id int)")

        async def bad_row() -> None:
            async with cursor.copy("COPY drv_copy_broken FROM STDIN") as copy:
                for part in BROKEN_COPY:
                    await copy.write(part)

        await raises(errors.InvalidTextRepresentation, bad_row())
        same("rows", await one(conn, "SELECT count(*) FROM drv_copy_broken"), 0)


async def cancels() -> None:
    async with await connect() as conn:
        for _ in range(3):
            began = time.monotonic()
            task = asyncio.create_task(conn.execute("SELECT pg_sleep(15)"))
            await asyncio.sleep(0.2)
            task.cancel()  # psycopg sends a cancel request and waits for the server's answer
            try:
                await task
                raise AssertionError("the query was not cancelled")
            except asyncio.CancelledError:
                pass
            assert time.monotonic() - began < 8
            same("next", await one(conn, "SELECT 1"), 1)


async def pipelines() -> None:
    async with await connect() as conn:
        async with conn.pipeline():
            cursors = [await conn.execute("SELECT %s::int * 3", [i]) for i in range(200)]
            same("answers", [await cursor.fetchone() for cursor in cursors], [(i * 3,) for i in range(200)])
        async with conn.pipeline() as pipeline:
            cursors = []
            for i in range(50):
                cursors.append(await conn.execute("SELECT %s::int", [i], prepare=i % 2 == 0))
                await pipeline.sync()
            same("with many syncs", [await cursor.fetchone() for cursor in cursors], [(i,) for i in range(50)])


async def pipeline_broken() -> None:
    async with await connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_pipeline")
        await conn.execute("CREATE TABLE drv_pipeline (x int PRIMARY KEY)")

        async def batch() -> None:
            async with conn.pipeline():
                for x in (1, 2, 1, 3):
                    await conn.execute("INSERT INTO drv_pipeline VALUES (%s)", [x], prepare=True)

        await raises(errors.UniqueViolation, batch())
        same("rows", await one(conn, "SELECT count(*) FROM drv_pipeline"), 0)


async def unique_violation() -> None:
    async with await connect(autocommit=False) as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_unique")
        await conn.execute("CREATE TABLE drv_unique (x int PRIMARY KEY)")
        await conn.commit()
        await conn.execute("INSERT INTO drv_unique VALUES (1)")
        await raises(errors.UniqueViolation, conn.execute("INSERT INTO drv_unique VALUES (%s)", [1]))
        await raises(errors.InFailedSqlTransaction, conn.execute("SELECT 1"))
        await conn.rollback()
        same("rows", await one(conn, "SELECT count(*) FROM drv_unique"), 0)


async def syntax_error() -> None:
    async with await connect() as conn:
        for _ in range(5):
            await raises(errors.SyntaxError, conn.execute("SELEKT 1"))
            await raises(errors.SyntaxError, conn.execute("SELEKT %s", [1], prepare=True))
            same("next", await one(conn, "SELECT 1"), 1)


async def large_rows() -> None:
    async with await connect() as conn:
        cursor = await conn.execute("SELECT repeat(chr(96 + i), 4000000) FROM generate_series(1, 4) i")
        same("large", [text for (text,) in await cursor.fetchall()], [letter * 4_000_000 for letter in "abcd"])
        total = 0
        async for i, _ in conn.cursor().stream("SELECT i, md5(i::text) FROM generate_series(1, 50000) i"):
            total += i
        same("sum", total, 50_000 * 50_001 // 2)


async def large_parameter() -> None:
    async with await connect() as conn:
        same("there and back", await one(conn, "SELECT %s::text || 'x'", BIG), BIG + "x")


async def cursor() -> None:
    async with await connect() as conn, conn.transaction(), conn.cursor("pieces") as pieces:
        pieces.itersize = 100
        await pieces.execute("SELECT generate_series(1, 250)")
        same("rows", len([row async for row in pieces]), 250)


async def notices() -> None:
    heard: list[str | None] = []
    async with await connect() as conn:
        conn.add_notice_handler(lambda notice: heard.append(notice.message_primary))
        await conn.execute("DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$")
    same("notices", heard, ["hear this", "and that"])


async def multi_statement() -> None:
    async with await connect() as conn:
        cursor = await conn.execute("SELECT 1; SELECT 'two', 'deux'")
        same("first", await cursor.fetchall(), [(1,)])
        assert cursor.nextset()
        same("second", await cursor.fetchall(), [("two", "deux")])
        await raises(errors.DivisionByZero, conn.execute("SELECT 1; SELECT 1/0; SELECT 3"))


async def tracked_setting() -> None:
    async with await connect() as conn, await connect() as other:
        plain = await one(other, "SHOW TimeZone")
        await conn.execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(5):
            same("other", await one(other, "SHOW TimeZone"), plain)
            same("ours", await one(conn, "SHOW TimeZone"), "Asia/Tokyo")


async def many_clients() -> None:
    async def count() -> None:
        async with await connect() as own:
            for _ in range(25):
                await own.execute("UPDATE drv_counter SET n = n + %s", [1])

    async with await connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_counter")
        await conn.execute("CREATE TABLE drv_counter AS SELECT 0 AS n")
        await asyncio.gather(*(count() for _ in range(8)))
        same("counted", await one(conn, "SELECT n FROM drv_counter"), 200)


async def session_setting() -> None:
    async with await connect() as conn:
        await conn.execute("SET work_mem = '1234kB'")
        same("work_mem", await one(conn, "SHOW work_mem"), "1234kB")


async def listens() -> None:
    async with await connect() as conn, await connect() as other:
        await conn.execute("LISTEN drv_channel")
        await other.execute("SELECT pg_notify('drv_channel', %s)", ["hello"])
        heard = [(said.channel, said.payload) async for said in conn.notifies(timeout=10, stop_after=1)]
        same("heard", heard, [("drv_channel", "hello")])


async def temporary_table() -> None:
    async with await connect() as conn:
        await conn.execute("CREATE TEMPORARY TABLE drv_temporary AS SELECT 7 AS x")
        same("kept", await one(conn, "SELECT x FROM drv_temporary"), 7)


if __name__ == "__main__":
    asyncio.run(
        run_async(
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
    )
