"""Cancels that arrive at the wrong process: they go to the right one, in bounded number, and never round in circles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.pgweir.mini_postgres import MiniPostgres
from tests.pgweir.session.world import Client, World

from pgweir.pool.records import ServerState
from pgweir.protocol import cancel_keys, messages
from pgweir.session.peers import FOREIGN_BURST, MAX_WAITING
from pgweir.settings import PeerSettings

MakeWorld = Callable[..., World]
READY = messages.ready_for_query(b"I")
SELECT = messages.query("SELECT 1")

OWN, OTHER, SAME_AS_OTHER = "10.0.0.1", "10.0.0.2", "10.0.64.1"
FOREIGN = cancel_keys.make_key(b"foreign!", cancel_keys.derived_peer_id(OTHER))


class Asked:
    """Cancel requests that were made of a world, and whether they were answered."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answered: list[bytes] = []

    def __call__(self, key: bytes) -> Asked:
        self.world.pooler.cancels.request(key, lambda: self.answered.append(key))
        return self


def listed(make_world: MakeWorld, *peers: PeerSettings, **settings: Any) -> World:
    config = {"peers": {peer.peer_id: peer for peer in peers}}
    return make_world(config=config, peer_id=1, **settings)


@pytest.fixture
def pods(make_world: MakeWorld) -> World:
    world = make_world(listen_port=5432)
    world.pooler.cancels.peers.discover("shop-peers", OWN)
    return world


def resolves(world: World, *addresses: str) -> None:
    (name, found) = world.edge.resolving.pop()
    assert name == "shop-peers"
    found(addresses)


def own_key(client: Client) -> bytes:
    return client.session.cancel_key


# --- [peers] ----------------------------------------------------------------------------------------------------------


def test_keys_bear_the_peer_id(make_world: MakeWorld) -> None:
    assert cancel_keys.peer_of(own_key(listed(make_world).client())) == 1


def test_a_key_of_a_peer_goes_to_its_address_with_one_hop_less(make_world: MakeWorld) -> None:
    world = listed(make_world, PeerSettings(peer_id=2, host="/run/two", port=6433))
    key = cancel_keys.make_key(b"somebody", 2)
    asked = Asked(world)(key)
    (cancel,) = world.edge.peer_cancels
    assert (cancel.host, cancel.port, cancel.key) == ("/run/two", 6433, cancel_keys.next_hop(key))
    assert not asked.answered  # the client hangs on until the peer has done what it can
    cancel.sent()
    cancel.done()
    assert asked.answered == [key]


@pytest.mark.parametrize("peer_id", [1, 3], ids=["our own entry", "an unknown peer"])
def test_a_key_that_leads_nowhere_is_dropped(make_world: MakeWorld, peer_id: int) -> None:
    world = listed(make_world, PeerSettings(peer_id=1, host="here"), PeerSettings(peer_id=2, host="there"))
    asked = Asked(world)(cancel_keys.make_key(b"somebody", peer_id))
    assert len(asked.answered) == 1
    assert not world.edge.peer_cancels


def test_without_an_id_of_our_own_nothing_is_handed_on(make_world: MakeWorld) -> None:
    world = make_world(config={"peers": {2: PeerSettings(peer_id=2, host="there")}})
    assert len(Asked(world)(cancel_keys.make_key(b"somebody", 2)).answered) == 1
    assert not world.edge.peer_cancels


def test_two_peers_that_point_to_each_other_stop_after_three_hops(make_world: MakeWorld) -> None:
    """Each believes that the key is the other's, because both entries are wrong."""
    worlds = [listed(make_world, PeerSettings(peer_id=7, host="the other")) for _ in range(2)]
    key, hops = cancel_keys.make_key(b"somebody", 7), 0
    while True:
        world = worlds[hops % 2]
        asked = Asked(world)(key)
        if not world.edge.peer_cancels:
            break
        cancel = world.edge.peer_cancels.pop()
        key, hops = cancel.key, hops + 1
        cancel.done()
    assert hops == 3
    assert len(asked.answered) == 1


def test_more_cancels_than_connections_wait_their_turn_and_not_for_ever(make_world: MakeWorld) -> None:
    world = listed(make_world, PeerSettings(peer_id=2, host="two", pool_size=1), cancel_wait_timeout=10)
    asked = Asked(world)
    keys = [cancel_keys.make_key(b"client %d" % number, 2) for number in range(4)]
    for key in keys[:3]:
        asked(key)
    (pool,) = world.pooler.cancels.peers.pools()
    assert (pool.connecting, pool.active, len(pool.waiting)) == (1, 0, 2)
    world.edge.peer_cancels[0].sent()
    assert (pool.connecting, pool.active, len(pool.waiting)) == (0, 1, 2)
    world.edge.peer_cancels.pop().done()
    assert asked.answered == keys[:1]
    assert [cancel.key for cancel in world.edge.peer_cancels] == [cancel_keys.next_hop(keys[1])]
    world.sleep(9)
    asked(keys[3])
    world.sleep(2)
    assert asked.answered == [keys[0], keys[2]]
    world.edge.peer_cancels.pop().done()
    world.edge.peer_cancels.pop().done()
    assert sorted(asked.answered) == sorted(keys)
    world.sleep(1)
    assert pool.idle


def test_no_more_wait_for_one_peer_than_memory_should_hold(make_world: MakeWorld) -> None:
    world = listed(make_world, PeerSettings(peer_id=2, host="two", pool_size=1))
    asked = Asked(world)
    for number in range(MAX_WAITING + 3):
        asked(cancel_keys.make_key(number.to_bytes(4, "big") + b"some", 2))
    assert len(asked.answered) == 2
    assert len(world.edge.peer_cancels) == 1
    world.sleep(11)
    assert len(asked.answered) == MAX_WAITING + 2
    world.edge.peer_cancels.pop().done()


# --- pods -------------------------------------------------------------------------------------------------------------


def test_a_pods_keys_bear_the_id_of_its_address(pods: World) -> None:
    assert cancel_keys.peer_of(own_key(pods.client())) == cancel_keys.derived_peer_id(OWN)


def test_every_pod_whose_address_makes_the_id_is_asked(pods: World) -> None:
    asked = Asked(pods)(FOREIGN)
    resolves(pods, "10.0.0.3", SAME_AS_OTHER, OTHER, OWN)
    first, second = pods.edge.peer_cancels
    assert {(first.host, first.port), (second.host, second.port)} == {(OTHER, 5432), (SAME_AS_OTHER, 5432)}
    assert first.key == second.key == cancel_keys.next_hop(FOREIGN)
    first.sent()
    first.done()
    assert not asked.answered
    second.done()
    assert asked.answered == [FOREIGN]


def test_a_key_of_a_pod_with_our_own_id_is_asked_of_that_pod_and_never_of_ourselves(pods: World) -> None:
    key = cancel_keys.make_key(b"not ours", cancel_keys.derived_peer_id(OWN))
    Asked(pods)(key)
    resolves(pods, OWN, "10.0.64.0", OTHER)
    (cancel,) = pods.edge.peer_cancels
    assert cancel.host == "10.0.64.0"
    cancel.done()


def test_what_a_pod_has_handed_on_goes_no_further(pods: World) -> None:
    key = cancel_keys.next_hop(FOREIGN)
    assert key is not None
    assert Asked(pods)(key).answered == [key]
    assert not pods.edge.resolving


def test_the_name_is_asked_once_for_many_and_again_when_it_is_old(pods: World) -> None:
    asked = Asked(pods)
    for _ in range(10):
        asked(FOREIGN)
    resolves(pods, OTHER)
    assert not pods.edge.resolving
    assert len(pods.edge.peer_cancels) == 10
    asked(FOREIGN)
    assert not pods.edge.resolving
    pods.sleep(1.5)
    asked(FOREIGN)
    resolves(pods)  # and if nobody can say, those that were known are tried
    assert len(pods.edge.peer_cancels) == 12
    while pods.edge.peer_cancels:
        pods.edge.peer_cancels.pop().done()
    assert len(asked.answered) == 12
    pods.sleep(1)
    assert not list(pods.pooler.cancels.peers.pools())


def test_random_keys_cost_one_look_up_and_no_connection(pods: World) -> None:
    asked = Asked(pods)
    for number in range(100):
        asked(cancel_keys.make_key(b"stranger", 5000 + number))
    resolves(pods, OTHER)
    assert len(asked.answered) == 100
    assert not pods.edge.peer_cancels
    assert not pods.edge.resolving


def test_a_flood_of_foreign_keys_is_dropped_beyond_its_limit(pods: World, caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked(pods)
    for _ in range(FOREIGN_BURST + 300):
        asked(FOREIGN)
    assert len(asked.answered) == 300
    assert len(caplog.records) == 1
    resolves(pods, OTHER)
    assert len(pods.edge.peer_cancels) == pods.pooler.settings.default_pool_size
    while pods.edge.peer_cancels:
        pods.edge.peer_cancels.pop().done()
    assert len(asked.answered) == FOREIGN_BURST + 300
    pods.sleep(1)
    asked(FOREIGN)
    resolves(pods, OTHER)
    pods.edge.peer_cancels.pop().done()


# --- the race rule, when the cancel comes by a peer -------------------------------------------------------------------


def by_a_peer(client: Client) -> bytes:
    key = cancel_keys.next_hop(own_key(client))
    assert key is not None
    return key


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return listed(make_world, PeerSettings(peer_id=2, host="two"), default_pool_size=1)


def test_a_running_query_is_cancelled_and_its_server_kept_aside(world: World) -> None:
    client, other = world.client(), world.client()
    client.says(SELECT)
    asked = Asked(world)(by_a_peer(client))
    other.says(SELECT)
    world.run()
    assert client.hears().endswith(READY)
    assert [server.state for server in world.pool.servers()] == [ServerState.BEING_CANCELED]
    assert not asked.answered
    world.edge.cancels.pop()[1]()
    world.run()
    assert other.hears().endswith(READY)
    assert len(asked.answered) == 1


def test_a_query_that_ended_before_its_cancel_came_is_left_alone(world: World) -> None:
    client = world.client()
    client.query("SELECT 1")
    assert len(Asked(world)(by_a_peer(client)).answered) == 1
    assert not world.edge.cancels


def test_a_server_that_works_for_somebody_else_by_now_is_left_alone(world: World) -> None:
    client, other = world.client(), world.client()
    client.query("SELECT 1")
    other.says(SELECT)
    assert len(Asked(world)(by_a_peer(client)).answered) == 1
    assert not world.edge.cancels
    world.run()
    assert other.hears().endswith(READY)


def test_the_key_of_a_client_that_has_gone_is_nobodys(world: World) -> None:
    client = world.client()
    key = by_a_peer(client)
    client.leaves()
    assert Asked(world)(key).answered == [key]
    assert not world.edge.cancels
    assert not world.edge.peer_cancels


# --- protocol 3.2 -----------------------------------------------------------------------------------------------------


def test_a_client_of_protocol_3_2_gets_a_long_key_and_cancels_with_all_of_it(world: World) -> None:
    client = world.starts_login(protocol=messages.PROTOCOL_3_2)
    world.run()
    heard = client.hears()
    key = own_key(client)
    assert len(key) == cancel_keys.LONG_KEY
    assert messages.message(messages.B.BACKEND_KEY_DATA, key) in heard
    assert heard.startswith(messages.authentication_ok())  # nothing had to be negotiated
    client.says(SELECT)
    asked = Asked(world)(key[: cancel_keys.SHORT_KEY])
    assert not world.edge.cancels
    asked(key)
    assert len(world.edge.cancels) == 1
    world.edge.cancels.pop()[1]()
    world.run()


def test_a_server_with_a_long_key_is_cancelled_with_all_of_it(world: World) -> None:
    client = world.starts_login()
    world.accept(MiniPostgres(77, greeted=False, key=bytes(range(256))))
    world.run()
    client.says(SELECT)
    Asked(world)(own_key(client))
    ((server, done),) = world.edge.cancels
    assert server.cancel_key == b"\0\0\0\x4d" + bytes(range(256))
    world.edge.cancels.clear()
    done()
    world.run()
