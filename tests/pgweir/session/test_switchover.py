"""Holds and routes: nobody is served meanwhile, nobody hears an error, and each hold has an end of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from tests.pgweir.mini_postgres import MiniPostgres
from tests.pgweir.session.standbys import Older

from pgweir.protocol import messages
from pgweir.session import moves, switchover
from pgweir.session.holds import EndedBy, ReleaseWhen

SELECT = messages.query("SELECT 1")
READY = messages.ready_for_query(b"I")


def hold(world: Any, id_: str = "one", ceiling: float = 60.0, when: ReleaseWhen = ReleaseWhen.TOLD) -> None:
    switchover.hold(world.pooler, id_, ceiling, when)


def held(world: Any) -> bool:
    return world.pooler.holds.current is not None


def test_nobody_is_served_in_a_hold_and_everybody_after_it(make_world):
    world = make_world(query_wait_notify=0)
    clients = [world.client() for _ in range(3)]
    hold(world)
    assert not world.alive(), "idle servers leave at once"
    for client in clients:
        client.says(SELECT)
    world.sleep(5)
    assert not world.edge.connecting
    assert [client.hears() for client in clients] == [b""] * 3
    switchover.release(world.pooler, "one")
    world.run()
    assert all(b"SELECT 1" in client.hears() for client in clients)
    last = world.pooler.holds.last
    assert (last.id, last.ended_by, last.clients_held) == ("one", EndedBy.TOLD, 3)
    assert last.seconds == pytest.approx(5.0)


def test_a_client_inside_a_transaction_goes_on_until_its_end(make_world):
    world = make_world()
    client = world.client()
    client.query("BEGIN")
    hold(world)
    assert not world.pooler.holds.current.drained
    assert b"SELECT 1" in client.query("SELECT 1")
    assert not world.servers[0].closed
    assert b"COMMIT" in client.query("COMMIT")
    assert world.servers[0].closed
    assert world.pooler.holds.current.drained
    assert client.query("SELECT 1") == b""


def test_who_logs_in_meanwhile_is_greeted_and_waits(make_world):
    world = make_world()
    world.client()
    hold(world)
    world.sleep(40)
    late = world.starts_login()
    assert late.hears().endswith(READY)
    late.says(SELECT)
    stranger = world.starts_login(user="bob")  # nobody knows what PostgreSQL would greet him with
    world.run()
    assert late.hears() + stranger.hears() == b""
    world.sleep(19)
    switchover.release(world.pooler, "one")
    world.run()
    assert b"SELECT 1" in late.hears()
    assert stranger.hears().endswith(READY)


def test_the_time_in_a_hold_counts_towards_no_timeout(make_world):
    world = make_world(query_wait_timeout=10.0, client_login_timeout=5.0)
    client = world.client()
    hold(world, ceiling=600.0)
    client.says(SELECT)
    login = world.starts_login(user="bob")
    world.sleep(500)
    assert not client.wire.closed
    assert not login.wire.closed
    switchover.release(world.pooler, "one")
    world.edge.connecting.clear()
    world.sleep(4)
    assert not client.wire.closed
    assert not login.wire.closed
    world.sleep(7)
    assert client.wire.closed, "afterwards it counts again"
    assert login.wire.closed


def test_at_its_ceiling_a_hold_ends_by_itself_with_a_warning(make_world, caplog):
    world = make_world()
    client = world.client()
    hold(world, ceiling=20.0)
    client.says(SELECT)
    world.sleep(19.9)
    assert held(world)
    world.sleep(0.2)
    world.run()
    assert b"SELECT 1" in client.hears()
    assert world.pooler.holds.last.ended_by is EndedBy.CEILING
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.getMessage() == "hold one ended after 20.000 s (ceiling): 1 clients were held"


def test_the_same_order_again_changes_nothing_and_another_one_replaces_it(make_world):
    world = make_world()
    hold(world, "one", ceiling=20.0)
    world.sleep(15)
    hold(world, "one", ceiling=20.0)
    assert world.pooler.holds.current.age(world.edge.now) == pytest.approx(15.0)
    hold(world, "two", ceiling=20.0)
    world.sleep(10)
    assert world.pooler.holds.current.id == "two", "the first one's ceiling is over, not the second one's"
    switchover.release(world.pooler, "one")
    assert held(world), "the first one is over already"
    world.sleep(11)
    assert not held(world)
    assert world.pooler.holds.counts == {EndedBy.REPLACED: 1, EndedBy.CEILING: 1}
    assert world.pooler.holds.seconds == pytest.approx(35.0)


@pytest.mark.parametrize("ended_by", ["ceiling", "told", "never began"])
def test_an_order_that_comes_after_its_end_changes_nothing(make_world, ended_by):
    world = make_world()
    if ended_by != "never began":
        hold(world, ceiling=10.0)
    if ended_by == "ceiling":
        world.sleep(11)
    else:
        switchover.release(world.pooler, "one")
    hold(world)
    assert not held(world)


def test_a_pause_and_a_hold_do_not_end_each_other(make_world):
    for first in ("pause", "hold"):
        world = make_world()
        client = world.client()
        if first == "pause":
            world.operations.pause()
            hold(world)
        else:
            hold(world)
            world.operations.pause()
        client.says(SELECT)
        if first == "pause":
            world.operations.resume()
        else:
            switchover.release(world.pooler, "one")
        world.sleep(1)
        world.run()
        assert client.hears() == b""
        assert (held(world), world.pooler.paused) == (first == "pause", first == "hold")
        if first == "pause":
            switchover.release(world.pooler, "one")
        else:
            world.operations.resume()
        world.run()
        assert b"SELECT 1" in client.hears()


def test_a_database_that_is_paused_stays_so_after_a_hold(make_world):
    world = make_world()
    client = world.client()
    world.operations.pause("shop")
    hold(world)
    client.says(SELECT)
    switchover.release(world.pooler, "one")
    world.run()
    assert client.hears() == b""
    world.operations.resume("shop")
    world.run()
    assert b"SELECT 1" in client.hears()


def test_a_reload_in_the_middle_ends_nothing(make_world):
    world = make_world()
    client = world.client()
    hold(world)
    client.says(SELECT)
    world.operations.apply(world.config)
    world.sleep(1)
    assert not world.edge.connecting
    assert client.hears() == b""


# --- routes ------------------------------------------------------------------------------------------------------------


def test_a_route_ends_the_hold_and_names_the_address(make_world):
    world = make_world()
    client = world.client()
    hold(world)
    client.says(SELECT)
    switchover.route(world.pooler, "one", "db", "10.0.0.7", 60.0)
    assert world.pooler.names.pinned("db", world.edge.now) == "10.0.0.7"
    world.run()
    assert b"SELECT 1" in client.hears()
    assert world.pooler.holds.last.ended_by is EndedBy.ROUTE
    world.sleep(61)
    assert world.pooler.names.pinned("db", world.edge.now) == ""
    assert not world.servers[-1].closed, "what is connected stays"


def test_a_route_without_a_hold_moves_servers_and_who_waits_for_a_dead_address(make_world):
    world = make_world(default_pool_size=2)
    busy, waiting = world.client(), world.client()
    busy.query("BEGIN")
    (server,) = world.pool.active
    server.host, server.address = "db", "10.0.0.1"
    waiting.says(SELECT)
    (dead,) = world.edge.connecting
    dead.host = "db"  # on its way to a machine that says nothing
    switchover.route(world.pooler, "none", "db", "10.0.0.7", 60.0)
    assert dead not in world.edge.connecting
    assert not world.servers[0].closed, "a transaction ends where it began"
    (new,) = world.edge.connecting
    world.run()
    assert b"SELECT 1" in waiting.hears()
    switchover.route(world.pooler, "none", "db", "10.0.0.7", 60.0)
    assert new.wire is not None
    assert not new.wire.is_closing(), "the same route again changes nothing"
    busy.query("COMMIT")
    assert world.servers[0].closed


def test_another_name_s_route_moves_nobody(make_world):
    world = make_world()
    world.client()
    switchover.route(world.pooler, "none", "elsewhere", "10.0.0.7", 60.0)
    assert not world.servers[0].closed


def test_what_the_resolver_says_meanwhile_does_not_take_servers_from_the_route(make_world):
    world = make_world()
    switchover.route(world.pooler, "none", "db", "10.0.0.7", 60.0)
    world.client()
    (server,) = world.pool.servers()
    server.host, server.address = "db", "10.0.0.7"
    moves.addresses_changed(world.pooler, "db", ["10.0.0.1"])
    assert not world.servers[0].closed


# --- haste ---------------------------------------------------------------------------------------------------------------


def test_after_a_hold_the_target_is_tried_several_times_a_second_and_later_as_ever(make_world, caplog):
    world = make_world(server_login_retry=15.0, query_wait_notify=0)
    client = world.client()
    hold(world)
    client.says(SELECT)
    switchover.release(world.pooler, "one")
    attempts = []
    for _ in range(600):
        if world.edge.connecting:
            attempts.append(world.edge.now)
            world.fails_to_connect()
        world.sleep(0.1)
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    hasty = [pause for at, pause in zip(attempts, pauses, strict=False) if at - attempts[0] < 29]
    assert max(hasty) < 0.5
    assert len(hasty) > 60
    assert pauses[-1] > 10
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) < 10, "what was said is not said again five times a second"
    assert client.hears() == b""


# --- a restart in place ------------------------------------------------------------------------------------------------


class Restarting:
    """What a probe of the world finds, in its order; the last one stays."""

    def __init__(self, world: Any, *finds: str | Callable[[], MiniPostgres]) -> None:
        self.world, self.finds, self.looks = world, list(finds), 0

    def step(self) -> None:
        world = self.world
        world.sleep(0.2)
        while world.edge.connecting:
            self.looks += 1
            found = self.finds.pop(0) if len(self.finds) > 1 else self.finds[0]
            if callable(found):
                wire = world.accept(found())
                while wire.deliver():
                    pass
            elif found == "refused":
                world.fails_to_connect()
            else:
                postgres = MiniPostgres(greeted=False)
                postgres.refusal = (found, "not now")
                world.accept(postgres).deliver()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()


def running(
    started: bytes = b"yesterday", *, standby: bool = False, at: bytes | None = None
) -> Callable[[], MiniPostgres]:
    return lambda: Older(standby=standby, started=started, address=at)


@pytest.mark.parametrize(
    "away", [["refused"], ["57P03", "57P03"], ["57P03", "refused", "57P03"]], ids=["refused", "57P03", "all of it"]
)
def test_a_hold_that_waits_for_a_restart_ends_when_postgresql_is_back(make_world, away):
    world = make_world()
    client = world.client()
    hold(world, when=ReleaseWhen.RESTARTED)
    client.says(SELECT)
    restarting = Restarting(world, running(), running(), *away, running(b"today"))
    restarting.steps(2 + len(away))
    assert held(world)
    restarting.steps(2)
    assert world.pooler.holds.last.ended_by is EndedBy.RESTARTED
    assert world.pooler.holds.last.seconds < 3
    world.run()
    assert b"SELECT 1" in client.hears()
    assert world.pooler.server_login_errors == {}, "a look is no failure"


def test_a_restart_between_two_looks_is_seen_by_the_time_of_its_start(make_world):
    world = make_world()
    world.client()
    hold(world, when=ReleaseWhen.RESTARTED)
    restarting = Restarting(world, running(), running(b"today"))
    restarting.steps(3)
    assert world.pooler.holds.last.ended_by is EndedBy.RESTARTED


def test_without_a_restart_it_ends_at_its_ceiling_and_nobody_looks_any_more(make_world):
    world = make_world()
    world.client()
    hold(world, ceiling=5.0, when=ReleaseWhen.RESTARTED)
    restarting = Restarting(world, running())
    restarting.steps(40)
    assert world.pooler.holds.last.ended_by is EndedBy.CEILING
    assert 10 < restarting.looks < 30
    looks = restarting.looks
    restarting.steps(10)
    assert restarting.looks == looks
    assert world.pooler.probe is None


def test_one_that_comes_back_as_a_standby_is_not_back(make_world):
    world = make_world()
    world.client()
    hold(world, when=ReleaseWhen.RESTARTED)
    restarting = Restarting(world, "refused", running(b"today", standby=True))
    restarting.steps(10)
    assert held(world)
    restarting.finds = [running(b"later")]
    restarting.steps(3)
    assert not held(world)


def test_a_login_that_postgresql_refuses_says_that_it_is_back(make_world):
    world = make_world()
    world.client()
    hold(world, when=ReleaseWhen.RESTARTED)
    Restarting(world, running(), "57P03", "28P01").steps(5)
    assert world.pooler.holds.last.ended_by is EndedBy.RESTARTED


def test_nobody_looks_before_the_last_transaction_has_ended_and_looks_are_in_no_book(make_world):
    world = make_world(max_server_connections=1, default_pool_size=1)
    client = world.client()
    client.query("BEGIN")
    hold(world, when=ReleaseWhen.RESTARTED)
    world.sleep(2)
    assert not world.edge.connecting
    client.says(messages.query("COMMIT"))
    world.servers[0].deliver()
    (probe,) = world.edge.connecting
    world.sleep(0.5)
    assert world.edge.connecting == [probe]
    assert not list(world.pooler.servers())
    assert world.operations.held_servers() == 0
    assert world.pooler.holds.current.drained
    switchover.release(world.pooler, "one")
    world.fails_to_connect()
    world.sleep(1)
    assert not world.edge.connecting, "that was the last look"


def test_a_told_hold_looks_for_nothing(make_world):
    world = make_world()
    world.client()
    hold(world)
    world.sleep(2)
    assert not world.edge.connecting


# --- whoever ordered the hold is gone ------------------------------------------------------------------------------------

OLD, NEW, OTHER = b"10.0.0.1", b"10.0.0.2", b"10.0.0.3"


def hold_for_a_switchover(world: Any, *finds: str | Callable[[], MiniPostgres]) -> tuple[Any, Restarting]:
    """A hold that nobody ends, of a client that waits."""
    client = world.client()
    switchover.hold(world.pooler, "one", 60.0, ReleaseWhen.TOLD, OLD.decode())
    client.says(SELECT)
    return client, Restarting(world, *finds)


@pytest.mark.parametrize(
    "before",
    [
        [running(at=OLD)],
        ["refused"],
        ["57P03"],
        [running(at=OLD), "57P03", "refused", running(standby=True, at=NEW)],
        ["refused", running(standby=True, at=OLD)],
        [running(at=OTHER), "refused", running(at=OLD)],
    ],
    ids=["seen", "away", "going down", "all of it", "the old one as a standby", "elsewhere"],
)
def test_another_primary_ends_a_hold_that_nobody_ends(make_world, before):
    world = make_world()
    client, postgres = hold_for_a_switchover(world, *before, running(at=NEW))
    postgres.steps(len(before))
    assert held(world)
    postgres.steps(2)
    assert world.pooler.holds.last.ended_by is EndedBy.MOVED
    world.run()
    assert b"SELECT 1" in client.hears()


@pytest.mark.parametrize(
    "finds",
    [
        [running(at=OLD)],
        [running(at=OLD), "refused", running(at=OLD)],
        ["refused", running(b"today", at=OLD)],
        ["57P03", running(standby=True, at=NEW)],
        [running(at=OTHER)],
        [running(at=OTHER), "refused", running(at=OTHER)],
        [running(at=None)],
        ["refused", running(at=None)],
    ],
    ids=[
        "there",
        "a look was lost",
        "restarted",
        "not promoted yet",
        "its address was old",
        "the same, and a look was lost",
        "no address",
        "no address, and away",
    ],
)
def test_nobody_is_let_onto_the_old_primary_before_its_ceiling(make_world, finds):
    world = make_world(query_wait_notify=0)
    client, postgres = hold_for_a_switchover(world, *finds)
    postgres.steps(50)
    assert held(world)
    assert client.hears() == b""
    world.sleep(60)
    assert world.pooler.holds.last.ended_by is EndedBy.CEILING
    world.fails_to_connect()  # the last look


def test_where_a_password_has_a_new_salt_another_user_looks(make_world):
    world = make_world()
    world.client(user="bob")
    client, postgres = hold_for_a_switchover(world, "refused", "28P01", running(at=NEW))
    users = []
    for _ in range(3):
        probe = world.pooler.probe
        postgres.step()
        users.append(probe.pool.user)
    assert users[0] == users[1] != users[2]
    assert world.pooler.holds.last.ended_by is EndedBy.MOVED
    world.run()
    assert b"SELECT 1" in client.hears()


def test_a_look_that_takes_too_long_gives_the_next_more_time(make_world):
    world = make_world()
    hold_for_a_switchover(world)
    probe, patience = world.pooler.probe, []
    for _ in range(5):
        patience.append(probe.pool.policy.connect_timeout)
        world.sleep(patience[-1])
        world.fails_to_connect("connect timeout")
        world.sleep(0.5)
    world.fails_to_connect()  # at once: that says nothing of how long one takes
    world.sleep(0.5)
    assert [*patience, probe.pool.policy.connect_timeout] == [1.0, 2.0, 4.0, 4.0, 4.0, 4.0]
    switchover.release(world.pooler, "one")
    world.fails_to_connect()
