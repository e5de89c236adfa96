"""The pooler as a process: pidfile, background, signals, one port for two, and the ways to end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from tests.pooler.process import ADMIN, SECRETS, PoolerProcess, eventually
from tests.pooler.wire import WireClient, query, startup
from tests.postgres.server import PostgresServer, free_port

MakePooler = Callable[..., PoolerProcess]


def socket_file(pooler: PoolerProcess) -> Path:
    return pooler.directory / f".s.PGSQL.{pooler.port}"


def unix_console(pooler: PoolerProcess) -> WireClient:
    return WireClient(pooler.port, unix=str(pooler.directory)).log_in(ADMIN, "pgbouncer", SECRETS[ADMIN])


def works(pooler: PoolerProcess) -> bool:
    with pooler.connect() as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def answer(console: WireClient, text: str) -> str:
    console.say(query(text))
    found = next(each for each in console.until("Z") if each.type in "CE")
    return found.fields["M"] if found.type == "E" else found.body.rstrip(b"\0").decode()


@contextmanager
def a_second(first: PoolerProcess, **settings: object) -> Iterator[PoolerProcess]:
    """Another process with the first one's port and a folder of its own, not started yet."""
    second = PoolerProcess(first.server_port, settings=settings)
    second.port, second.metrics_port, second.http_port = first.port, free_port(), free_port()
    try:
        yield second
    finally:
        second.remove()


def test_a_pidfile_of_a_living_process_is_respected_and_a_stale_one_is_not(make_pooler: MakePooler) -> None:
    pooler = make_pooler(pidfile="pooler.pid")
    file = pooler.directory / "pooler.pid"
    eventually(file.exists)
    with a_second(pooler, pidfile=file) as second:
        second.port = free_port()
        second.write_files()
        second.spawn()
        assert second.wait_exit() == 1
        assert second.log_contains(str(pooler.pid)) or second.log_contains("pidfile")
    assert works(pooler)
    pooler.signal(signal.SIGKILL)
    pooler.wait_exit()
    assert file.exists()
    pooler.start()
    eventually(lambda: file.read_text().strip() == str(pooler.pid))


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (
            (),
            {"pidfile": "/nonexistent/pooler.pid"},
            "pidfile = '/nonexistent/pooler.pid': name a file that can be wri",
        ),
        (("--http-listen", "nonsense"), {}, "--http-listen: 'nonsense': write ADDRESS:PORT"),
        (("--metrics-listen", "192.0.2.1:9127"), {}, "--metrics-listen: cannot listen on 192.0.2.1:9127"),
        (("--drain-seconds", "nan"), {}, "argument --drain-seconds: 'nan' is no time"),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_a_sentence(
    options: Sequence[str], settings: dict[str, object], said: str
) -> None:
    pooler = PoolerProcess(5432, settings=settings, options=options)
    pooler.port, pooler.metrics_port, pooler.http_port = free_port(), free_port(), free_port()
    try:
        pooler.write_files()
        pooler.spawn()
        assert pooler.wait_exit() in (1, 2)
        assert said in pooler.log()
        assert "Traceback" not in pooler.log()
    finally:
        pooler.remove()


def test_in_the_background_it_answers_and_ends_like_any_other(postgres: PostgresServer) -> None:
    pooler = PoolerProcess(postgres.port, settings={"pidfile": "pooler.pid", "logfile": "pooler.log"}, options=["-d"])
    pooler.port, pooler.metrics_port, pooler.http_port = free_port(), free_port(), free_port()
    pooler.settings |= {name: pooler.directory / str(pooler.settings[name]) for name in ("pidfile", "logfile")}
    if pooler.flavour == "pgbouncer":
        pooler.options = []
    pid = 0
    try:
        pooler.write_files()
        command = pooler.command()
        if pooler.flavour == "pgbouncer":
            command.insert(1, "-d")
        subprocess.run(command, check=True, timeout=100, cwd=pooler.directory, **pooler._identity())
        eventually((pooler.directory / "pooler.pid").exists)
        pid = int((pooler.directory / "pooler.pid").read_text())
        eventually(socket_file(pooler).exists)
        assert works(pooler)
        eventually(lambda: "process up" in (pooler.directory / "pooler.log").read_text())
        os.kill(pid, signal.SIGQUIT)
        eventually(lambda: not Path(f"/proc/{pid}").exists())
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
        pooler.remove()


def test_in_the_background_it_needs_a_pidfile(make_pooler: MakePooler) -> None:
    pooler = PoolerProcess(1, options=["-d"])
    try:
        pooler.port = free_port()
        pooler.write_files()
        command = [*pooler.command()[:-1], "-d", str(pooler.ini)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=100, cwd=pooler.directory, **pooler._identity()
        )
        assert done.returncode == 1
        assert "pidfile" in done.stderr + done.stdout
    finally:
        pooler.remove()


def test_two_processes_share_a_port_and_one_takes_over_from_the_other(make_pooler: MakePooler) -> None:
    """The rolling restart that PgBouncer's documentation recommends (1.18's SIGTERM drops its clients)."""
    first = make_pooler(so_reuseport=1)
    with a_second(first, so_reuseport=1) as second:
        second.write_files()
        second.spawn()
        eventually(socket_file(second).exists)
        clients = [first.wire() for _ in range(20)]

        def served() -> list[int]:
            found = []
            for pooler in (first, second):
                with unix_console(pooler) as console:
                    rows = console.ask("SHOW CLIENTS")
                    found.append(sum(row[2] == b"app" for row in rows))
            return found

        assert sum(served()) == 20
        assert all(served()), "the kernel spreads them"
        first.terminate()
        eventually(lambda: first.log_contains("wait_for_clients"))
        for client in clients:
            assert client.ask("SELECT 1") == [[b"1"]]
        assert works(second), "new ones go to the other"
        for client in clients:
            client.close()
        assert first.wait_exit() == 0


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(make_pooler: MakePooler, again: signal.Signals) -> None:
    pooler = make_pooler()
    with pooler.wire() as client:
        client.ask("BEGIN")
        pooler.terminate()
        pooler.wait_for_log("wait_for_clients")
        assert client.ask("SELECT 1") == [[b"1"]]
        pooler.signal(again)
        assert pooler.wait_exit() == 0
        client.until_closed()


def test_shutdown_wait_for_clients_leaves_the_console_open(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    with pooler.wire() as client, unix_console(pooler) as console, WireClient(pooler.port) as silent:
        silent.say(startup(user="alice", database="app")[:5])  # it never says who it is, and holds up nobody
        client.ask("SELECT 1")
        assert answer(console, "SHUTDOWN WAIT_FOR_CLIENTS") == "SHUTDOWN"
        with pytest.raises(OSError):
            WireClient(pooler.port, timeout=1).close()
        with WireClient(pooler.port, unix=str(pooler.directory)) as late:
            late.say(startup(user="alice", database="app"))
            error = late.until("E")[-1].fields
            assert (error["C"], error["M"]) == ("57P01", "pooler is shutting down")
        assert answer(console, "RESUME") == "pooler is shutting down"
        pooler.signal(signal.SIGUSR2)
        pooler.wait_for_log("RESUME is ignored while shutting down")
        assert client.ask("SELECT 1") == [[b"1"]]
        with unix_console(pooler) as another:
            assert answer(another, "SHOW STATE") == "SHOW"
        client.close()
        assert pooler.wait_exit() == 0


def test_shutdown_wait_for_servers_refuses_who_waits_and_who_comes_to_wait(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1)
    with pooler.wire() as holder, pooler.wire() as waiting, pooler.wire() as late, unix_console(pooler) as console:
        holder.ask("BEGIN")
        waiting.say(query("SELECT 1"))
        eventually(lambda: pooler.pool()["cl_waiting"] == 1)
        assert answer(console, "SHUTDOWN WAIT_FOR_SERVERS") == "SHUTDOWN"
        late.say(query("SELECT 1"))
        for client in (waiting, late):
            error = client.until("E")[-1].fields
            assert (error["C"], error["M"]) == ("57P01", "server shutting down")
        assert holder.ask("SELECT 1") == [[b"1"]]
        holder.ask("COMMIT")
        assert pooler.wait_exit() == 0


def test_a_signal_that_asks_for_what_is_so_already_is_logged_and_no_more(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    sent = [signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2]
    for number in sent:  # one by one: the kernel keeps no order between those that are pending
        before = pooler.log().count("got SIGUSR")
        pooler.signal(number)
        eventually(lambda n=before: pooler.log().count("got SIGUSR") > n)  # type: ignore[misc]
    assert works(pooler)


def test_sighup_opens_the_logfile_anew(make_pooler: MakePooler) -> None:
    pooler = make_pooler(logfile="pooler.log")
    log = pooler.directory / "pooler.log"
    eventually(log.exists)
    log.rename(pooler.directory / "pooler.log.1")
    pooler.hang_up()

    def is_written() -> bool:
        with pytest.raises(psycopg.OperationalError):
            pooler.connect(password="wrong")
        return "alice" in log.read_text()

    eventually(is_written)
