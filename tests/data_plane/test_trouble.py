"""What people look up when a pooler is in their way, seen with a real PostgreSQL: the words, the numbers, who is spared."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.pooler.process import PoolerProcess, eventually
from tests.pooler.wire import query
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]


def ends(pooler: PoolerProcess, reason: str) -> list[dict[str, Any]]:
    """The log's records of connections that ended for this reason."""
    return [line["record"] for line in pooler.records() if line["record"].get("close_reason") == reason]


def counted(pooler: PoolerProcess, metric: str, label: str) -> dict[str, float]:
    return {labels[label]: value for labels, value in pooler.metrics().get(metric, [])}


def test_too_many_clients_already_is_waited_out_or_told_at_the_deadline(
    make_pooler: MakePooler, make_postgres: Callable[..., PostgresServer]
) -> None:
    """T01, T16: 17 others hold all that 20 connections leave for ordinary users; ten clients come through the pooler."""
    server = make_postgres(settings={"max_connections": "20", "superuser_reserved_connections": "3"})
    server.start()
    pooler = make_pooler(server_port=server.port, query_wait_timeout=30, server_login_retry=0.3)
    answers: list[object] = []

    def ask() -> None:
        try:
            with pooler.connect() as connection:
                answers.append(connection.execute("SELECT 1").fetchone())
        except psycopg.OperationalError as error:
            answers.append((error.sqlstate, str(error)))

    def ten_ask() -> list[threading.Thread]:
        threads = [threading.Thread(target=ask, daemon=True) for _ in range(10)]
        for thread in threads:
            thread.start()
        return threads

    with contextlib.ExitStack() as others:
        for _ in range(17):
            others.enter_context(psycopg.connect(server.connection_string("bob")))
        threads = ten_ask()
        eventually(lambda: counted(pooler, "pgweir_server_login_errors_total", "sqlstate").get("53300", 0) >= 3)
        assert answers == []
        assert {row["limit"] for row in pooler.console("SHOW WAITERS")} == {"max_connections"}
    for thread in threads:
        thread.join(60)
    assert answers == [(1,)] * 10
    pooler.console("RECONNECT")
    eventually(lambda: server.backends(usename="alice") == [])
    pooler.reload(query_wait_timeout=1)
    with contextlib.ExitStack() as others:
        for _ in range(17):
            others.enter_context(psycopg.connect(server.connection_string("bob")))
        late = [others.enter_context(pooler.wire()) for _ in range(10)]
        asked = time.monotonic()
        for client in late:
            client.say(query("SELECT 1"))
        told = [client.until("E")[-1].fields for client in late]
        waited = time.monotonic() - asked
    assert {fields["C"] for fields in told} == {"53300"}
    assert all("clients already" in fields["M"] or "reserved" in fields["M"] for fields in told), told
    print(f"ten clients were told {waited:.2f} s after they asked; query_wait_timeout is 1 s")
    assert 0.9 < waited < 10


def test_which_of_postgresqls_timeouts_ended_a_session_is_in_the_log(
    make_pooler: MakePooler, make_postgres: Callable[..., PostgresServer]
) -> None:
    """T04: idle_session_timeout costs no client anything; idle_in_transaction_session_timeout is told in PostgreSQL's words."""
    server = make_postgres(settings={"idle_session_timeout": "400ms", "idle_in_transaction_session_timeout": "400ms"})
    server.start()
    pooler = make_pooler(server_port=server.port, options=["--json-log"])
    with pooler.wire() as client:
        client.ask("SELECT 1")
        eventually(lambda: ends(pooler, "server_timeout:57P05"), "PostgreSQL ends the idle session")
        assert client.ask("SELECT 2") == [[b"2"]]
        client.ask("BEGIN")
        assert client.until("E")[-1].fields["C"] == "25P03"
        client.expect_closed()
    assert {record["msg"][:2] for record in ends(pooler, "server_timeout:25P03")} == {"S-", "C-"}
    closed = counted(pooler, "pgweir_closed_connections_total", "reason")
    assert closed["server_timeout:25P03"] == 2
    assert closed["server_timeout:57P05"] >= 1


def test_a_killed_backend_is_one_line_with_the_pid_that_postgresql_knows(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    """T17: the line joins with PostgreSQL's log and with pg_stat_activity."""
    pooler = make_pooler(options=["--json-log"])
    with pooler.wire() as client:
        client.ask("BEGIN")
        pid = int(client.ask("SELECT pg_backend_pid()")[0][0] or 0)
        (row,) = [row for row in pooler.console("SHOW CLIENTS") if row["user"] == "alice"]
        postgres.execute(f"SELECT pg_terminate_backend({pid})")
        assert client.until("E")[-1].fields["C"] == "57P01"
        client.expect_closed()
    (line,) = [each for each in ends(pooler, "server_terminated:57P01") if each["msg"].startswith("S-")]
    assert (line["server_pid"], line["client_id"]) == (pid, row["id"])
    assert "57P01: terminating connection due to administrator command" in line["msg"]


def test_fifty_idle_clients_survive_a_crash_and_only_five_in_a_transaction_hear_of_it(
    make_pooler: MakePooler, fresh_postgres: PostgresServer
) -> None:
    """T07."""
    pooler = make_pooler(server_port=fresh_postgres.port, auth_type="trust", default_pool_size=6)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(pooler.wire()) for _ in range(50)]
        inside = [stack.enter_context(pooler.wire()) for _ in range(5)]
        for client in idle:
            client.ask("SELECT 1")
        for client in inside:
            client.ask("BEGIN")
        fresh_postgres.kill9()
        told = [[heard.fields["C"] for heard in client.until_closed() if heard.type == "E"][-1] for client in inside]
        assert set(told) <= {"08006", "57P01", "57P02"}
        fresh_postgres.start()
        assert [client.ask("SELECT 7") for client in idle] == [[[b"7"]]] * 50


def test_connecting_proves_that_postgresql_answers(make_pooler: MakePooler, fresh_postgres: PostgresServer) -> None:
    """T12, what `psql -c '\\q'` does: with nobody there it fails at the deadline, else one server was logged in."""
    pooler = make_pooler(server_port=fresh_postgres.port, query_wait_timeout=0.7, server_login_retry=0.2)
    fresh_postgres.kill9()
    started = time.monotonic()
    with pytest.raises(psycopg.OperationalError) as failed:
        pooler.connect()
    assert time.monotonic() - started > 0.5
    assert "Connection refused" in str(failed.value)
    fresh_postgres.start()
    pooler.reload(query_wait_timeout=20)
    pooler.connect().close()
    assert pooler.pool()["sv_idle"] == 1


def test_an_idle_transaction_loses_its_locks_and_the_pool_keeps_its_server(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    """T22."""
    pooler = make_pooler(idle_transaction_timeout=0.5, default_pool_size=1)
    with pooler.wire() as client, pooler.wire() as other:
        client.ask("BEGIN")
        client.ask("SELECT pg_advisory_xact_lock(2222)")
        pid = client.ask("SELECT pg_backend_pid()")
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2222"
        assert client.ask(held) == [[b"1"]]
        error = client.until("E")[-1].fields
        assert (error["C"], error["M"]) == ("25P03", "idle transaction timeout")
        client.expect_closed()
        assert other.ask("SELECT pg_backend_pid()") == pid
        assert postgres.execute(held) == [(0,)]
