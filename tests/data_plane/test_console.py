"""The console answers as PgBouncer's does, so that every tool that asks it goes on working; and what is beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import psycopg
import pytest
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.wire import query
from tests.postgres.server import account

MakePooler = Callable[..., PoolerProcess]


def test_pools_count_clients_and_servers_by_state(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as active, pooler.wire() as waiting, pooler.wire():
        active.ask("BEGIN")
        waiting.say(query("SELECT 1"))
        eventually(lambda: pooler.pool()["cl_waiting"] == 1)
        row = pooler.pool()
        assert (row["cl_active"], row["sv_active"], row["sv_idle"]) == (2, 1, 0)
        assert row["pool_mode"] == "transaction"
        active.ask("COMMIT")
        waiting.expect("TDCZ")
        eventually(lambda: (pooler.pool()["sv_active"], pooler.pool()["sv_idle"]) == (0, 1))


def test_clients_and_servers_name_each_other(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire(application_name="linked") as client:
        client.ask("BEGIN")
        ((pid,),) = client.ask("SELECT pg_backend_pid()")
        (row,) = [row for row in pooler.console("SHOW CLIENTS") if row["application_name"] == "linked"]
        (server,) = [row for row in pooler.console("SHOW SERVERS") if row["state"] == "active"]
        assert row["link"] == server["ptr"]
        assert server["link"] == row["ptr"]
        assert str(server["remote_pid"]).encode() == pid
        client.ask("COMMIT")


def test_stats_count_queries_transactions_and_bytes(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.connect() as connection:
        for _ in range(5):
            connection.execute("SELECT 1")
        with connection.transaction():
            connection.execute("SELECT 1")
    (row,) = [row for row in pooler.console("SHOW STATS") if row["database"] == "app"]
    assert row["total_xact_count"] == 6
    assert row["total_query_count"] == 8
    assert row["total_received"] > 100
    assert row["total_sent"] > 100


def test_who_is_no_admin_may_look_or_nothing(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    assert pooler.console("SHOW POOLS", user="stats") is not None
    with pytest.raises(psycopg.Error):
        pooler.console("PAUSE", user="stats")
    with pytest.raises(psycopg.OperationalError, match="not allowed"):
        pooler.console("SHOW POOLS", user="alice")


def test_an_unknown_command_is_an_error_and_the_console_stays(make_pooler: MakePooler) -> None:
    with make_pooler().console_session() as console:
        with pytest.raises(psycopg.Error):
            console.execute(b"FROBNICATE")
        assert console.execute(b"SHOW VERSION").fetchall()


def test_the_console_over_the_unix_socket_knows_its_owner(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    who = account()
    if pooler.flavour == "pgbouncer" and who is not None:
        pytest.skip("PgBouncer runs as another user here")
    assert os.geteuid() >= 0
    string = f"host={pooler.directory} port={pooler.port} user=pgbouncer dbname=pgbouncer"
    with psycopg.connect(string, autocommit=True, prepare_threshold=None) as console:
        assert console.execute("SHOW VERSION").fetchone()


def test_pgweir_console_prints_a_table(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    command = [sys.executable, "-m", "pgweir.console_client", "-h", str(pooler.directory), "-p", str(pooler.port)]
    done = subprocess.run([*command, "-c", "SHOW DATABASES"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "force_user" in done.stdout


def test_the_extended_protocol_works_on_the_console(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with psycopg.connect(pooler.conninfo("admin", "pgbouncer"), autocommit=True, prepare_threshold=0) as console:
        cursor = console.execute("SHOW LISTS", binary=False, prepare=True)
        assert "databases" in {row[0] for row in cursor.fetchall()}


def test_every_log_line_is_a_json_record(make_pooler: MakePooler) -> None:
    pooler = make_pooler(options=["--json-log"])
    pooler.connect().close()
    with pytest.raises(psycopg.OperationalError):
        pooler.connect(password="wrong")
    records = pooler.records()
    assert records
    for record in records:
        assert {"level", "msg"} <= record.keys()


def test_no_password_is_ever_logged(make_pooler: MakePooler) -> None:
    pooler = make_pooler(verbose=3)
    pooler.connect().close()
    with pytest.raises(psycopg.OperationalError):
        pooler.connect(password="a-wrong-password")
    log = pooler.log()
    assert not [secret for secret in (*SECRETS.values(), "a-wrong-password") if secret != "password" and secret in log]


def test_metrics_agree_with_the_console(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.connect() as connection:
        for _ in range(5):
            connection.execute("SELECT 1")
        series = pooler.metrics()
        labels = {"database": "app", "user": "alice"}
        assert (labels, 1.0) in series["cnp_pgbouncer_pools_cl_active"]
        assert ({"database": "app"}, 5.0) in series["cnp_pgbouncer_stats_total_query_count"]
        assert series["cnp_pgbouncer_lists_used_clients"]


def test_the_metrics_may_bear_cloudnativepgs_names(make_pooler: MakePooler) -> None:
    pooler = make_pooler(options=["--metrics-prefix", "cnpg_pgbouncer_"])
    names = pooler.metrics().keys()
    assert "cnpg_pgbouncer_up" in names
    assert not [name for name in names if name.startswith("cnp_")]


def test_health_endpoints_speak_of_the_pooler_not_of_the_database(make_pooler: MakePooler) -> None:
    pooler = make_pooler(server_port=1)
    assert pooler.get(pooler.http_port, "/livez")[0] == 200
    assert pooler.get(pooler.http_port, "/readyz")[0] == 200
    pooler.console("PAUSE")
    assert pooler.get(pooler.http_port, "/readyz")[0] == 200


def test_a_draining_pooler_is_not_ready(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire() as client:
        client.ask("BEGIN")
        pooler.terminate()
        eventually(lambda: pooler.get(pooler.http_port, "/readyz")[0] == 503)
        client.ask("COMMIT")


def test_the_version_option_answers_as_the_console(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    done = subprocess.run([sys.executable, "-m", "pgweir.executable", "--version"], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == pooler.console("SHOW VERSION")[0]["version"]
