"""A pause whose deadline has passed, as the operator ends it: a pod's own process, told over its control endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pooler.pod import Pod
from tests.pooler.process import eventually
from tests.pooler.wire import query
from tests.postgres.server import PostgresServer

DATABASES = """
* = host=127.0.0.1 port={port}
session = host=127.0.0.1 port={port} dbname=app pool_mode=session
"""
GOODBYE = "admin forced disconnect: the deadline of a pause has passed"


@pytest.fixture
def pod(tmp_path: Path, postgres: PostgresServer) -> Iterator[Pod]:
    made = Pod(tmp_path, DATABASES.format(port=postgres.port))
    yield made
    made.stop()


def queries(postgres: PostgresServer) -> list[object]:
    """What PostgreSQL does for alice."""
    return [row[0] for row in postgres.execute("SELECT state FROM pg_stat_activity WHERE usename = 'alice'")]


def test_whoever_holds_a_server_past_the_deadline_is_told_and_closed_and_nobody_else(
    pod: Pod, postgres: PostgresServer
) -> None:
    with pod.client() as idle, pod.client() as sleeper, pod.client() as session, pod.client("session") as bystander:
        bystander.ask("SELECT 1")
        idle.ask("BEGIN")
        sleeper.say(query("SELECT pg_sleep(600)"))
        eventually(lambda: sorted(map(str, queries(postgres))) == ["active", "idle", "idle in transaction"])
        assert pod.push(2, paused=True).state == "pausing"
        session.say(query("SELECT 42"))  # holds nothing: it waits for the resume
        eventually(lambda: pod.report().waiting_clients == 1)
        assert {holder.database for holder in pod.report().holders} == {"app", "session"}

        assert pod.terminate_holders(2).terminated_holders == 3
        for held in (idle, sleeper, bystander):
            assert held.expect_error("57P01", GOODBYE).fields["S"] == "FATAL"
            held.expect_closed()
        eventually(lambda: pod.report().state == "paused")
        eventually(lambda: queries(postgres) == [], "neither a query nor a transaction is left behind")
        assert pod.report().clients == 1
        session.expect_silence()
        assert pod.push(3, paused=False).state == "active"
        session.expect("TDCZ")
    assert GOODBYE in pod.process.log_tail(100)
    assert "closed 3 clients that held a server" in pod.process.log_tail(100)


def test_a_pause_that_is_over_or_of_another_revision_closes_nobody(pod: Pod) -> None:
    with pod.client() as holder:
        holder.ask("BEGIN")
        assert pod.terminate_holders(1).terminated_holders == 0
        pod.push(2, paused=True)
        assert pod.terminate_holders(1).terminated_holders == 0
        pod.push(3, paused=False)
        assert pod.terminate_holders(2).terminated_holders == 0
        assert holder.ask("SELECT 1") == [[b"1"]]
        holder.ask("COMMIT")
