"""A cancel request hits the query it was meant for, or nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest
from tests.pooler.process import PoolerProcess, eventually
from tests.pooler.wire import WireClient, cancel_request, query
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_running_query_is_cancelled(make_pooler: MakePooler, postgres: PostgresServer, mode: str) -> None:
    pooler = make_pooler(pool_mode=mode, default_pool_size=1)
    with pooler.connect() as connection:

        def cancel_when_it_runs() -> None:
            eventually(lambda: postgres.backends(usename="alice", state="active"), "the query runs")
            connection.cancel_safe()

        canceling = threading.Thread(target=cancel_when_it_runs)
        canceling.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(600)")
        canceling.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_query_whose_client_vanished_is_cancelled(
    make_pooler: MakePooler, postgres: PostgresServer, mode: str
) -> None:
    pooler = make_pooler(pool_mode=mode, default_pool_size=1)
    running = "SELECT query FROM pg_stat_activity WHERE usename = 'alice' AND query LIKE '%600%' AND state = 'active'"
    client = pooler.wire()
    client.say(query("SELECT pg_sleep(600)"))
    eventually(lambda: postgres.execute(running))
    client.close()
    eventually(lambda: not postgres.execute(running), "it would run for ten minutes, for nobody")
    with pooler.connect() as another:
        assert another.execute("SELECT 1").fetchone() == (1,)


def test_a_cancel_for_an_idle_client_does_nothing(make_pooler: MakePooler, postgres: PostgresServer) -> None:
    pooler = make_pooler(default_pool_size=1)
    with (
        pooler.wire() as client,
        pooler.wire() as other,
        psycopg.connect(postgres.connection_string("bob"), autocommit=True) as holder,
    ):
        holder.execute("SELECT pg_advisory_lock(4711)")
        other.say(query("SELECT pg_advisory_xact_lock(4711)"))
        eventually(lambda: postgres.backends(usename="alice", wait_event_type="Lock"), "the query waits")
        send_cancel(pooler, client.pid, client.key)
        holder.execute("SELECT pg_advisory_unlock(4711)")
        other.expect("TDCZ")


def test_a_wrong_key_cancels_nothing(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client:
        client.say(query("SELECT pg_sleep(1)"))
        send_cancel(pooler, client.pid, client.key ^ 1)
        send_cancel(pooler, client.pid ^ 1, client.key)
        client.expect("TDCZ")


def test_late_cancels_never_hit_the_next_client(make_pooler: MakePooler) -> None:
    """One server, one client that cancels as its queries end, and another that must never notice. (PgBouncer 1.18 was gone
    in the middle of it, one time in five.)"""
    pooler = make_pooler(default_pool_size=1)
    stop = threading.Event()
    errors: list[BaseException] = []

    def innocent() -> None:
        try:
            with pooler.connect() as connection:
                while not stop.is_set():
                    connection.execute("SELECT pg_sleep(0.005)")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=innocent)
    thread.start()
    try:
        with pooler.wire() as client:
            for _ in range(100):
                client.say(query("SELECT pg_sleep(0.005)"))
                with WireClient(pooler.port) as canceller:
                    canceller.say(cancel_request(client.pid, client.key))
                    client.until("Z")
    finally:
        stop.set()
        thread.join(60)
    assert errors == []


def test_a_waiting_client_that_cancels_is_not_left_hanging(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as holder, pooler.wire() as waiting:
        holder.ask("BEGIN")
        waiting.say(query("SELECT 1"))
        eventually(lambda: pooler.pool()["cl_waiting"] == 1)
        send_cancel(pooler, waiting.pid, waiting.key)
        holder.ask("COMMIT")
        assert waiting.until("Z")[-1].body == b"I"


def test_many_cancels_at_once_end_many_queries_and_leave_the_pool_whole(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=4)
    clients = [pooler.wire() for _ in range(4)]
    for client in clients:
        client.say(query("SELECT pg_sleep(30)"))
    eventually(lambda: pooler.pool()["sv_active"] == 4)
    for client in clients:
        send_cancel(pooler, client.pid, client.key)
    for client in clients:
        assert client.until("E")[-1].fields["C"] == "57014"
        client.expect("Z")
        assert client.ask("SELECT 1") == [[b"1"]]
        client.close()
    eventually(lambda: pooler.pool()["sv_active"] == 0 and pooler.pool()["sv_active_cancel"] == 0)


def send_cancel(pooler: PoolerProcess, pid: int, key: int) -> None:
    """As libpq does it: say it, then wait until the other side hangs up."""
    with WireClient(pooler.port) as client:
        client.say(cancel_request(pid, key))
        client.expect_closed()
