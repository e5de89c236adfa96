"""pgweir-console against a console that is only a socket and a thread."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.pgweir.admin.world import HandService

from pgweir import console_client
from pgweir.admin.console import open_console
from pgweir.console_client import NoConnection, find_address
from pgweir.protocol.startup import CancelRequest, Startup, StartupReader
from pgweir.session.wire import Origin


class Front(asyncio.Protocol):
    """Everybody is let in: the login is somebody else's test."""

    def __init__(self, service: HandService) -> None:
        self.service = service
        self.reader = StartupReader()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        match self.reader.feed(data):
            case Startup():
                who = {"user": "pgbouncer", "origin": Origin(None, 6432), "tls": None, "protocol_minor": 0, "rest": b""}
                login: Any = SimpleNamespace(**who)
                self.transport.set_protocol(open_console(self.service, login, self.transport, True))
            case CancelRequest(pid_key=key):
                self.service.pooler.cancels.request(key, self.transport.close)


@pytest.fixture
def service(tmp_path: Path) -> HandService:
    return HandService(tmp_path)


@pytest.fixture
def folder(service: HandService, tmp_path: Path) -> Iterator[Path]:
    """The folder with the console's socket, served from a thread."""
    loop = asyncio.new_event_loop()
    serving = threading.Event()

    async def serve() -> None:
        server = await loop.create_unix_server(lambda: Front(service), str(tmp_path / ".s.PGSQL.6432"))
        serving.set()
        async with server:
            await stopped.wait()

    stopped = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert serving.wait(10)
    yield tmp_path
    loop.call_soon_threadsafe(stopped.set)
    thread.join(10)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)


def test_a_table_is_aligned_and_numbers_stand_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert console_client.run(["-h", str(folder), "-c", "SHOW LISTS", "-c", "RELOAD"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "list          | items"
    assert lines[1] == "--------------+------"
    assert lines[2] == "databases     |     3"
    assert lines[-1] == "RELOAD"


def test_json_has_numbers_and_nulls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert console_client.run(["-h", str(folder), "-j", "-c", "SHOW DATABASES"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["app"]["port"], rows["app"]["force_user"]) == (5433, None)


def test_bctl_show_pools_works_as_typed(
    service: HandService, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B17. `bctl` is another name of this program."""
    service.client()
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert project["bctl"] == project["pgweir-console"] == "pgweir.console_client:main"
    monkeypatch.setenv("PGHOST", str(folder))
    assert console_client.run(["show", "pools"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("database  | user")
    assert [row.split(" | ")[0].strip() for row in rows] == ["app", "pgbouncer"]
    assert console_client.run(["show", "pools", "--json"]) == 0
    assert [row["cl_waiting"] for row in json.loads(capsys.readouterr().out)] == [0, 0]


def test_an_error_ends_with_status_1_and_what_follows_is_not_run(
    service: HandService, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console_client.run(["-h", str(folder), "-c", "RESUME", "-c", "PAUSE"]) == 1
    assert capsys.readouterr().err == "ERROR:  pooler is not paused/suspended\n"
    assert not service.pooler.paused


def test_help_is_shown_though_it_is_a_notice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert console_client.run(["-h", str(folder), "-c", "SHOW HELP"]) == 0
    assert "SHOW WAITERS" in capsys.readouterr().err


def test_a_cancelled_pause_is_undone(service: HandService, folder: Path) -> None:
    service.server()
    service.begin(service.client())
    console = console_client.Console(str(folder), 6432, "pgbouncer", None)
    threading.Timer(0.2, console.cancel).start()
    reply = console.run("PAUSE")
    assert reply.error is not None
    assert "canceling statement" in reply.error
    assert not service.pooler.paused
    console.close()


def test_the_only_socket_of_a_folder_is_found(tmp_path: Path) -> None:
    with pytest.raises(NoConnection, match=f"no socket in {tmp_path}"):
        find_address(str(tmp_path), None)
    (tmp_path / ".s.PGSQL.6432").touch()
    (tmp_path / ".s.PGSQL.6432.lock").touch()
    assert find_address(str(tmp_path), None) == (str(tmp_path), 6432)
    (tmp_path / ".s.PGSQL.7777").touch()
    assert find_address(str(tmp_path), 7777) == (str(tmp_path), 7777)
    with pytest.raises(NoConnection, match="say which with -p"):
        find_address(str(tmp_path), None)
    assert find_address("localhost", None) == ("localhost", 6432)


def test_no_pooler_is_status_3_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".s.PGSQL.6432").touch()
    assert console_client.run(["-h", str(tmp_path), "-c", "SHOW POOLS"]) == 3
    assert "cannot connect to" in capsys.readouterr().err
