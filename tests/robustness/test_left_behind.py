"""What a client leaves behind never meets the next one: found by noise, kept as conversations."""

from __future__ import annotations

import pytest
from tests.pgweir.session.world import World

from pgweir.protocol import messages

READY = messages.ready_for_query(b"I")


@pytest.mark.parametrize("half", [b"H\0\0\4Q", b"d\0\0\4Qabc"], ids=["flush", "copy-data"])
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "in-transaction"])
def test_half_a_message_that_owes_nothing_never_swallows_the_next_clients_query(half: bytes, inside: bool) -> None:
    world = World(default_pool_size=1)
    rude, next_client = world.client(), world.client()
    if inside:
        rude.query("BEGIN")
    rude.says(half)
    world.run()
    rude.leaves()
    assert next_client.query("SELECT 1").endswith(READY)
    world.balance()


def test_a_server_that_skips_up_to_a_sync_never_goes_to_the_next_client() -> None:
    world = World(default_pool_size=1)
    rude, next_client = world.client(), world.client()
    rude.says(messages.bind("", "unknown"), messages.execute(), messages.query("SELECT 1"))
    world.run()
    rude.leaves()
    assert next_client.query("SELECT 1").endswith(READY)
    world.balance()


def test_a_client_that_sends_its_sync_at_last_gets_its_server_back() -> None:
    world = World(default_pool_size=1)
    slow, other = world.client(), world.client()
    slow.says(messages.bind("", "unknown"), messages.execute(), messages.query("SELECT 1"))
    world.run()
    slow.says(messages.sync())
    world.run()
    assert slow.hears().endswith(READY)
    assert other.query("SELECT 1").endswith(READY)
    assert slow.query("SELECT 1").endswith(READY)
    world.empty()


def test_a_client_that_is_refused_in_the_middle_of_a_message_leaves_no_half_of_it_to_the_next() -> None:
    world = World(default_pool_size=1)
    rude, next_client = world.client(), world.client()
    rude.says(messages.query("SELECT 1"), b"H\0\0\0\5")
    world.run()
    rude.says(b"x", b"\0 is no message")
    assert rude.wire.closed
    assert next_client.query("SELECT 1").endswith(READY)
    world.balance()


def test_a_tag_without_end_is_no_tag() -> None:
    world = World(default_pool_size=1)
    client = world.client()
    client.says(messages.query("SELECT 1"))
    (server,) = world.servers
    server.replies = b""
    server.say(b"C\x7f\0\0\0")
    client.leaves()
    assert server.closed


def test_the_query_of_a_client_that_vanished_is_cancelled_and_nothing_else_is() -> None:
    for how, cancelled in (("vanishes", 1), ("says goodbye", 0), ("idle", 0), ("in a transaction", 0)):
        world = World()
        client = world.client()
        if how == "in a transaction":
            client.query("BEGIN")
        elif how != "idle":
            client.says(messages.query("SELECT 1"))
        if how == "says goodbye":
            client.says(messages.terminate())
        else:
            client.leaves()
        assert len(world.edge.cancels) == cancelled, how
        world.run()
        world.balance()
