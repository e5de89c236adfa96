"""What the machine gives a pooler and what it needs: descriptors, memory, a log that stays readable when things go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.pooler.process import PoolerProcess, eventually
from tests.pooler.wire import query
from tests.postgres.server import PostgresServer

MakePooler = Callable[..., PoolerProcess]

SMALL = 100 * 1024  # KiB, the memory that a pod of the samples asks for


class Narrow(PoolerProcess):
    """With 64 file descriptors, and no way to more."""

    def command(self) -> list[str]:
        return ["prlimit", "--nofile=64:64", *super().command()]


@pytest.fixture
def narrow(postgres: PostgresServer) -> Iterator[PoolerProcess]:
    with Narrow(postgres.port, settings={"max_client_conn": 100}, options=["--json-log"], flavour="pgweir") as pooler:
        yield pooler


def test_too_few_descriptors_are_a_warning_with_the_numbers_and_no_reason_not_to_serve(narrow: PoolerProcess) -> None:
    said = [(line["record"]["level"], line["record"]["msg"]) for line in narrow.records()]
    (start,) = [text for _, text in said if text.startswith("kernel file descriptor limit")]
    assert start.startswith("kernel file descriptor limit: 64 (hard: 64); max_client_conn: 100, max expected fd use: ")
    needed = int(start.rpartition(": ")[2])
    assert needed > 100
    (warning,) = [text for level, text in said if level == "WARNING"]
    assert warning == f"the file descriptor limit of 64 is below the {needed} that max_client_conn asks for"
    narrow.reload(max_client_conn=40)
    eventually(lambda: any("max_client_conn: 40," in line["record"]["msg"] for line in narrow.records()))
    with narrow.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def rss(pooler: PoolerProcess) -> int:
    """KiB in memory."""
    pages = int(Path(f"/proc/{pooler.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") // 1024


def test_an_idle_pooler_needs_less_memory_than_a_small_pod_asks_for(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.connect() as connection:
        connection.execute("SELECT 1")
    print(f"idle: {rss(pooler) // 1024} MiB")
    assert rss(pooler) < SMALL


def test_every_line_is_json_under_errors_and_in_a_crash(make_pooler: MakePooler) -> None:
    pooler = make_pooler(options=["--json-log"], verbose=1)
    with pooler.wire() as client:
        client.ask("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            pooler.connect(password="wrong\nof two lines")
        client.say(b"\xff\0\0\0\0")
        client.until_closed()
    pooler.signal(signal.SIGABRT)  # as an assertion in a C library would
    assert pooler.wait_exit() == -signal.SIGABRT
    assert len(pooler.records()) > 3


def test_a_start_that_fails_is_said_in_json_too(make_pooler: MakePooler) -> None:
    pooler = make_pooler(options=["--json-log"])
    pooler.settings["pool_mode"] = "sesion"
    pooler.write_files()
    done = subprocess.run(pooler.command(), capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    said = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert "pool_mode" in said[-1]["record"]["msg"]


def test_without_admin_users_nobody_administers_over_tcp(make_pooler: MakePooler) -> None:
    """What the operator renders: the console is for the pod's own user, over the Unix socket."""
    pooler = make_pooler(admin_users=None, stats_users=None)
    for user in ("alice", "admin", "stats"):
        with pytest.raises(psycopg.OperationalError, match="not allowed"):
            pooler.connect(user, "pgbouncer")
    if pooler.flavour == "pgweir":
        socket = f"host={pooler.directory} port={pooler.port} user=pgbouncer dbname=pgbouncer"
        with psycopg.connect(socket, autocommit=True, prepare_threshold=None) as console:
            assert console.execute("SHOW POOLS").fetchall()


def test_the_pools_of_rest_and_of_the_console_are_one_and_the_same_under_load(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=3)
    with pooler.wire() as one, pooler.wire() as two, pooler.wire() as three, pooler.wire() as four:
        for client in (one, two, three):
            client.ask("BEGIN")
        four.say(query("SELECT 4"))
        eventually(lambda: pooler.pool()["cl_waiting"] == 1)
        (shown,) = [row for row in pooler.console("SHOW POOLS") if row["database"] == "app"]
        (told,) = [
            row for row in json.loads(pooler.get(pooler.http_port, "/api/v1/pools")[1]) if row["database"] == "app"
        ]
        assert told["servers"]["active"] == shown["sv_active"] == 3
        assert told["clients"] == {"active": shown["cl_active"], "waiting": shown["cl_waiting"]}
        assert told["clients"]["waiting"] == 1
