"""TLS without a socket: both sides of several connections on one workbench, whatever the pieces are that their bytes come in."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.postgres.certificates import Certificates, Pair, make_certificates

from pgweir.net.channel import MOST, Channel, Workbench


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def server_context(pair: Pair, *, ca: Path | None = None, **more: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return changed(context, more)


def client_context(ca: Path | None, shown: Pair | None = None, **more: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_verify_locations(ca)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return changed(context, more)


def changed(context: ssl.SSLContext, more: dict[str, Any]) -> ssl.SSLContext:
    for name, value in more.items():
        setattr(context, name, value)
    return context


class Side:
    """One end: what it has heard, and what is under way to the other."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.heard = bytearray()
        self.said = bytearray()

    def say(self, data: bytes) -> None:
        self.said += self.channel.seal(data)

    def hear(self, sealed: bytes) -> None:
        self.heard += self.channel.unseal(sealed)
        self.said += self.channel.reply
        self.channel.reply = b""


class Line:
    """A connection between two channels."""

    def __init__(
        self, bench: Workbench, server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None
    ) -> None:
        def agreed(_: BaseException | None) -> None: ...

        self.bench = bench
        self.server = Side(Channel(bench, server, agreed, server_side=True))
        self.client = Side(Channel(bench, client, agreed, server_side=False, name=name))
        self.client.hear(b"")

    def carry(self, piece: Callable[[int], int] = lambda most: most) -> bool:
        """Some of what is under way, to whom it is for; False when nothing was."""
        moved = False
        for one, other in ((self.client, self.server), (self.server, self.client)):
            if one.said:
                size = piece(min(len(one.said), MOST))
                sealed = bytes(one.said[:size])
                del one.said[:size]
                other.hear(sealed)
                moved = True
            assert not self.bench.incoming.pending
            assert not self.bench.outgoing.pending
        return moved

    def carry_all(self, piece: Callable[[int], int] = lambda most: most) -> Line:
        while self.carry(piece):
            pass
        return self

    @property
    def is_agreed(self) -> bool:
        return self.server.channel.is_agreed and self.client.channel.is_agreed


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    found: ssl.TLSVersion = request.param
    return found


@pytest.fixture
def line(certificates: Certificates, version: ssl.TLSVersion) -> Iterator[Line]:
    made = Line(
        Workbench(), server_context(certificates.server, maximum_version=version), client_context(certificates.ca),
        "localhost",
    )  # fmt: skip
    yield made.carry_all()
    assert not made.bench.incoming.pending, "what one has left, another would read"
    assert not made.bench.outgoing.pending, "what one has left, another would send"


def test_two_sides_agree_and_understand_each_other(line: Line, version: ssl.TLSVersion) -> None:
    assert line.is_agreed
    assert line.client.channel.tls.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[int(version)]
    line.client.say(b"a question")
    line.server.say(b"an answer")
    line.carry_all()
    assert (bytes(line.server.heard), bytes(line.client.heard)) == (b"a question", b"an answer")


def test_a_byte_at_a_time_is_enough(certificates: Certificates, version: ssl.TLSVersion) -> None:
    line = Line(Workbench(), server_context(certificates.server, maximum_version=version), client_context(None))
    line.carry_all(lambda _: 1)
    assert line.is_agreed
    line.client.say(b"slowly")
    line.carry_all(lambda _: 1)
    assert line.server.heard == b"slowly"


def test_what_is_larger_than_any_record_arrives_whole_and_in_one(line: Line) -> None:
    result = random.Random(1).randbytes(220_000)
    line.server.say(result)
    assert len(line.server.said) <= MOST
    sealed = bytes(line.server.said)
    line.server.said.clear()
    assert line.client.channel.unseal(sealed) == result


def test_a_read_that_ends_and_begins_in_the_middle_of_records_has_room(line: Line) -> None:
    result = random.Random(2).randbytes(3 << 20)
    line.server.say(result)
    line.carry_all(lambda most: most)
    assert line.client.heard == result
    line.client.heard.clear()
    line.server.say(result)
    for size in (16_000, MOST, 5, MOST, 16_400, MOST):
        line.carry(lambda most, size=size: min(most, size))  # type: ignore[misc]
    line.carry_all()
    assert line.client.heard == result


def test_who_agreed_and_spoke_in_one_breath_is_heard(certificates: Certificates) -> None:
    line = Line(Workbench(), server_context(certificates.server), client_context(None))
    while not line.client.channel.is_agreed:
        line.carry()
    assert not line.server.channel.is_agreed  # (in TLS 1.3 the client has the last word)
    line.client.say(b"my name")
    line.carry()
    assert line.server.heard == b"my name"


@pytest.fixture(scope="module")
def contexts(certificates: Certificates) -> dict[str, ssl.SSLContext]:
    return {
        "server": server_context(certificates.server),
        "old": server_context(certificates.server, maximum_version=ssl.TLSVersion.TLSv1_2),
        "client": client_context(None),
    }


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), sizes=st.lists(st.integers(0, 40_000), max_size=12), count=st.integers(2, 4))
def test_connections_on_one_workbench_never_hear_of_each_other(
    contexts: dict[str, ssl.SSLContext], seed: int, sizes: list[int], count: int
) -> None:
    """Any pieces, any order, handshakes among them, and one that gets noise in the middle of it all."""
    dice = random.Random(seed)
    bench = Workbench()
    lines = [Line(bench, contexts[dice.choice(("server", "old"))], contexts["client"]) for _ in range(count)]
    spoiled = Line(bench, contexts["server"], contexts["client"])
    expected: list[tuple[bytearray, bytearray]] = [(bytearray(), bytearray()) for _ in lines]
    todo = [(dice.randrange(count), dice.random() < 0.5, dice.randbytes(size)) for size in sizes]

    def piece(most: int) -> int:
        return dice.randint(1, dice.choice((3, 100, most)) if most > 3 else most) if most else 0

    for _ in range(10_000):
        line = dice.choice(lines)
        line.carry(lambda most: min(most, piece(most)))
        if dice.random() < 0.1 and spoiled.server.channel.error is None:
            spoiled.server.hear(dice.randbytes(dice.randint(1, 50)))
            assert not bench.incoming.pending
            assert not bench.outgoing.pending
        if todo and lines[todo[-1][0]].is_agreed:
            number, by_client, data = todo.pop()
            if data:
                (lines[number].client if by_client else lines[number].server).say(data)
                expected[number][by_client].extend(data)
        if not todo and not any(one.client.said or one.server.said for one in lines):
            break
    for line in lines:
        line.carry_all()
        assert line.is_agreed
    for line, (from_server, from_client) in zip(lines, expected, strict=True):
        assert (line.client.heard, line.server.heard) == (from_server, from_client)


# --- what must not come about -----------------------------------------------------------------------------------------


def errors(line: Line) -> tuple[str, str]:
    """The reasons of both sides, server first."""
    found = [getattr(side.channel.error, "reason", None) or "" for side in (line.server, line.client)]
    return found[0], found[1]


def test_a_name_that_is_anothers_and_an_authority_that_is_not_ours_end_it_with_an_alert(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    for pair, ca in (
        (certificates.wrong_name, certificates.ca),
        (certificates.stranger, certificates.ca),
        (certificates.expired, certificates.ca),
        (certificates.server, certificates.other_ca),
    ):
        line = Line(Workbench(), server_context(pair, maximum_version=version), client_context(ca), "localhost")
        line.carry_all()
        assert isinstance(line.client.channel.error, ssl.SSLCertVerificationError)
        assert "ALERT" in errors(line)[0], "the server was not told why"
        assert not line.client.channel.is_agreed


@pytest.mark.parametrize(("shown", "is_good"), [("client_alice", True), ("client_stranger", False), (None, False)])
def test_a_client_shows_its_certificate(
    certificates: Certificates, version: ssl.TLSVersion, shown: str | None, is_good: bool
) -> None:
    server = server_context(certificates.server, ca=certificates.ca, maximum_version=version)
    line = Line(Workbench(), server, client_context(None, getattr(certificates, shown) if shown else None))
    line.carry_all()
    assert line.server.channel.is_agreed is is_good
    if is_good:
        assert dict(pair[0] for pair in line.server.channel.tls.getpeercert()["subject"])["commonName"] == "alice"
    else:
        assert "ALERT" in errors(line)[1], "the client was not told why"


def test_versions_that_do_not_meet_end_it_with_an_alert(certificates: Certificates) -> None:
    server = server_context(certificates.server, minimum_version=ssl.TLSVersion.TLSv1_3)
    line = Line(Workbench(), server, client_context(None, maximum_version=ssl.TLSVersion.TLSv1_2)).carry_all()
    assert errors(line) == ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION")


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.0\r\n\r\n", bytes(100), b"\x16\x03\x01\x40\x01" + bytes(20_000)])
def test_noise_in_place_of_a_handshake_is_an_error(certificates: Certificates, noise: bytes) -> None:
    line = Line(Workbench(), server_context(certificates.server), client_context(None))
    line.server.hear(noise)
    assert isinstance(line.server.channel.error, ssl.SSLError)
    assert not line.bench.incoming.pending


def test_a_record_that_was_damaged_ends_it_and_what_came_before_is_heard(line: Line) -> None:
    line.client.say(b"good")
    line.client.say(b"spoiled")
    line.client.said[-1] ^= 1
    line.client.say(b"behind it")
    line.carry()
    assert line.server.heard == b"good"
    assert isinstance(line.server.channel.error, ssl.SSLError)
    assert line.server.channel.error.__traceback__ is None, "it holds what it came from"
    line.carry_all()
    assert "BAD_RECORD_MAC" in errors(line)[1], "the other side was not told why"
    with pytest.raises(OSError):
        line.server.say(b"one more thing")
    assert not line.bench.outgoing.pending


def test_records_do_not_change_places(line: Line) -> None:
    line.client.say(b"first")
    first = bytes(line.client.said)
    line.client.said.clear()
    line.client.say(b"second")
    line.client.said += first
    line.carry()
    assert not line.server.heard
    assert line.server.channel.error is not None


def test_a_stranger_who_announces_a_large_hello_is_kept_waiting_within_a_bound(certificates: Certificates) -> None:
    """SPEC: RFC 8446, 4.1.2. OpenSSL gives up beyond 128 KiB, whatever was announced."""
    line = Line(Workbench(), server_context(certificates.server), client_context(None))
    hello = b"\x01\xff\xff\xff" + bytes(16_000)
    record = b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello
    line.server.hear(record)
    assert line.server.channel.error is not None


# --- the end of it ------------------------------------------------------------------------------------------------------


def test_a_goodbye_is_heard_and_nothing_behind_it(line: Line) -> None:
    line.client.say(b"last words")
    line.client.said += line.client.channel.farewell()
    line.carry()
    assert (line.server.heard, line.server.channel.is_ended, line.server.channel.error) == (b"last words", True, None)
    line.server.say(b"I have heard it")  # half closed, as TLS 1.3 allows
    line.server.said += line.server.channel.farewell()
    line.carry_all()
    assert not line.bench.incoming.pending
    assert line.client.channel.farewell() == b""


def test_a_goodbye_before_anything_was_agreed_is_none(certificates: Certificates) -> None:
    line = Line(Workbench(), server_context(certificates.server), client_context(None))
    assert line.server.channel.farewell() == b""
    assert not line.bench.outgoing.pending
