"""What a client may keep: the session, the transaction, or the statement."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from tests.pooler.process import PoolerProcess, eventually
from tests.pooler.wire import query
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]
BACKEND = "SELECT pg_backend_pid()"


def test_session_mode_keeps_the_server_until_the_client_leaves(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pool_mode="session", default_pool_size=1)
    with pooler.connect() as first:
        backend = first.execute(BACKEND).fetchone()
        first.execute("SET work_mem = '1234kB'")
        second = pooler.wire()
        second.say(query("SHOW work_mem"))
        second.expect_silence(0.5)
        assert first.execute("SHOW work_mem").fetchone() == ("1234kB",)
        assert first.execute(BACKEND).fetchone() == backend
    rows = second.expect("TDCZ")
    assert rows[1].values != [b"1234kB"], "the session's setting leaked to the next client"
    second.close()


def test_session_mode_resets_the_server_before_the_next_client(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pool_mode="session", default_pool_size=1)
    with pooler.connect() as first:
        first.execute("CREATE TEMPORARY TABLE mine (x int)")
        first.execute("PREPARE p AS SELECT 1")
        backend = first.execute(BACKEND).fetchone()
    with pooler.connect() as second:
        assert second.execute(BACKEND).fetchone() == backend
        assert second.execute("SELECT to_regclass('mine')").fetchone() == (None,)
        assert second.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_an_empty_reset_query_resets_nothing(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pool_mode="session", default_pool_size=1, server_reset_query="")
    with pooler.connect() as first:
        first.execute("SET work_mem = '1234kB'")
    with pooler.connect() as second:
        assert second.execute("SHOW work_mem").fetchone() == ("1234kB",)


def test_what_a_client_leaves_open_is_rolled_back(make_pooler: MakePooler) -> None:
    """PgBouncer closes the server; we say ROLLBACK and keep it. Either way nothing is left of the transaction."""
    pooler = make_pooler(default_pool_size=1)
    client = pooler.wire()
    client.ask("BEGIN")
    client.ask("CREATE TABLE never_committed (x int)")
    client.close()
    with pooler.connect() as other:
        assert other.execute("SELECT to_regclass('never_committed')").fetchone() == (None,)
        assert other.execute("SELECT now() = statement_timestamp()").fetchone() == (True,), "a transaction is open"


def test_transaction_mode_shares_one_server_among_many_clients(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    clients = [pooler.connect() for _ in range(5)]
    backends = {client.execute(BACKEND).fetchone() for client in clients for _ in range(3)}
    assert len(backends) == 1
    for client in clients:
        client.close()


def test_transaction_mode_keeps_the_server_while_a_transaction_is_open(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.connect() as first, pooler.connect() as second:
        with first.transaction():
            backend = first.execute(BACKEND).fetchone()
            waiting = pooler.wire()
            waiting.say(query(BACKEND))
            waiting.expect_silence(0.5)
            assert first.execute(BACKEND).fetchone() == backend
        waiting.expect("TDCZ")
        assert second.execute(BACKEND).fetchone() == backend
        waiting.close()


def test_a_failed_transaction_keeps_the_server_until_rollback(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as client:
        client.ask("BEGIN")
        client.say(query("SELECT broken"))
        client.expect("EZ")
        assert pooler.pool()["sv_active"] == 1
        client.say(query("SELECT 1"))
        client.expect_error("25P02")
        client.expect("Z")
        client.ask("ROLLBACK")
        eventually(lambda: pooler.pool()["sv_idle"] == 1)


def test_statement_mode_runs_statements_and_refuses_transactions(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pool_mode="statement")
    with pooler.wire() as client:
        assert client.ask("SELECT 1") == [[b"1"]]
        client.say(query("BEGIN"))
        heard = client.until("E")
        assert heard[-1].fields["M"] == "transaction blocks not allowed in statement pooling mode"
        client.expect_closed()
    with pooler.connect() as other:
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_the_mode_of_a_user_beats_that_of_the_database_and_that_beats_the_global_one(make_pooler: MakePooler) -> None:
    databases = {"app": "host=127.0.0.1 port={port} pool_mode=session", "*": "host=127.0.0.1 port={port}"}
    pooler = make_pooler(databases=databases, users={"bob": "pool_mode=statement"})
    for user in ("alice", "bob"):
        pooler.connect(user).close()
    pooler.connect("alice", "other").close()
    rows = {(row["database"], row["user"]): row["pool_mode"] for row in pooler.console("SHOW POOLS")}
    assert rows["app", "alice"] == "session"
    assert rows["app", "bob"] == "statement"
    assert rows["other", "alice"] == "transaction"


def test_a_forced_user_makes_one_pool_for_everybody(make_pooler: MakePooler) -> None:
    pooler = make_pooler(
        databases={"app": "host=127.0.0.1 port={port} user=carol password=carol-password"}, default_pool_size=1
    )
    answers = set()
    for user in ("alice", "bob"):
        with pooler.connect(user) as connection:
            answers.add(connection.execute("SELECT current_user, pg_backend_pid()").fetchone())
    assert len(answers) == 1, answers
    assert "carol" in str(answers)


def test_databases_and_users_have_pools_of_their_own(make_pooler: MakePooler, postgres: PostgresServer) -> None:
    pooler = make_pooler(default_pool_size=1)
    connections = [pooler.connect(user, name) for user in ("alice", "bob") for name in ("app", "other")]
    backends = {connection.execute(BACKEND).fetchone() for connection in connections}
    assert len(backends) == 4
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_an_error_in_a_query_leaves_the_session_usable(make_pooler: MakePooler, mode: str) -> None:
    with make_pooler(pool_mode=mode).connect() as connection:
        with pytest.raises(psycopg.errors.UndefinedColumn):
            connection.execute("SELECT broken")
        assert connection.execute("SELECT 1").fetchone() == (1,)
