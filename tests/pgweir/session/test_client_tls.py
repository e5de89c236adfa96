"""The door to TLS, without a network: when the handshake is asked for, and what belongs to it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.pgweir.session.world import Client, RecorderWire, World

from pgweir.protocol import messages
from pgweir.session.wire import Origin, TlsInfo

HELLO = b"\x16\x03\x01\x06\x00\x01"


class Door:
    """A pooler that offers TLS, a stranger, and the handshakes that were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(client_tls_sslmode="require")
        self.handshakes: list[tuple[Any, bytes]] = []
        monkeypatch.setattr(self.world.edge, "client_tls_available", lambda: True)
        monkeypatch.setattr(
            self.world.edge, "start_client_tls", lambda login, first: self.handshakes.append((login, first))
        )
        self.wire = RecorderWire()
        self.wire.protocol = self.world.pooler.accept(self.wire, Origin("10.0.0.1", 40000))
        self.client = Client(self.world, self.wire)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(monkeypatch)


@pytest.mark.parametrize(("says", "hears", "first_bytes"), [(messages.ssl_request(), b"S", b""), (HELLO, b"", HELLO)])
def test_the_handshake_begins_when_the_answer_is_on_its_way_in_clear(
    door: Door, monkeypatch: pytest.MonkeyPatch, says: bytes, hears: bytes, first_bytes: bytes
):
    """From the call on whatever is written would be sealed."""
    written: list[bytes] = []
    monkeypatch.setattr(
        door.world.edge, "start_client_tls", lambda login, first: written.extend((door.wire.written, first))
    )
    door.client.says(says)
    assert written == [hears, first_bytes]
    assert door.wire.written == hears


def test_what_was_decrypted_before_the_login_heard_of_it_is_the_startup_packet(door: Door):
    door.client.says(HELLO)
    ((login, _),) = door.handshakes
    inside = RecorderWire()
    inside.protocol = login
    login.data_received(messages.startup_message({"user": "alice", "database": "shop"}))
    assert inside.written == b""
    login.tls_started(inside, TlsInfo(version="TLSv1.3", cipher="any"))
    door.world.run()
    assert inside.written.endswith(messages.ready_for_query(b"I"))


def test_a_login_whose_handshake_has_failed_a_moment_ago_is_timed_out_without_a_word(door: Door):
    """Both have the same time. The loop has closed the connection, and has not told us yet."""
    door.client.says(HELLO)
    ((login, _),) = door.handshakes
    door.wire.abort()
    login.time_out()
    assert login.is_over
    assert not door.world.pooler.logins
    login.tls_failed("SSL handshake is taking longer than 2.0 seconds")
    assert door.wire.written == b""
