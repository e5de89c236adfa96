"""Who must wait for whom: what is paused, what is kept, and how much of it."""

from __future__ import annotations

import struct

import pytest
from tests.pgweir.session.world import Client, World

from pgweir.protocol import messages
from pgweir.session.client import HELD_LIMIT
from pgweir.session.wire import LAST_WORDS

GIGABYTE = 10**9


def announced(whole: bytes, size: int = GIGABYTE) -> bytes:
    """The beginning of a message that says it is this long."""
    return whole[:1] + struct.pack("!i", size) + whole[5:-1]


@pytest.mark.parametrize(
    "head",
    [
        messages.query("SELECT 1"),
        messages.parse("", "SELECT 1"),
        messages.parse("", "SELECT " + "1" * 100),
        messages.bind("", "s", [b"1"]),
        messages.bind("", "unknown", [b"1"]),
        messages.message(ord("F"), bytes(10)),
    ],
)
@pytest.mark.parametrize("cut", [5, 6, 7])
def test_a_gigabyte_that_is_announced_passes_through_as_it_comes(head, cut):
    world = World()
    client = world.client()
    client.says(messages.parse("s", "SELECT 1"), messages.sync())
    world.run()
    client.hears()
    (server,) = world.servers
    server.postgres.feed = lambda data: b""  # it takes the bytes and waits for more
    before = len(server.written)
    client.says(announced(head)[:cut])
    client.says(announced(head)[cut:])
    for _ in range(10):
        client.says(bytes(100_000))
    assert len(server.written) >= before + 1_000_000 + len(head) - 1
    assert not client.session.held


def test_the_statement_behind_a_name_is_kept_whole_and_nothing_else():
    world = World()
    client = world.client()
    client.says(announced(messages.parse("name", "SELECT 1")))
    client.says(bytes(100_000))
    assert client.session.server is None, "no server is kept waiting for the rest"
    assert len(client.session.held) < 101_000


@pytest.mark.parametrize("kind", [b"D", b"C"])
def test_a_name_of_a_gigabyte_is_no_name(kind):
    world = World()
    client = world.client()
    client.says(kind, struct.pack("!i", GIGABYTE), b"S", bytes(10))
    assert client.wire.closed


@pytest.mark.parametrize("size", [0, 3, -1, -(2**31)])
def test_a_length_that_cannot_be_is_a_protocol_error(size):
    world = World()
    client = world.client()
    client.says(b"Q", struct.pack("!i", size), b"SELECT 1\0")
    world.run()
    assert client.wire.closed


def waiting_behind(world: World) -> Client:
    world.client().query("BEGIN")
    client = world.client()
    client.says(messages.query("SELECT 1"))
    return client


def test_a_client_that_waits_for_a_server_is_not_read_beyond_a_bound():
    world = World(default_pool_size=1)
    client = waiting_behind(world)
    while client.wire.reading:
        client.says(messages.query("INSERT " + "x" * 1000))
    assert len(client.session.held) <= HELD_LIMIT + 1100
    world.clients[0].query("COMMIT")
    world.run()
    assert client.wire.reading


def test_a_client_that_takes_no_rows_stops_its_server_and_that_one_alone():
    world = World(default_pool_size=2)
    slow, quick = world.client(), world.client()
    slow.says(messages.query("SELECT 9"))
    slow.session.pause_writing()
    server = slow.session.server
    assert not server.wire.reading
    assert quick.query("SELECT 1").endswith(messages.ready_for_query(b"I"))
    slow.session.resume_writing()
    world.run()
    assert slow.hears().endswith(messages.ready_for_query(b"I"))
    world.balance()


def test_a_server_that_was_stopped_for_one_client_reads_for_the_next():
    world = World(default_pool_size=1)
    slow, waits = world.client(), world.client()
    slow.says(messages.query("SELECT 1"))
    waits.says(messages.query("SELECT 2"))
    server = slow.session.server
    replies, server.wire.replies = server.wire.replies, b""
    slow.session.pause_writing()
    server.data_received(replies)  # was on its way already, to its very end
    assert waits.session.server is server
    assert server.wire.reading
    world.run()
    assert waits.hears().endswith(messages.ready_for_query(b"I"))
    slow.says(messages.query("SELECT 1"))
    assert not server.wire.reading, "its client still takes nothing"
    slow.session.resume_writing()
    world.run()
    world.empty()


def test_ready_for_query_in_the_middle_of_a_read_gives_the_server_back_at_the_end_of_it_only():
    world = World(default_pool_size=1)
    client, other = world.client(), world.client()
    client.says(messages.query("SELECT 1"), messages.query("SELECT 2"))
    other.says(messages.query("SELECT 3"))
    server = client.session.server
    first = server.wire.replies.index(b"Z\0\0\0\5") + 6
    server.wire.deliver(first + 3)
    assert client.session.server is server, "a second answer is owed"
    world.run()
    assert client.hears().count(messages.ready_for_query(b"I")) == 2
    assert other.hears().endswith(messages.ready_for_query(b"I"))


def test_a_server_that_takes_no_more_stops_its_client():
    world = World()
    client = world.client()
    client.query("BEGIN")
    server = client.session.server
    server.pause_writing()
    assert not client.wire.reading
    server.resume_writing()
    assert client.wire.reading


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_client_that_takes_no_answers_is_not_asked_for_more_questions_that_we_answer_ourselves(in_transaction):
    world = World()
    client = world.client()
    client.says(messages.parse("s", "SELECT 1"), messages.sync())
    world.run()
    if in_transaction:
        client.query("BEGIN")
    client.session.pause_writing()
    assert client.wire.reading
    client.says(messages.close("S", "s"), messages.sync())
    assert not client.wire.reading
    client.session.resume_writing()
    assert client.wire.reading
    world.run()


def test_what_needs_no_server_is_answered_in_one_write_however_much_of_it_comes():
    world = World()
    client = world.client()
    client.hears()
    writes = []
    write, client.wire.write = client.wire.write, lambda data: (writes.append(data), write(data))
    client.says(messages.close("S", "s") * 3, messages.sync() * 50_000)
    assert client.hears() == messages.CLOSE_COMPLETE * 3 + messages.ready_for_query(b"I") * 50_000
    assert len(writes) == 1


def test_a_client_that_was_sent_away_and_takes_nothing_is_cut_off_in_the_end():
    world = World()
    polite, stubborn = world.client(), world.client()
    stubborn.wire.untaken = 1
    for client in (polite, stubborn):
        client.says(b"!\0\0\0\4")
        assert client.wire.closed
    world.sleep(LAST_WORDS - 1)
    assert not stubborn.wire.aborted
    world.sleep(2)
    assert stubborn.wire.aborted
    assert not polite.wire.aborted
