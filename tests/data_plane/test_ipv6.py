"""Over IPv6: clients, PostgreSQL as an address or a name, the other rooms' ports, and cancels among pods of both families."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator

import psycopg
import pytest
from tests.data_plane.test_peers import address, running_query, two_pods
from tests.network import needs_ipv6
from tests.pooler.process import SECRETS, PoolerProcess
from tests.pooler.wire import WireClient, cancel_packet
from tests.postgres.server import PostgresServer, free_port

pytestmark = needs_ipv6
MakePooler = Callable[..., PoolerProcess]
HBA = ("local all all trust", "host all all ::1/128 scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256")


@pytest.fixture
def on_ipv6(make_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A PostgreSQL that listens on ::1 alone."""
    server = make_postgres(hba=HBA)
    server.set({"listen_addresses": "::1"})
    server.start()
    return server


@pytest.mark.parametrize("host", ["::1", "127.0.0.1, ::1"])
def test_postgresql_is_an_ipv6_address_alone_or_in_a_list(
    on_ipv6: PostgresServer, make_pooler: MakePooler, host: str
) -> None:
    host = host.replace(" ", "")
    pooler = make_pooler(server_port=on_ipv6.port, databases={"*": f"host={host} port={{port}}"}, listen_addr="*")
    for client in ("127.0.0.1", "::1"):
        with psycopg.connect(pooler.conninfo(host=client)) as connection:
            assert connection.execute("SELECT inet_server_addr()::text").fetchone() == ("::1/128",)
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_client_of_either_family_is_shown_and_judged_by_its_own_address(make_pooler: MakePooler) -> None:
    hba = ["local all all trust", "host all alice ::1/128 scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"]
    pooler = make_pooler(listen_addr="*", auth_type="hba", hba=hba)
    with (
        psycopg.connect(pooler.conninfo(host="::1")) as six,
        psycopg.connect(pooler.conninfo(host="127.0.0.1")) as four,
    ):
        six.execute("SELECT 1")
        four.execute("SELECT 1")
        addresses = [row["addr"] for row in pooler.console("SHOW CLIENTS") if row["user"] == "alice"]
        assert sorted(addresses) == ["127.0.0.1", "::1"]
    pooler.connect("bob").close()
    with pytest.raises(psycopg.OperationalError, match="::1"):
        psycopg.connect(pooler.conninfo("bob", host="::1"))


def test_the_other_rooms_listen_on_both_families(make_pooler: MakePooler) -> None:
    port = free_port()
    make_pooler(options=["--http-listen", f"*:{port}"])
    for host in ("127.0.0.1", "[::1]"):
        with urllib.request.urlopen(f"http://{host}:{port}/livez", timeout=10) as answer:
            assert answer.status == 200


@pytest.fixture
def pods(postgres: PostgresServer) -> Iterator[list[PoolerProcess]]:
    """Two pods of a dual-stack cluster, one at an address of each family."""
    with two_pods(postgres, ("::1", "127.0.0.23"), {}) as made:
        yield made


def test_a_cancel_finds_the_pod_whose_address_is_of_the_other_family(
    pods: list[PoolerProcess], postgres: PostgresServer
) -> None:
    for here, there in (pods, pods[::-1]):
        with WireClient(here.port, address(here)) as client:
            client.log_in("alice", "app", SECRETS["alice"])
            with running_query(client, postgres), WireClient(there.port, address(there)) as canceller:
                canceller.say(cancel_packet(client.cancel_key))
                canceller.expect_closed()
