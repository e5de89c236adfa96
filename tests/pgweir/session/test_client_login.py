"""What a client is told when it is in: kept for those who ask for the same, and never longer than it is true."""

from __future__ import annotations

from dataclasses import replace

from tests.pgweir.session.world import Client, RecorderWire, World

from pgweir.protocol import messages
from pgweir.protocol.messages import GSSENC_REQUEST_CODE, SSL_REQUEST_CODE
from pgweir.session.client_login import MAX_GREETINGS
from pgweir.session.startups import MAX_KNOWN_STARTUPS
from pgweir.session.wire import Origin
from pgweir.settings import DatabaseSettings


def told(world: World, **parameters: str) -> bytes:
    """The greeting of a new client, without its cancel key."""
    client = world.starts_login(**parameters)
    world.run()
    wire: RecorderWire = client.wire
    return bytes(wire.written).partition(b"K\0\0\0\x0c")[0]


def test_the_second_client_that_asks_for_the_same_is_told_the_same() -> None:
    world = World()
    first = told(world, application_name="shop", TimeZone="Asia/Tokyo")
    assert messages.parameter_status("TimeZone", "Asia/Tokyo") in first
    assert told(world, application_name="shop", TimeZone="Asia/Tokyo") == first
    one, other = (client.session for client in world.clients)
    assert one.values is other.values


def test_another_wish_is_another_greeting() -> None:
    world = World()
    told(world, TimeZone="Asia/Tokyo")
    assert messages.parameter_status("TimeZone", "Europe/Rome") in told(world, TimeZone="Europe/Rome")


def test_a_server_that_says_something_else_is_believed_from_then_on() -> None:
    world = World()
    told(world)
    welcome = dict(world.pool.welcome)
    world.pool.login_succeeded({**welcome, "server_version": "99.1"})
    assert messages.parameter_status("server_version", "99.1") in told(world)


def test_a_greeting_outlives_what_the_tracker_forgets() -> None:
    world = World()
    first = told(world, application_name="shop")
    world.pooler.tracker.forget()
    assert told(world, application_name="shop") == first
    values = world.clients[1].session.values
    assert values is world.pooler.tracker.updated(values, ())  # so that the comparison with its server is an identity


def test_names_of_each_clients_own_do_not_pile_up() -> None:
    world = World()
    for number in range(3 * MAX_GREETINGS):
        told(world, application_name=f"worker {number}")
    assert len(world.pool.greetings) <= MAX_GREETINGS


def _connects(world: World, *reads: bytes) -> Client:
    wire = RecorderWire()
    wire.protocol = world.pooler.accept(wire, Origin("10.0.0.3", 40000))
    client = Client(world, wire)
    for data in reads:
        client.says(data)
    return client


def test_a_startup_packet_is_understood_the_same_however_often_it_comes() -> None:
    world = World()
    for _ in range(3):
        client = world.client(application_name="one", TimeZone="UTC")
        assert (client.session.user, client.session.database) == ("alice", "shop")
        assert client.session.application_name == "one"
    assert len(world.pooler.startups) == 1


def test_the_end_of_one_packet_never_stands_for_another_ones_whole() -> None:
    world = World()
    world.client()
    world.pooler.startups.clear()
    alice = messages.startup_message({"user": "alice", "database": "shop"})
    # A packet of mallory's whose last bytes, in a read of their own, are all that alice says.
    begin = b"\0\3\0\0user\0mallory\0database\0shop\0x"
    mallory = _connects(world, (len(begin) + 4 + len(alice)).to_bytes(4, "big") + begin, alice)
    assert b"ERROR" in mallory.hears() or mallory.wire.closed
    assert world.pooler.startups == {}
    _connects(world, alice[:9], alice[9:])
    assert world.pooler.startups == {}, "in two reads: not kept"
    assert world.client().session.user == "alice"


def test_known_startup_packets_are_bounded_and_forgotten_with_the_settings() -> None:
    world = World()
    for number in range(MAX_KNOWN_STARTUPS + 3):
        world.client(application_name=f"worker {number}").leaves()
    assert 0 < len(world.pooler.startups) <= MAX_KNOWN_STARTUPS
    world.pooler.apply_settings(world.config)
    assert world.pooler.startups == {}


def test_a_stranger_makes_no_database_of_the_template() -> None:
    template = DatabaseSettings(name="*", host="db", port=5432)
    world = World(databases={}, config={"template": template}, auth_type="plain")
    for number in range(3):
        client = world.starts_login(f"name {number}")
        client.says(messages.password_message("wrong"))
        world.run()
        assert client.wire.closed
    assert not world.pooler.databases
    world.starts_login("name 1").says(messages.password_message("secret"))
    assert list(world.pooler.databases) == ["name 1"]


def test_a_database_that_a_reload_takes_away_in_the_middle_of_a_login_is_not_there() -> None:
    world = World(auth_type="plain")
    client = world.starts_login()
    world.operations.apply(replace(world.config, databases={}))
    client.says(messages.password_message("secret"))
    assert b"no such database: shop" in client.hears()
    assert client.wire.closed


def test_each_kind_of_encryption_may_be_asked_for_once() -> None:
    ssl, gss = ((8).to_bytes(4, "big") + code.to_bytes(4, "big") for code in (SSL_REQUEST_CODE, GSSENC_REQUEST_CODE))
    whole = messages.startup_message({"user": "alice", "database": "shop"})
    world = World()
    client = _connects(world, gss, ssl + whole)
    world.run()
    assert client.hears().startswith(b"NN" + messages.authentication_ok())
    flood = _connects(world, ssl * 20_000)
    assert flood.wire.closed
    heard = flood.hears()
    assert heard.startswith(b"NE")
    assert b"encryption was asked for twice" in heard
