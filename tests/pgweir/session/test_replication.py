"""Clients that replicate: a server of their own, opened as they ask, closed with them."""

from __future__ import annotations

import pytest
from tests.pgweir.session.world import Client, World

from pgweir.admin.service import Consoles
from pgweir.admin.tables import connections
from pgweir.admin.tables.form import View
from pgweir.hba import parse_hba
from pgweir.pool.records import ClientState
from pgweir.protocol import messages
from pgweir.settings import DatabaseSettings

COPY_BOTH = messages.message(ord("W"), b"\0\0\0")
WAL = messages.message(ord("d"), b"w" + bytes(40))
FEEDBACK = messages.message(ord("d"), b"r" + bytes(33))
COPY_DONE = messages.message(ord("c"), b"")
START = messages.query("START_REPLICATION 0/0")


def replicating(world: World, kind: str = "true", **parameters: str) -> Client:
    return world.client(replication=kind, **parameters)


def streaming(world: World) -> Client:
    """Its START_REPLICATION is answered; the stream has begun."""
    client = replicating(world)
    client.says(START)
    (server,) = [wire for wire in world.alive() if wire.postgres.queries]
    server.replies = COPY_BOTH + WAL
    world.run()
    assert client.hears() == COPY_BOTH + WAL
    return client


@pytest.mark.parametrize(("said", "asked"), [("true", b"true"), ("on", b"true"), ("database", b"database")])
def test_the_server_is_opened_with_what_the_client_says(said, asked):
    world = World()
    replicating(world, said, application_name="standby", options="-c datestyle=ISO\\ x", DateStyle="German")
    (server,) = world.servers
    assert b"\0replication\0" + asked + b"\0" in server.postgres.startup
    for pair in (b"application_name\0standby", b"options\0-c datestyle=ISO\\ x", b"DateStyle\0German"):
        assert pair in server.postgres.startup


def test_false_is_no_replication():
    world = World()
    world.client(replication="off")
    assert b"replication" not in world.servers[0].postgres.startup


def test_its_server_is_no_other_clients_and_goes_with_it():
    world = World(server_reset_query="DISCARD ALL", server_check_query="select 1", server_check_delay=0)
    first, second, ordinary = replicating(world), replicating(world), world.client()
    for client in (first, second, ordinary):
        assert b"IDENTIFY" in client.query("IDENTIFY_SYSTEM")
    assert len(world.alive()) == 3
    first.leaves()
    assert len(world.alive()) == 2
    second.says(messages.terminate())
    assert len(world.alive()) == 1
    assert all("DISCARD" not in " ".join(server.postgres.queries) for server in world.servers[:2])
    world.sleep(1)
    assert len(world.pooler.pools) == 1, "the pool of a kind that nobody asks for any more"
    world.balance()


def test_it_keeps_its_server_between_commands_in_transaction_mode():
    world = World()
    client = replicating(world, "database")
    client.query("IDENTIFY_SYSTEM")
    assert client.session.server is not None
    assert not client.session.rewrites


def test_a_stream_goes_both_ways_until_both_have_ended_it():
    world = World()
    client = streaming(world)
    server = client.session.server
    client.says(FEEDBACK)
    assert server.wire.written.endswith(FEEDBACK)
    server.wire.say(WAL)
    server.wire.say(COPY_DONE)
    assert not server.exchange.settled
    client.says(COPY_DONE)
    server.wire.say(messages.command_complete("COPY 0") + messages.ready_for_query(b"I"))
    assert client.hears() == WAL + COPY_DONE + messages.command_complete("COPY 0") + messages.ready_for_query(b"I")
    assert server.exchange.settled
    assert client.session.server is server


def test_a_client_that_leaves_in_the_middle_of_a_stream_takes_its_server_along():
    world = World()
    streaming(world).leaves()
    assert world.alive() == []
    world.empty()


def test_no_timeout_of_queries_ends_a_stream():
    world = World(query_timeout=5.0, transaction_timeout=5.0, idle_transaction_timeout=5.0)
    client = streaming(world)
    world.sleep(60)
    assert client.state is ClientState.ACTIVE


def test_the_variables_are_the_servers_business():
    world = World()
    client = world.starts_login(replication="true", DateStyle="iso")
    world.run()
    assert b"DateStyle\0ISO, MDY\0" in client.hears()
    client.query("IDENTIFY_SYSTEM")
    assert all(not query.startswith("SET") for query in world.servers[0].postgres.queries)


def test_what_postgresql_refuses_is_told_at_once_even_if_it_might_pass():
    world = World()
    keeps = replicating(world)
    keeps.query("IDENTIFY_SYSTEM")
    late = replicating(world)
    late.says(START)
    wire = world.edge.connecting[0]
    world.pooler.opening.failed(wire, "number of requested standby connections exceeds", "53300", answered=True)
    assert b"C53300\0" in late.hears()
    assert late.wire.closed
    assert not keeps.wire.closed


def test_connect_query_is_for_servers_that_know_sql():
    world = World({"shop": DatabaseSettings(name="shop", dbname="shop", host="db", connect_query="select 1")})
    replicating(world)
    assert world.servers[0].postgres.queries == []


def test_a_reload_keeps_the_rules_of_replication():
    world = World()
    client = replicating(world)
    client.query("IDENTIFY_SYSTEM")
    world.pooler.apply_settings(world.config)
    assert client.session.keeps_server
    client.leaves()
    assert world.alive() == []


def test_reconnect_ends_it_at_once():
    world = World()
    client = streaming(world)
    world.operations.reconnect()
    assert client.wire.closed
    assert world.alive() == []


@pytest.mark.parametrize(
    ("line", "kind", "gets_in"),
    [
        ("host all all all trust", "true", False),
        ("host replication alice all trust", "true", True),
        ("host all all all trust", "database", True),
        ("host replication all all trust", "database", False),
    ],
)
def test_only_the_word_replication_lets_physical_replication_in(line, kind, gets_in):
    world = World(config={"hba": parse_hba(line).rules}, auth_type="hba", auth_hba_file="x")
    client = world.starts_login(replication=kind)
    world.run()
    assert client.wire.closed is not gets_in


def test_show_says_how_somebody_replicates():
    world = World()
    for kind in ("true", "database"):
        replicating(world, kind)
    world.client()
    view = View(world.pooler, Consoles(), now=world.edge.now, wall=0.0)
    for table in (connections.clients(view), connections.servers(view)):
        column = [name for name, _ in table.columns].index("replication")
        assert sorted(row[column] for row in table.rows) == ["logical", "none", "physical"]
