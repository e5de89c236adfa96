"""A pause whose deadline has passed, as the operator ends it: a pod's own process, told over its control endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pooler.process import SECRETS, eventually
from tests.pooler.wire import WireClient, query
from tests.postgres.server import PostgresServer

from pgweir.bundle import bundle_manifest
from pgweir_operator.api.observed import PodReport
from pgweir_operator.cli.local_pod import LocalPod
from pgweir_operator.fleet import Push
from pgweir_operator.integration.control import renewed

pytestmark = pytest.mark.timeout(60)

INI = """
[databases]
* = host=127.0.0.1 port={server_port}
session = host=127.0.0.1 port={server_port} dbname=app pool_mode=session
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = userlist.txt
pool_mode = transaction
default_pool_size = 4
"""
GOODBYE = "admin forced disconnect: the deadline of a pause has passed"


class Pod:
    """A pod, and the operator's verbs on it."""

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        self.process = LocalPod("pod", folder, renewed(None, pooler="shop", now=time.time()))
        self._ini = INI.format(port=self.process.port, server_port=postgres.port).encode()
        self.process.start(self.files(1, paused=False))

    def files(self, revision: int, *, paused: bool) -> dict[str, bytes]:
        return {
            "pgbouncer.ini": self._ini,
            "userlist.txt": "".join(f'"{name}" "{secret}"\n' for name, secret in SECRETS.items()).encode(),
            "bundle.json": bundle_manifest(revision=revision, paused=paused, catalogue_version=1),
        }

    def push(self, revision: int, *, paused: bool) -> PodReport:
        async def tell() -> PodReport:
            async with self.process.fleet() as fleet:
                answer = await fleet.push([self.process.member], Push(self.files(revision, paused=paused)))
                return _report(answer["pod"])

        return asyncio.run(tell())

    def terminate_holders(self, revision: int) -> PodReport:
        async def tell() -> PodReport:
            async with self.process.fleet() as fleet:
                return _report((await fleet.terminate_holders([self.process.member], revision))["pod"])

        return asyncio.run(tell())

    def report(self) -> PodReport:
        async def ask() -> PodReport:
            async with self.process.fleet() as fleet:
                return _report((await fleet.poll([self.process.member]))["pod"])

        return asyncio.run(ask())

    def client(self, database: str = "app", **parameters: str) -> WireClient:
        return WireClient(self.process.port).log_in("alice", database, SECRETS["alice"], **parameters)


def _report(answer: object) -> PodReport:
    assert isinstance(answer, PodReport), answer
    return answer


@pytest.fixture
def pod(tmp_path: Path, postgres: PostgresServer) -> Iterator[Pod]:
    made = Pod(tmp_path, postgres)
    yield made
    made.process.stop()


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
