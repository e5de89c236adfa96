"""The doctor's probe: what it measures, at servers that do what the test wants, and as the program that runs in a pod."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pooler.process import FLAVOUR, SECRETS, PoolerProcess
from tests.postgres.server import PostgresServer, free_port

from pgweir import doctor_probe
from pgweir.doctor_probe import Target, accept_queue, log_in, look_up, probe, reach, try_often

pytestmark = pytest.mark.skipif(FLAVOUR != "pgweir", reason="the probe is ours")

NETSTAT = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 17 18\nIpExt: InNoRoutes\nIpExt: 0\n"
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1538 0100007F:9999 01 00000000:00000009 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
"""


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_the_kernels_queue_of_a_listener_is_read_and_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(TCP)
    (tmp_path / "netstat").write_text(NETSTAT)
    assert accept_queue(0x1538, tmp_path) == {"queued": 3, "overflows": 17}
    assert accept_queue(1, tmp_path) == {"queued": None, "overflows": 17}
    assert accept_queue(1, tmp_path / "nowhere") == {"queued": None, "overflows": 0}


def test_a_name_has_addresses_or_the_resolvers_own_words() -> None:
    assert look_up("127.0.0.1", 3)["addresses"] == ["127.0.0.1"]
    found = look_up("no-such-host.invalid", 3)
    assert found["addresses"] == []
    assert found["error"]


def test_a_resolver_that_hangs_is_left_behind_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(10) and [])
    found = look_up("db", 0.05)
    over.set()
    assert found["error"] == "no answer within 0.05 s"


def test_a_resolver_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch, silent: int) -> None:
    """T08: whatever goes by that name is left alone, and what has an address is looked at."""
    over, asked, known = threading.Event(), [], socket.getaddrinfo

    def hang(name: str, *more: Any, **given: Any) -> Any:
        asked.append(name)
        return known(name, *more, **given) if name != "db" else over.wait(10) and []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    login = {"host": "db", "port": silent, "user": "a", "database": "a", "address": "127.0.0.1", "sslmode": "disable"}
    request = {"timeout": 0.05, "patience": 0.05, "names": [{"role": "target", "name": "db"}], "login": login}
    request |= {"ports": [{"role": "target", "host": "db", "port": 1}], "backend": {**login, "address": ""}}
    found = probe(request)
    over.set()
    assert asked.count("db") == 1
    assert found["ports"] == []
    assert found["backend"]["failure"]["stage"] == "dns"
    assert found["login"]["stage"] == "auth"  # it came as far as the login


def test_a_port_is_open_refused_or_silent(silent: int) -> None:
    assert reach("127.0.0.1", silent, 1)["kind"] == ""
    found = reach("127.0.0.1", free_port(), 1)
    assert (found["kind"], found["error"]) == ("refused", "Connection refused")


@pytest.mark.parametrize(("sslmode", "stage"), [("prefer", "tls"), ("disable", "auth")])
def test_who_never_answers_is_a_timeout_with_its_stage(silent: int, sslmode: str, stage: str) -> None:
    found = log_in(Target("127.0.0.1", silent, "a", "a", sslmode=sslmode), 0.4, "x")
    assert (found["stage"], found["kind"]) == (stage, "timeout")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"E\xff\xff\xff\xff", b"Z\0\0\0\x05I"])
def test_what_is_no_postgresql_is_a_failure_in_words(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            near, _ = listener.accept()
            with near:
                near.recv(1000)
                near.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        target = Target("127.0.0.1", listener.getsockname()[1], "a", "a", sslmode="disable")
        found = log_in(target, 30, "x")
        thread.join(timeout=60)
    # A greeting without any question is what a server that trusts everybody says.
    assert (found["stage"] == "") is answer.startswith(b"Z")


def test_what_is_not_asked_for_is_null() -> None:
    answer = probe({})
    assert {key: value for key, value in answer.items() if value} == {}
    json.dumps(answer)


def test_passwords_are_neither_shown_nor_answered(postgres: PostgresServer) -> None:
    login = {
        "host": "127.0.0.1",
        "port": postgres.port,
        "user": "alice",
        "database": "app",
        "password": SECRETS["alice"],
    }
    assert SECRETS["alice"] not in repr(Target.of(login))
    answer = probe({"login": login, "backend": login, "tries": 2, "burst": {"clients": 2, "seconds": 0.1}})
    assert answer["login"]["stage"] == ""
    assert len(answer["timing"]["tries"]) == 2
    assert answer["burst"]["done"] > 0
    assert SECRETS["alice"] not in json.dumps(answer)


def test_waiting_is_taken_from_the_poolers_own_counters(postgres: PostgresServer) -> None:
    """10 ms of waiting for each server that was given out, whatever the answer took in all."""
    counted = iter(range(1000))

    def show(table: str) -> list[dict[str, Any]]:
        assert table == "STATS_POOLS"
        at = next(counted)
        row = {"total_server_assignment_count": 5 * at, "total_wait_time": 50_000 * at}
        return [
            {"database": "app", **row},
            {"database": "other", "total_server_assignment_count": 9, "total_wait_time": 0},
        ]

    target = Target("127.0.0.1", postgres.port, "alice", "app", SECRETS["alice"])
    for each in try_often(target, 3, 3, 3, "x", show)["tries"]:
        assert each["queue"] == pytest.approx(min(0.01, each["queue"] + each["backend"]))


def test_a_console_that_fails_in_the_middle_is_no_console(postgres: PostgresServer) -> None:
    def show(table: str) -> list[dict[str, Any]]:
        raise doctor_probe.LookFailed("gone")

    target = Target("127.0.0.1", postgres.port, "alice", "app", SECRETS["alice"])
    (only,) = try_often(target, 1, 3, 3, "x", show)["tries"]
    assert "answer" in only
    assert "queue" not in only


def test_in_a_pod_it_is_a_program_that_reads_a_line_and_writes_one(postgres: PostgresServer) -> None:
    with PoolerProcess(postgres.port) as pooler:
        login = {
            "host": "127.0.0.1",
            "port": pooler.port,
            "user": "alice",
            "database": "app",
            "password": SECRETS["alice"],
        }
        request = json.dumps({"login": login, "tries": 2, "names": [{"role": "pooler", "name": "localhost"}]}) + "\n"
        command = [sys.executable, "-m", "pgweir.console_client", "--probe"]
        environment = {**os.environ, "PGHOST": str(pooler.directory), "PGPORT": str(pooler.port)}
        done = subprocess.run(command, input=request, env=environment, capture_output=True, text=True, timeout=200)
        answer = json.loads(done.stdout)
        assert (done.returncode, done.stderr, answer["console_error"]) == (0, "", "")
        assert "queue" in answer["timing"]["tries"][0]
        done = subprocess.run(command, input="nonsense\n", env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 2
        assert "one line of JSON" in done.stderr
