"""The suite in asyncpg's own words."""

from __future__ import annotations

import asyncio
import datetime
import io
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from suite import BIG, BROKEN_COPY, COPY_LINES, EVERY_BYTE, MODE, VALUES, run_async, same


@asynccontextmanager
async def connect(**options: Any) -> AsyncIterator[Any]:
    settings = {"application_name": os.environ["PGAPPNAME"]}
    connection = await asyncpg.connect(server_settings=settings, timeout=15, **options)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


async def raises(kind: type[Exception], action: Any) -> None:
    try:
        await action
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


async def connects() -> None:
    async with connect() as conn:
        same("who", await conn.fetchval("SELECT current_user || '@' || current_database()"), "alice@app")
        same("application", await conn.fetchval("SHOW application_name"), "driver-suite")


async def commits() -> None:
    async with connect() as conn, connect() as other:
        await conn.execute("DROP TABLE IF EXISTS drv_commit")
        async with conn.transaction():
            await conn.execute("CREATE TABLE drv_commit (x int)")
            await conn.execute("INSERT INTO drv_commit SELECT generate_series(1, $1::int)", 3)
        same("rows", await conn.fetchval("SELECT count(*) FROM drv_commit"), 3)
        same("rows elsewhere", await other.fetchval("SELECT count(*) FROM drv_commit"), 3)


async def rolls_back() -> None:
    async with connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_rollback; CREATE TABLE drv_rollback (x int)")
        transaction = conn.transaction(isolation="serializable")
        await transaction.start()
        same("isolation", await conn.fetchval("SHOW transaction_isolation"), "serializable")
        await conn.execute("INSERT INTO drv_rollback VALUES (1)")
        await transaction.rollback()
        same("rows", await conn.fetchval("SELECT count(*) FROM drv_rollback"), 0)


async def savepoint() -> None:
    async with connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_savepoint; CREATE TABLE drv_savepoint (x int PRIMARY KEY)")

        async def inner() -> None:
            async with conn.transaction():
                await conn.execute("INSERT INTO drv_savepoint VALUES (2)")
                await conn.execute("INSERT INTO drv_savepoint VALUES ($1)", 1)

        async with conn.transaction():
            await conn.execute("INSERT INTO drv_savepoint VALUES (1)")
            await raises(asyncpg.UniqueViolationError, inner())
            await conn.execute("INSERT INTO drv_savepoint VALUES (3)")
        same("rows", await conn.fetchval("SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint"), "1,3")


async def prepared_reused() -> None:
    async with connect() as conn:
        twice = await conn.prepare("SELECT 2 * $1::int")
        for i in range(50):
            async with conn.transaction():
                same("twice", await twice.fetchval(i), 2 * i)
            same("twice", await twice.fetchval(-i), -2 * i)
        same("parameters", [kind.name for kind in twice.get_parameters()], ["int4"])


async def prepared_many() -> None:
    async with connect(statement_cache_size=12) as conn:
        for turn in range(2):
            for i in range(20):
                same("sum", await conn.fetchval(f"SELECT {i * 1000} + $1::int", turn), i * 1000 + turn)


async def prepared_elsewhere() -> None:
    async with connect() as conn, connect() as first, connect() as second:
        whose = await conn.prepare("SELECT pg_backend_pid() + $1::int")
        await first.execute("BEGIN")
        here = await whose.fetchval(0)
        await second.execute("BEGIN")
        await first.execute("COMMIT")
        there = await whose.fetchval(0)
        await second.execute("COMMIT")
    assert MODE == "session" or here != there, f"both ran on server {here}"


async def prepared_replanned() -> None:
    async with connect() as conn, connect() as other:
        await conn.execute("DROP TABLE IF EXISTS drv_replanned; CREATE TABLE drv_replanned AS SELECT 1 AS a")
        same("before", await conn.fetchval("SELECT a FROM drv_replanned WHERE a = $1", 1), 1)
        await other.execute("ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'")
        same("after", await conn.fetchval("SELECT a FROM drv_replanned WHERE a = $1", 1), 1)


async def parameters_text() -> None:
    async with connect() as conn:
        for kind, text in VALUES:
            same(kind, await conn.fetchval(f"SELECT $1::text::{kind}::text", text), text)
        # Types that asyncpg knows only through their text form, found by asking the catalogue.
        await conn.execute("DROP TYPE IF EXISTS drv_mood; CREATE TYPE drv_mood AS ENUM ('glad', 'sad')")
        await conn.set_type_codec("jsonb", encoder=str, decoder=str, schema="pg_catalog")
        same("enum", await conn.fetchval("SELECT $1::drv_mood", "sad"), "sad")
        same("jsonb", await conn.fetchval("SELECT $1::jsonb", '{"a": 1}'), '{"a": 1}')


async def parameters_binary() -> None:
    async with connect() as conn:
        sent = (
            -(2**62),
            0.1,
            EVERY_BYTE,
            [3, None],
            datetime.datetime(2026, 2, 28, 23, 59, 59, 123456, datetime.UTC),
            True,
            None,
        )
        kinds = ("int8", "float8", "bytea", "int4[]", "timestamptz", "bool", "text")
        sql = "SELECT " + ", ".join(f"${at}::{kind}" for at, kind in enumerate(kinds, 1))
        same("values", tuple(await conn.fetchrow(sql, *sent)), sent)


async def copy_in() -> None:
    async with connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_copy_in; CREATE TABLE drv_copy_in (id int8, t text)")
        source = io.BytesIO(("\n".join(COPY_LINES) + "\n").encode())
        same("copied", await conn.copy_to_table("drv_copy_in", source=source), "COPY 10000")
        same("binary", await conn.copy_records_to_table("drv_copy_in", records=[(10_000, "binary")]), "COPY 1")
        same("there", await conn.fetchval("SELECT count(*) || ' ' || sum(id) FROM drv_copy_in"), "10001 50005000")


async def copy_out() -> None:
    async with connect() as conn:
        found = io.BytesIO()
        sql = "SELECT i, 'row ' || i FROM generate_series(0, 9999) i"
        same("copied", await conn.copy_from_query(sql, output=found), "COPY 10000")
        same("lines", found.getvalue().decode().splitlines(), COPY_LINES)
        same("next", await conn.fetchval("SELECT 1"), 1)


async def copy_broken() -> None:
    async with connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_copy_broken; CREATE TABLE drv_copy_broken (id int)")
        source = io.BytesIO("".join(BROKEN_COPY).encode())
        await raises(asyncpg.InvalidTextRepresentationError, conn.copy_to_table("drv_copy_broken", source=source))
        same("rows", await conn.fetchval("SELECT count(*) FROM drv_copy_broken"), 0)


async def cancels() -> None:
    async with connect() as conn:
        for _ in range(3):
            began = time.monotonic()
            await raises(TimeoutError, conn.execute("SELECT pg_sleep(15)", timeout=0.2))
            assert time.monotonic() - began < 8
            same("next", await conn.fetchval("SELECT 1"), 1)


async def pipelines() -> None:
    async with connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_many; CREATE TABLE drv_many (x int, t text)")
        await conn.executemany("INSERT INTO drv_many VALUES ($1, $2)", [(i, "x" * i) for i in range(500)])
        same("rows", await conn.fetchval("SELECT sum(length(t)) FROM drv_many"), 499 * 500 // 2)


async def pipeline_broken() -> None:
    async with connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_pipeline; CREATE TABLE drv_pipeline (x int PRIMARY KEY)")
        rows = [(x,) for x in (*range(300), 1, 301)]
        await raises(asyncpg.UniqueViolationError, conn.executemany("INSERT INTO drv_pipeline VALUES ($1)", rows))
        same("rows", await conn.fetchval("SELECT count(*) FROM drv_pipeline"), 0)


async def unique_violation() -> None:
    async with connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_unique; CREATE TABLE drv_unique (x int PRIMARY KEY)")
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute("INSERT INTO drv_unique VALUES (1)")
        await raises(asyncpg.UniqueViolationError, conn.execute("INSERT INTO drv_unique VALUES ($1)", 1))
        await raises(asyncpg.InFailedSQLTransactionError, conn.execute("SELECT 1"))
        await transaction.rollback()
        same("rows", await conn.fetchval("SELECT count(*) FROM drv_unique"), 0)


async def syntax_error() -> None:
    async with connect() as conn:
        for _ in range(5):
            await raises(asyncpg.PostgresSyntaxError, conn.execute("SELEKT 1"))
            await raises(asyncpg.PostgresSyntaxError, conn.fetch("SELEKT $1", 1))
            same("next", await conn.fetchval("SELECT 1"), 1)


async def large_rows() -> None:
    async with connect() as conn:
        rows = await conn.fetch("SELECT repeat(chr(96 + i), 4000000) FROM generate_series(1, 4) i")
        same("large", [text for (text,) in rows], [letter * 4_000_000 for letter in "abcd"])
        rows = await conn.fetch("SELECT i, md5(i::text) FROM generate_series(1, 50000) i")
        same("sum", sum(row[0] for row in rows), 50_000 * 50_001 // 2)


async def large_parameter() -> None:
    async with connect() as conn:
        same("there and back", await conn.fetchval("SELECT $1::text || 'x'", BIG), BIG + "x")


async def cursor() -> None:
    async with connect() as conn, conn.transaction():
        rows = [row[0] async for row in conn.cursor("SELECT generate_series(1, $1::int)", 250, prefetch=100)]
        same("rows", rows, list(range(1, 251)))


async def notices() -> None:
    heard: list[str] = []
    async with connect() as conn:
        conn.add_log_listener(lambda _, said: heard.append(said.message))
        await conn.execute("DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$")
    same("notices", heard, ["hear this", "and that"])


async def multi_statement() -> None:
    async with connect() as conn:
        same(
            "last one's tag", await conn.execute("SELECT 1; CREATE TABLE IF NOT EXISTS drv_x (); SELECT 2"), "SELECT 1"
        )
        await raises(asyncpg.DivisionByZeroError, conn.execute("SELECT 1; SELECT 1/0; SELECT 3"))


async def tracked_setting() -> None:
    async with connect() as conn, connect() as other:
        plain = await other.fetchval("SHOW TimeZone")
        await conn.execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(5):
            same("other", await other.fetchval("SHOW TimeZone"), plain)
            same("ours", await conn.fetchval("SHOW TimeZone"), "Asia/Tokyo")


async def many_clients() -> None:
    async with connect() as conn:
        await conn.execute("DROP TABLE IF EXISTS drv_counter; CREATE TABLE drv_counter AS SELECT 0 AS n")
        async with asyncpg.create_pool(min_size=8, max_size=8) as pool:

            async def count() -> None:
                for _ in range(25):  # the pool says its reset query between two of them
                    await pool.execute("UPDATE drv_counter SET n = n + $1", 1)

            await asyncio.gather(*(count() for _ in range(8)))
        same("counted", await conn.fetchval("SELECT n FROM drv_counter"), 200)


async def session_setting() -> None:
    async with connect() as conn:
        await conn.execute("SET work_mem = '1234kB'")
        same("work_mem", await conn.fetchval("SHOW work_mem"), "1234kB")


async def listens() -> None:
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    async with connect() as conn, connect() as other:
        await conn.add_listener("drv_channel", lambda _, __, channel, said: heard.put_nowait((channel, said)))
        await other.execute("SELECT pg_notify('drv_channel', $1)", "hello")
        same("heard", await asyncio.wait_for(heard.get(), 10), ("drv_channel", "hello"))


async def temporary_table() -> None:
    async with connect() as conn:
        await conn.execute("CREATE TEMPORARY TABLE drv_temporary AS SELECT 7 AS x")
        same("kept", await conn.fetchval("SELECT x FROM drv_temporary"), 7)


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
                "parameters_text": parameters_text,
                "parameters_binary": parameters_binary,
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
