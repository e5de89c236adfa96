"""What pgpool's and pgbalancer's users count on, told as conversations.

Plan: places and who waits for one; what becomes of a server behind its client; the client that has fallen silent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.pgweir.session.world import Client, RecorderWire, World

from pgweir.pool.records import ClientState
from pgweir.protocol import messages
from pgweir.protocol.errors import CONNECTION_FAILURE
from pgweir.protocol.reasons import CloseReason
from pgweir.session.upkeep import MAX_UNUSED_RELAYED
from pgweir.session.wire import Origin
from pgweir.settings import DatabaseSettings, Settings

MakeWorld = Callable[..., World]
READY = messages.ready_for_query(b"I")


def refusal(client: Client) -> dict[str, str]:
    heard = client.hears()
    assert heard[:1] == b"E", heard
    fields = heard[5 : int.from_bytes(heard[1:5], "big")].split(b"\0")
    assert client.wire.closed
    return {field[:1].decode(): field[1:].decode() for field in fields if field}


def is_in(world: World, client: Client) -> bool:
    world.run()
    return client.hears().endswith(READY)


def reload(world: World, **changes: Any) -> None:
    config = world.pooler.config
    world.operations.apply(replace(config, settings=replace(config.settings, **changes)))


# --- places ---


def test_the_33rd_of_32_waits_and_comes_in_when_one_leaves(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=32, client_overflow="wait")
    clients = [world.client() for _ in range(32)]
    late = world.starts_login()
    world.sleep(59.0)
    assert not is_in(world, late)
    assert len(world.pooler.overflow.waiting) == 1
    clients[3].says(messages.terminate())
    assert is_in(world, late)
    assert late.query("SELECT 1")
    assert not world.pooler.overflow.waiting


def test_those_who_wait_come_in_by_the_order_of_their_arrival(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=2, client_overflow="wait")
    places = [world.client(), world.client()]
    late = [world.starts_login() for _ in range(3)]
    for place, (first, *others) in zip(places, (late, late[1:]), strict=True):
        place.leaves()
        assert is_in(world, first)
        assert not any(is_in(world, other) for other in others)


def test_a_place_that_a_failed_login_leaves_is_given_on(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=1, client_overflow="wait", auth_type="plain")
    first = world.starts_login(user="alice")
    late = world.starts_login(user="alice")
    assert first.hears()[:1] == b"R"
    assert late.hears() == b""
    first.says(messages.message(ord("p"), b"wrong\0"))
    assert refusal(first)["C"] == "28P01"
    assert late.hears()[:1] == b"R", "asked for its password"


def test_who_gives_up_waiting_is_forgotten(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=1, client_overflow="wait")
    place = world.client()
    gone, says_goodbye, stays = (world.starts_login() for _ in range(3))
    gone.leaves()
    says_goodbye.says(messages.terminate())
    assert says_goodbye.wire.closed
    assert len(world.pooler.overflow.waiting) == 1
    place.leaves()
    assert is_in(world, stays)


def test_a_limit_that_is_raised_lets_those_in_who_wait(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=1, client_overflow="wait")
    world.client()
    late = [world.starts_login() for _ in range(3)]
    reload(world, max_client_conn=3)
    world.sleep(0.4)
    assert [is_in(world, client) for client in late] == [True, True, False]


def test_the_wait_for_a_place_ends_at_query_wait_timeout_with_the_numbers(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=1, client_overflow="wait", query_wait_timeout=5.0)
    world.client()
    late = world.starts_login()
    world.sleep(4.5)
    assert not late.wire.closed
    world.sleep(1.0)
    error = refusal(late)
    assert (error["C"], error["M"]) == ("53300", "query_wait_timeout")
    assert "max_client_conn = 1" in error["H"]


def test_who_comes_in_by_the_goodbye_of_another_is_not_refused_with_it(make_world: MakeWorld) -> None:
    """Both have waited too long when a limit is raised: the first goodbye lets the second in. (Once, the tick ended there.)"""
    world = make_world(max_client_conn=1, client_overflow="wait", query_wait_timeout=5.0)
    world.client()
    first, second = world.starts_login(), world.starts_login()
    world.sleep(5.0)
    assert len(world.pooler.overflow.waiting) == 2
    reload(world, max_client_conn=2)
    world.sleep(0.5)
    assert refusal(first)["M"] == "query_wait_timeout"
    assert is_in(world, second)


def test_no_more_wait_than_the_backlog_holds(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=2, client_overflow="wait", listen_backlog=3)
    for _ in range(2):
        world.client()
    for _ in range(3):
        world.starts_login()
    error = refusal(world.starts_login())
    assert (error["S"], error["C"], error["M"]) == ("FATAL", "53300", "no free child processes")
    assert "num_init_children" in error["H"]
    assert "3 more clients wait" in error["H"]


def test_of_32_places_with_one_reserved_the_31st_is_served_and_the_32nd_refused(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=32, reserved_connections=1, client_overflow="wait")
    clients = [world.client() for _ in range(31)]
    error = refusal(world.starts_login())
    assert (error["S"], error["C"], error["M"]) == ("FATAL", "53300", "Sorry, too many clients already")
    assert "All 31 places" in error["H"]
    assert "max_client_conn = 32" in error["H"]
    assert "reserved_connections = 1" in error["H"]
    clients[0].leaves()
    world.client()


def test_refusing_is_the_default_and_keeps_its_words(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=1)
    world.client()
    error = refusal(world.starts_login())
    assert (error["C"], error["M"]) == ("53300", "no more connections allowed (max_client_conn)")


def test_a_shutdown_tells_everybody_who_waits(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=1, client_overflow="wait", listen_backlog=2000)
    world.client()
    late = [world.starts_login() for _ in range(1500)]
    world.operations.drain()
    world.sleep(0.4)
    assert {refusal(client)["M"] for client in late} == {"pooler is shutting down"}


def test_the_console_and_cancels_need_no_place(make_world: MakeWorld) -> None:
    world = make_world(max_client_conn=1, client_overflow="wait", admin_users=("alice",))
    client = world.client()
    opened: list[bool] = []
    world.pooler.open_console = lambda login, wire, admin: (opened.append(admin), login)[1]
    world.starts_login(database="pgbouncer")
    assert opened == [True]
    client.says(messages.query("SELECT 1"))
    wire = RecorderWire()
    wire.protocol = world.pooler.accept(wire, Origin("10.0.0.2", 1))
    wire.protocol.data_received(messages.cancel_request(client.session.cancel_key))
    assert len(world.edge.cancels) == 1


# --- what becomes of a server ---


def databases(*names: str) -> dict[str, DatabaseSettings]:
    return {name: DatabaseSettings(name=name, dbname=name, host="db") for name in names}


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_without_a_cache_the_server_goes_with_its_client(make_world: MakeWorld, mode: str) -> None:
    world = make_world(server_lifetime=0.0, pool_mode=mode)
    client = world.client()
    client.query("SELECT 1")
    client.says(messages.terminate())
    assert world.alive() == []
    assert world.pooler.closed_counts[CloseReason.SERVER_LIFETIME] >= 1


def test_the_server_of_an_uncached_database_goes_and_others_stay(make_world: MakeWorld) -> None:
    world = make_world(databases("postgres", "app"), uncached_databases=("template1", "postgres"), pool_mode="session")
    clients = [world.client(database=name) for name in ("postgres", "app")]
    for client in clients:
        client.query("SELECT 1")
        client.says(messages.terminate())
    world.run()
    assert [server.closed for server in world.servers] == [True, False]


def test_the_statements_of_a_reset_run_one_after_the_other(make_world: MakeWorld) -> None:
    world = make_world(pool_mode="session", server_reset_query="RESET ALL; DISCARD ALL")
    client = world.client()
    client.query("SELECT 1")
    client.says(messages.terminate())
    world.run()
    (server,) = world.alive()
    assert server.postgres.queries == ["SELECT 1", "RESET ALL", "DISCARD ALL"]
    assert len(world.pool.idle) == 1


def test_a_transaction_is_rolled_back_before_the_reset_and_only_if_there_is_one(make_world: MakeWorld) -> None:
    world = make_world(pool_mode="session")
    client = world.client()
    client.query("BEGIN")
    client.says(messages.terminate())
    world.run()
    (server,) = world.alive()
    assert server.postgres.queries == ["BEGIN", "ROLLBACK", "DISCARD ALL"]


def test_an_unused_server_is_closed_after_its_time_and_one_in_use_for_longer_is_not(make_world: MakeWorld) -> None:
    """connection_life_time = 2: gone between 2 and 3 seconds; 5 seconds of use are no 2 seconds of rest."""
    world = make_world(pool_mode="session", server_idle_timeout=2.0)
    unused, user = world.client(), world.client()
    for client in (unused, user):
        client.query("SELECT 1")
    unused.says(messages.terminate())
    world.run()
    world.sleep(1.9)
    assert len(world.alive()) == 2
    world.sleep(1.1)
    assert [server.closed for server in world.servers] == [True, False]
    world.sleep(2.0)
    user.says(messages.terminate())
    world.run()
    assert len(world.alive()) == 1
    world.sleep(3.0)
    assert world.alive() == []


def test_a_session_that_is_younger_than_the_life_of_a_place_and_one_that_is_older_are_both_served(
    make_world: MakeWorld,
) -> None:
    """child_life_time = 1 is the life of what is unused: a session in use goes on."""
    world = make_world(pool_mode="session", server_idle_timeout=1.0)
    active = world.client()
    active.query("BEGIN")
    world.sleep(10.0)
    assert b"SELECT 1" in active.query("SELECT 1")
    assert len(world.servers) == 1


@pytest.mark.parametrize("reset", ["FAIL; DISCARD ALL", "RESET ALL; FAIL", "BEGIN"])
def test_a_reset_that_fails_anywhere_costs_the_server(make_world: MakeWorld, reset: str) -> None:
    world = make_world(pool_mode="session", server_reset_query=reset)
    client = world.client()
    client.query("SELECT 1")
    client.says(messages.terminate())
    world.run()
    assert world.alive() == []
    assert world.pooler.closed_counts[CloseReason.SERVER_RESET_FAILED] == 1


@pytest.mark.parametrize(("keep", "alive"), [(True, 1), (False, 0)])
def test_the_server_of_a_lost_client_is_kept_or_not_as_the_setting_says(
    make_world: MakeWorld, keep: bool, alive: int
) -> None:
    world = make_world(pool_mode="session", keep_server_of_lost_client=keep)
    client = world.client()
    client.query("SELECT 1")
    client.leaves()  # no Terminate
    world.run()
    assert len(world.alive()) == alive
    assert world.pooler.closed_counts.get(CloseReason.CLIENT_LOST, 0) == 1 - alive


def test_a_client_that_says_goodbye_leaves_its_server_in_either_case(make_world: MakeWorld) -> None:
    world = make_world(pool_mode="session", keep_server_of_lost_client=False)
    client = world.client()
    client.query("SELECT 1")
    client.says(messages.terminate())
    world.run()
    assert len(world.alive()) == 1


# --- reuse ---


@pytest.mark.parametrize(
    ("database", "parameters", "same"),
    [
        ("app", {"user": "alice", "geqo": "off"}, True),
        ("app", {"user": "bob", "geqo": "off"}, False),
        ("shop", {"user": "alice", "geqo": "off"}, False),
        ("app", {"user": "alice", "geqo": "on"}, False),
        ("app", {"user": "alice"}, False),
        ("app", {"user": "alice", "geqo": "off", "application_name": "other"}, True),
    ],
)
def test_a_server_is_reused_for_the_same_user_database_and_runtime_parameters(
    make_world: MakeWorld, database: str, parameters: dict[str, str], same: bool
) -> None:
    world = make_world(databases("app", "shop"), pool_mode="session", startup_parameters="relay")
    first = world.client(database="app", user="alice", geqo="off")
    first.query("SELECT 1")
    first.says(messages.terminate())
    world.run()
    second = world.client(database=database, **parameters)
    second.query("SELECT 1")
    assert (len(world.servers) == 1) is same


def test_pools_of_relayed_parameters_in_which_nobody_is_are_bounded_and_the_last_ones_stay(
    make_world: MakeWorld,
) -> None:
    world = make_world(pool_mode="session", startup_parameters="relay", default_pool_size=2)
    stays = world.client(geqo_seed="0")
    stays.query("SELECT 1")
    plain = world.client()
    plain.query("SELECT 1")
    plain.leaves()
    for number in range(1, MAX_UNUSED_RELAYED + 50):
        world.sleep(0.01)
        client = world.client(geqo_seed=str(number))
        client.query("SELECT 1")
        client.leaves()
    world.run()
    world.sleep(0.4)
    relayed = [pool.relayed[0][1] for pool in world.pooler.pools.values() if pool.relayed]
    assert relayed == ["0", *(str(number) for number in range(50, MAX_UNUSED_RELAYED + 50))]
    assert len(world.alive()) == 1 + 1 + MAX_UNUSED_RELAYED
    assert world.pooler.closed_counts[CloseReason.EVICTED] == 49
    total = world.pooler.stats(world.pooler.databases["shop"])
    assert total.query_count == MAX_UNUSED_RELAYED + 51, "what they counted is not forgotten"
    assert stays.query("SELECT 1")
    world.balance()


# --- the silent client ---


@pytest.mark.parametrize("begin", ["SELECT 1", "BEGIN"])
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_silent_client_is_told_so_with_pgpools_detail(make_world: MakeWorld, mode: str, begin: str) -> None:
    world = make_world(pool_mode=mode, client_idle_limit=60.0)
    client = world.client()
    client.query(begin)
    world.sleep(59.5)
    assert not client.wire.closed
    world.sleep(1.0)
    error = refusal(client)
    assert (error["S"], error["C"], error["M"]) == ("FATAL", "57P05", "client_idle_limit")
    assert error["D"] == "child connection forced to terminate due to client_idle_limit:60 is reached"
    world.run()
    assert len(world.alive()) == 1, "cleaned and kept"
    assert world.pooler.closed_counts[CloseReason.CLIENT_IDLE_LIMIT] == 1


def test_a_client_whose_query_runs_is_not_silent(make_world: MakeWorld) -> None:
    world = make_world(client_idle_limit=60.0)
    client = world.client()
    client.says(messages.query("SELECT 1"))
    world.sleep(300.0)
    assert client.state is ClientState.ACTIVE
    world.run()
    assert client.hears().endswith(READY)


def test_a_client_that_waits_for_a_server_is_not_silent(make_world: MakeWorld) -> None:
    world = make_world(client_idle_limit=60.0, default_pool_size=1, query_wait_timeout=0.0, client_idle_timeout=0.0)
    holder, waiting = world.client(), world.client()
    holder.says(messages.query("SELECT 1"))
    waiting.says(messages.query("SELECT 1"))
    world.sleep(300.0)
    assert not waiting.wire.closed


def test_a_limit_that_a_reload_brings_counts_for_clients_that_are_there(make_world: MakeWorld) -> None:
    world = make_world(pool_mode="session")
    client = world.client()
    client.query("SELECT 1")
    world.sleep(100.0)
    reload(world, client_idle_limit=60.0)
    world.sleep(0.4)
    assert refusal(client)["M"] == "client_idle_limit"


def test_a_server_full_by_others_keeps_the_waiters_and_tells_the_numbers_in_the_end(make_world: MakeWorld) -> None:
    world = make_world(query_wait_timeout=5.0, default_pool_size=7)
    client = world.client()
    world.servers[0].lose()
    client.says(messages.query("SELECT 1"))
    world.pooler.opening.failed(world.edge.connecting.pop(0), "sorry, too many clients already", "53300", answered=True)
    world.sleep(4.5)
    assert not client.wire.closed
    world.sleep(1.0)  # the deadline, and half a second to either side
    error = refusal(client)
    assert error["C"] == "53300"
    assert "sorry, too many clients already" in error["M"]
    assert "7" in error["H"]
    assert "max_connections" in error["H"]
    assert CONNECTION_FAILURE not in error.values()


def test_ours_are_off_unless_asked_for() -> None:
    settings = Settings()
    assert settings.client_overflow == "refuse"
    assert settings.keep_server_of_lost_client
    assert (settings.client_idle_limit, settings.reserved_connections, settings.uncached_databases) == (0.0, 0, ())
