"""How pools grow: what forbids it, which failures pass, and whom they reach."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.pgweir.mini_postgres import MiniPostgres

from pgweir.pool.ledger import Limit
from pgweir.protocol import messages
from pgweir.protocol.reasons import GOODBYES
from pgweir.settings import DatabaseSettings, UserSettings

SELECT = messages.query("SELECT 1")
READY = messages.ready_for_query(b"I")


def database(name: str = "shop", **more: Any) -> DatabaseSettings:
    return DatabaseSettings(name=name, dbname=name, **{"host": "db", "port": 5432, **more})


def refuses(world: Any, sqlstate: str, message: str) -> None:
    postgres = MiniPostgres(greeted=False)
    postgres.refusal = (sqlstate, message)
    world.accept(postgres).deliver()


@pytest.mark.parametrize(
    ("sqlstate", "message"),
    [
        ("53300", "sorry, too many clients already"),
        ("57P03", "the database system is starting up"),
        ("57P01", "terminating connection due to administrator command"),
    ],
)
def test_no_for_now_keeps_everybody_in_the_queue_until_the_deadline_with_the_servers_words(
    make_world, sqlstate, message
):
    world = make_world(query_wait_timeout=20.0, query_wait_notify=0, server_login_retry=1.0)
    clients = [world.client() for _ in range(3)]
    world.servers[0].lose()
    for client in clients:
        client.says(SELECT)
    attempts = 0
    for _ in range(19):
        while world.edge.connecting:
            attempts += 1
            refuses(world, sqlstate, message)
        world.sleep(1)
    assert 15 <= attempts <= 30  # it is tried again and again, and never in a hurry
    assert [client.hears() for client in clients] == [b""] * 3
    world.sleep(3)
    for client in clients:
        heard = client.hears()
        assert b"C" + sqlstate.encode() in heard
        assert message.encode() in heard
    assert world.pooler.server_login_errors[sqlstate] == attempts


def test_when_there_is_room_again_they_go_on(make_world):
    world = make_world(server_login_retry=15.0)
    clients = [world.client() for _ in range(3)]
    world.servers[0].lose()
    for client in clients:
        client.says(SELECT)
    refuses(world, "53300", "sorry, too many clients already")
    world.sleep(0.5)
    world.run()
    assert all(b"SELECT 1" in client.hears() for client in clients)


@pytest.mark.parametrize("stays", [False, True])
def test_where_postgresql_is_full_of_servers_that_nobody_is_there_for_one_makes_room(make_world, stays):
    world = make_world(server_login_retry=15.0)
    alice = world.client()
    alice.query("SELECT 1")
    if not stays:
        alice.leaves()
    world.sleep(0.1)
    bob = world.starts_login(user="bob")
    refuses(world, "53300", "sorry, too many clients already")
    assert world.servers[0].closed is not stays, "who is in keeps the servers of the pool"
    world.sleep(0.5)
    world.run()
    assert bob.hears().endswith(READY)
    world.balance()


def test_with_no_live_server_a_login_waits_and_then_fails(make_world):
    world = make_world(query_wait_timeout=10.0, server_idle_timeout=5.0)
    world.client()
    world.sleep(6)  # the only server is closed for its idleness …
    assert not world.alive()
    early = world.starts_login()
    assert early.hears().endswith(READY)  # … which is no sign that PostgreSQL has gone
    world.sleep(31)
    late = world.starts_login()
    assert late.hears() == b""
    while world.edge.connecting:
        world.fails_to_connect("connect failed: Connection refused")
        world.sleep(1)
    world.sleep(10)
    assert b"Connection refused" in late.hears()
    assert late.wire.closed


def test_a_lost_backend_ends_no_idle_client_and_none_that_waits(make_world):
    world = make_world(default_pool_size=1)
    idle, holder, waiter = world.client(), world.client(), world.client()
    holder.query("BEGIN")
    waiter.says(SELECT)
    world.servers[0].lose()
    assert b"server conn crashed?" in holder.hears()
    world.run()
    assert b"SELECT 1" in waiter.hears()
    assert b"SELECT 1" in idle.query("SELECT 1")


@pytest.mark.parametrize("sqlstate", ["57P01", "57P05", "25P03"])
def test_a_server_that_says_goodbye_on_the_shelf_is_never_handed_out(make_world, sqlstate, caplog):
    caplog.set_level("INFO")
    world = make_world()
    client = world.client()
    client.query("SELECT 1")
    world.servers[0].say(messages.error_response("FATAL", sqlstate, "terminating connection because"))
    assert not world.pool.idle
    said = f"{sqlstate}: terminating connection because"
    assert f"closing because: {GOODBYES[sqlstate]} (age=0s) {said}" in caplog.text
    assert b"SELECT 1" in client.query("SELECT 1")
    assert len(world.servers) == 2


# --- several hosts ------------------------------------------------------------------------------------------------------


def test_a_host_that_is_down_costs_nobody_the_retry_pause(make_world):
    world = make_world(databases={"shop": database(host="a,b")}, server_login_retry=15.0)
    client = world.starts_login()
    (server,) = world.edge.connecting
    server.host = "a"
    world.fails_to_connect()
    (server,) = world.edge.connecting
    server.host = "b"
    world.run()
    assert client.hears().endswith(READY)


def test_when_all_hosts_are_down_there_is_a_pause(make_world):
    world = make_world(databases={"shop": database(host="a,b")}, server_login_retry=15.0)
    world.starts_login()
    for host in "ab":
        world.edge.connecting[0].host = host
        world.fails_to_connect()
    assert not world.edge.connecting
    world.sleep(1)
    assert len(world.edge.connecting) == 1


# --- limits over pools ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_db_connections", "max_user_connections"])
def test_a_limit_over_pools_takes_the_most_idle_server_of_another_and_never_a_busy_one(make_world, limit):
    if limit == "max_db_connections":
        world = make_world(max_db_connections=2)
        first, second, third = world.client(), world.client(user="bob"), world.client(user="bob")
    else:
        entries = {name: database(name) for name in ("shop", "till")}
        world = make_world(databases=entries, max_user_connections=2)
        first, second, third = world.client("shop"), world.client("till"), world.client("till")
    assert len(world.alive()) == 2
    second.query("BEGIN")
    third.says(SELECT)
    assert world.servers[0].closed  # evicted: first's server was idle
    world.run()
    assert b"SELECT 1" in third.hears()
    third.query("BEGIN")
    first.says(SELECT)
    assert not world.edge.connecting
    assert world.pooler.opening.wake(first.session.pool) is Limit[limit.upper()]
    third.query("COMMIT")
    world.sleep(1)
    world.run()
    assert b"SELECT 1" in first.hears()


def test_a_process_has_no_more_servers_than_it_may_have_whoever_wants_them(make_world):
    entries = {name: database(name) for name in ("shop", "till")}
    world = make_world(databases=entries, max_server_connections=2)
    first, second = world.client("shop"), world.client("till", user="bob")
    second.query("BEGIN")
    third = world.client("till")
    assert (len(world.alive()), world.servers[0].closed) == (2, True)  # evicted: first's server was idle
    third.query("BEGIN")
    first.says(SELECT)
    assert world.pooler.opening.wake(first.session.pool) is Limit.MAX_SERVER_CONNECTIONS
    third.query("COMMIT")
    world.sleep(1)
    world.run()
    assert b"SELECT 1" in first.hears()
    assert len(world.alive()) == 2


def test_a_lowered_limit_takes_idle_servers_at_once_and_busy_ones_when_they_are_given_back(make_world):
    world = make_world(max_server_connections=4)
    clients = [world.client() for _ in range(4)]
    for client in clients:
        client.query("BEGIN")
    clients[0].query("COMMIT")
    assert len(world.alive()) == 4
    world.operations.apply(replace(world.config, settings=replace(world.config.settings, max_server_connections=2)))
    world.sleep(1)
    assert len(world.alive()) == 3  # the idle one went, nobody's transaction did
    clients[1].query("COMMIT")
    world.sleep(1)
    assert len(world.alive()) == 2
    clients[2].query("COMMIT")
    clients[3].query("COMMIT")
    for client in clients:
        client.says(messages.query("BEGIN"))
    world.sleep(1)
    world.run()
    assert len(world.alive()) == 2


def test_a_user_s_own_limit_is_told_from_the_global_one(make_world):
    users = {"users": {"alice": UserSettings(name="alice", max_user_connections=1)}}
    world = make_world(config=users, max_user_connections=3)
    first, second = world.client(), world.client()
    first.query("BEGIN")
    second.says(SELECT)
    assert not world.edge.connecting
    bobs = [world.client(user="bob") for _ in range(2)]
    for bob in bobs:
        bob.query("BEGIN")
    assert len(world.alive()) == 3


def test_the_reserve_is_opened_for_who_has_waited_and_closed_when_it_is_not_needed(make_world, caplog):
    world = make_world(default_pool_size=1, reserve_pool_size=1, reserve_pool_timeout=5.0)
    holder, waiter, third = world.client(), world.client(), world.client()
    holder.query("BEGIN")
    waiter.says(SELECT)
    third.says(SELECT)
    world.sleep(4)
    assert not world.edge.connecting
    world.sleep(2)
    world.run()
    assert "taking connection from reserve_pool: shop/alice" in caplog.text
    assert b"SELECT 1" in waiter.hears()
    assert b"SELECT 1" in third.hears()
    assert len(world.alive()) == 2


def test_reserve_pool_timeout_0_switches_the_reserve_off(make_world):
    world = make_world(default_pool_size=1, reserve_pool_size=1, reserve_pool_timeout=0.0)
    holder, waiter = world.client(), world.client()
    holder.query("BEGIN")
    waiter.says(SELECT)
    world.sleep(60)
    assert world.pooler.opening.wake(world.pool) is Limit.POOL_SIZE


@pytest.mark.parametrize("limit", ["max_db_client_connections", "max_user_client_connections"])
def test_clients_over_a_limit_of_their_own_are_refused_by_its_name(make_world, limit):
    world = make_world(**{limit: 2})
    first, _ = world.client(), world.client()
    refused = world.starts_login()
    assert f"client connections exceeded ({limit})".encode() in refused.hears()
    first.leaves()
    world.client()


def test_min_pool_size_of_a_forced_user_is_there_before_any_client(make_world):
    entry = database(user="bob", min_pool_size=2)
    world = make_world(databases={"shop": entry})
    world.sleep(1)
    world.run()
    world.sleep(1)
    world.run()
    assert len(world.alive()) == 2
    assert world.pooler.opening.wake(world.pool) is Limit.NOT_NEEDED
