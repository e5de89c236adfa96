"""What a transport with TLS promises to the sessions on it: uvloop's, which is the oracle, and our own streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.pgweir.net.place import Place, Recorder, perform
from tests.postgres.certificates import Certificates, make_certificates

from pgweir.net import stream as room
from pgweir.net import streams as all_of_them
from pgweir.net.stream import Stream

BULK = 24 << 20


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    context.num_tickets = 0  # whoever hangs up on what it has not read resets the connection
    return context


@pytest.fixture(scope="module")
def client_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.ca)
    return context


class Peer:
    """The other end, byte by byte under our control: OpenSSL in memory over a bare socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side, server_hostname=name)

    async def shake(self, size: int = 1 << 20) -> None:
        """The handshake, in pieces of this size."""
        while True:
            try:
                self.tls.do_handshake()
                await self.flush(size)
                return
            except ssl.SSLWantReadError:
                await self.flush(size)
                await self.take()

    async def flush(self, size: int = 1 << 20) -> None:
        said = self.outgoing.read()
        for start in range(0, len(said), size):
            await self.loop.sock_sendall(self.sock, said[start : start + size])
            if size < 1000:
                await asyncio.sleep(0)

    async def take(self) -> None:
        data = await self.loop.sock_recv(self.sock, 1 << 18)
        if not data:
            raise EOFError
        self.incoming.write(data)

    def sealed(self, data: bytes) -> bytes:
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        return self.outgoing.read()

    async def say(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, self.sealed(data))

    async def hear(self) -> bytes:
        """What comes next; b"" behind a goodbye. Raises EOFError where none was said, and what the alert says."""
        while True:
            try:
                return self.tls.read(1 << 18)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self.take()

    async def hear_all(self) -> bytes:
        heard = bytearray()
        while piece := await self.hear():
            heard += piece
        return bytes(heard)

    async def part(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.flush()


class Scene:
    """A place where TLS is spoken."""

    def __init__(self, place: Place, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        self.place = place
        self.server = server
        self.client = client

    async def begin(self, *, early: bytes = b"") -> tuple[Peer, Recorder, list[BaseException | None]]:
        """A peer and our end of it, whose handshake has begun; the list hears how it ended."""
        peer = Peer(await self.place.client(), self.client)
        ours = self.place.protocols[-1]
        outcome: list[BaseException | None] = []
        if self.place.kind == "own":
            ours.transport.secure(self.server, outcome.append, server_side=True, early=early)
            return peer, ours, outcome

        ours.transport.pause_reading()

        async def upgrade() -> None:
            try:
                ours.transport = await self.place.loop.start_tls(
                    ours.transport,
                    ours,  # type: ignore[arg-type]
                    self.server,
                    server_side=True,
                )
                outcome.append(None)
            except BaseException as error:
                outcome.append(error)

        self.task = asyncio.ensure_future(upgrade())
        await asyncio.sleep(0)
        return peer, ours, outcome

    async def talk(self) -> tuple[Peer, Recorder]:
        """The same, behind it."""
        peer, ours, outcome = await self.begin()
        await peer.shake()
        await self.place.until(lambda: outcome)
        assert outcome == [None]
        return peer, ours


Story = Callable[[Scene], Awaitable[None]]
Play = Callable[[Story], None]


def player(kind: str, server: ssl.SSLContext, client: ssl.SSLContext) -> Play:
    def play(story: Story) -> None:
        async def on(place: Place) -> None:
            await story(Scene(place, server, client))
            for protocol in place.protocols:
                protocol.transport.abort()
            await place.turns(3)

        perform(on, kind, socket.AF_INET)

    return play


@pytest.fixture(params=["uvloop", "own"])
def play(request: pytest.FixtureRequest, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> Play:
    return player(request.param, server_context, client_context)


@pytest.fixture
def play_own(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> Play:
    return player("own", server_context, client_context)


def test_bytes_come_and_go_in_their_order(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        ours.on_data = ours.transport.write
        said = b"".join(b"%08d" % number for number in range(40_000))
        sending = asyncio.ensure_future(peer.say(said))
        heard = bytearray()
        while len(heard) < len(said):
            heard += await peer.hear()
        await sending
        assert bytes(heard) == said == bytes(ours.data)

    play(story)


def test_what_it_speaks_and_who_is_there_can_be_asked(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        tls = ours.transport.get_extra_info("ssl_object")
        assert (tls.version(), tls.cipher()[0]) == (peer.tls.version(), peer.tls.cipher()[0])  # type: ignore[index]
        assert tls.getpeercert() is None
        assert ours.transport.get_extra_info("peername") == peer.sock.getsockname()
        assert ours.transport.get_extra_info("socket").family == socket.AF_INET

    play(story)


def test_much_for_a_peer_that_takes_nothing_waits_and_then_goes_out_whole(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        piece = bytes(range(256)) * 4096
        for _ in range(BULK // len(piece)):
            ours.transport.write(piece)
        assert ours.told == ["pause"]
        count = 0
        while count < BULK:
            read = await peer.hear()
            start = count % 256
            assert read == (piece[start:256] + piece + piece)[: len(read)]
            count += len(read)
        await scene.place.until(lambda: ours.transport.get_write_buffer_size() == 0)
        assert ours.told == ["pause", "resume"]
        ours.transport.write(b"and on")
        assert await peer.hear() == b"and on"

    play(story)


def test_close_sends_what_is_kept_and_then_says_goodbye(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        ours.transport.write(bytes(BULK))
        ours.transport.close()
        ours.transport.close()
        await scene.place.turns()
        assert "lost" not in ours.told
        assert len(await peer.hear_all()) == BULK
        await peer.part()
        await scene.place.until(lambda: "lost" in ours.told)
        assert ours.error is None

    play(story)


def test_abort_throws_away_what_is_kept_and_says_nothing(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        ours.transport.write(bytes(BULK))
        ours.transport.abort()
        await scene.place.until(lambda: "lost" in ours.told)
        with pytest.raises((EOFError, ConnectionResetError)):
            await peer.hear_all()
        assert ours.error is None

    play(story)


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_a_peer_that_ends_ends_the_connection_without_an_error(play: Play, says_goodbye: bool) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        await peer.say(b"last words")
        if says_goodbye:
            await peer.part()
        peer.sock.close()
        await scene.place.until(lambda: "lost" in ours.told)
        assert bytes(ours.data) == b"last words"
        assert ours.told[-1] == "lost"
        assert ours.error is None

    play(story)


def test_a_peer_that_was_reset_is_an_error(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()
        await scene.place.until(lambda: "lost" in ours.told)
        assert isinstance(ours.error, ConnectionResetError)

    play(story)


def test_a_pause_keeps_the_bytes_until_reading_goes_on(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        ours.transport.pause_reading()
        await peer.say(b"early")
        await scene.place.turns()
        assert not ours.data
        ours.transport.resume_reading()
        await scene.place.until(lambda: ours.data == b"early")
        ours.on_data = lambda _: ours.transport.pause_reading()
        for _ in range(20):
            await peer.say(b"x" * 50_000)
        await scene.place.turns()
        while len(ours.data) < 1_000_005:
            seen = len(ours.data)
            await scene.place.turns(3)
            assert len(ours.data) == seen
            ours.transport.resume_reading()
            await scene.place.until(lambda seen=seen: len(ours.data) > seen)

    play(story)


def test_a_peer_that_leaves_during_a_pause_is_heard_of_after_it(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        ours.transport.pause_reading()
        await peer.say(b"last words")
        await peer.part()
        await scene.place.turns()
        assert not ours.told
        ours.transport.resume_reading()
        await scene.place.until(lambda: "lost" in ours.told)
        assert (bytes(ours.data), ours.error) == (b"last words", None)

    play(story)


def test_a_protocol_that_stumbles_loses_its_connection_and_no_other(play_own: Play) -> None:
    async def story(scene: Scene) -> None:
        (first, bad), (second, good) = await scene.talk(), await scene.talk()

        def stumble(_: bytes) -> None:
            raise RuntimeError("a bug")

        bad.on_data = stumble
        for peer in (first, second):
            await peer.say(b"hello")
        await scene.place.until(lambda: "lost" in bad.told and good.data == b"hello")
        assert str(bad.error) == "a bug"
        good.transport.write(b"hello")
        assert await second.hear() == b"hello"

    play_own(story)


@pytest.mark.parametrize("how", ["close", "abort", "pause", "write and close"])
def test_a_session_may_do_anything_to_its_wire_while_it_is_told_something(play: Play, how: str) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()

        def act(_: bytes) -> None:
            if how == "pause":
                ours.transport.pause_reading()
                return
            if how == "write and close":
                ours.transport.write(b"goodbye")
            ours.transport.abort() if how == "abort" else ours.transport.close()
            assert "lost" not in ours.told

        ours.on_data = act
        await peer.say(b"one")
        await peer.say(b"two")
        if how == "pause":
            await scene.place.until(lambda: ours.data)
            return
        with contextlib.suppress(EOFError, ConnectionResetError):
            assert await peer.hear_all() == (b"goodbye" if how == "write and close" else b"")
        with contextlib.suppress(OSError):
            await peer.part()
        await scene.place.until(lambda: "lost" in ours.told)

    play(story)


def test_a_damaged_record_ends_the_connection_and_the_peer_is_told_why(play_own: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours = await scene.talk()
        await peer.say(b"good")
        await scene.place.until(lambda: ours.data == b"good")
        spoiled = bytearray(peer.sealed(b"spoiled"))
        spoiled[-1] ^= 1
        await peer.loop.sock_sendall(peer.sock, bytes(spoiled))
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            await peer.hear()
        await scene.place.until(lambda: "lost" in ours.told)
        assert isinstance(ours.error, ssl.SSLError)
        assert ours.data == b"good"

    play_own(story)


# --- the handshake ---------------------------------------------------------------------------------------------------


def test_a_handshake_byte_by_byte(play: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours, outcome = await scene.begin()
        await peer.shake(1)
        await scene.place.until(lambda: outcome)
        await peer.say(b"hello")
        await scene.place.until(lambda: ours.data == b"hello")

    play(story)


def test_what_came_with_the_end_of_the_handshake_is_heard_behind_it(play_own: Play) -> None:
    async def story(scene: Scene) -> None:
        order: list[object] = []
        peer = Peer(await scene.place.client(), scene.client)
        ours = scene.place.protocols[-1]
        ours.on_data = order.append

        def agreed(error: BaseException | None) -> None:
            order.append(error)
            ours.transport.pause_reading()
            ours.transport.write(b"welcome")

        ours.transport.secure(scene.server, agreed, server_side=True)
        while not order:
            try:
                peer.tls.do_handshake()
                peer.tls.write(b"in the same packet")
                await peer.flush()
                break
            except ssl.SSLWantReadError:
                await peer.flush()
                await peer.take()
        assert await peer.hear() == b"welcome"
        await scene.place.turns()
        assert order == [None], "it had paused"
        ours.transport.resume_reading()
        assert order == [None], "never within the call of who resumes"
        await scene.place.until(lambda: len(order) == 2)
        assert order == [None, b"in the same packet"]

    play_own(story)


def test_what_was_read_before_its_time_is_given_along(play_own: Play) -> None:
    async def story(scene: Scene) -> None:
        peer = Peer(await scene.place.client(), scene.client)
        ours = scene.place.protocols[-1]
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        hello = peer.outgoing.read()
        outcome: list[BaseException | None] = []
        ours.transport.secure(scene.server, outcome.append, server_side=True, early=hello[:100])
        await peer.loop.sock_sendall(peer.sock, hello[100:])
        await peer.take()
        await peer.shake()
        await scene.place.until(lambda: outcome)
        assert outcome == [None]
        ours.transport.write(b"direct")
        assert await peer.hear() == b"direct"

    play_own(story)


def test_noise_in_place_of_a_handshake_is_answered_by_an_alert_and_told_once(play_own: Play) -> None:
    async def story(scene: Scene) -> None:
        peer, ours, outcome = await scene.begin()
        await peer.loop.sock_sendall(peer.sock, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")  # too short to be one
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await peer.loop.sock_recv(peer.sock, 1000):
                heard += data
        assert heard[0] == 21  # an alert
        await scene.place.until(lambda: outcome)
        (error,) = outcome
        assert isinstance(error, ssl.SSLError)
        await scene.place.turns()
        assert not ours.data
        assert (ours.told, ours.error) == (["lost"], error)

    play_own(story)


def test_a_client_that_trusts_another_authority_says_so_in_an_alert(
    server_context: ssl.SSLContext, certificates: Certificates
) -> None:
    async def story(scene: Scene) -> None:
        peer, ours, outcome = await scene.begin()
        with pytest.raises(ssl.SSLCertVerificationError):
            await peer.shake()
        await peer.flush()
        await scene.place.until(lambda: outcome)
        assert "UNKNOWN_CA" in str(outcome[0])
        await scene.place.until(lambda: "lost" in ours.told)

    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.load_verify_locations(certificates.other_ca)
    player("own", server_context, stranger)(story)


@pytest.mark.parametrize("how", ["peer leaves", "reset", "close", "abort", "shutdown"])
def test_a_handshake_that_is_cut_short_is_told_once_and_before_the_connection_is_lost(play_own: Play, how: str) -> None:
    async def story(scene: Scene) -> None:
        told: list[str] = []
        peer = Peer(await scene.place.client(), scene.client)
        ours = scene.place.protocols[-1]
        ours.transport.secure(scene.server, lambda error: told.append(f"{error} {ours.told}"), server_side=True)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        await peer.flush()
        await peer.take()
        ours.transport.write(b"in clear: nobody may hear this")
        if how == "peer leaves":
            peer.sock.close()
        elif how == "reset":
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sock.close()
        elif how == "shutdown":
            assert scene.place.streams is not None
            scene.place.door.close()
            ours.transport.abort()
            scene.place.streams._settle()
        else:
            getattr(ours.transport, how)()
            assert not told, "later"
        await scene.place.until(lambda: told)
        await scene.place.turns()
        why = "[Errno 104] Connection reset by peer" if how == "reset" else "the client left during the handshake"
        assert told == [f"{why} []"]
        assert ours.told == ["lost"]
        with pytest.raises(ConnectionError):
            ours.transport.secure(scene.server, lambda _: None, server_side=True)
        if how in ("close", "abort"):
            with pytest.raises((EOFError, ConnectionResetError)):
                await peer.take()

    play_own(story)


def test_a_wire_that_is_closed_already_fails_its_handshake_later(play_own: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.place.client()
        ours = scene.place.protocols[-1]
        outcome: list[BaseException | None] = []
        ours.transport.close()
        ours.transport.secure(scene.server, outcome.append, server_side=True, early=b"\x16\x03\x01")
        assert not outcome
        await scene.place.until(lambda: outcome)
        assert str(outcome[0]) == "the client left during the handshake"

    play_own(story)


@pytest.mark.parametrize(
    ("pair", "reason"), [("server", ""), ("wrong_name", "Hostname mismatch"), ("stranger", "certificate")]
)
def test_our_side_of_a_connection_to_a_server_verifies_it(
    certificates: Certificates, server_context: ssl.SSLContext, client_context: ssl.SSLContext, pair: str, reason: str
) -> None:
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(getattr(certificates, pair).certificate, getattr(certificates, pair).key)

    async def story(scene: Scene) -> None:
        peer = Peer(await scene.place.client(), shown, server_side=True)
        ours = scene.place.protocols[-1]
        outcome: list[BaseException | None] = []
        ours.transport.secure(client_context, outcome.append, server_side=False, name="localhost")
        if not reason:
            await peer.shake()
            await scene.place.until(lambda: outcome)
            assert outcome == [None]
            ours.transport.write(b"a login")
            assert await peer.hear() == b"a login"
            await peer.say(b"an answer")
            await scene.place.until(lambda: ours.data == b"an answer")
            return
        with contextlib.suppress(ssl.SSLError):  # our alert
            await peer.shake()
            await peer.hear()
        await scene.place.until(lambda: outcome)
        assert isinstance(outcome[0], ssl.SSLCertVerificationError)
        assert reason in str(outcome[0])

    player("own", server_context, client_context)(story)


def test_a_name_that_can_be_none_is_refused_at_once(play_own: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.place.client()
        ours = scene.place.protocols[-1]
        with pytest.raises(ValueError, match="server_hostname"):
            ours.transport.secure(scene.client, lambda _: None, server_side=False, name="")
        ours.transport.write(b"as before")

    play_own(story)


def test_a_storm_of_handshakes_takes_a_few_steps_in_a_round(play_own: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever is in gets a turn in between."""

    async def story(scene: Scene) -> None:
        streams = scene.place.streams
        assert streams is not None
        insider = await scene.place.client()
        busy = scene.place.protocols[-1]
        steps: Counter[int] = Counter()
        seen: list[int] = []
        busy.on_data = lambda _: seen.append(streams.round())
        peers = []
        for _ in range(40):
            peer = Peer(await scene.place.client(), scene.client)
            ours = scene.place.protocols[-1]
            ours.on_data = lambda _: None
            ours.transport.secure(
                counting(scene.server, lambda: steps.update([streams.round()])), print, server_side=True
            )
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            peers.append(peer)
        for peer in peers:
            peer.sock.send(peer.outgoing.read())
        insider.send(b"a query")
        await scene.place.until(lambda: steps.total() >= 40 and seen)
        assert max(steps.values()) <= all_of_them.HANDSHAKES
        assert seen[0] < max(steps), "a query waits for no storm"
        insider.close()

    play_own(story)


def counting(context: ssl.SSLContext, count: Callable[[], None]) -> Any:
    """A context whose handshakes are counted, step by step."""

    class Counted:
        def __init__(self, tls: ssl.SSLObject) -> None:
            self.tls = tls

        def do_handshake(self) -> None:
            count()
            self.tls.do_handshake()

        def __getattr__(self, name: str) -> Any:
            if name == "_sslobj":  # our own methods, please
                raise AttributeError(name)
            return getattr(self.tls, name)

    class Context:
        def wrap_bio(self, *args: Any, **more: Any) -> Counted:
            return Counted(context.wrap_bio(*args, **more))

    return Context()


def test_a_peer_that_asks_for_answers_and_takes_none_is_hung_up_on(play_own: Play) -> None:
    """With new keys, again and again: each wants an answer, and sessions that pause count nothing of it."""

    class Talkative:
        def __init__(self, outgoing: ssl.MemoryBIO, incoming: ssl.MemoryBIO) -> None:
            self.outgoing, self.incoming = outgoing, incoming

        def do_handshake(self) -> None: ...

        def read(self, _size: int, _view: memoryview) -> int:
            self.incoming.read()
            self.outgoing.write(bytes(10_000))
            raise ssl.SSLWantReadError

        def unwrap(self) -> None: ...

    class Context:
        def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **_: Any) -> Talkative:
            return Talkative(outgoing, incoming)

    async def story(scene: Scene) -> None:
        peer = await scene.place.client()
        ours = scene.place.protocols[-1]
        context: Any = Context()
        ours.transport.secure(context, print, server_side=True)
        while "lost" not in ours.told:
            with contextlib.suppress(BlockingIOError):
                peer.send(b"again")
            assert ours.transport.get_write_buffer_size() <= room.UNHEARD + 20_000
            await asyncio.sleep(0)
        assert "answers that nobody takes" in str(ours.error)
        peer.close()

    play_own(story)


def test_streams_that_come_and_go_with_tls_leave_nothing(play_own: Play) -> None:
    async def story(scene: Scene) -> None:
        for _ in range(20):
            peer, ours = await scene.talk()
            await peer.part()
            await scene.place.until(lambda ours=ours: "lost" in ours.told)
            assert isinstance(ours.transport, Stream)
            assert ours.transport._channel is None
            peer.sock.close()

    play_own(story)
