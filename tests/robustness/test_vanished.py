"""A node that vanishes without FIN: its link goes down, and nothing comes from it any more, not even a reset.

The other node is a network namespace behind a veth pair, made by this test; that needs root and `ip`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from tests.pooler.fake_postgres import FakePostgres, Session
from tests.pooler.process import PoolerProcess, eventually
from tests.pooler.wire import WireClient, query
from tests.postgres.server import PostgresServer

pytestmark = pytest.mark.usefixtures("ours_only")
MakePooler = Callable[..., PoolerProcess]
T = TypeVar("T")

CLONE_NEWNET = 0x40000000
KEEPALIVE: dict[str, object] = {"tcp_keepidle": 1, "tcp_keepintvl": 1, "tcp_keepcnt": 2, "tcp_user_timeout": 2000}


class Node:
    """A namespace with an address of its own; `vanish` takes its link down."""

    def __init__(self) -> None:
        number = os.getpid() % 4000
        self.name = f"pgweir-{number}"
        self._link = f"pgw{number}"
        # Of the network for benchmarks (RFC 2544), which no pod, service or machine has its address in; four for each process.
        net, host = f"198.18.{number // 62}", number % 62 * 4
        self.here, self.address = f"{net}.{host + 1}", f"{net}.{host + 2}"

    def make(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("addr", "add", f"{self.here}/30", "dev", self._link)
        ip("link", "set", self._link, "up")
        for command in (f"addr add {self.address}/30 dev eth0", "link set eth0 up", "link set lo up"):
            ip("-n", self.name, *command.split())

    def vanish(self) -> None:
        ip("-n", self.name, "link", "set", "eth0", "down")

    def remove(self) -> None:
        subprocess.run(["ip", "link", "del", self._link], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def inside(self, make: Callable[[], T]) -> T:
        """What is made there (a socket) stays there."""
        made: list[T] = []

        def run() -> None:
            with open(f"/run/netns/{self.name}") as namespace:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) == 0
            made.append(make())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return made[0]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def node() -> Iterator[Node]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and the program ip")
    made = Node()
    try:
        made.make()
    except subprocess.CalledProcessError as error:
        made.remove()
        pytest.skip(f"no network namespace here: {error.stderr.decode().strip()}")
    yield made
    made.remove()


def test_a_server_that_vanishes_in_a_query_is_given_up_and_its_client_told(node: Node, make_pooler: MakePooler) -> None:
    def script(session: Session) -> None:
        session.accept_login()
        while (heard := session.hear()).type != "X":
            if b"silence" not in heard.body:
                session.reply(heard)

    fake = node.inside(lambda: FakePostgres(script, host=node.address))
    with fake:
        pooler = make_pooler(
            databases={"app": f"host={node.address} port={fake.port}"},
            auth_type="trust",
            default_pool_size=2,
            **KEEPALIVE,
        )
        with pooler.wire() as asking, pooler.wire() as idle:
            for client in (asking, idle):
                client.ask("SELECT 1")
            asking.say(query("SELECT 'silence'"))
            eventually(lambda: pooler.pool()["sv_active"] == 1)
            before = time.monotonic()
            node.vanish()
            errors = [item.fields["C"] for item in asking.until_closed() if item.type == "E"]
            assert errors == ["08006"]
            assert time.monotonic() - before < 30
            eventually(lambda: sum(pooler.pool()[name] for name in ("sv_idle", "sv_used", "sv_active")) == 0)


def test_a_client_that_vanishes_in_a_transaction_gives_its_server_back(
    node: Node, make_pooler: MakePooler, postgres: PostgresServer
) -> None:
    pooler = make_pooler(listen_addr="*", auth_type="trust", default_pool_size=1, **KEEPALIVE)
    lost = node.inside(lambda: WireClient(pooler.port, node.here).log_in("alice", "app"))
    lost.ask("BEGIN")
    lost.ask("CREATE TABLE never (x int)")
    with pooler.wire() as waiting:
        waiting.say(query("SELECT 1"))
        eventually(lambda: pooler.pool()["cl_waiting"] == 1)
        node.vanish()
        assert [item.type for item in waiting.until("Z")] == list("TDCZ")
        assert waiting.ask("SELECT count(*) FROM pg_class WHERE relname = 'never'") == [[b"0"]]
    lost.close()
