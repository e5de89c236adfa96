"""What pgpool's and pgbalancer's users count on, with a real PostgreSQL behind it. (The rules one by one: tests/pgweir.)"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.wire import WireClient, startup
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]
TRACKED = {"application_name": "relayed", "TimeZone": "Asia/Tokyo"}
RELAYED = {"work_mem": "3MB", "search_path": "pg_catalog", "statement_timeout": "77s"}


def backend(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return row[0]


def test_a_backend_is_reused_by_the_same_user_database_and_runtime_parameters_alone(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pool_mode="session", startup_parameters="relay")

    def pid(user: str = "alice", dbname: str = "app", **parameters: str) -> int:
        options = " ".join(f"-c {name}={value}" for name, value in parameters.items())
        with pooler.connect(user, dbname, **({"options": options} if options else {})) as connection:
            return backend(connection)

    first = pid()
    eventually(lambda: pooler.pool()["sv_idle"] == 1)
    assert pid() == first
    others = [pid("bob"), pid(dbname="postgres"), pid(geqo="off"), pid(geqo="on")]
    assert len({first, *others}) == 5
    # A client of another protocol version gets the same server: towards PostgreSQL there is one version, the pooler's.
    eventually(lambda: pooler.pool()["sv_idle"] >= 1)
    with WireClient(pooler.port) as client:
        client.log_in("alice", "app", SECRETS["alice"])
        assert int(client.ask("SELECT pg_backend_pid()")[0][0] or 0) == first


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_startup_parameters_and_options_reach_the_server(make_pooler: MakePooler, mode: str) -> None:
    pooler = make_pooler(pool_mode=mode, startup_parameters="relay")
    with pooler.wire(**TRACKED, **RELAYED, options="-c geqo=off") as client:
        for name, value in {**TRACKED, **RELAYED, "geqo": "off"}.items():
            assert client.ask(f"SHOW {name}") == [[value.encode()]]


def test_the_client_without_a_place_waits_is_counted_and_comes_in(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_client_conn=3, client_overflow="wait")
    with ExitStack() as places, WireClient(pooler.port) as late:
        first, *_ = [places.enter_context(pooler.wire()) for _ in range(3)]
        late.say(startup(user="alice", database="app"))
        late.expect_silence()
        assert pooler.metrics()["pgweir_clients_waiting_for_place"] == [({}, 1.0)]
        waiting = [row for row in pooler.console("SHOW WAITERS") if row["limit"] == "max_client_conn"]
        assert [(row["database"], row["user"]) for row in waiting] == [("app", "alice")]
        first.close()
        late.authenticate("alice", SECRETS["alice"])
        late.until("Z")
        assert late.ask("SELECT 1") == [[b"1"]]
        assert pooler.metrics()["pgweir_clients_waiting_for_place"] == [({}, 0.0)]


def test_a_reserved_connection_is_refused_as_postgresql_refuses(make_pooler: MakePooler) -> None:
    pooler = make_pooler(max_client_conn=4, reserved_connections=1)
    with ExitStack() as places, WireClient(pooler.port) as late:
        for _ in range(3):
            places.enter_context(pooler.wire())
        late.say(startup(user="alice", database="app"))
        error = late.expect_error("53300", "Sorry, too many clients already")
        assert "max_client_conn = 4" in error.fields["H"]


def test_a_database_that_is_not_cached_leaves_no_server_behind(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    pooler = make_pooler(pool_mode="session", uncached_databases="template1, postgres")
    for name in ("postgres", "app"):
        with pooler.connect(dbname=name, application_name="uncached") as connection:
            backend(connection)
    eventually(lambda: pooler.pool("postgres")["sv_idle"] + pooler.pool("postgres")["sv_active"] == 0)
    eventually(lambda: pooler.pool("app")["sv_idle"] == 1)


RESET_LIST = "SET lock_timeout = 0; RESET ALL; DISCARD ALL"


def test_nothing_of_a_session_meets_the_next_one_on_its_server(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pool_mode="session", default_pool_size=1, server_reset_query=RESET_LIST)
    with pooler.connect() as one:
        pid = backend(one)
        one.execute("SET work_mem = '5MB'")
        one.execute("CREATE TEMP TABLE left_behind ()")
        one.execute("PREPARE left_behind AS SELECT 1")
        one.execute("SELECT pg_advisory_lock(77)")
        one.execute("BEGIN")
    with pooler.connect() as two:
        assert backend(two) == pid
        rows = two.execute(
            "SELECT current_setting('work_mem') = '5MB', to_regclass('pg_temp.left_behind'),"
            " (SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'),"
            " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), pg_current_xact_id_if_assigned()"
        ).fetchone()
        assert rows == (False, None, 0, 0, None)
    pooler.reload(server_reset_query="DISCARD ALL; SELECT no_such_column")
    with pooler.connect() as three:
        backend(three)
    with pooler.connect() as four:
        assert backend(four) != pid


def test_the_lost_clients_server_is_closed_when_asked_for(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pool_mode="session", keep_server_of_lost_client=0)
    client = pooler.wire()
    client.ask("SELECT 1")
    client.close()  # without a Terminate
    eventually(lambda: pooler.pool()["sv_active"] + pooler.pool()["sv_idle"] == 0)
    assert "client_lost" in str(pooler.metrics()["pgweir_closed_connections_total"])


def test_a_silent_client_is_sent_away_with_pgpools_detail(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pool_mode="session")
    with pooler.wire() as client:
        client.ask("SELECT 1")
        pooler.reload(client_idle_limit=0.5)
        error = client.until("E")[-1].fields
        assert (error["C"], error["M"]) == ("57P05", "client_idle_limit")
        assert error["D"] == "child connection forced to terminate due to client_idle_limit:0.5 is reached"
    pooler.wait_for_log("closing because: client_idle_limit")


def test_the_kernels_queue_is_as_long_as_the_backlog_says_or_the_log_tells(make_pooler: MakePooler) -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    pooler = make_pooler(listen_backlog=96)
    assert _queue(pooler.port) == min(96, most)
    assert not pooler.log_contains("net.core.somaxconn")
    pooler = make_pooler(listen_backlog=most + 1)
    assert _queue(pooler.port) == most
    assert pooler.log_contains(f"listen_backlog = {most + 1}: the kernel queues {most} (net.core.somaxconn)")


def _queue(port: int) -> int:
    try:
        listed = subprocess.run(["ss", "-ltn"], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no `ss` on this machine")
    found = re.search(rf"LISTEN\s+\d+\s+(\d+)\s+127\.0\.0\.1:{port}\s", listed)
    assert found, listed
    return int(found[1])
