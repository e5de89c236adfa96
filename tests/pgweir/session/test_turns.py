"""A storm of logins is taken a few steps in each turn of the loop; what is counted here is work, not time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.pgweir.session.world import Client, FakeEdge, RecorderWire, World

from pgweir.protocol import messages
from pgweir.protocol.auth.auth_query import Found
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.scram import ScramClient, build_verifier
from pgweir.session.lookup import Lookups
from pgweir.session.turns import SLICE, STEPS, Turns
from pgweir.session.wire import Origin

VERIFIER = build_verifier("secret", b"0123456789abcdef", 2).format()
READY = messages.ready_for_query(b"I")
STORM = 5 * STEPS + 1


def turn(edge: FakeEdge) -> None:
    """The loop comes round once: what was asked for during the last turn is done."""
    edge.now += 2 * SLICE
    due, edge.timers = edge.timers, []
    for _, action in due:
        action()


class Proving:
    """A client that proves alice's password; nothing of its own moves the loop."""

    def __init__(self, world: World, number: int) -> None:
        self.client = world.starts_login()
        self._scram = ScramClient(nonce=b"nonce%d" % number, password="secret")
        self.client.hears()

    def says_first(self) -> None:
        self._says(messages.sasl_initial_response("SCRAM-SHA-256", self._scram.first()))

    def says_final(self) -> None:
        challenge = self.client.hears()
        self._says(messages.sasl_response(done_at_once(self._scram.final(challenge[9:]))))

    def _says(self, data: bytes) -> None:
        self.client.wire.protocol.data_received(data)

    @property
    def is_answered(self) -> bool:
        return bool(self.client.wire.written)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    world = make_world(auth_type="scram-sha-256", max_client_conn=1000)
    world.operations.apply(replace(world.config, userlist={"alice": VERIFIER}))
    return world


def logged_in(world: World) -> Proving:
    made = Proving(world, 0)
    made.says_first()
    made.says_final()
    world.run()
    assert made.client.hears().endswith(READY)
    turn(world.edge)
    return made


def answered_turn_by_turn(world: World, storm: list[Proving]) -> list[int]:
    """How many of them have their answer at the end of each turn, up to the one that answers the last."""
    found = [sum(each.is_answered for each in storm)]
    while found[-1] < len(storm):
        turn(world.edge)
        found.append(sum(each.is_answered for each in storm))
        assert found[-1] > found[-2]
    return found


def test_proofs_that_come_at_once_are_judged_a_few_in_each_turn_and_queries_in_between(world: World) -> None:
    query = logged_in(world).client
    storm = [Proving(world, number) for number in range(STORM)]
    for say in (Proving.says_first, Proving.says_final):
        turn(world.edge)
        for each in storm:
            say(each)
        assert sum(each.is_answered for each in storm) == STEPS
        query.wire.protocol.data_received(messages.query("SELECT 1"))
        while world.servers[0].deliver():
            pass
        assert query.hears().endswith(READY), "a query does not wait for them"
        steps = answered_turn_by_turn(world, storm)
        assert max(after - before for before, after in itertools.pairwise(steps)) <= STEPS
    assert all(each.client.hears().endswith(READY) for each in storm)


def knocks(world: World) -> Client:
    """A client's startup packet, while the loop stands still."""
    wire = RecorderWire()
    wire.protocol = world.pooler.accept(wire, Origin("10.0.0.1", 40000))
    wire.protocol.data_received(messages.startup_message({"user": "alice", "database": "shop"}))
    world.clients.append(Client(world, wire))
    return world.clients[-1]


def test_those_of_whom_no_proof_is_asked_are_let_in_a_few_in_each_turn(make_world: Callable[..., World]) -> None:
    world = make_world(auth_type="trust", max_client_conn=1000)
    world.client().leaves()
    turn(world.edge)
    storm = [knocks(world) for _ in range(STORM)]
    found = [STEPS]
    while found[-1] < STORM:
        assert [bool(client.wire.written) for client in storm] == [n < found[-1] for n in range(STORM)]
        turn(world.edge)
        found.append(min(STORM, found[-1] + STEPS))
    assert all(client.hears().endswith(READY) for client in storm)


def test_who_says_much_before_its_turn_is_read_again_when_it_is_in(make_world: Callable[..., World]) -> None:
    world = make_world(auth_type="trust")
    world.client().leaves()
    turn(world.edge)
    *_, last = [knocks(world) for _ in range(STEPS + 1)]
    last.wire.protocol.data_received(messages.query("SELECT 1") * 5000)
    assert not last.wire.reading
    turn(world.edge)
    assert last.wire.written.startswith(messages.authentication_ok())
    assert last.wire.reading


def test_who_may_not_come_in_is_told_so_in_its_turn(make_world: Callable[..., World]) -> None:
    world = make_world(auth_type="trust", max_db_client_connections=STEPS)
    world.client().leaves()
    turn(world.edge)
    *_, last = [knocks(world) for _ in range(STEPS + 1)]
    assert last.hears() == b""
    turn(world.edge)
    assert b"client connections exceeded (max_db_client_connections)" in last.hears()
    assert last.wire.closed


def test_those_who_waited_for_the_first_server_are_greeted_a_few_in_each_turn(world: World) -> None:
    storm = [Proving(world, number) for number in range(STORM)]
    for each in storm:
        each.says_first()
        turn(world.edge)
        each.says_final()
        each.client.hears()
        turn(world.edge)
    turn(world.edge)
    server = world.accept()
    while server.deliver():
        pass
    steps = answered_turn_by_turn(world, storm)
    assert steps[0] <= STEPS
    assert max(after - before for before, after in itertools.pairwise(steps)) <= STEPS
    assert all(each.client.hears().endswith(READY) for each in storm)


def test_who_leaves_before_its_turn_is_forgotten_and_the_next_ones_turn_comes(world: World) -> None:
    logged_in(world)
    storm = [Proving(world, number) for number in range(3 * STEPS)]
    for each in storm:
        each.says_first()
    for each in storm[STEPS : 2 * STEPS]:
        each.client.leaves()
    turn(world.edge)
    turn(world.edge)
    assert [each.is_answered for each in storm] == [True] * STEPS + [False] * STEPS + [True] * STEPS
    assert len(world.pooler.logins) == 2 * STEPS


def test_a_bad_message_is_refused_in_its_turn(world: World) -> None:
    logged_in(world)
    storm = [Proving(world, number) for number in range(STEPS + 1)]
    for each in storm[:-1]:
        each.says_first()
    last = storm[-1].client
    last.wire.protocol.data_received(messages.sasl_initial_response("SCRAM-SHA-256", b"this is no SCRAM"))
    assert last.hears() == b""
    turn(world.edge)
    assert b"malformed SCRAM message" in last.hears()
    assert last.wire.closed


def test_one_answer_of_auth_query_for_many_is_taken_a_few_in_each_turn(
    make_world: Callable[..., World],
) -> None:
    answers: list[Callable[[Found], None]] = []

    class Asked(Lookups):
        def ask(self, _database: object, _user: str, answer: Any, anew: bool = False) -> None:
            answers.append(answer)

    world = make_world(auth_type="scram-sha-256", max_client_conn=1000, auth_user="bob")
    world.pooler.lookups = Asked(world.pooler)
    world.operations.apply(replace(world.config, userlist={"bob": "secret"}))
    storm = [Proving(world, number) for number in range(STORM)]
    for answer in answers:
        answer(Found("alice", VERIFIER))
    steps = answered_turn_by_turn(world, storm)
    assert steps == [min(STORM, STEPS * (n + 1)) for n in range(len(steps))]


def test_a_step_that_raises_is_not_the_last() -> None:
    edge, done = FakeEdge(), []
    turns = Turns(edge)
    while turns.take():
        pass

    def broken() -> None:
        raise ZeroDivisionError

    for step in (broken, lambda: done.append(1)):
        turns.wait(step)
    with pytest.raises(ZeroDivisionError):
        turn(edge)
    turn(edge)
    assert done == [1]
    turn(edge)
    assert edge.timers == [], "a loop with nothing to do is left alone"
