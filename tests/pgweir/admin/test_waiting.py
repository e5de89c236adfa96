"""Who waits, and for which limit: each limit is set too small, loaded, and named (T03)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.pgweir.session.world import Client, World

from pgweir.admin.service import Consoles
from pgweir.admin.tables import TABLES, View
from pgweir.protocol.messages import query
from pgweir.session import switchover
from pgweir.session.holds import ReleaseWhen


def waiters(world: World) -> list[dict[str, Any]]:
    view = View(world.pooler, Consoles(), world.edge.now, 1_700_000_000.0, "")
    return TABLES["WAITERS"](view).dictionaries()


def begin(world: World, user: str = "alice", application_name: str = "holder") -> Client:
    client = world.client(user=user, application_name=application_name)
    client.query("BEGIN")
    return client


def ask(world: World, user: str = "alice") -> Client:
    client = world.client(user=user, application_name="waiter")
    client.says(query("SELECT 1"))
    return client


@pytest.mark.parametrize(
    ("settings", "who_waits", "limit", "sentence"),
    [
        ({"default_pool_size": 2}, "alice", "pool_size", "pool_size=2: all 2 servers are taken"),
        (
            {"default_pool_size": 2, "reserve_pool_size": 3, "reserve_pool_timeout": 99},
            "alice",
            "pool_size",
            "pool_size=2 + reserve_pool_size=3: all 2 servers are taken",
        ),
        ({"max_db_connections": 2}, "bob", "max_db_connections", "max_db_connections=2 of database shop"),
        (
            {"max_server_connections": 2},
            "bob",
            "max_server_connections",
            "max_server_connections=2 of this process",
        ),
        ({"max_user_connections": 2}, "alice", "max_user_connections", "max_user_connections=2 of user alice"),
    ],
)
def test_the_limit_that_is_too_small_is_named(
    settings: dict[str, Any], who_waits: str, limit: str, sentence: str
) -> None:
    world = World(**settings)
    if who_waits == "bob":
        begin(world, "bob").query("COMMIT")  # bob's pool has logged in once; its server is evicted for the second below
    begin(world)
    world.edge.now += 30
    begin(world, application_name="second")
    world.edge.now += 5
    ask(world, who_waits)
    world.run()
    world.edge.now += 3
    (row,) = waiters(world)
    assert (row["limit"], row["reason"]) == (limit, sentence)
    assert (row["application_name"], row["wait"], row["user"]) == ("waiter", 3, who_waits)
    assert (row["holder"], row["holder_application_name"]) == ("alice", "holder")
    assert (row["holder_state"], row["holder_seconds"]) == ("idle in transaction", 38)
    assert row["holder_pid"] > 0
    world.empty()


@pytest.mark.parametrize(
    ("release_when", "what_for"),
    [(ReleaseWhen.TOLD, "a switchover"), (ReleaseWhen.RESTARTED, "a restart of PostgreSQL")],
)
def test_a_hold_is_named_with_what_it_is_for(release_when: ReleaseWhen, what_for: str) -> None:
    world = World()
    begin(world)
    switchover.hold(world.pooler, "one", 60.0, release_when)
    ask(world)
    world.sleep(3)
    (row,) = waiters(world)
    assert row["limit"] == "hold"
    assert row["reason"] == f"held for {what_for}: 3.0 of at most 60 s (hold one)"
    assert row["holder_application_name"] == "holder", "whoever must end a transaction first"
    world.operations.pause()
    assert waiters(world)[0]["limit"] == "paused"


def test_postgresqls_own_limit_is_told_apart_from_a_target_that_is_away() -> None:
    for sqlstate, limit in (("53300", "max_connections"), ("08006", "target")):
        world = World(default_pool_size=2)
        begin(world)
        ask(world)
        world.pooler.opening.failed(
            world.edge.connecting.pop(), "sorry, too many clients already", sqlstate, answered=True
        )
        (row,) = waiters(world)
        assert row["limit"] == limit
        assert row["reason"].endswith("next try in 0.2s: sorry, too many clients already")
        assert row["holder_application_name"] == "holder"


def test_a_pause_is_named_even_while_a_server_is_on_its_way_out() -> None:
    world = World(default_pool_size=1)
    holder = begin(world)
    ask(world)
    world.operations.pause()
    (row,) = waiters(world)
    assert (row["limit"], row["holder_application_name"]) == ("paused", "holder")
    holder.query("COMMIT")
    (row,) = waiters(world)
    assert (row["limit"], row["holder"]) == ("paused", None)


def test_a_login_under_way_is_no_limit() -> None:
    world = World()
    begin(world)
    ask(world)
    assert [row["limit"] for row in waiters(world)] == ["login"]
    world.run()
    assert waiters(world) == []


def test_a_database_that_is_paused_says_so() -> None:
    world = World()
    world.client().leaves()
    world.operations.pause("shop")
    client = world.client()
    client.says(query("SELECT 1"))
    assert [row["limit"] for row in waiters(world)] == ["paused"]


def test_the_longest_wait_comes_first() -> None:
    world = World(default_pool_size=1)
    begin(world)
    for _ in range(3):
        ask(world)
        world.edge.now += 1
    assert [row["wait"] for row in waiters(world)] == [3, 2, 1]
