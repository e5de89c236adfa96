"""How many, in what order, and for how long."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import psycopg
import pytest
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.wire import WireClient, query, startup
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]
BACKEND = "SELECT pg_backend_pid()"


def test_no_more_servers_than_the_pool_size(make_pooler: MakePooler, postgres: PostgresServer) -> None:
    pooler = make_pooler(default_pool_size=3)
    with ExitStack() as stack:
        clients = [stack.enter_context(pooler.wire(application_name="pool-size")) for _ in range(12)]
        for client in clients[:3]:
            client.ask("BEGIN")
        for client in clients[3:]:
            client.say(query("SELECT pg_sleep(0.1)"))
        eventually(lambda: pooler.pool()["cl_waiting"] == 9)
        assert len(postgres.backends(application_name="pool-size")) == 3
        for client in clients[:3]:
            client.ask("COMMIT")
        for client in clients[3:]:
            client.expect("TDCZ")
        assert len(postgres.backends(application_name="pool-size")) == 3
        assert pooler.pool()["sv_idle"] == 3


def test_the_size_of_a_database_beats_the_default(make_pooler: MakePooler) -> None:
    pooler = make_pooler(databases={"app": "host=127.0.0.1 port={port} pool_size=1"}, default_pool_size=5)
    with pooler.wire() as one, pooler.wire() as two:
        one.ask("BEGIN")
        two.say(query("SELECT 1"))
        two.expect_silence()
        one.ask("COMMIT")
        two.expect("TDCZ")


def test_waiting_clients_are_served_in_the_order_they_came(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    holder = pooler.wire()
    holder.ask("CREATE TABLE IF NOT EXISTS turns (place serial, who int)")
    holder.ask("TRUNCATE turns RESTART IDENTITY")
    clients = [pooler.wire() for _ in range(10)]
    holder.ask("BEGIN")
    for number, client in enumerate(clients):
        client.say(query(f"INSERT INTO turns (who) VALUES ({number})"))
        eventually(lambda n=number: pooler.pool()["cl_waiting"] == n + 1)  # type: ignore[misc]
    holder.ask("COMMIT")
    for client in clients:
        client.expect("CZ")
        client.close()
    assert holder.ask("SELECT who FROM turns ORDER BY place") == [[str(n).encode()] for n in range(10)]
    holder.ask("DROP TABLE turns")
    holder.close()


def test_a_client_that_waits_too_long_is_told_so(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as holder, pooler.wire() as waiting:
        holder.ask("BEGIN")
        pooler.reload(query_wait_timeout=1)
        waiting.say(query("SELECT 1"))
        error = waiting.until("E")[-1]
        assert error.fields["M"] == "query_wait_timeout"
        assert error.fields["S"] == "FATAL"
        waiting.expect_closed()
        assert holder.ask("SELECT 1") == [[b"1"]]


def test_one_client_too_many_is_refused_by_name_and_the_others_stay(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_client_conn=3)
    clients = [pooler.wire() for _ in range(3)]
    with WireClient(pooler.port) as fourth:
        fourth.say(startup(user="alice", database="app"))
        assert "no more connections allowed (max_client_conn)" in fourth.until("E")[-1].fields["M"]
        fourth.expect_closed()
    for client in clients:
        assert client.ask("SELECT 1") == [[b"1"]]
    assert pooler.console("SHOW VERSION"), "the console is exempt"
    clients.pop().close()
    eventually(lambda: connects(pooler), "a place for a new client")
    for client in clients:
        client.close()


def test_too_many_clients_has_its_own_sqlstate(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_client_conn=1)
    with pooler.wire(), WireClient(pooler.port) as second:
        second.say(startup(user="alice", database="app"))
        assert second.until("E")[-1].fields["C"] == "53300"


def test_max_db_connections_holds_over_the_pools_of_a_database(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=5, max_db_connections=2)
    with pooler.wire("alice") as one, pooler.wire("bob") as two, pooler.wire("carol") as three:
        one.ask("BEGIN")
        two.ask("BEGIN")
        three.say(query("SELECT 1"))
        three.expect_silence()
        one.ask("COMMIT")
        three.expect("TDCZ")
        two.ask("COMMIT")


def test_an_idle_server_is_closed_in_time(make_pooler: MakePooler, postgres: PostgresServer) -> None:
    pooler = make_pooler(server_idle_timeout=1)
    with pooler.connect(application_name="idle-server") as connection:
        connection.execute("SELECT 1")
        eventually(lambda: pooler.pool()["sv_idle"] == 0)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_old_server_is_replaced_between_transactions(make_pooler: MakePooler) -> None:
    pooler = make_pooler(server_lifetime=1, default_pool_size=1)
    with pooler.connect() as connection:
        with connection.transaction():
            first = connection.execute(BACKEND).fetchone()
            time.sleep(2)
            assert connection.execute(BACKEND).fetchone() == first, "never within a transaction"
        eventually(lambda: connection.execute(BACKEND).fetchone() != first)


def test_min_pool_size_is_kept_while_a_client_is_there(make_pooler: MakePooler) -> None:
    pooler = make_pooler(min_pool_size=3)
    with pooler.connect():
        eventually(lambda: pooler.pool()["sv_idle"] + pooler.pool()["sv_used"] == 3)


def test_an_idle_transaction_is_ended(make_pooler: MakePooler) -> None:
    pooler = make_pooler(idle_transaction_timeout=1, default_pool_size=1)
    with pooler.wire() as client, pooler.connect() as other:
        client.ask("BEGIN")
        assert client.until("E")[-1].fields["M"] == "idle transaction timeout"
        client.expect_closed()
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_an_idle_client_is_sent_away(make_pooler: MakePooler) -> None:
    pooler = make_pooler(client_idle_timeout=1)
    with pooler.wire() as client:
        client.ask("SELECT 1")
        assert client.until("E")[-1].fields["M"] == "client_idle_timeout"
        client.expect_closed()


def test_a_query_that_runs_too_long_is_ended(make_pooler: MakePooler, postgres: PostgresServer) -> None:
    pooler = make_pooler(query_timeout=1)
    with pooler.wire() as client:
        client.say(query("SELECT pg_sleep(30)"))
        assert client.until("E")[-1].fields["M"] == "query timeout"
        client.expect_closed()
    eventually(lambda: not postgres.backends(state="active"), "the query ended at the server too")


def test_a_client_that_never_finishes_its_login_is_sent_away(make_pooler: MakePooler) -> None:
    pooler = make_pooler(client_login_timeout=1)
    with WireClient(pooler.port) as silent, WireClient(pooler.port) as half:
        half.say(startup(user="alice", database="app")[:11])
        for client in (silent, half):
            assert not {item.type for item in client.until_closed()} - {"E"}
    with pooler.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_never_answers_a_login_is_given_up(make_pooler: MakePooler) -> None:
    def script(session: Session) -> None:
        session.read_startup()
        session.until_closed()

    with FakePostgres(script) as fake:
        pooler = make_pooler(server_port=fake.port, server_connect_timeout=1, query_wait_timeout=3)
        with WireClient(pooler.port) as client:
            client.say(startup(user="alice", database="app"))
            assert client.login_error("alice", SECRETS["alice"])["S"] == "FATAL"
        assert len(fake.sessions) >= 2, "it is tried again"


def test_clients_wait_while_postgresql_is_down_and_go_on_when_it_is_back(
    make_pooler: MakePooler, fresh_postgres: PostgresServer
) -> None:
    pooler = make_pooler(server_port=fresh_postgres.port, server_login_retry=0.5)
    with pooler.wire() as client:
        client.ask("SELECT 1")
        fresh_postgres.stop("fast")
        client.say(query("SELECT 2"))
        client.expect_silence(1.0)
        fresh_postgres.start()
        assert client.until("Z")[1].values == [b"2"]


def test_an_error_or_notice_from_an_idle_server_takes_it_out_of_the_pool(make_pooler: MakePooler) -> None:
    def script(session: Session) -> None:
        session.accept_login()
        if session.number == 0:
            session.reply(session.hear())
            time.sleep(0.3)
            session.refuse("57P01", "terminating connection due to administrator command")
            return
        session.serve()

    with FakePostgres(script) as fake:
        pooler = make_pooler(server_port=fake.port, default_pool_size=1)
        with pooler.wire() as client:
            client.ask("SELECT 1")
            eventually(lambda: pooler.pool()["sv_idle"] == 0)
            assert client.ask("SELECT 1") == [[b"1"]]
            assert len(fake.sessions) == 2


def test_a_small_pool_grows_to_its_size_under_load_and_no_further(make_pooler: MakePooler) -> None:
    with FakePostgres() as fake:
        pooler = make_pooler(server_port=fake.port, default_pool_size=5)
        clients = [pooler.wire() for _ in range(5)]
        for client in clients:
            client.ask("SELECT 1")
        assert 1 <= len(fake.sessions) <= 5
        for client in clients:
            client.close()


def test_the_refused_client_learns_why_in_psycopg_too(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_client_conn=1)
    with pooler.connect(), pytest.raises(psycopg.OperationalError, match="no more connections allowed"):
        pooler.connect()


def connects(pooler: PoolerProcess) -> bool:
    pooler.connect().close()
    return True
