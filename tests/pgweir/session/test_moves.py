"""Servers that are somewhere else than they were: those who wait are served there, and nobody is torn away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgweir.protocol import messages
from pgweir.protocol.reasons import CloseReason
from pgweir.session import moves
from pgweir.settings import DatabaseSettings

SELECT = messages.query("SELECT 1")


def at(host: str, **more: object) -> dict[str, DatabaseSettings]:
    return {"shop": DatabaseSettings(name="shop", dbname="shop", host=host, port=5432, **more)}  # type: ignore[arg-type]


def move(world, host: str) -> None:
    world.operations.apply(replace(world.config, databases=at(host)))


def test_a_client_that_waits_for_a_dead_host_is_served_by_the_new_one_at_once(make_world):
    world = make_world(server_login_retry=15.0)
    client = world.client()
    world.servers[0].lose()
    client.says(SELECT)
    for _ in range(4):
        if world.edge.connecting:
            world.fails_to_connect()
        world.sleep(1)
    abandoned = world.edge.connecting[:]
    move(world, "elsewhere")
    assert not set(abandoned) & set(world.edge.connecting)
    assert len(world.edge.connecting) == 1
    world.run()
    assert b"SELECT 1" in client.hears()


def test_a_login_under_way_to_the_old_host_is_given_up(make_world):
    world = make_world()
    client = world.starts_login()
    (old,) = world.edge.connecting
    move(world, "elsewhere")
    (new,) = world.edge.connecting
    assert new is not old
    world.run()
    assert client.hears().endswith(messages.ready_for_query(b"I"))


def test_a_transaction_ends_where_it_began_and_the_next_one_is_elsewhere(make_world):
    world = make_world(default_pool_size=1)
    client, other = world.client(), world.client()
    client.query("BEGIN")
    other.says(SELECT)
    move(world, "elsewhere")
    assert not world.servers[0].closed
    client.query("COMMIT")
    assert world.servers[0].closed
    assert b"SELECT 1" in other.hears()
    assert len(world.alive()) == 1


def test_who_logs_in_after_a_move_is_greeted_by_the_new_host(make_world):
    world = make_world()
    world.client()
    move(world, "elsewhere")
    late = world.starts_login()
    assert late.hears() == b""
    world.run()
    assert late.hears().endswith(messages.ready_for_query(b"I"))


def test_a_look_up_that_waits_for_the_old_host_is_served_by_the_new_one(make_world):
    world = make_world(
        databases=at("db"),
        auth_type="scram-sha-256",
        auth_user="alice",
        auth_query="FAIL $1",
    )
    carol = world.starts_login(user="carol")
    (old,) = world.edge.connecting
    assert old.pool.user == "alice"
    move(world, "elsewhere")
    (new,) = world.edge.connecting
    assert new is not old
    assert new.pool.user == "alice"
    world.run()
    assert b"bouncer config error" in carol.hears()  # the look-up has run, and said what it says


def test_a_look_up_that_waits_in_a_database_that_is_not_asked_any_more_goes_to_the_one_that_is(make_world):
    entries = {name: DatabaseSettings(name=name, dbname=name, host=name, port=5432) for name in ("shop", "a", "b")}
    world = make_world(
        databases=entries, auth_type="scram-sha-256", auth_user="alice", auth_query="FAIL $1", auth_dbname="a"
    )
    carols = [world.starts_login(user="carol") for _ in range(2)]
    assert [server.pool.database for server in world.edge.connecting] == ["a"]
    moved = replace(world.config, settings=replace(world.config.settings, auth_dbname="b"))
    del world.edge.connecting[0]  # nobody answers there
    world.operations.apply(moved)
    assert [server.pool.database for server in world.edge.connecting] == ["b"]
    world.run()
    assert all(b"bouncer config error" in carol.hears() for carol in carols)
    (nobody,) = [pool for pool in world.pooler.pools.values() if pool.database == "a"]
    assert not nobody.clients
    for server in list(nobody.servers()):
        world.pooler.drop_server(server, CloseReason.CLOSE_NEEDED)


@pytest.mark.parametrize("state", ["idle", "active"])
def test_servers_at_an_address_that_the_name_has_lost_go_when_they_are_free(make_world, state):
    world = make_world()
    client = world.client()
    (server,) = world.pool.servers()
    server.host, server.address = "db", "10.0.0.1"
    if state == "active":
        client.query("BEGIN")
    moves.addresses_changed(world.pooler, "db", ["10.0.0.2", "10.0.0.1"])
    assert not world.servers[0].closed
    moves.addresses_changed(world.pooler, "db", ["10.0.0.2"])
    assert world.servers[0].closed is (state == "idle")
    client.query("COMMIT")
    assert world.servers[0].closed
    assert b"SELECT 1" in client.query("SELECT 1")


def test_who_waits_tries_the_new_address_at_once(make_world):
    world = make_world(server_login_retry=15.0)
    client = world.client()
    world.servers[0].lose()
    client.says(SELECT)
    world.fails_to_connect()
    assert not world.edge.connecting
    moves.addresses_changed(world.pooler, "db", ["10.0.0.2"])
    world.run()
    assert b"SELECT 1" in client.hears()


def test_a_session_goes_on_with_its_server_unless_server_fast_close_says_otherwise(make_world):
    for fast in (False, True):
        world = make_world(pool_mode="session", server_fast_close=fast)
        client = world.client()
        client.query("BEGIN")
        move_keeping = replace(world.config, databases=at("elsewhere"))
        world.operations.apply(move_keeping)
        world.sleep(1)
        assert not world.servers[0].closed
        client.query("COMMIT")
        world.sleep(1)
        assert world.servers[0].closed is fast
        assert (b"database configuration changed" in client.hears()) is fast
