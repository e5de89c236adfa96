"""Faults on real sockets and real processes: either side dies at every step; nobody else notices, and nothing is left."""

from __future__ import annotations

import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.pooler.process import PoolerProcess, Traffic, eventually
from tests.pooler.wire import (
    PeerClosed,
    WireClient,
    bind,
    cancel_request,
    copy_data,
    describe,
    execute,
    message,
    parse,
    query,
    ready,
    say_to_the_end,
    startup,
    sync,
)
from tests.postgres.server import PostgresServer
from tests.robustness.probe import Probed

pytestmark = pytest.mark.usefixtures("ours_only")
MakePooler = Callable[..., PoolerProcess]


def vanish(client: socket.socket, *, reset: bool) -> None:
    """RST or FIN."""
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def is_quiet(pooler: PoolerProcess) -> bool:
    row = pooler.pool()
    return not any(row[name] for name in ("cl_active", "cl_waiting", "sv_active", "sv_tested", "sv_login"))


# --- a reader that does not read -------------------------------------------------------------------------------------


def test_a_slow_readers_server_goes_back_to_the_pool_and_its_answer_stays_whole(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=1, auth_type="trust", pkt_buf=4096)
    with pooler.wire() as slow, pooler.wire() as quick:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for round_ in range(2):
            slow.say(query(f"SELECT '{round_}' || repeat('x', 1000) FROM generate_series(1, 60)"))
            eventually(lambda: pooler.pool()["sv_active"] == 0, "the answer has left the server")
            for number in range(20):
                assert quick.ask(f"SELECT {number}") == [[str(number).encode()]]
            rows = [item.values[0] for item in slow.until("Z") if item.type == "D"]
            assert rows == [f"{round_}".encode() + b"x" * 1000] * 60


def test_a_reader_that_never_reads_holds_a_bounded_part_of_its_answer(postgres: PostgresServer) -> None:
    with (
        Probed(postgres.port, settings={"auth_type": "trust", "default_pool_size": 2}) as pooler,
        pooler.wire() as slow,
    ):
        before = pooler.rss()
        slow.say(query("SELECT repeat('x', 1000) FROM generate_series(1, 300000)"))  # 300 MB
        time.sleep(1.0)
        assert pooler.rss() - before < 20_000  # KiB
        with pooler.wire() as other:
            assert other.ask("SELECT 1") == [[b"1"]]
        slow.close()
        eventually(lambda: is_quiet(pooler))


# --- ReadyForQuery in the middle -------------------------------------------------------------------------------------


def test_what_stands_behind_ready_for_query_in_one_packet_reaches_the_right_client() -> None:
    notice = message("N", b"SNOTICE\0C00000\0Mlate\0\0")

    def script(session: Session) -> None:
        session.accept_login()
        for _ in session.requests():
            row = message("T", b"\0\0") + message("D", b"\0\0") + message("C", b"SELECT 1\0") + ready()
            session.say(row[:-3])
            time.sleep(0.01)
            session.say(row[-3:] + notice)

    with FakePostgres(script) as fake:
        pooler = Probed(fake.port, settings={"auth_type": "trust", "default_pool_size": 1, "server_check_query": ""})
        with pooler, pooler.wire() as one, pooler.wire() as two:
            for _ in range(5):
                for client in (one, two):
                    client.say(query("SELECT 1"))
                    kinds = [item.type for item in client.until("Z")]
                    assert [kind for kind in kinds if kind != "N"] == list("TDCZ")


# --- cancels ---------------------------------------------------------------------------------------------------------


def test_a_cancel_that_races_a_resume_hits_its_own_query_or_none(make_pooler: MakePooler) -> None:
    pooler = make_pooler(default_pool_size=2, auth_type="trust")
    dice = random.Random(5)
    with Traffic(pooler, clients=4) as traffic, pooler.wire() as victim, pooler.console_session() as console:
        for _ in range(15):
            pausing = threading.Thread(target=pause_for_a_moment, args=(pooler,))
            pausing.start()
            time.sleep(dice.random() * 0.02)
            victim.say(query("SELECT pg_sleep(0.2)"))
            time.sleep(dice.random() * 0.02)
            with WireClient(pooler.port) as canceling:
                canceling.say(cancel_request(victim.pid, victim.key))
                resume_when_paused(console)
                canceling.expect_closed()
            assert {item.fields["C"] for item in victim.until("Z") if item.type == "E"} <= {"57014"}
            pausing.join(60)
        traffic.wait_for_more()
    assert traffic.errors == []  # nobody else was ever canceled


def pause_for_a_moment(pooler: PoolerProcess) -> None:
    try:
        pooler.console("PAUSE")
    except psycopg.errors.QueryCanceled:
        pass  # a RESUME ended it


def resume_when_paused(console: psycopg.Connection[Any]) -> None:
    while True:
        try:
            console.execute("RESUME")
            return
        except psycopg.errors.ObjectNotInPrerequisiteState:
            time.sleep(0.001)  # the PAUSE is on its way


# --- the server dies -------------------------------------------------------------------------------------------------


def test_a_server_that_dies_at_any_byte_of_its_login_is_tried_again() -> None:
    lengths = iter(range(0, 10_000, 23))

    def script(session: Session) -> None:
        session.read_startup()
        welcome = b"".join(session.welcome())
        cut = next(lengths)
        session.say(welcome[:cut])
        if cut < len(welcome):
            if session.number % 2:
                vanish(session.socket, reset=True)
            return
        session.serve()

    with FakePostgres(script) as fake:
        settings = {"auth_type": "trust", "server_login_retry": 0.01, "default_pool_size": 1, "query_wait_timeout": 60}
        with Probed(fake.port, settings=settings) as pooler, WireClient(pooler.port, timeout=60) as client:
            client.log_in("alice", "app")
            assert client.ask("SELECT 1") == [[b"1"]]
            assert len(fake.sessions) > 10
            assert pooler.look()["types"].get("pgweir.session.server_login.ServerLogin", 0) <= 1
            assert "Traceback" not in pooler.log()


@pytest.mark.parametrize("step", ["SET", "DISCARD ALL", "SELECT 1 /* check */", "ROLLBACK"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_server_that_dies_at_a_query_of_the_poolers_own_harms_nobody(step: str, reset: bool) -> None:
    deaths: list[int] = []

    def script(session: Session) -> None:
        session.accept_login()
        for heard in session.requests():
            sql = heard.body.rstrip(b"\0").decode()
            if sql.startswith(step) and len(deaths) < 3:
                deaths.append(session.number)
                session.say(b"C\0\0"[: len(deaths)])
                vanish(session.socket, reset=reset)
                return
            if sql == "BEGIN":
                session.say(message("C", b"BEGIN\0"), ready("T"))
                continue
            session.reply(heard)

    settings: dict[str, object] = {
        "auth_type": "trust",
        "default_pool_size": 1,
        "server_login_retry": 0.01,
        "server_check_delay": 0,
        "server_check_query": "SELECT 1 /* check */",
    }
    if step == "DISCARD ALL":
        settings |= {"server_reset_query_always": 1, "server_check_query": ""}
    with FakePostgres(script) as fake, Probed(fake.port, settings=settings) as pooler:
        answered = 0
        for number in range(12):
            try:
                with WireClient(pooler.port) as client:
                    client.log_in("alice", "app", application_name=f"client {number}")
                    client.ask("SELECT 1")
                    if step == "ROLLBACK":
                        client.say(query("BEGIN"))
                        client.until("Z")
                    answered += 1
            except (PeerClosed, AssertionError, ConnectionError):
                pass
        assert len(deaths) == 3, "the fault was not met"
        assert answered >= 9  # nobody but those whose server died
        eventually(lambda: is_quiet(pooler))
        assert "Traceback" not in pooler.log()


def test_postgresql_killed_in_the_middle_of_a_copy(make_pooler: MakePooler, fresh_postgres: PostgresServer) -> None:
    pooler = make_pooler(server_port=fresh_postgres.port, server_login_retry=0.2, auth_type="trust")
    fresh_postgres.execute("CREATE TABLE copied (x text)", "app")
    fresh_postgres.execute("GRANT ALL ON copied TO alice", "app")
    with pooler.wire() as client, pooler.wire() as idle:
        client.say(query("COPY copied FROM STDIN"))
        client.expect("G")
        client.say(copy_data(b"row\n") * 1000)
        fresh_postgres.kill9()
        try:
            for _ in range(200):
                client.say(copy_data(b"x" * 10_000 + b"\n"))
        except OSError:
            pass
        errors = [item.fields["C"] for item in client.until_closed() if item.type == "E"]
        assert set(errors) <= {"08006", "57P01", "57P02"}
        fresh_postgres.start()
        assert idle.ask("SELECT count(*) FROM copied") == [[b"0"]]
    eventually(lambda: is_quiet(pooler))


# --- the client dies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_client_that_dies_at_any_byte_leaves_its_server_clean(make_pooler: MakePooler, reset: bool) -> None:
    pooler = make_pooler(default_pool_size=2, auth_type="trust")
    pooler.connect().close()
    talk = (
        startup(user="alice", database="app", application_name="dying")
        + query("BEGIN")
        + parse("name", "SELECT $1::text")
        + bind("name", ["value"])
        + describe("", "P")
        + execute()
        + sync()
        + query("CREATE TEMP TABLE dying (x text); COPY dying FROM STDIN")
        + copy_data(b"row\n")
    )
    with Traffic(pooler, clients=1) as traffic:
        for cut in range(0, len(talk), 5):
            with socket.create_connection(("127.0.0.1", pooler.port), timeout=15) as client:
                client.sendall(talk[:cut])
                if cut % 3 == 0:
                    time.sleep(0.005)
                vanish(client, reset=reset)
        traffic.wait_for_more()
    assert traffic.errors == []
    eventually(lambda: is_quiet(pooler))
    assert "Traceback" not in pooler.log()


# --- the pooler dies -------------------------------------------------------------------------------------------------


def test_a_killed_pooler_leaves_no_transaction_and_no_obstacle(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    pooler = make_pooler(auth_type="trust", pidfile="pooler.pid")
    with pooler.wire(application_name="killed") as client:
        client.ask("BEGIN")
        client.ask("CREATE TABLE never (x int)")
        pooler.signal(signal.SIGKILL)
        pooler.wait_exit()
        client.until_closed()
    eventually(lambda: postgres.backends(application_name="killed") == [], "PostgreSQL has noticed")
    assert postgres.execute("SELECT count(*) FROM pg_class WHERE relname = 'never'", "app") == [(0,)]
    pooler.spawn()  # over the socket and the pid file that the killed one has left
    eventually(lambda: pooler.connect().close() is None)


# --- what the machine runs out of ------------------------------------------------------------------------------------


def test_without_file_descriptors_clients_that_are_in_go_on_and_nothing_spins(postgres: PostgresServer) -> None:
    settings = {"auth_type": "trust", "default_pool_size": 2, "max_client_conn": 1000, "server_login_retry": 0.2}
    with Probed(postgres.port, settings=settings, descriptors=64) as pooler:
        inside = [pooler.wire() for _ in range(3)]
        for client in inside:
            client.ask("SELECT 1")
        crowd = []
        for _ in range(150):
            try:
                crowd.append(socket.create_connection(("127.0.0.1", pooler.port), timeout=5))
            except OSError:
                break
        time.sleep(0.5)
        before, at = pooler.cpu(), time.monotonic()
        time.sleep(1.5)
        share = (pooler.cpu() - before) / (time.monotonic() - at)
        for client in inside:
            assert client.ask("SELECT 2") == [[b"2"]]
        assert pooler.is_running
        assert share < 0.5, f"{share:.0%} of a core for nothing"
        assert pooler.log().count("no file descriptor is left (limit 64)") == 1
        for each in crowd:
            each.close()

        def comes_in() -> bool:
            with WireClient(pooler.port) as late:
                return late.log_in("alice", "app").ask("SELECT 3") == [[b"3"]]

        eventually(comes_in, "a new client comes in when there is room again")
        assert len(pooler.log().splitlines()) < 2000
        for client in inside:
            client.close()


def test_a_log_on_a_full_disk_stops_nobody(make_pooler: MakePooler) -> None:
    pooler = make_pooler(auth_type="trust", logfile="/dev/full")
    with Traffic(pooler, clients=2) as traffic:
        pooler.console("RELOAD")
        for _ in range(10):
            pooler.connect().close()
        traffic.wait_for_more()
    assert traffic.errors == []


# --- noise at the ports that speak HTTP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise",
    [
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"PUT /readyz HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/pools HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: \xff\xfe\r\nX: " + b"y" * 100_000,
        startup(user="alice", database="app"),
        query("SELECT 1"),
    ],
    ids=["zeroes", "version", "long-path", "length", "chunks", "header", "startup", "query"],
)
def test_noise_at_the_http_ports_harms_nobody(http_pooler: PoolerProcess, noise: bytes) -> None:
    pooler = http_pooler
    for port in (pooler.http_port, pooler.metrics_port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            say_to_the_end(client, noise)
    assert pooler.get(pooler.http_port, "/readyz")[0] == 200
    assert pooler.get(pooler.metrics_port, "/metrics")[0] == 200
    with pooler.wire() as client:
        assert client.ask("SELECT 1") == [[b"1"]]
    assert "Traceback" not in pooler.log()


@pytest.fixture(scope="module")
def http_pooler(postgres: PostgresServer) -> Iterator[PoolerProcess]:
    with PoolerProcess(postgres.port, settings={"auth_type": "trust"}, flavour="pgweir") as running:
        yield running
