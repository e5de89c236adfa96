"""Several poolers behind one address: a cancel that arrives at the wrong one still ends the query it was meant for."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.pooler.wire import PROTOCOL_3_0, WireClient, cancel_packet, query, ssl_request, startup_packet
from tests.postgres.certificates import Certificates
from tests.postgres.server import PostgresServer, free_port

MakePooler = Callable[..., PoolerProcess]
PROTOCOL_3_2 = PROTOCOL_3_0 + 2


def peer_of(client: WireClient) -> int:
    return int.from_bytes(client.cancel_key[1:3], "little")


def cancel(key: bytes, port: int, unix: str | None = None) -> None:
    """As libpq does it: say it, then wait until the other side hangs up."""
    with WireClient(port, unix=unix) as client:
        client.say(cancel_packet(key))
        client.expect_closed()


@contextmanager
def running_query(client: WireClient, postgres: PostgresServer) -> Iterator[None]:
    """A query that is cancelled within the block, and seen to be."""
    client.say(query("SELECT pg_sleep(30)"))
    eventually(lambda: postgres.backends(usename="alice", state="active"), "the query runs")
    yield
    assert client.until("E")[-1].fields["C"] == "57014"
    client.expect("Z")


# -- [peers], two processes on one port ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(postgres: PostgresServer) -> Iterator[list[PoolerProcess]]:
    """Two processes that share a TCP port, and know each other by the folders of their Unix sockets."""
    made = [PoolerProcess(postgres.port, settings={"so_reuseport": 1, "peer_id": number}) for number in (1, 2)]
    port = free_port()
    for one in made:
        one.port, one.metrics_port, one.http_port = port, free_port(), free_port()
        one.peers = {number: f"host={other.directory} port={port}" for number, other in enumerate(made, 1)}
        one.write_files()
        one.spawn()
    try:
        for one in made:
            one.wait_for_log("process up")
        yield made
    finally:
        for one in made:
            one.remove()


def test_with_so_reuseport_a_cancel_works_whichever_process_gets_it(
    pair: list[PoolerProcess], postgres: PostgresServer
) -> None:
    for here in pair:
        with WireClient(here.port, unix=str(here.directory)) as client:
            client.log_in("alice", "app", SECRETS["alice"])
            assert peer_of(client) == pair.index(here) + 1
            for through in pair:
                with running_query(client, postgres):
                    cancel(client.cancel_key, through.port, unix=str(through.directory))
            with running_query(client, postgres):
                cancel(client.cancel_key, here.port)  # whoever of the two the kernel gives it to


def test_a_driver_behind_so_reuseport_cancels_as_ever(pair: list[PoolerProcess], postgres: PostgresServer) -> None:
    for _ in range(4):
        with pair[0].connect() as connection:
            assert cancelled_by_the_driver(connection, postgres)


def test_show_peers_and_peer_pools(pair: list[PoolerProcess]) -> None:
    one, two = pair
    with psycopg.connect(
        one.conninfo("admin", "pgbouncer", host=str(one.directory)), autocommit=True, prepare_threshold=None
    ) as console:
        shown = console.execute("SHOW PEERS").fetchall()
        assert shown == [(1, str(one.directory), one.port, 4), (2, str(two.directory), two.port, 4)]
        assert console.execute("SHOW PEER_POOLS").fetchall() == [(2, 0, 0, 0, 0)]
        assert ("peers", 2) in console.execute("SHOW LISTS").fetchall()


# -- pods: found by a name, told apart by their addresses ---------------------------------------------------------------


@pytest.fixture
def pods(
    postgres: PostgresServer, certificates: Certificates, request: pytest.FixtureRequest
) -> Iterator[list[PoolerProcess]]:
    """Two of them on addresses of the loopback network. What leads to both is a name only in a cluster; here each has
    one that leads to the other."""
    settings: dict[str, Any] = {"listen_addr": "*"}
    if getattr(request, "param", "") in ("require", "verify-full"):
        settings |= {
            "client_tls_sslmode": request.param,
            "client_tls_cert_file": certificates.server.certificate,
            "client_tls_key_file": certificates.server.key,
            "client_tls_ca_file": certificates.ca,
        }
    with two_pods(postgres, ("127.0.0.21", "127.0.0.22"), settings) as made:
        yield made


@contextmanager
def two_pods(
    postgres: PostgresServer, addresses: tuple[str, str], settings: dict[str, Any]
) -> Iterator[list[PoolerProcess]]:
    """A pod at each address, on one port, whose peers' name leads to the other."""
    port, made = free_port(), []
    for own, other in (addresses, addresses[::-1]):
        pod = PoolerProcess(
            postgres.port,
            settings={**settings, "listen_addr": own},
            options=["--peers-host", other, "--peers-address", own, "--drain-seconds", "20"],
        )
        pod.port, pod.metrics_port, pod.http_port = port, free_port(), free_port()
        pod.write_files()
        pod.spawn()
        made.append(pod)
    try:
        for pod in made:
            pod.wait_for_log("process up")
        yield made
    finally:
        for pod in made:
            pod.remove()


def address(pod: PoolerProcess) -> str:
    return str(pod.settings["listen_addr"])


def test_a_cancel_that_reaches_another_pod_is_handed_on(pods: list[PoolerProcess], postgres: PostgresServer) -> None:
    for here, there in (pods, pods[::-1]):
        with WireClient(here.port, address(here)) as client:
            client.log_in("alice", "app", SECRETS["alice"])
            with running_query(client, postgres), WireClient(there.port, address(there)) as canceller:
                canceller.say(cancel_packet(client.cancel_key))
                canceller.expect_closed()


def test_a_pod_that_drains_still_takes_cancels_and_no_clients(
    pods: list[PoolerProcess], postgres: PostgresServer
) -> None:
    here, there = pods
    with WireClient(here.port, address(here)) as client:
        client.log_in("alice", "app", SECRETS["alice"])
        client.ask("BEGIN")
        here.terminate()
        here.wait_for_log("draining")
        eventually(lambda: not accepts(here), "it takes no new client")
        with running_query(client, postgres), WireClient(there.port, address(there)) as canceller:
            canceller.say(cancel_packet(client.cancel_key))
            canceller.expect_closed()


def accepts(pod: PoolerProcess) -> bool:
    try:
        pod.connect(host=address(pod)).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("pods", ["require", "verify-full"], indirect=True)
def test_where_clients_must_use_tls_a_cancel_is_handed_on_through_tls(
    pods: list[PoolerProcess], postgres: PostgresServer, certificates: Certificates
) -> None:
    here, there = pods
    pair = certificates.client_alice
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(pair.certificate, pair.key)
    with WireClient(here.port, address(here)) as client:
        client.start_tls(context)
        client.log_in("alice", "app", SECRETS["alice"])
        with running_query(client, postgres), WireClient(there.port, address(there)) as canceller:
            canceller.start_tls(context)
            canceller.say(cancel_packet(client.cancel_key))
            canceller.socket.recv(100)


@pytest.mark.parametrize("answer", [b"N", b"Sinjected"], ids=["no TLS", "more than one byte"])
def test_a_peer_is_told_nothing_in_clear_where_tls_is_required(
    make_pooler: MakePooler, certificates: Certificates, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(15)
        pooler = make_peer(make_pooler, stranger.getsockname()[1], certificates)
        with WireClient(pooler.port) as canceller:
            canceller.say(cancel_packet(bytes((1, 2, 0, 4)) + b"key\x03"))
            connection, _ = stranger.accept()
            with connection:
                connection.settimeout(15)
                assert connection.recv(100) == ssl_request()
                connection.sendall(answer)
                assert connection.recv(100) == b""
            canceller.expect_closed()


def make_peer(make_pooler: MakePooler, port: int, certificates: Certificates) -> PoolerProcess:
    return make_pooler(
        peer_id=1, peers={2: f"host=127.0.0.1 port={port}"}, client_tls_sslmode="require",
        client_tls_cert_file=certificates.server.certificate, client_tls_key_file=certificates.server.key,
    )  # fmt: skip


# -- protocol 3.2 --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(psycopg.pq.version() < 180000, reason="this libpq speaks protocol 3.0 alone")
def test_libpq_speaks_protocol_3_2_and_cancels_with_a_long_key(
    make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    pooler = make_pooler()
    with pooler.connect(min_protocol_version="3.2", max_protocol_version="3.2") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert cancelled_by_the_driver(connection, postgres)


def test_a_long_key_works_as_a_whole_and_only_so(make_pooler: MakePooler, postgres: PostgresServer) -> None:
    pooler = make_pooler()
    with WireClient(pooler.port) as client:
        client.say(startup_packet(PROTOCOL_3_2, {"user": "alice", "database": "app"}))
        client.authenticate("alice", SECRETS["alice"])
        for heard in client.until("Z"):
            client.take_in(heard)
        key = client.cancel_key
        assert len(key) == 36
        client.say(query("SELECT pg_sleep(0.5)"))
        for wrong in (key[:8], key[:-1], key[:-1] + bytes((key[-1] ^ 1,)), key + b"\0", key + bytes(300)):
            with WireClient(pooler.port) as canceller:
                canceller.say(cancel_packet(wrong))
                canceller.until_closed()
        client.expect("TDCZ")
        with running_query(client, postgres):
            cancel(key, pooler.port)


def test_other_versions_and_unknown_options_are_negotiated(make_pooler: MakePooler) -> None:
    pooler = make_pooler()
    for asked, spoken, options in (
        (PROTOCOL_3_0 + 1, PROTOCOL_3_0, ()),
        (PROTOCOL_3_0 + 9999, PROTOCOL_3_2, ("_pq_.test_protocol_negotiation",)),
        (PROTOCOL_3_0, PROTOCOL_3_0, ("_pq_.a", "_pq_.b")),
        (PROTOCOL_3_2, PROTOCOL_3_2, ("_pq_.a",)),
    ):
        with WireClient(pooler.port) as client:
            more = dict.fromkeys(options, "")
            client.say(startup_packet(asked, {"user": "alice", "database": "app", **more}))
            (negotiation,) = client.expect("v")
            names = b"".join(name.encode() + b"\0" for name in options)
            assert negotiation.body == spoken.to_bytes(4, "big") + len(options).to_bytes(4, "big") + names
            client.authenticate("alice", SECRETS["alice"])
            client.until("Z")


def cancelled_by_the_driver(connection: psycopg.Connection[Any], postgres: PostgresServer) -> bool:
    def cancel_when_it_runs() -> None:
        eventually(lambda: postgres.backends(usename="alice", state="active"), "the query runs")
        connection.cancel_safe()

    thread = threading.Thread(target=cancel_when_it_runs)
    thread.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(30)")
    thread.join()
    return True
