"""Settings whose effect is one line of a conversation or of the log: changed, and the difference seen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.pgweir.session.world import World

from pgweir.protocol import messages
from pgweir.settings import DatabaseSettings, UserSettings

MakeWorld = Callable[..., World]
SHOP = DatabaseSettings(name="shop", dbname="shop", host="db", port=5432)


def shop(**keys: object) -> dict[str, DatabaseSettings]:
    return {"shop": replace(SHOP, **keys)}  # type: ignore[arg-type]


def startup(world: World) -> dict[str, str]:
    """What the first server was told at its start."""
    words = (world.servers[0].postgres.startup or b"").decode().split("\0")
    return dict(zip(words[::2], words[1::2], strict=False))


@pytest.mark.parametrize("wanted", [True, False])
def test_logins_are_logged_as_log_connections_says(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    caplog.set_level(logging.INFO, logger="pgweir")
    make_world(log_connections=wanted).client()
    assert ("login attempt: db=shop user=alice" in caplog.text) is wanted
    assert ("new connection to server" in caplog.text) is wanted


@pytest.mark.parametrize("wanted", [True, False])
def test_ends_are_logged_as_log_disconnections_says(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    caplog.set_level(logging.INFO, logger="pgweir")
    world = make_world(log_disconnections=wanted)
    world.client().leaves()
    world.servers[0].lose()
    assert ("closing because: client unexpected eof" in caplog.text) is wanted
    assert ("closing because: server conn crashed?" in caplog.text) is wanted


@pytest.mark.parametrize("wanted", [True, False])
def test_errors_are_logged_as_log_pooler_errors_says(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    world = make_world(log_pooler_errors=wanted, max_client_conn=1)
    world.client().says(b"?")
    world.clients[0].says(messages.message(ord("?"), b""))
    assert ("pooler error: unknown pkt" in caplog.text) is wanted


def test_simple_queries_are_refused_where_disable_pqexec_says_so(make_world: MakeWorld) -> None:
    client = make_world(disable_pqexec=True).client()
    assert b"PQexec disallowed" in client.query("SELECT 1")
    assert client.wire.closed
    assert b"SELECT 1" in make_world().client().query("SELECT 1")


@pytest.mark.parametrize(("always", "resets"), [(True, ["DISCARD ALL"]), (False, [])])
def test_server_reset_query_always_resets_between_transactions(
    make_world: MakeWorld, always: bool, resets: list[str]
) -> None:
    world = make_world(server_reset_query_always=always)
    world.client().query("SELECT 1")
    assert world.servers[0].postgres.queries == ["SELECT 1", *resets]


@pytest.mark.parametrize(("in_turn", "order"), [(True, [0, 1, 0, 1]), (False, [1, 1, 1, 1])])
def test_server_round_robin_takes_idle_servers_in_turn(make_world: MakeWorld, in_turn: bool, order: list[int]) -> None:
    world = make_world(server_round_robin=in_turn)
    clients = [world.client(), world.client()]
    for client in clients:
        client.says(messages.query("BEGIN"))
        world.run()
    for client in clients:
        client.query("COMMIT")
    used = []
    for number in range(4):
        clients[0].query(f"SELECT {number + 1}")
        used += [index for index, it in enumerate(world.servers) if it.postgres.queries[-1] == f"SELECT {number + 1}"]
    assert used == order


@pytest.mark.parametrize("text", ["", "the pooler is moved at 18:00"])
def test_login_notify_message_is_a_notice_in_the_greeting(make_world: MakeWorld, text: str) -> None:
    world = make_world(login_notify_message=text)
    client = world.starts_login()
    world.run()
    notice = messages.notice_response("NOTICE", "00000", text)
    assert (notice in client.hears()) is bool(text)


def test_transaction_timeout_ends_a_transaction_that_goes_on_and_on(make_world: MakeWorld) -> None:
    world = make_world(transaction_timeout=60.0)
    client = world.client()
    client.query("BEGIN")
    for _ in range(5):
        world.sleep(11.0)
        client.query("SELECT 1")
    assert not client.wire.closed
    world.sleep(6.0)
    assert b"C25P04\0Mtransaction timeout" in client.hears()


def test_a_database_is_reached_at_its_host_and_port_under_its_dbname(make_world: MakeWorld) -> None:
    world = make_world(shop(dbname="shop_v2"))
    world.client()
    assert startup(world)["database"] == "shop_v2"
    assert world.servers[0].protocol.pool.database == "shop"


def test_a_forced_user_is_who_the_server_sees_and_its_clients_share_a_pool(make_world: MakeWorld) -> None:
    world = make_world(shop(user="app", password="secret"))
    for user in ("alice", "bob"):
        world.client(user=user)
    assert startup(world)["user"] == "app"
    assert [(pool.user, len(pool.clients)) for pool in world.pooler.pools.values()] == [("app", 2)]
    assert world.pooler.config.server_password("shop", "app") == "secret"


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        ("client_encoding", "client_encoding", "LATIN1"),
        ("datestyle", "DateStyle", "German"),
        ("timezone", "TimeZone", "Asia/Tokyo"),
        ("application_name", "application_name", "till"),
    ],
)
def test_a_database_starts_its_servers_with_its_own_variables(
    make_world: MakeWorld, key: str, name: str, value: str
) -> None:
    world = make_world(shop(**{key: value}))
    world.client()
    assert startup(world)[name] == value


@pytest.mark.parametrize("query", ["SELECT 7", "FAIL"])
def test_connect_query_runs_first_and_its_failure_is_no_reason_to_close(make_world: MakeWorld, query: str) -> None:
    world = make_world(shop(connect_query=query))
    world.client().query("SELECT 1")
    (server,) = world.alive()
    assert server.postgres.queries == [query, "SELECT 1"]


def test_a_user_of_its_own_time_limits(make_world: MakeWorld) -> None:
    world = make_world(
        config={"users": {"alice": UserSettings(name="alice", transaction_timeout=5.0, pool_size=1)}},
        transaction_timeout=600.0,
    )
    alice, bob = world.client(user="alice"), world.client(user="bob")
    alice.query("BEGIN")
    bob.query("BEGIN")
    world.sleep(6.0)
    assert (alice.wire.closed, bob.wire.closed) == (True, False)


@pytest.mark.parametrize("iterations", [4096, 7777])
def test_scram_iterations_are_those_of_verifiers_made_from_plain_passwords(
    make_world: MakeWorld, iterations: int
) -> None:
    client = make_world(auth_type="scram-sha-256", scram_iterations=iterations).starts_login()
    client.hears()
    first = b"n,,n=,r=nonce"
    client.says(messages.message(ord("p"), b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first))
    assert b",i=%d" % iterations in client.hears()


def test_a_forced_user_that_a_reload_takes_away_stays_for_the_clients_that_are_there(make_world: MakeWorld) -> None:
    world = make_world(shop(user="app", password="secret"))
    client = world.client()
    client.query("SELECT 1")
    world.operations.apply(replace(world.config, databases=shop()))
    world.run()
    assert world.alive() == [], "that connection was prepared otherwise than the next ones"
    assert b"SELECT 1" in client.query("SELECT 1")
    world.client()
    assert [pool.user for pool in world.pooler.pools.values()] == ["app", "alice"]
