"""Whatever a client pipelines, it hears what a PostgreSQL of its own would have said.

Random conversations (named statements, transactions, errors, COPY, function calls, DEALLOCATE ALL) run through a transaction
pool whose servers keep one, two or many statements each, or whose statements nobody tracks, over servers that change under the
client's feet; bytes are cut anywhere in both directions. The judge is one MiniPostgres that hears the same bytes.
"""

from __future__ import annotations

from random import Random

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from tests.pgweir.mini_postgres import MiniPostgres
from tests.pgweir.session.world import Client, World

from pgweir.protocol import messages

NAMES = st.sampled_from(["a", "b", "c", "d"])
BODIES = st.sampled_from(["SELECT 1", "SELECT 2", "SELECT 3", "FAIL", "SYNTAX", "BEGIN", "COMMIT", "", "INSERT"])

EXTENDED = st.one_of(
    st.builds(messages.parse, NAMES, BODIES),
    st.builds(messages.bind, st.just(""), NAMES),
    st.builds(messages.bind, st.just(""), NAMES),
    st.builds(messages.describe, st.just("S"), NAMES),
    st.just(messages.describe("P", "")),
    st.just(messages.execute()),
    st.just(messages.execute()),
    st.builds(messages.close, st.just("S"), NAMES),
    st.just(messages.flush()),
    st.builds(lambda sql: messages.parse("", sql) + messages.bind("", ""), BODIES),
)
PREPARED = messages.parse("a", "SELECT 1") + messages.parse("b", "SELECT 2") + messages.sync()
SEGMENT = st.builds(lambda parts: b"".join(parts) + messages.sync(), st.lists(EXTENDED, max_size=6))
COPY = b"".join((messages.parse("", "COPY t"), messages.bind("", ""), messages.execute(), messages.sync()))
ROW, BAD_ROW, DONE = (b"d\0\0\0\x07row", b"d\0\0\0\x07bad", b"c\0\0\0\x04")
FAIL = b"f\0\0\0\x06x\0"
COPY_DATA = st.builds(
    lambda rows, end: b"".join(rows) + end,
    st.lists(st.sampled_from([ROW, BAD_ROW, messages.flush()]), max_size=3),
    st.sampled_from([DONE, FAIL]),
)
SIMPLE = st.one_of(
    st.builds(
        messages.query,
        st.sampled_from(["SELECT 2", "BEGIN", "COMMIT", "FAIL", "", "SELECT 1; FAIL; SELECT 2", "BEGIN; SELECT 1"]),
    ),
    st.just(messages.message(ord("F"), b"\0\0\0\1" + bytes(6))),
)
CLEARING = st.one_of(
    st.builds(messages.query, st.sampled_from(["DEALLOCATE ALL", "DISCARD ALL", "SELECT 1; DEALLOCATE ALL"])),
    st.builds(
        lambda sql: b"".join((messages.parse("", sql), messages.bind("", ""), messages.execute(), messages.sync())),
        st.sampled_from(["DEALLOCATE ALL", "discard all"]),
    ),
)
# One step: the client's bytes, and whether it waits for everything before it goes on.
STEP = st.one_of(
    st.tuples(SEGMENT, st.booleans()),
    st.tuples(SEGMENT, st.booleans()),
    st.tuples(SIMPLE, st.booleans()),
    st.tuples(st.builds(bytes.__add__, CLEARING, SEGMENT), st.booleans()),
    st.builds(lambda data: ("extended copy", data), COPY_DATA),
    st.builds(lambda data: ("simple copy", data), COPY_DATA),
    st.just(("another server", None)),
)


LIMITS = [0, 1, 2, 2, 200]  # of max_prepared_statements


def send(client: Client, data: bytes, rng: Random, *, cut: bool) -> None:
    """The client says this, in pieces; now and then some of the replies come in between."""
    while data:
        size = rng.randint(1, len(data)) if cut else len(data)
        client.says(data[:size])
        data = data[size:]
        if cut and rng.random() < 0.4:
            for server in client.world.alive():
                server.deliver(rng.randint(1, 40))


@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])
@given(steps=st.lists(STEP, max_size=12), seed=st.integers(0, 1000), cut=st.booleans(), limit=st.sampled_from(LIMITS))
@example(  # a Parse that the server skips, after an error: what it had prepared before, it still has
    steps=[
        (messages.query("BEGIN"), False),
        (messages.query("FAIL"), False),
        (messages.describe("P", "") + messages.parse("c", "SELECT 1") + messages.sync(), False),
    ],
    seed=0,
    cut=False,
    limit=2,
)
@example(  # the portal of a COPY that is over cannot be run again
    steps=[
        (messages.query("BEGIN"), False),
        ("extended copy", DONE),
        (messages.execute("") + messages.bind("", "a") + messages.sync(), False),
    ],
    seed=0,
    cut=False,
    limit=0,
)
def test_a_client_hears_what_postgres_would_have_said(steps, seed, cut, limit):
    converse(steps, Random(seed), cut, limit)


def converse(steps: list[tuple[object, object]], rng: Random, cut: bool, limit: int) -> None:
    # Untracked statements hold only as long as the server is the same one.
    world = World(max_prepared_statements=limit, default_pool_size=3 if limit else 1)
    client, other = world.client(), world.client()
    judge = MiniPostgres()
    expected = b""
    for what, data in [(PREPARED, True), *steps]:
        if what == "another server":
            if not limit:
                continue
            other.query(rng.choice(["COMMIT", "BEGIN"]))
            continue
        if what in ("extended copy", "simple copy"):
            world.run()
            start = COPY if what == "extended copy" else messages.query("COPY t")
            expected += judge.feed(start)
            client.says(start)
            world.run()
            if judge.copying is None:
                continue
            what = data + (messages.sync() if start is COPY else b"")
            data = True
        send(client, what, rng, cut=cut)
        expected += judge.feed(what)
        if data:
            world.run()
            world.balance()
            assert client.session.server is None or judge.status != b"I"
    world.run()
    assert client.hears() == expected
    if limit:
        other.query("COMMIT")
    if judge.status == b"I":
        assert client.session.server is None
    world.balance()
    for server in world.pool.servers():
        known = {statement.name for statement in server.exchange.statements}
        assert not limit or known == {name for name in server.wire.postgres.statements if name}
    world.empty()
