"""Whatever a client pipelines, it hears what a PostgreSQL of its own would have said.

Random conversations (named statements, transactions, errors, COPY) run through a transaction pool whose servers keep two
statements each, over servers that change under the client's feet; bytes are cut anywhere in both directions. The judge is one
MiniPostgres that hears the same bytes.
"""

from __future__ import annotations

from random import Random

from hypothesis import Phase, given, settings
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
SEGMENT = st.builds(lambda parts: b"".join(parts) + messages.sync(), st.lists(EXTENDED, max_size=6))
COPY = b"".join((messages.parse("", "COPY t"), messages.bind("", ""), messages.execute(), messages.sync()))
ROW, BAD_ROW, DONE = (b"d\0\0\0\x07row", b"d\0\0\0\x07bad", b"c\0\0\0\x04")
FAIL = b"f\0\0\0\x06x\0"
COPY_DATA = st.builds(
    lambda rows, end: b"".join(rows) + end,
    st.lists(st.sampled_from([ROW, BAD_ROW, messages.flush()]), max_size=3),
    st.sampled_from([DONE, FAIL]),
)
SIMPLE = st.builds(
    messages.query,
    st.sampled_from(["SELECT 2", "BEGIN", "COMMIT", "FAIL", "", "SELECT 1; FAIL; SELECT 2", "BEGIN; SELECT 1"]),
)
# One step: the client's bytes, and whether it waits for everything before it goes on.
STEP = st.one_of(
    st.tuples(SEGMENT, st.booleans()),
    st.tuples(SEGMENT, st.booleans()),
    st.tuples(SIMPLE, st.booleans()),
    st.tuples(st.sampled_from([messages.query("DEALLOCATE ALL"), messages.query("DISCARD ALL")]), st.just(True)),
    st.builds(lambda data: ("extended copy", data), COPY_DATA),
    st.builds(lambda data: ("simple copy", data), COPY_DATA),
    st.just(("another server", None)),
)


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
@given(steps=st.lists(STEP, max_size=12), seed=st.integers(0, 1000), cut=st.booleans())
def test_a_client_hears_what_postgres_would_have_said(steps, seed, cut):
    converse(steps, Random(seed), cut)


def converse(steps: list[tuple[object, object]], rng: Random, cut: bool) -> None:
    world = World(max_prepared_statements=2, default_pool_size=3)
    client, other = world.client(), world.client()
    judge = MiniPostgres()
    expected = b""
    for what, data in steps:
        if what == "another server":
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
    other.query("COMMIT")
    if judge.status == b"I":
        assert client.session.server is None
    world.balance()
    for server in world.pool.servers():
        known = {statement.name for statement in server.exchange.statements}
        assert known == {name for name in server.wire.postgres.statements if name}
    world.empty()
