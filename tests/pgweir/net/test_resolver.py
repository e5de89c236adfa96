"""Names and addresses on a real loop, with a resolver that says what the test wants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tests.pooler.fake_postgres import FakePostgres, Session

from pgweir.config import Config
from pgweir.net.edge import NetworkEdge
from pgweir.net.tls import TlsContexts
from pgweir.pool.records import ServerState
from pgweir.protocol.reasons import CloseReason
from pgweir.session import switchover
from pgweir.session.pooler import Pooler
from pgweir.settings import DatabaseSettings, Settings

PATIENCE = 60.0


class Scene:
    """A pooler on the running loop, and what its resolver is asked."""

    def __init__(self, port: int, host: str = "db.example", **settings: Any) -> None:
        self.answers: list[str] | OSError = ["127.0.0.1"]
        self.asked: list[str] = []
        self.held: asyncio.Event | None = None
        loop: Any = asyncio.get_running_loop()
        loop.getaddrinfo = self._getaddrinfo
        config = Config(
            settings=Settings(server_tls_sslmode="disable", **settings),
            databases={"shop": DatabaseSettings(name="shop", dbname="shop", host=host, port=port)},
        )
        self.edge = NetworkEdge(TlsContexts(client=None, server=None, peer=None))
        self.pooler = self.edge.pooler = Pooler(config, self.edge)
        database = self.pooler.database("shop")
        assert database is not None
        self.pool = self.pooler.pool(database, "alice")

    async def _getaddrinfo(self, host: str, port: object, **_: object) -> list[Any]:
        self.asked.append(host)
        if self.held is not None:
            await self.held.wait()
        if isinstance(self.answers, OSError):
            raise self.answers
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.answers]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.01)

    def open(self, count: int = 1) -> None:
        for _ in range(count):
            self.pooler.opening.open(self.pool)

    def addresses(self) -> list[str]:
        return [s.address for s in self.pool.servers() if s.state is ServerState.IDLE]

    async def close(self) -> None:
        for server in list(self.pooler.servers()):
            if server.wire is not None:
                server.wire.close()
        await self.edge.close()
        await asyncio.sleep(0.05)


def play(story: Callable[[Scene], Awaitable[None]], port: int, **settings: Any) -> None:
    async def run() -> None:
        scene = Scene(port, **settings)
        try:
            await story(scene)
        finally:
            await scene.close()

    asyncio.run(run())


def test_sockets_to_servers_are_tuned_as_the_settings_say():
    async def story(scene: Scene) -> None:
        scene.open()
        await scene.until(lambda: len(scene.addresses()) == 1)
        (server,) = scene.pool.servers()
        wire: Any = server.wire
        sock = wire.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        names = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT
        assert [sock.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [61, 7, 3, 30_000]

    with FakePostgres() as fake:
        play(story, fake.port, tcp_keepidle=61, tcp_keepintvl=7, tcp_keepcnt=3, tcp_user_timeout=30_000)


def test_those_who_need_a_name_at_the_same_time_ask_once_and_the_answer_is_kept():
    async def story(scene: Scene) -> None:
        scene.held = asyncio.Event()
        scene.open(3)
        await scene.until(lambda: bool(scene.asked))
        assert scene.pooler.names.pending == {"db.example"}
        scene.held.set()
        await scene.until(lambda: len(scene.addresses()) == 3)
        scene.open()
        await scene.until(lambda: len(scene.addresses()) == 4)
        assert scene.asked == ["db.example"]
        assert not scene.pooler.names.pending

    with FakePostgres() as fake:
        play(story, fake.port)


def test_dns_max_ttl_0_asks_each_time():
    async def story(scene: Scene) -> None:
        for count in (1, 2):
            scene.open()
            await scene.until(lambda count=count: len(scene.addresses()) == count)  # type: ignore[misc]
        assert scene.asked == ["db.example"] * 2

    with FakePostgres() as fake:
        play(story, fake.port, dns_max_ttl=0.0)


def test_an_address_that_refuses_is_followed_by_the_next_one():
    async def story(scene: Scene) -> None:
        scene.answers = ["127.0.0.2", "127.0.0.1"]
        scene.open(2)
        await scene.until(lambda: len(scene.addresses()) == 2)
        assert scene.addresses() == ["127.0.0.1"] * 2
        assert scene.pool.failed_at is None

    with FakePostgres() as fake:
        play(story, fake.port)


def test_a_route_is_followed_before_the_resolver_has_answered_and_ends_with_its_time():
    async def story(scene: Scene) -> None:
        scene.held = asyncio.Event()
        scene.answers = ["127.0.0.1"]
        switchover.route(scene.pooler, "one", "db.example", "127.0.0.2", 600.0)
        scene.open()
        await scene.until(lambda: scene.addresses() == ["127.0.0.2"])
        scene.held.set()
        await scene.until(lambda: not scene.pooler.names.pending)
        assert scene.addresses() == ["127.0.0.2"], "the resolver's word takes nothing from it"
        scene.pooler.names.pin("db.example", "127.0.0.2", 0.0, scene.pooler.clock())  # its time is over
        scene.open()
        await scene.until(lambda: sorted(scene.addresses()) == ["127.0.0.1", "127.0.0.2"])

    with FakePostgres() as fake, FakePostgres(host="127.0.0.2", port=fake.port):
        play(story, fake.port)


def test_an_address_in_the_configuration_can_be_routed_too():
    async def story(scene: Scene) -> None:
        scene.open()
        await scene.until(lambda: scene.addresses() == ["127.0.0.1"])
        switchover.route(scene.pooler, "one", "127.0.0.1", "127.0.0.2", 60.0)
        scene.open()
        await scene.until(lambda: scene.addresses() == ["127.0.0.2"])

    with FakePostgres() as fake, FakePostgres(host="127.0.0.2", port=fake.port):
        play(story, fake.port, host="127.0.0.1")


def test_a_route_that_takes_the_connection_and_not_the_login_makes_room_for_the_resolver_s_address():
    def starting(session: Session) -> None:
        session.read_startup()
        session.refuse("57P03", "the database system is starting up")

    async def story(scene: Scene) -> None:
        scene.answers = ["127.0.0.1"]
        scene.open()
        await scene.until(lambda: scene.addresses() == ["127.0.0.1"])
        switchover.route(scene.pooler, "one", "db.example", "127.0.0.2", 60.0)
        assert scene.addresses() == []
        for _ in range(2):
            scene.open()
        await scene.until(lambda: scene.pool.failed_at is not None)
        scene.open()
        await scene.until(lambda: scene.addresses() == ["127.0.0.1"])

    with FakePostgres() as fake, FakePostgres(starting, host="127.0.0.2", port=fake.port):
        play(story, fake.port)


def test_in_haste_an_address_that_says_nothing_is_given_up_soon():
    async def story(scene: Scene) -> None:
        connect = scene.edge._loop.sock_connect

        async def sock_connect(sock: socket.socket, where: tuple[str, int]) -> None:
            if where[0] == "127.0.0.2":
                await asyncio.sleep(3600)
            await connect(sock, where)

        loop: Any = scene.edge._loop
        loop.sock_connect = sock_connect
        scene.answers = ["127.0.0.1"]
        switchover.route(scene.pooler, "one", "db.example", "127.0.0.2", 60.0)
        scene.open()  # nothing is known beside the route yet: it fails
        await scene.until(lambda: scene.pool.failed_at is not None)
        scene.open()
        await scene.until(lambda: scene.addresses() == ["127.0.0.1"])

    with FakePostgres() as fake:
        play(story, fake.port, server_connect_timeout=3600.0)


def test_a_failed_look_up_is_not_repeated_before_its_time():
    async def story(scene: Scene) -> None:
        scene.answers = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        for _ in range(2):
            scene.open()
            await scene.until(lambda: not scene.pool.server_count)
        assert scene.pool.failure == "server DNS lookup failed: Name or service not known"
        assert scene.asked == ["db.example"]

    play(story, 5432, dns_nxdomain_ttl=60.0)


def test_dns_nxdomain_ttl_0_asks_again_with_each_attempt():
    async def story(scene: Scene) -> None:
        scene.answers = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        for _ in range(2):
            scene.open()
            await scene.until(lambda: not scene.pool.server_count)
        assert scene.asked == ["db.example"] * 2

    play(story, 5432, dns_nxdomain_ttl=0.0)


def test_a_resolver_that_is_down_leaves_servers_and_addresses_as_they_are():
    async def story(scene: Scene) -> None:
        scene.open()
        await scene.until(lambda: len(scene.addresses()) == 1)
        scene.answers = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        await scene.until(lambda: scene.edge.refresh_names() or len(scene.asked) == 2)
        scene.open()
        await scene.until(lambda: len(scene.addresses()) == 2)

    with FakePostgres() as fake:
        play(story, fake.port, dns_max_ttl=0.1, dns_nxdomain_ttl=60.0)


def test_a_name_that_means_another_address_takes_its_servers_along():
    async def story(scene: Scene) -> None:
        scene.open()
        await scene.until(lambda: len(scene.addresses()) == 1)
        (server,) = scene.pool.servers()
        scene.answers = ["127.0.0.2"]
        await scene.until(lambda: scene.edge.refresh_names() or server.state is ServerState.CLOSED)

    with FakePostgres() as fake:
        play(story, fake.port, dns_max_ttl=0.1)


def test_a_look_up_that_hangs_holds_up_its_own_connection_alone_and_no_longer_than_the_timeout():
    async def story(scene: Scene) -> None:
        scene.held = asyncio.Event()
        scene.open()
        await scene.until(lambda: scene.pool.failed_at is not None)
        assert scene.pool.failure == "connect timeout"

    play(story, 5432, server_connect_timeout=0.2)


def test_a_server_that_is_not_wanted_any_more_is_not_connected():
    heard: list[Session] = []

    async def story(scene: Scene) -> None:
        scene.held = asyncio.Event()
        scene.open()
        await scene.until(lambda: bool(scene.asked))
        (server,) = scene.pool.logging_in
        scene.pooler.drop_server(server, CloseReason.CLOSE_NEEDED)
        scene.held.set()
        await scene.until(lambda: not scene.edge._connecting)

    def script(session: Session) -> None:
        heard.append(session)

    with FakePostgres(script) as fake:
        play(story, fake.port)
    assert not heard
