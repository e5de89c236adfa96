"""Noise in the middle of things: whatever a client or a server says, its neighbours go on and the books agree.

No network here (tests/pgweir/session/world.py): an exception that is not the pooler's own surfaces at once.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.pgweir.session.noisy_world import NoisyWorld
from tests.pgweir.session.world import Client, RecorderWire, World
from tests.robustness.noise import PLACES, cuts, damaged, few_or_many

from pgweir.pool.records import ServerState
from pgweir.protocol import messages
from pgweir.session.wire import Origin

LOGINS = [
    messages.startup_message({"user": "alice", "database": "shop", "options": "-c TimeZone=UTC"}),
    messages.startup_message({"user": "alice", "database": "shop", "client_encoding": "LATIN1"}, 3 << 16 | 2),
    messages.ssl_request(),
    messages.gssenc_request(),
    messages.cancel_request(b"12345678"),
    messages.password_message("secret"),
    messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=nonce"),
    messages.query("SELECT 1"),
    messages.terminate(),
]
TALK = [
    messages.query("SELECT 1"),
    messages.query("BEGIN"),
    messages.query("COPY t"),
    messages.parse("a", "SELECT 1"),
    messages.parse("", "SELECT 2") + messages.bind("", "") + messages.execute() + messages.sync(),
    messages.bind("", "a") + messages.describe("P", "") + messages.execute(),
    messages.describe("S", "a") + messages.close("S", "a"),
    messages.sync(),
    messages.flush(),
    b"d\0\0\0\x07row" + b"c\0\0\0\x04",
    b"f\0\0\0\x06x\0",
    b"F\0\0\0\x0e\0\0\0\x01\0\0\0\0\0\0",
    messages.terminate(),
]
ANSWERS = [
    messages.authentication_ok(),
    messages.authentication_sasl(["SCRAM-SHA-256"]),
    messages.authentication_md5(b"salt"),
    messages.parameter_status("TimeZone", "UTC"),
    messages.backend_key_data(7, b"1234"),
    messages.ready_for_query(b"I"),
    messages.ready_for_query(b"T"),
    messages.error_response("FATAL", "57P01", "going down"),
    messages.error_response("ERROR", "42601", "syntax"),
    messages.row_description([("x", 25)]) + messages.data_row([b"1"]) + messages.command_complete("SELECT 1"),
    messages.PARSE_COMPLETE + messages.BIND_COMPLETE + messages.CLOSE_COMPLETE + messages.NO_DATA,
    b"G\0\0\0\x07\0\0\0",
    b"W\0\0\0\x07\0\0\0",
    messages.command_complete("DISCARD ALL"),
    messages.notice_response("NOTICE", "00000", "hello"),
]


def stream(samples: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.one_of(st.sampled_from(samples), damaged(samples)), max_size=6).map(b"".join)


def hears(wire: RecorderWire, pieces: list[bytes]) -> None:
    """As a transport does: nothing is delivered after the close, nor while reading is paused."""
    for piece in pieces:
        if wire.closed:
            return
        wire.protocol.data_received(piece)


def neighbours_go_on(world: World, neighbour: Client) -> None:
    world.run()
    assert neighbour.query("SELECT 1").endswith(messages.ready_for_query(b"I"))
    world.balance()
    world.empty()


@few_or_many
@given(stream(LOGINS), PLACES, st.sampled_from(["trust", "any", "plain", "md5", "scram-sha-256"]))
def test_noise_instead_of_a_login_harms_nobody(noise: bytes, places: list[int], auth_type: str) -> None:
    world = NoisyWorld(auth_type="trust", scram_iterations=1)
    neighbour = world.client()
    world.pooler.settings = world.pooler.settings.__class__(
        **{name: getattr(world.pooler.settings, name) for name in world.pooler.settings.__dataclass_fields__}
        | {"auth_type": auth_type}
    )
    wire = RecorderWire()
    wire.protocol = world.pooler.accept(wire, Origin("10.0.0.9", 50000))
    world.clients.append(Client(world, wire))
    hears(wire, cuts(noise, places))
    neighbours_go_on(world, neighbour)


@few_or_many
@given(stream(TALK), PLACES, st.sampled_from(["transaction", "session", "statement"]), st.booleans())
def test_noise_from_a_client_that_is_in_harms_nobody(
    noise: bytes, places: list[int], pool_mode: str, prompt: bool
) -> None:
    world = NoisyWorld(pool_mode=pool_mode, max_prepared_statements=2, default_pool_size=2)
    neighbour, noisy = world.client(), world.client()
    for piece in cuts(noise, places):
        hears(noisy.wire, [piece])
        if prompt:
            world.run()
    world.run()
    world.balance()
    if not noisy.wire.closed:
        noisy.leaves()
    neighbours_go_on(world, neighbour)


@few_or_many
@given(stream(ANSWERS), PLACES)
def test_noise_from_a_server_during_its_login_harms_nobody(noise: bytes, places: list[int]) -> None:
    world = NoisyWorld(default_pool_size=2, server_login_retry=0)
    world.starts_login()
    server = world.edge.connecting.pop(0)
    wire = RecorderWire()
    login: Any = server.connected(wire, "db", 5432, None)
    wire.protocol = login
    login.start()
    hears(wire, cuts(noise, places))
    if server.state is not ServerState.CLOSED:
        wire.closed = True
        login.connection_lost(None)
        if server.state is not ServerState.CLOSED:
            server.connection_lost(None)
    world.sleep(1)
    neighbours_go_on(world, world.client(user="bob"))  # another pool: this one's server may lie as it likes


@few_or_many
@given(stream(ANSWERS), PLACES, stream(TALK), st.booleans())
def test_noise_from_a_server_in_use_harms_nobody_else(
    noise: bytes, places: list[int], asked: bytes, mixed: bool
) -> None:
    world = NoisyWorld(default_pool_size=2, max_prepared_statements=2, server_login_retry=0)
    client = world.client()
    if asked:
        client.says(asked)
    world.run()
    if world.servers and not world.servers[0].closed:
        if mixed and not client.wire.closed:
            client.says(messages.query("SELECT 1"))  # its answer stays where it is
        hears(world.servers[0], cuts(noise, places))
    if not client.wire.closed:
        client.leaves()
    for server in world.alive():
        server.lose()  # it may have said half a message
    world.run()
    world.balance()
    world.sleep(20)  # what never answers its reset is given up
    neighbours_go_on(world, world.client(user="bob"))  # another pool: this one's server may lie as it likes
