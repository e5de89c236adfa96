"""The compiled form of the hot rooms does what the plain one does: same bytes, same state, same error, however the bytes fall.

Both forms are imported side by side, the plain one as a second copy of the package.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgweir import compiled
from pgweir.pool.stats import COUNTERS, HISTOGRAMS
from pgweir.protocol import messages

pytestmark = pytest.mark.skipif(compiled.FOLDER is None, reason=f"only one form is here: {compiled.WHY_PLAIN}")

_OURS = ("pgweir", "tests.pgweir")


def plain_copy() -> dict[str, ModuleType]:
    """The world and everything under it, imported once more and plain."""

    def ours() -> list[str]:
        return [name for name in sys.modules if name.startswith(_OURS)]

    kept = {name: sys.modules.pop(name) for name in ours()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.PLAIN_VARIABLE, "1")
        try:
            importlib.import_module("tests.pgweir.session.noisy_world")
            importlib.import_module("pgweir.net.listener")
            return {name: sys.modules.pop(name) for name in ours()}
        finally:
            sys.modules.update(kept)


class Form(dict[str, ModuleType]):
    """The modules of one form, by name."""

    def __repr__(self) -> str:  # (theirs would fill pages when an example fails)
        return f"<{self['pgweir.compiled'].FORM}>"


@pytest.fixture(scope="module")
def forms() -> tuple[Form, Form]:
    importlib.import_module("tests.pgweir.session.noisy_world")
    importlib.import_module("pgweir.net.listener")
    found = Form(plain_copy()), Form(sys.modules)
    assert [form["pgweir.compiled"].FORM for form in found] == ["plain", "compiled"]
    for module in compiled.MODULES:
        suffixes = [str(form[f"pgweir.{module.replace('/', '.')}"].__file__).rpartition(".")[2] for form in found]
        assert suffixes == ["py", "so"], module
    return found


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same bytes in several reads."""
    places = sorted({c % len(data) for c in cuts} - {0}) if data else []
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


def outcome(action: Any, *arguments: Any) -> Any:
    try:
        return action(*arguments)
    except Exception as error:
        return type(error).__name__, str(error)


cuts = st.lists(st.integers(0, 10_000), max_size=6)
noise = st.binary(max_size=12)
replies = st.one_of(
    st.builds(message, st.sampled_from([bytes([b]) for b in b"12CDEGHIKNRSTVWZcdnst"]), noise),
    st.sampled_from([b"C", b"I", b"1", b"2", b"3", b"n", b"s"]).map(lambda kind: message(kind, b"")),
    st.sampled_from([b"I", b"T", b"E"]).map(messages.ready_for_query),
    st.sampled_from([b"DEALLOCATE ALL\0", b"DISCARD ALL\0", b"SELECT 1\0"]).map(lambda tag: message(b"C", tag)),
    st.sampled_from([b"SERROR\0VERROR\0C26000\0\0", b"SFATAL\0VFATAL\0C57P01\0\0", b"C0A000\0\0"]).map(
        lambda body: message(b"E", body)
    ),
    st.just(message(b"S", b"TimeZone\0UTC\0")),
    # Lengths that lie: too small, larger than a signed word holds, larger than what is waited for whole.
    st.builds(
        lambda kind, length: kind + length.to_bytes(4, "big"),
        st.sampled_from([b"D", b"C", b"T", b"Z", b"d", b"\0", b"\xff"]),
        st.sampled_from([0, 3, 4, 5, 64, (1 << 20) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]),
    ),
    noise,
)
kinds = st.sampled_from(list(b"QPBDECSHFdcf"))
specials = st.tuples(st.sampled_from(list(b"PC")), st.sampled_from(["SKIP", "FAKE", "FORWARD"]), st.integers(0, 2))
reads = st.tuples(st.lists(replies, max_size=6).map(b"".join), cuts)


def state(exchange: Any) -> dict[str, Any]:
    found = {name: getattr(exchange, name) for name in type(exchange).__slots__}
    found["owed"] = [item if isinstance(item, int) else repr(item) for item in exchange.owed]
    found["statements"] = [repr(statement) for statement in exchange.statements]
    found["kept_names"] = sorted(exchange.kept_names)
    return {**found, "settled": exchange.settled}


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(st.one_of(kinds, specials, reads), max_size=12))
def test_an_exchange_goes_the_same_way(forms: tuple[Form, ...], steps: list[Any]) -> None:
    told = []
    for form in forms:
        room = form["pgweir.protocol.exchange"]
        prepared = form["pgweir.protocol.prepared"]
        known = [prepared.Statement(b"PGBOUNCER_%d" % number, b"SELECT %d\0\0\0" % number) for number in range(3)]
        names: dict[bytes, Any] = {}
        exchange = room.Exchange()
        log: list[Any] = []
        for step in steps:
            if isinstance(step, int):
                log.append(outcome(exchange.expect, step))
            elif len(step) == 3:
                kind, action, number = step
                names[b"s%d" % number] = known[number]
                exchange.statements.add(known[number], 10)
                owed = prepared.Owed(kind, prepared.Action[action], known[number], names, b"s%d" % number)
                log.append(outcome(exchange.expect_special, owed))
            else:
                log += [outcome(exchange.scan, read) for read in cut(*step)]
            log.append(state(exchange))
            log.append(exchange.in_doubt)
        told.append((log, sorted(names)))
    assert told[0] == told[1]


sayings = st.one_of(
    st.sampled_from(["SELECT 1", "BEGIN", "COMMIT", "DEALLOCATE ALL", "error", ""]).map(messages.query),
    st.builds(
        messages.parse, st.sampled_from(["", "a", "b"]), st.sampled_from(["SELECT 1", "SELECT 2", "DISCARD ALL"])
    ),
    st.builds(
        lambda portal, name: message(b"B", portal + b"\0" + name + b"\0" + bytes(6)),
        st.sampled_from([b"", b"p"]),
        st.sampled_from([b"", b"a", b"b", b"nobody"]),
    ),
    st.builds(
        lambda kind, what, name: message(kind, what + name + b"\0"),
        st.sampled_from([b"D", b"C"]),
        st.sampled_from([b"S", b"P"]),
        st.sampled_from([b"", b"a", b"b"]),
    ),
    st.sampled_from([message(b"E", b"\0" + bytes(4)), message(b"H", b""), message(b"S", b""), message(b"S", b"")]),
    st.sampled_from([message(b"d", b"x"), message(b"c", b""), message(b"f", b"no\0")]),
    st.builds(message, st.sampled_from([bytes([b]) for b in b"QPBDECSHFdcfX"]), noise),
    st.sampled_from([0, 3, 4, 70_000, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]).map(
        lambda n: b"Q" + n.to_bytes(4, "big")
    ),
)


@settings(max_examples=250, deadline=None)
@given(
    said=st.lists(st.tuples(st.integers(0, 1), st.lists(sayings, max_size=5).map(b"".join), cuts), max_size=6),
    piece=st.sampled_from([None, 1, 7]),
)
def test_two_clients_on_one_server_hear_the_same(
    forms: tuple[Form, ...], said: list[tuple[int, bytes, list[int]]], piece: int | None
) -> None:
    told = []
    for form in forms:
        world = form["tests.pgweir.session.noisy_world"].NoisyWorld(default_pool_size=1, max_prepared_statements=2)
        clients = [world.client(), world.client()]
        log: list[Any] = []
        for number, data, places in said:
            for read in cut(data, places):
                if not clients[number].wire.closed:
                    log.append(outcome(clients[number].says, read) is clients[number])
                for server in list(world.servers):
                    server.deliver(piece)
            log += [client.wire.written for client in clients]
        world.run()
        log += [(client.wire.written, client.wire.closed) for client in clients]
        log += [(server.written, server.closed) for server in world.servers]
        log.append([repr(client.wire.protocol).partition(" ")[2].partition(" ")[2] for client in clients])
        stats = world.pool.stats
        log.append([getattr(stats, name) for name in COUNTERS])
        log.append([getattr(stats, name).counts for name in HISTOGRAMS])
        told.append(log)
    assert told[0] == told[1]


startups = st.builds(
    lambda user, database, protocol: messages.startup_message({"user": user, "database": database}, protocol),
    st.sampled_from(["alice", "carol", ""]),
    st.sampled_from(["shop", "nowhere", "pgbouncer"]),
    st.sampled_from([messages.PROTOCOL_3_0, messages.PROTOCOL_3_0 + 2, 0x20000]),
)
credentials = st.one_of(
    st.sampled_from(["first", "proof", "wrong proof", "password"]),
    st.sampled_from([b"n,,n=,r=x", b"y,,n=,r=\xff", b"p=x,,n=,r=x", b"n,a=x,n=,r=x", b"", b",,,"]).map(
        lambda data: messages.sasl_initial_response("SCRAM-SHA-256", data)
    ),
    st.sampled_from([b"c=biws,r=x,p=eA==", b"c=biws,p=" + b"QUFB" * 11, b""]).map(messages.sasl_response),
    sayings,
    noise,
)


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(["scram-sha-256", "md5", "plain", "trust", "auth_query"]),
    begins=st.one_of(startups, startups.map(lambda packet: messages.ssl_request() + packet), noise),
    said=st.lists(st.tuples(credentials, cuts), max_size=5),
    cuts_of_startup=cuts,
)
def test_a_login_goes_the_same_way(
    forms: tuple[Form, ...], method: str, begins: bytes, said: list[tuple[Any, list[int]]], cuts_of_startup: list[int]
) -> None:
    told = []
    for form in forms:
        scram = form["pgweir.protocol.auth.scram"]
        looks_up = (
            {"auth_type": "scram-sha-256", "auth_user": "bob"} if method == "auth_query" else {"auth_type": method}
        )
        world = form["tests.pgweir.session.noisy_world"].NoisyWorld(**looks_up)
        wire = form["tests.pgweir.session.world"].RecorderWire()
        origin = form["pgweir.session.wire"].Origin("10.0.0.9", 40000)
        wire.protocol = world.pooler.accept(wire, origin)
        client = scram.ScramClient(nonce=b"nonce", keys=_keys(scram))
        log: list[Any] = []
        for what, places in [(begins, cuts_of_startup), *said]:
            data = what
            if what == "first":
                data = messages.sasl_initial_response(scram.MECHANISM, client.first())
            elif what in ("proof", "wrong proof"):
                proof = outcome(client.final, wire.written[9:])
                data = messages.sasl_response(proof if isinstance(proof, bytes) else b"c=biws,r=x,p=eA==")
                data = data[:-3] + b"AA=" if what == "wrong proof" else data
            elif what == "password":
                data = messages.password_message("secret")
            wire.written = b""
            for read in cut(data, places):
                if not wire.closed:
                    world.edge.move(world.edge.now)
                    log.append(outcome(wire.protocol.data_received, read))
            world.run()
            log += [wire.written, wire.closed]
        log.append(type(wire.protocol).__name__)
        log += [world.pooler.auth_failures, len(world.pooler.logins), len(world.pooler.clients)]
        told.append(log)
    assert told[0] == told[1]


def _keys(scram: ModuleType) -> Any:
    """Of the secret that the world's users have, and the salt that a world gives them."""
    salt = scram.salt_of("alice", (1).to_bytes(4, "big") + bytes(28))
    at = scram.DEFAULT_ITERATIONS
    if at not in _KNOWN_KEYS:
        found = scram.scram_keys("secret", salt, at)
        _KNOWN_KEYS[at] = found.client_key, found.server_key
    return scram.ScramKeys(*_KNOWN_KEYS[at])


_KNOWN_KEYS: dict[int, tuple[bytes, bytes]] = {}
