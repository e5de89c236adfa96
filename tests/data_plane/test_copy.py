"""COPY in its corners, and the old function call message: each ends where PostgreSQL would end it, and frees its server."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import psycopg
import pytest
from tests.pooler.process import PoolerProcess, eventually
from tests.pooler.wire import (
    WireClient,
    bind,
    copy_data,
    copy_done,
    copy_fail,
    execute,
    flush,
    message,
    parse,
    query,
    sync,
    terminate,
)
from tests.postgres.server import PostgresServer

SIMPLE = query("COPY copied FROM STDIN")
EXTENDED = parse("", "COPY copied FROM STDIN") + bind("") + execute() + sync()


@pytest.fixture(scope="module")
def process(postgres: PostgresServer) -> Iterator[PoolerProcess]:
    with PoolerProcess(postgres.port, settings={"default_pool_size": 1}) as pooler:
        yield pooler


@pytest.fixture
def pooler(process: PoolerProcess) -> Iterator[PoolerProcess]:
    """One server, and a table to copy to; in the end the server must be free."""
    with process.wire() as owner:
        owner.ask("CREATE TABLE copied (n int)")
    yield process
    with process.wire() as owner:
        owner.ask("DROP TABLE copied")
    eventually(lambda: process.pool()["sv_idle"] == 1)


def count(client: WireClient) -> int:
    return int(client.ask("SELECT count(*) FROM copied")[0][0] or 0)


@pytest.mark.parametrize("start", [SIMPLE, EXTENDED], ids=["simple", "extended"])
@pytest.mark.parametrize("flight", [True, False], ids=["one flight", "step by step"])
@pytest.mark.parametrize("end", ["done", "fail", "error", "error before more data"])
def test_copy_from_stdin_ends_well(pooler: PoolerProcess, start: bytes, flight: bool, end: str) -> None:
    rows = [copy_data(b"1\n"), flush(), copy_data(b"2\n")]
    if end.startswith("error"):
        rows.append(copy_data(b"not a number\n"))
    if end == "error before more data":
        rows += [copy_data(b"3\n" * 50_000)] * 20
    rows.append(copy_fail("no") if end == "fail" else copy_done())
    with pooler.wire() as client:
        opening = "G" if start is SIMPLE else "12G"
        if flight and start is EXTENDED:
            client.say(start[: -len(sync())], *rows, sync())
        elif flight:
            client.say(start, *rows)
        else:
            client.say(start)
            client.expect(opening)
            opening = ""
            for row in rows:
                client.say(row)
            if start is EXTENDED:
                client.say(sync())
        heard = client.expect(opening + ("CZ" if end == "done" else "EZ"))
        if end != "done":
            assert heard[-2].fields["C"] == ("57014" if end == "fail" else "22P02")
        assert count(client) == (2 if end == "done" else 0)


def test_syncs_during_a_copy_are_not_answered(pooler: PoolerProcess) -> None:
    with pooler.wire() as client:
        client.say(EXTENDED)
        client.expect("12G")
        client.say(sync(), copy_data(b"1\n"), sync(), flush(), copy_done(), sync())
        client.expect("CZ")
        client.expect_silence(0.2)
        assert count(client) == 1


def test_copy_in_the_middle_of_a_query_of_several_statements(pooler: PoolerProcess) -> None:
    with pooler.wire() as client:
        client.say(query("SELECT 1; COPY copied FROM STDIN; COPY copied TO STDOUT; COPY copied FROM STDIN; SELECT 2"))
        client.expect("TDCG")
        client.say(copy_data(b"1\n2\n"), copy_done())
        client.expect("CHddcCG")
        client.say(copy_data(b"3\n"), copy_done())
        client.expect("CTDCZ")
        assert count(client) == 3


def test_copy_out_that_fails_on_the_way(pooler: PoolerProcess) -> None:
    with pooler.wire() as client:
        client.say(query("COPY (SELECT 1000 / (500 - n) FROM generate_series(1, 1000) AS n) TO STDOUT"))
        heard = client.until("Z")
        assert {item.type for item in heard[:-2]} == {"H", "d"}
        assert heard[-2].fields["C"] == "22012"
        assert client.ask("SELECT 1") == [[b"1"]]


@pytest.mark.parametrize("how", ["in silence", "with a word", "in the middle of a row"])
def test_a_client_that_leaves_while_it_copies_leaves_nothing_behind(pooler: PoolerProcess, how: str) -> None:
    with pooler.wire() as client:
        client.say(SIMPLE)
        client.expect("G")
        client.say(copy_data(b"1\n"))
        if how == "with a word":
            client.say(terminate())
        elif how == "in the middle of a row":
            client.say(copy_data(b"2\n" * 1000)[:500])
    with pooler.wire() as other:
        assert count(other) == 0


def test_a_message_that_has_no_place_in_a_copy_ends_it(pooler: PoolerProcess) -> None:
    with pooler.wire() as client:
        client.say(SIMPLE)
        client.expect("G")
        client.say(copy_data(b"1\n"), query("SELECT 1"))
        assert client.until("E")[-1].fields["C"] == "08P01"
    with pooler.wire() as other:
        assert count(other) == 0


def test_a_large_copy_from_and_to_a_named_statement(pooler: PoolerProcess) -> None:
    line = b"1234567890\n" * 5_000
    with pooler.wire() as client:
        client.say(parse("into", "COPY copied FROM STDIN"), parse("out", "COPY copied TO STDOUT"), sync())
        client.expect("11Z")
        client.say(bind("into"), execute(), sync())
        client.expect("2G")
        for _ in range(20):
            client.say(copy_data(line))
        client.say(copy_done(), sync())
        client.expect("CZ")
        client.say(bind("out"), execute(), sync())
        heard = client.until("Z")
        assert sum(len(item.body) for item in heard if item.type == "d") == 20 * len(line)


def call(function: int, *arguments: bytes | None) -> bytes:
    """A FunctionCall with everything in binary."""
    body = struct.pack("!ihhh", function, 1, 1, len(arguments))
    for argument in arguments:
        body += struct.pack("!i", -1) if argument is None else struct.pack("!i", len(argument)) + argument
    return message("F", body + struct.pack("!h", 1))


def test_function_calls(pooler: PoolerProcess) -> None:
    with pooler.connect() as connection:
        found = {
            name: connection.execute("SELECT %s::regprocedure::oid", [name]).fetchone()[0]  # type: ignore[index]
            for name in ("int4pl(int4,int4)", "int4div(int4,int4)")
        }
    plus, divide = found.values()
    seven, zero = struct.pack("!i", 7), struct.pack("!i", 0)
    with pooler.wire() as client:
        client.say(call(plus, seven, seven))
        assert client.expect("VZ")[0].body == struct.pack("!ii", 4, 14)
        client.say(call(divide, seven, zero), call(plus, seven, None), call(plus, seven, zero))
        heard = client.expect("EZVZVZ")
        assert heard[0].fields["C"] == "22012"
        assert heard[2].body == struct.pack("!i", -1)
        client.say(query("BEGIN"), call(plus, seven, seven))
        assert client.expect("CZVZ")[3].body == b"T"
        client.say(query("COMMIT"))
        client.expect("CZ")


def test_psycopg_copies_in_a_pipeline_of_other_work(pooler: PoolerProcess) -> None:
    with pooler.connect() as connection:
        for n in range(5):
            with connection.cursor().copy("COPY copied FROM STDIN") as copy:
                copy.write_row((n,))
            assert connection.execute("SELECT count(*) FROM copied").fetchone() == (n + 1,)
        with (
            pytest.raises(psycopg.errors.InvalidTextRepresentation),
            connection.cursor().copy("COPY copied FROM STDIN") as copy,
        ):
            copy.write("x\n")
        assert connection.execute("SELECT count(*) FROM copied").fetchone() == (5,)
