"""What time brings: servers that never answer, old ones, pools that nobody uses."""

from __future__ import annotations

from pgweir.protocol import messages

SELECT = messages.query("SELECT 1")


def test_a_server_that_never_takes_a_client_s_variables_is_replaced(make_world):
    for mode in ("session", "transaction"):
        world = make_world(pool_mode=mode, server_connect_timeout=5.0, server_reset_query="")
        first = world.client()
        first.leaves()
        client = world.client(application_name="other")
        client.says(SELECT)
        world.sleep(4)  # the SET is out, and nothing comes back
        assert client.session.linking is not None
        world.sleep(2)
        assert world.servers[0].closed
        world.run()
        assert b"SELECT 1" in client.hears()


def test_when_no_server_ever_answers_the_wait_has_an_end_and_a_word(make_world):
    world = make_world(pool_mode="session", server_connect_timeout=5.0, query_wait_timeout=12.0, server_reset_query="")
    world.client().leaves()
    client = world.client(application_name="other")
    client.says(SELECT)
    for _ in range(10):
        world.sleep(2)
        if world.edge.connecting:
            server = world.accept()
            server.deliver()  # it logs in, and then it is silent
    assert b"query_wait_timeout" in client.hears()
    assert client.wire.closed


def test_a_machine_that_vanished_takes_all_its_idle_servers_with_it_at_once(make_world):
    world = make_world(server_check_query="<empty>", server_check_delay=30.0, server_connect_timeout=5.0)
    clients = [world.client() for _ in range(4)]
    for client in clients:
        client.says(SELECT)
    world.run()
    assert len(world.alive()) == 4
    for client in clients:
        client.hears()
    world.sleep(31)
    clients[0].says(SELECT)  # a check is sent, and nobody answers
    world.sleep(4)
    assert len(world.alive()) == 4
    world.sleep(2)
    assert not world.alive()
    world.run()
    assert b"SELECT 1" in clients[0].hears()


def test_servers_that_were_opened_together_do_not_go_together(make_world):
    world = make_world(server_lifetime=400.0, default_pool_size=4, server_idle_timeout=0.0)
    clients = [world.client() for _ in range(4)]
    for client in clients:
        client.says(SELECT)
    world.run()
    ages = []
    for _ in range(8):
        world.sleep(99)
        ages.append(len(world.alive()))
    assert ages == [4, 4, 4, 4, 3, 2, 1, 0]


def test_the_lifetime_ends_at_a_release_too_and_with_the_same_spacing(make_world):
    world = make_world(server_lifetime=400.0, default_pool_size=4)
    clients = [world.client() for _ in range(2)]
    for client in clients:
        client.query("BEGIN")
    world.sleep(500)
    clients[0].query("COMMIT")
    assert len(world.alive()) == 1
    clients[1].query("COMMIT")
    assert len(world.alive()) == 1
    clients[1].query("BEGIN")
    world.sleep(101)
    clients[1].query("COMMIT")
    assert not world.alive()


def test_a_pool_that_nobody_uses_is_forgotten_and_its_numbers_are_kept(make_world):
    world = make_world(pool_idle_timeout=60.0, server_idle_timeout=10.0)
    client = world.client()
    client.query("SELECT 1")
    world.sleep(100)
    assert world.pooler.pools  # it has a client
    client.leaves()
    world.sleep(61)
    assert not world.pooler.pools
    assert world.pooler.stats(world.pooler.databases["shop"]).query_count == 1
    assert b"SELECT 1" in world.client().query("SELECT 1")


def test_pools_are_kept_when_no_time_is_set(make_world):
    world = make_world(server_idle_timeout=10.0)
    world.client().leaves()
    world.sleep(1000)
    assert world.pooler.pools
