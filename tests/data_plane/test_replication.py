"""Replication through the pooler, with the tools that people use for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.pooler.process import PoolerProcess, eventually
from tests.pooler.wire import LoginRefused, WireClient, copy_data, copy_done, query
from tests.postgres.fixtures import version_id
from tests.postgres.server import PASSWORDS, TEST_HBA, Installation, PostgresServer, installations

MakePooler = Callable[..., PoolerProcess]


@pytest.fixture(scope="module", params=installations(), ids=version_id)
def primary(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server that lets replication in, with the tools beside it, of every version that is here."""
    installation = request.param
    settings = {"wal_level": "logical", "max_wal_senders": "4", "max_replication_slots": "4"}
    hba = ("host replication all 127.0.0.1/32 scram-sha-256", *TEST_HBA)
    with PostgresServer(installation, settings=settings, hba=hba) as server:
        server.execute("ALTER ROLE postgres PASSWORD 'password'")
        yield server


@pytest.fixture
def pooler(make_pooler: MakePooler, primary: PostgresServer) -> PoolerProcess:
    return make_pooler(server_port=primary.port, pool_mode="transaction")


def tool(installation: Installation, name: str) -> Path:
    path = installation.bin_directory / name
    if not path.exists():
        pytest.skip(f"no {name} here")
    return path


def start(pooler: PoolerProcess, program: Path, *arguments: object) -> subprocess.Popen[bytes]:
    where = ["-h", "127.0.0.1", "-p", str(pooler.port), "-U", "postgres", "--no-password"]
    environment = {**os.environ, "PGPASSWORD": PASSWORDS["postgres"], "LC_ALL": "C"}
    command = [str(program), *where, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes]) -> str:
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0, output
    return output


def test_pg_basebackup_copies_the_server_while_it_streams_its_wal(
    pooler: PoolerProcess, primary: PostgresServer, tmp_path: Path
) -> None:
    program = tool(primary.installation, "pg_basebackup")
    finish(start(pooler, program, "-D", tmp_path / "copy", "--wal-method=stream", "--checkpoint=fast"))
    assert (tmp_path / "copy" / "PG_VERSION").read_text().strip() == str(primary.installation.major)
    assert any((tmp_path / "copy" / "pg_wal").iterdir())
    eventually(lambda: not pooler.console("SHOW SERVERS"), "the servers have gone with their client")


def test_pg_receivewal_streams_and_is_seen(pooler: PoolerProcess, primary: PostgresServer, tmp_path: Path) -> None:
    process = start(pooler, tool(primary.installation, "pg_receivewal"), "-D", tmp_path, "--no-loop", "--synchronous")
    try:
        eventually(lambda: primary.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))
        (server,) = pooler.console("SHOW SERVERS")
        assert (server["replication"], server["state"], server["application_name"]) == (
            "physical",
            "active",
            "pg_receivewal",
        )
        primary.execute("SELECT pg_logical_emit_message(false, 'test', 'something in this segment')")
        primary.execute("SELECT pg_switch_wal()")
        eventually(lambda: any("partial" not in file.name for file in tmp_path.iterdir()), "a whole segment")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    eventually(lambda: not primary.execute("SELECT 1 FROM pg_stat_replication"), "the walsender has gone")


def test_pg_recvlogical_follows_a_slot(pooler: PoolerProcess, primary: PostgresServer, tmp_path: Path) -> None:
    program = tool(primary.installation, "pg_recvlogical")
    slot = ("--slot=changes", "-d", "app")
    finish(start(pooler, program, *slot, "--create-slot", "-P", "test_decoding"))
    heard = tmp_path / "changes"
    process = start(pooler, program, *slot, "--start", "--no-loop", "-f", heard, "-F", "0")
    try:
        primary.execute("CREATE TABLE told (x int)", "app")
        primary.execute("INSERT INTO told VALUES (4711)", "app")
        eventually(lambda: heard.exists() and "4711" in heard.read_text(), "the change arrives")
    finally:
        process.terminate()
        process.communicate(timeout=30)
        primary.execute("DROP TABLE IF EXISTS told", "app")
    eventually(lambda: not primary.execute("SELECT 1 FROM pg_replication_slots WHERE active"), "the slot is free")
    finish(start(pooler, program, *slot, "--drop-slot"))


def test_a_stream_ends_from_the_clients_side_and_the_connection_goes_on(
    pooler: PoolerProcess, primary: PostgresServer
) -> None:
    with pooler.wire("postgres", replication="true") as client, pooler.wire("postgres") as ordinary:
        client.say(query("IDENTIFY_SYSTEM"))
        position = client.expect("TDCZ")[1].values[2]
        assert position is not None
        client.say(query(f"START_REPLICATION {position.decode()}"))
        client.expect("W")
        assert ordinary.ask("SELECT 1") == [[b"1"]]
        client.say(copy_data(b"r" + bytes(33)), copy_done())
        assert [heard.type for heard in client.until("Z") if heard.type != "d"][-2:] == ["C", "Z"]
        client.say(query("IDENTIFY_SYSTEM"))
        client.expect("TDCZ")


def test_a_walsender_that_postgresql_refuses_says_why(pooler: PoolerProcess) -> None:
    with pytest.raises(LoginRefused) as refused, WireClient(pooler.port) as client:
        client.log_in("alice", "app", PASSWORDS["alice"], replication="true")
    assert refused.value.fields["C"] == "42501"  # alice has no REPLICATION
