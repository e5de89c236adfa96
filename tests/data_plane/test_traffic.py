"""Bytes in both directions: pipelines, COPY, rows of every size, and a reader that takes its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from tests.pooler.process import PoolerProcess, eventually, resident_bytes
from tests.pooler.wire import bind, copy_data, copy_done, copy_fail, execute, flush, parse, query, sync

MakePooler = Callable[..., PoolerProcess]


def test_a_pipeline_runs_in_one_go_and_in_order(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).connect() as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", [number]) for number in range(200)]
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(200)]


def test_pipelines_of_several_clients_over_one_server_do_not_mix(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    wrong: list[object] = []

    def run(mark: int) -> None:
        with pooler.connect() as connection:
            for _ in range(20):
                with connection.pipeline():
                    cursors = [connection.execute("SELECT %s::int, %s::int", [mark, n]) for n in range(20)]
                answers = [cursor.fetchone() for cursor in cursors]
                wrong.extend(answer for n, answer in enumerate(answers) if answer != (mark, n))

    threads = [threading.Thread(target=run, args=(mark,)) for mark in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_an_error_in_a_pipeline_skips_to_the_sync_and_no_further(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).wire() as client:
        client.say(
            parse("", "SELECT 1"), bind(""), execute(),
            parse("", "SELECT broken"), bind(""), execute(), sync(),
            parse("", "SELECT 2"), bind(""), execute(), sync(),
        )  # fmt: skip
        heard = client.until("Z") + client.until("Z")
        assert [item.type for item in heard] == [*"12DCEZ", *"12DCZ"]


def test_two_queries_in_one_packet_get_two_answers(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).wire() as client:
        client.say(query("SELECT 1"), query("SELECT 2"), query("BEGIN"), query("COMMIT"))
        client.expect("TDCZTDCZCZCZ")


def test_flush_without_sync_is_answered_at_once_and_keeps_the_server(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client:
        client.say(parse("", "SELECT 1"), bind(""), execute(), flush())
        client.expect("12DC")
        assert pooler.pool()["sv_active"] == 1
        client.say(sync())
        client.expect("Z")
        eventually(lambda: pooler.pool()["sv_active"] == 0)


def test_messages_arriving_byte_by_byte_are_understood(make_pooler: MakePooler) -> None:
    with make_pooler().wire() as client:
        for byte in query("SELECT 'slowly'") + parse("s", "SELECT 1") + bind("s") + execute() + sync():
            client.say(bytes([byte]))
            time.sleep(0.001)
        client.expect("TDCZ12DCZ")


def test_an_empty_query_and_several_statements_in_one_query(make_pooler: MakePooler) -> None:
    with make_pooler().wire() as client:
        client.say(query(""))
        client.expect("IZ")
        client.say(query("SELECT 1; SELECT 2; SELECT 3"))
        client.expect("TDCTDCTDCZ")


def test_copy_in_and_out(make_pooler: MakePooler) -> None:
    with make_pooler().connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("CREATE TEMPORARY TABLE lines (n int, t text) ON COMMIT DROP")
        with connection.cursor() as cursor, cursor.copy("COPY lines FROM STDIN") as copy:
            for n in range(20_000):
                copy.write_row((n, f"line {n}"))
        with connection.cursor() as cursor, cursor.copy("COPY lines TO STDOUT") as copy:
            rows = sum(1 for _ in copy.rows())
        assert rows == 20_000


def test_copy_that_fails_leaves_connection_and_server_usable(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client:
        client.ask("CREATE TABLE IF NOT EXISTS copy_target (n int)")
        client.say(query("COPY copy_target FROM STDIN"))
        client.expect("G")
        client.say(copy_data(b"not a number\n"), copy_data(b"2\n"), copy_done())
        client.expect_error("22P02")
        client.expect("Z")
        client.say(query("COPY copy_target FROM STDIN"))
        client.expect("G")
        client.say(copy_data(b"1\n"), copy_fail("changed my mind"))
        client.expect_error("57014", "changed my mind")
        client.expect("Z")
        assert client.ask("SELECT count(*) FROM copy_target") == [[b"0"]]
        client.ask("DROP TABLE copy_target")
        eventually(lambda: pooler.pool()["sv_idle"] == 1)


def test_copy_through_the_extended_protocol(make_pooler: MakePooler) -> None:
    with make_pooler(default_pool_size=1).wire() as client:
        client.ask("CREATE TABLE IF NOT EXISTS copy_extended (n int)")
        client.say(parse("", "COPY copy_extended FROM STDIN"), bind(""), execute(), sync())
        client.expect("12G")
        client.say(copy_data(b"1\n2\n"), copy_done(), sync())
        client.expect("CZ")
        assert client.ask("SELECT sum(n) FROM copy_extended") == [[b"3"]]
        client.ask("DROP TABLE copy_extended")


def test_64_mb_of_big_rows_reach_a_slow_reader_whole_and_without_filling_memory(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client:
        before = resident_bytes(pooler.pid)
        client.say(query("SELECT repeat('x', 1048576) FROM generate_series(1, 64)"))
        time.sleep(1.0)
        grown = resident_bytes(pooler.pid) - before
        assert grown < 24 * 2**20, f"{grown} bytes were read ahead of a client that reads nothing"
        client.expect("T")
        for _ in range(64):
            (row,) = client.expect("D")
            assert len(row.body) == 2 + 4 + 2**20
        client.expect("CZ")
    with pooler.connect() as other:
        assert other.execute("SELECT repeat('y', 5000000)").fetchone() == ("y" * 5_000_000,)


def test_a_big_query_reaches_the_server_whole(make_pooler: MakePooler) -> None:
    text = "x" * (8 * 2**20)
    with make_pooler().connect() as connection:
        assert connection.execute(f"SELECT length('{text}')").fetchone() == (len(text),)
        assert connection.execute("SELECT length(%s::text)", [text]).fetchone() == (len(text),)


@pytest.mark.parametrize("repeat", range(3))
def test_many_small_rows_for_several_clients_at_once(make_pooler: MakePooler, repeat: int) -> None:
    """Repeated: a server whose reading was paused for one client must not go to the next one paused."""
    pooler = make_pooler(default_pool_size=2)
    sums: list[int] = []

    def run() -> None:
        with pooler.connect() as connection:
            for _ in range(4):
                rows = connection.execute("SELECT n FROM generate_series(1, 50000) AS n").fetchall()
                sums.append(sum(n for (n,) in rows))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sums == [50000 * 50001 // 2] * 16


def test_a_client_that_leaves_in_the_middle_of_rows_harms_nobody(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    client = pooler.wire()
    client.say(query("SELECT repeat('x', 100000) FROM generate_series(1, 1000)"))
    client.expect("TD")
    client.close()
    with pooler.connect() as other:
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_notices_and_notifications_reach_the_client(make_pooler: MakePooler) -> None:
    with make_pooler(pool_mode="session").connect() as connection:
        heard: list[str | None] = []
        connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
        connection.execute("DO $$BEGIN RAISE NOTICE 'a word'; END$$")
        assert heard == ["a word"]
        connection.execute("LISTEN channel")
        connection.execute("NOTIFY channel, 'payload'")
        (notification,) = list(connection.notifies(timeout=10, stop_after=1))
        assert notification.payload == "payload"
