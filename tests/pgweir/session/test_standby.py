"""target_session_attrs = primary: no server in hot standby is ever used, and nobody hears of it but in the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.pgweir.mini_postgres import MiniPostgres
from tests.pgweir.session.standbys import Newer, Older
from tests.pgweir.session.world import ServerWire

from pgweir.protocol import messages
from pgweir.protocol.reasons import CloseReason
from pgweir.session.server_login import QUESTION
from pgweir.settings import DatabaseSettings

SELECT = messages.query("SELECT 1")
READY = messages.ready_for_query(b"I")


Kind = type[Newer] | type[Older]


def deliver(world: Any, postgres: MiniPostgres) -> None:
    wire = world.accept(postgres)
    while wire.deliver():
        pass


def connections_closed_as(world: Any, reason: CloseReason) -> int:
    count: int = world.pooler.closed_counts.get(reason, 0)
    return count


@pytest.mark.parametrize("kind", [Newer, Older])
def test_a_client_waits_until_there_is_a_primary_and_nothing_reaches_the_standby(make_world, kind: Kind):
    world = make_world(target_session_attrs="primary", server_login_retry=1.0, query_wait_notify=0)
    client = world.starts_login()
    standbys = [kind(standby=True) for _ in range(4)]
    for standby in standbys:
        world.sleep(1.5)
        deliver(world, standby)
        assert standby.terminated
    assert client.hears() == b""
    assert connections_closed_as(world, CloseReason.SERVER_STANDBY) == 4
    world.sleep(1.5)
    deliver(world, kind(standby=False))
    assert client.hears().endswith(READY)
    client.says(SELECT)
    world.run()
    assert b"SELECT 1" in client.hears()
    assert not any(set(standby.queries) - {QUESTION} for standby in standbys)


def test_nobody_is_asked_what_was_said_already_or_where_any_server_will_do(make_world):
    cases: list[tuple[str, Kind]] = [("primary", Newer), ("any", Older)]
    for word, kind in cases:
        world = make_world(target_session_attrs=word)
        world.starts_login()
        postgres = kind(standby=False)
        deliver(world, postgres)
        assert not postgres.queries


def test_where_any_server_will_do_a_standby_serves(make_world):
    world = make_world()
    client = world.starts_login()
    deliver(world, Newer(standby=True))
    assert client.hears().endswith(READY)


def test_who_knows_no_such_function_is_no_standby(make_world):
    world = make_world(target_session_attrs="primary")
    client = world.starts_login()
    deliver(world, Older(standby=True, knows=False))
    assert client.hears().endswith(READY)


def test_at_its_deadline_a_client_hears_why(make_world):
    world = make_world(target_session_attrs="primary", query_wait_timeout=10.0, server_login_retry=1.0)
    client = world.starts_login()
    for _ in range(12):
        while world.edge.connecting:
            deliver(world, Newer(standby=True))
        world.sleep(1)
    heard = client.hears()
    assert b"C57P03" in heard
    assert b"server is in hot standby mode" in heard


def test_of_several_hosts_the_next_one_is_tried_at_once(make_world):
    database = DatabaseSettings(name="shop", dbname="shop", host="a,b", port=5432, target_session_attrs="primary")
    world = make_world(databases={"shop": database}, server_login_retry=15.0)
    client = world.starts_login()
    server = world.edge.connecting[0]
    deliver_at(world, "a", Newer(standby=True))
    assert world.edge.connecting
    assert world.edge.connecting[0] is not server
    deliver_at(world, "b", Newer(standby=False))
    assert client.hears().endswith(READY)


def deliver_at(world: Any, host: str, postgres: MiniPostgres) -> None:
    server = world.edge.connecting.pop(0)
    wire = ServerWire(postgres)
    wire.protocol = server.connected(wire, host, 5432, None)
    wire.protocol.start()
    while wire.deliver():
        pass


def test_one_that_becomes_a_standby_while_nobody_uses_it_goes_at_once(make_world):
    world = make_world(target_session_attrs="primary")
    client = world.starts_login()
    deliver(world, Newer(standby=False))
    client.hears()
    world.servers[0].say(messages.parameter_status("in_hot_standby", "on"))
    assert world.servers[0].closed
    assert connections_closed_as(world, CloseReason.SERVER_STANDBY) == 1
    client.says(SELECT)
    deliver(world, Newer(standby=False))
    world.run()
    assert b"SELECT 1" in client.hears()


def test_one_that_becomes_a_standby_in_a_transaction_goes_after_it(make_world):
    world = make_world(target_session_attrs="primary")
    client = world.starts_login()
    deliver(world, Newer(standby=False))
    client.query("BEGIN")
    world.servers[0].say(messages.parameter_status("in_hot_standby", "on"))
    assert not world.servers[0].closed
    assert b"COMMIT" in client.query("COMMIT")
    assert world.servers[0].closed
    assert connections_closed_as(world, CloseReason.SERVER_STANDBY) == 1


def test_a_promotion_while_it_is_connected_makes_it_good(make_world):
    world = make_world()
    client = world.starts_login()
    deliver(world, Newer(standby=True))
    client.hears()
    world.servers[0].say(messages.parameter_status("in_hot_standby", "off"))
    world.operations.apply(with_target(world, "primary"))
    assert not world.servers[0].closed
    assert b"SELECT 1" in client.query("SELECT 1")


def test_at_a_reload_that_asks_for_the_primary_standbys_go(make_world):
    world = make_world()
    client = world.starts_login()
    deliver(world, Newer(standby=True))
    client.hears()
    world.operations.apply(with_target(world, "primary"))
    assert world.servers[0].closed


def with_target(world: Any, word: str) -> Any:
    return replace(world.config, settings=replace(world.config.settings, target_session_attrs=word))
