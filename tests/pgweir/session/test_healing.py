"""Statements that DDL made out of date, or that a server has lost: who hears of it, and for how long.

The client keeps its names throughout. An error may reach it only where saying its exchange again would not be the same, and
never twice for one cause.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pgweir.session.world import Client, World

from pgweir.protocol import messages

RUN, END, SHAPE = messages.execute(), messages.sync(), messages.describe("P", "")


def run(name: str, *, described: bool = True) -> bytes:
    return messages.bind("", name) + (SHAPE if described else b"") + RUN


def prepared(world: World, *names: str, body: str = "SELECT 1") -> Client:
    client = world.client()
    for name in names:
        client.says(messages.parse(name, f"{body} {name}" if len(names) > 1 else body), END)
    world.run()
    client.hears()
    return client


def kinds(heard: bytes) -> str:
    found = ""
    while heard:
        found += chr(heard[0])
        heard = heard[1 + int.from_bytes(heard[1:5], "big") :]
    return found


def hears(client: Client, said: bytes) -> str:
    client.says(said)
    client.world.run()
    client.world.balance()
    return kinds(client.hears())


@pytest.mark.parametrize("trouble", ["alter_table", "lose_statements"])
def test_a_described_exchange_is_said_again_and_the_client_never_knows(trouble):
    world = World()
    client = prepared(world, "s")
    getattr(world.servers[0].postgres, trouble)()
    assert hears(client, run("s") + END) == "2TDCZ"
    assert hears(client, run("s") + END) == "2TDCZ"
    assert len(world.alive()) == 1
    world.empty()


def test_a_client_that_goes_by_an_earlier_describe_gets_the_error_once():
    world = World()
    client = prepared(world, "s")
    world.servers[0].postgres.alter_table()
    assert hears(client, run("s", described=False) + END) == "EZ"
    assert hears(client, run("s", described=False) + END) == "2DCZ"
    world.servers[0].postgres.lose_statements()
    assert hears(client, run("s", described=False) + END) == "2DCZ"


def test_a_statement_made_anew_under_another_name_is_really_made_anew():
    world = World()  # what drivers do about 0A000: prepare the same text once more
    client = prepared(world, "s")
    world.servers[0].postgres.alter_table()
    assert hears(client, run("s", described=False) + END) == "EZ"
    remade = messages.parse("t", "SELECT 1") + messages.describe("S", "t") + END
    assert hears(client, remade) == "1tTZ"
    assert hears(client, run("t", described=False) + END) == "2DCZ"


@pytest.mark.parametrize("trouble", ["alter_table", "lose_statements"])
def test_inside_a_transaction_block_the_error_is_postgresqls_and_the_next_use_works(trouble):
    world = World()
    client = prepared(world, "s")
    client.query("BEGIN")
    getattr(world.servers[0].postgres, trouble)()
    assert hears(client, run("s") + END) == "EZ"
    client.query("ROLLBACK")
    assert hears(client, run("s") + END) == "2TDCZ"


@pytest.mark.parametrize("cut", range(1, 60, 3))
def test_what_comes_while_an_exchange_is_said_again_follows_it(cut):
    world = World()
    client = prepared(world, "s")
    server = world.servers[0]
    server.postgres.alter_table()
    client.says(run("s"), END)
    server.deliver(cut)
    client.says(messages.query("SELECT 2"))
    while server.deliver(cut):
        pass
    assert kinds(client.hears()) in ("2TDCZTDDCZ", "EZTDDCZ")
    world.balance()


def test_the_client_may_leave_while_its_exchange_is_said_again():
    world = World()
    client = prepared(world, "s")
    server = world.servers[0]
    server.postgres.alter_table()
    client.says(run("s"), END)
    server.deliver(server.replies.index(b"Z"))  # the error, and not yet ReadyForQuery
    client.leaves()
    assert world.alive() == []
    world.balance()


def test_a_server_that_dies_meanwhile_is_reported_as_ever():
    world = World()
    client = prepared(world, "s")
    server = world.servers[0]
    server.postgres.alter_table()
    client.says(run("s"), END)
    server.deliver(server.replies.index(b"Z"))
    server.lose()
    assert kinds(client.hears()) == "E"
    assert client.wire.closed


def test_an_exchange_is_said_again_once_and_no_more():
    world = World()
    client = prepared(world, "s")
    server = world.servers[0]
    server.postgres.alter_table()
    client.says(run("s"), END)
    error = server.replies
    server.deliver()
    assert client.hears() == b""
    server.replies = messages.CLOSE_COMPLETE + messages.PARSE_COMPLETE + error  # DDL again, at the worst moment
    server.deliver()
    assert kinds(client.hears()) == "EZ"


def test_an_exchange_of_two_reads_or_a_large_one_gets_the_error():
    world = World()
    client = prepared(world, "s")
    server = world.servers[0]
    server.postgres.alter_table()
    client.says(run("s"))
    assert hears(client, END) == "EZ"
    assert hears(client, run("s") + END) == "2TDCZ"
    server.postgres.alter_table()
    large = messages.bind("", "s", [b"x" * 20_000])
    assert hears(client, large + SHAPE + RUN + END) == "EZ"
    assert hears(client, large + SHAPE + RUN + END) == "2TDCZ"


@pytest.mark.parametrize("limit", [1, 2])
def test_stale_statements_make_room_first(limit):
    world = World(max_prepared_statements=limit)
    client = prepared(world, "a", "b", "c")
    postgres = world.servers[0].postgres
    postgres.alter_table()
    for name in "abcabc":
        assert hears(client, run(name) + END) == "2TDCZ"
        assert len(postgres.statements) <= limit


WORDS = st.one_of(
    st.tuples(st.just("run"), st.sampled_from("abcd"), st.booleans()),
    st.tuples(st.just("run"), st.sampled_from("abcd"), st.booleans()),
    st.tuples(st.just("two"), st.sampled_from("abcd"), st.booleans()),
    st.tuples(st.sampled_from(["alter_table", "lose_statements"]), st.none(), st.none()),
    st.tuples(st.just("begin or commit"), st.none(), st.none()),
    st.tuples(st.just("another server"), st.none(), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(WORDS, max_size=25), limit=st.sampled_from([1, 2, 9]), seed=st.integers(0, 99))
def test_whatever_happens_to_statements_a_second_try_always_works(steps, limit, seed):
    world = World(max_prepared_statements=limit, default_pool_size=3)
    dice = Random(seed)
    client, other = prepared(world, *"abcd"), world.client()
    in_block = False
    for what, name, described in steps:
        if what == "another server":
            other.query(dice.choice(["BEGIN", "COMMIT"]))
        elif what == "begin or commit":
            client.query("COMMIT" if in_block else "BEGIN")
            in_block = not in_block
        elif what in ("run", "two"):
            said = run(name, described=described)
            expected = "2TDC" if described else "2DC"
            if what == "two":
                said, expected = said * 2, expected * 2
            heard = hears(client, said + END)
            if heard == "EZ":
                assert in_block or not described
                if in_block:
                    client.query("ROLLBACK")
                    in_block = False
                heard = hears(client, said + END)
            assert heard == expected + "Z"
        else:
            for server in world.alive():
                getattr(server.postgres, what)()
    client.query("COMMIT")
    other.query("COMMIT")
    for server in world.pool.servers():
        assert {one.name for one in server.exchange.statements} >= {
            name for name in server.wire.postgres.statements if name
        }
    world.empty()
