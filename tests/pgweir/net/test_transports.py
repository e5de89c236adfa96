"""What a transport promises to the sessions on it: the same story for uvloop's, which is the oracle, and for our own streams."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from tests.pgweir.net.place import Place, Recorder, Story, perform, read_all

from pgweir.net import door as entrance
from pgweir.net import streams as room
from pgweir.net.door import Door
from pgweir.net.stream import Stream

BULK = 100 << 20


Play = Callable[[Story], None]


@pytest.fixture(params=["uvloop", "own"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def family(request: pytest.FixtureRequest) -> socket.AddressFamily:
    found: socket.AddressFamily = request.param
    return found


@pytest.fixture
def play(kind: str, family: socket.AddressFamily) -> Play:
    return lambda story: perform(story, kind, family)


@pytest.fixture
def play_tcp(kind: str) -> Play:
    return lambda story: perform(story, kind, socket.AF_INET)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_bytes_come_and_go_in_their_order(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            ours.on_data = ours.transport.write
            said = b"".join(b"%08d" % number for number in range(20_000))
            sending = asyncio.ensure_future(place.loop.sock_sendall(peer, said))
            heard = bytearray()
            while len(heard) < len(said):
                heard += await place.loop.sock_recv(peer, 1 << 20)
            await sending
            assert bytes(heard) == said == bytes(ours.data)

    play(story)


def test_a_write_takes_whatever_has_bytes(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            transport = place.protocols[0].transport
            for data in (b"a", b"", bytearray(b"b"), memoryview(b"c")):
                transport.write(data)
            transport.close()
            assert await read_all(place.loop, peer) == b"abc"

    play(story)


def test_a_peer_that_hangs_up_ends_the_connection_without_an_error(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            await place.loop.sock_sendall(peer, b"last words")
        ours = place.protocols[0]
        await place.until(lambda: "lost" in ours.told)
        assert (bytes(ours.data), ours.told, ours.error) == (b"last words", ["eof", "lost"], None)

    play(story)


def test_a_peer_that_has_said_its_last_still_hears_what_we_say_if_the_protocol_likes(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            ours.keeps_open = True
            peer.shutdown(socket.SHUT_WR)
            await place.until(lambda: "eof" in ours.told)
            await place.turns()
            assert ours.told == ["eof"]
            ours.transport.write(b"goodbye")
            ours.transport.close()
            assert await read_all(place.loop, peer) == b"goodbye"

    play(story)


def test_what_was_written_goes_out_before_a_half_closed_connection_ends(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            ours.transport.write(bytes(8 << 20))
            peer.shutdown(socket.SHUT_WR)
            await place.until(lambda: "eof" in ours.told)
            assert len(await read_all(place.loop, peer)) == 8 << 20

    play(story)


def test_a_reset_is_an_error(play_tcp: Play) -> None:
    async def story(place: Place) -> None:
        peer = await place.client()
        reset(peer)
        ours = place.protocols[0]
        await place.until(lambda: "lost" in ours.told)
        assert isinstance(ours.error, ConnectionResetError)
        assert "eof" not in ours.told

    play_tcp(story)


def test_writing_to_a_peer_that_is_gone_ends_the_connection(play: Play) -> None:
    async def story(place: Place) -> None:
        peer = await place.client()
        ours = place.protocols[0]
        ours.transport.pause_reading()
        reset(peer)
        for _ in range(3):
            if not ours.transport.is_closing():
                ours.transport.write(b"x")
            await place.turns(3)
        await place.until(lambda: "lost" in ours.told)
        assert ours.transport.is_closing()

    play(story)


def test_100_mb_for_a_peer_that_takes_nothing_wait_and_then_go_out_whole(play_tcp: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            piece = bytes(range(256)) * 4096
            for _ in range(BULK // len(piece)):
                ours.transport.write(piece)
            assert ours.told == ["pause"]
            assert ours.transport.get_write_buffer_size() > BULK // 2
            count = 0
            while count < BULK:
                read = await place.loop.sock_recv(peer, 1 << 20)
                start = count % 256
                assert read == (piece[start:256] + piece + piece)[: len(read)]
                count += len(read)
            await place.until(lambda: ours.transport.get_write_buffer_size() == 0)
            assert ours.told == ["pause", "resume"]
            ours.transport.write(b"and on")
            assert await place.loop.sock_recv(peer, 100) == b"and on"

    play_tcp(story)


def test_close_sends_what_is_kept_and_then_closes(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            ours.transport.write(bytes(8 << 20))
            ours.transport.close()
            ours.transport.close()
            assert ours.transport.is_closing()
            await place.turns()
            assert "lost" not in ours.told
            assert len(await read_all(place.loop, peer)) == 8 << 20
            await place.until(lambda: "lost" in ours.told)
            assert ours.error is None

    play(story)


def test_after_close_nothing_is_read_and_nothing_more_is_sent(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            ours.transport.close()
            assert "lost" not in ours.told, "not while its owner is still at work"
            with contextlib.suppress(OSError):
                await place.loop.sock_sendall(peer, b"too late")
            await place.until(lambda: "lost" in ours.told)
            ours.transport.close()
            ours.transport.abort()
            await place.turns()
            assert not ours.data

    play(story)


def test_abort_throws_away_what_is_kept(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            ours.transport.write(bytes(64 << 20))
            ours.transport.abort()
            assert ours.transport.is_closing()
            await place.until(lambda: "lost" in ours.told)
            assert len(await read_all(place.loop, peer)) < 64 << 20
            assert ours.error is None

    play(story)


def test_a_pause_keeps_the_bytes_until_reading_goes_on(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            ours.transport.pause_reading()
            await place.loop.sock_sendall(peer, b"early")
            await place.turns()
            assert not ours.data
            ours.transport.resume_reading()
            await place.until(lambda: ours.data == b"early")
            for _ in range(3):
                ours.transport.pause_reading()
                ours.transport.resume_reading()
            await place.loop.sock_sendall(peer, b", late")
            await place.until(lambda: ours.data == b"early, late")

    play(story)


def test_a_peer_that_leaves_during_a_pause_is_heard_of_after_it_with_all_it_said(play: Play) -> None:
    async def story(place: Place) -> None:
        peer = await place.client()
        ours = place.protocols[0]
        ours.transport.pause_reading()
        await place.loop.sock_sendall(peer, b"last words")
        peer.close()
        await place.turns()
        assert not ours.told
        assert not ours.data
        ours.transport.resume_reading()
        await place.until(lambda: "lost" in ours.told)
        assert (bytes(ours.data), ours.error) == (b"last words", None)

    play(story)


def test_a_protocol_that_pauses_in_the_middle_gets_nothing_more(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            ours = place.protocols[0]
            ours.on_data = lambda _: ours.transport.pause_reading()
            await place.loop.sock_sendall(peer, bytes(1 << 16))
            await place.until(lambda: ours.data)
            seen = len(ours.data)
            await place.loop.sock_sendall(peer, b"more")
            await place.turns()
            assert len(ours.data) == seen
            ours.on_data = None
            ours.transport.resume_reading()
            await place.until(lambda: len(ours.data) == (1 << 16) + 4)

    play(story)


def test_a_protocol_that_stumbles_loses_its_connection_and_no_other(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as first, await place.client() as second:
            bad, good = place.protocols

            def stumble(_: bytes) -> None:
                raise RuntimeError("a bug")

            bad.on_data = stumble
            for peer in (first, second):
                await place.loop.sock_sendall(peer, b"hello")
            await place.until(lambda: "lost" in bad.told and good.data == b"hello")
            assert str(bad.error) == "a bug"
            (complaint,) = place.complaints
            assert complaint["exception"] is bad.error
            good.transport.write(b"hello")
            assert await place.loop.sock_recv(second, 100) == b"hello"

    play(story)


def test_a_new_protocol_gets_what_comes_next(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            first, second = place.protocols[0], Recorder()
            first.on_data = lambda _: first.transport.set_protocol(second)
            await place.loop.sock_sendall(peer, b"one")
            await place.until(lambda: first.data == b"one")
            await place.loop.sock_sendall(peer, b"two")
            await place.until(lambda: second.data == b"two")
            assert first.transport.get_protocol() is second
            peer.close()
            await place.until(lambda: second.told == ["eof", "lost"])
            first.told.append("lost")  # (as the fixture asks of each)

    play(story)


def test_its_addresses_are_known_as_long_as_it_is_open(play: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            transport = place.protocols[0].transport
            if place.family == socket.AF_INET:
                assert transport.get_extra_info("peername") == peer.getsockname()
                assert transport.get_extra_info("sockname") == peer.getpeername() == place.address
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
            assert transport.get_extra_info("ssl_object", "none") == "none"
            del sock
            await place.loop.sock_sendall(peer, b"still open")
            await place.until(lambda: place.protocols[0].data)

    play(story)


def test_whoever_gets_a_descriptor_that_was_just_closed_gets_nothing_of_its_last_owner(play: Play) -> None:
    """A session ends another one whose events are in the same batch, again and again, while others come."""

    async def story(place: Place) -> None:
        for number in range(30):
            peers = [await place.client() for _ in range(4)]
            ours = place.protocols[-4:]

            def end_the_others(_: bytes, ours: list[Recorder] = ours) -> None:
                for other in ours:
                    if not other.told and not other.data:
                        other.transport.abort()

            for one in ours:
                one.on_data = end_the_others
            for peer in peers:
                peer.send(b"of %d" % number)
            newcomers = [await place.client() for _ in range(4)]
            await place.until(lambda ours=ours: any(o.data for o in ours))  # type: ignore[misc]
            assert all(not one.data and not one.told for one in place.protocols[-4:])
            newcomers[0].send(b"mine")
            await place.until(lambda: any(one.data == b"mine" for one in place.protocols[-4:]))
            for sock in (*peers, *newcomers):
                sock.close()
        await place.turns()

    play(story)


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[int], None]]:
    """Sets how many more descriptors this process may have."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(more: int) -> None:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, limits[1]))

    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_without_a_descriptor_those_at_the_door_are_turned_away_and_the_others_served(
    play_tcp: Play, few_descriptors: Callable[[int], None]
) -> None:
    async def story(place: Place) -> None:
        with await place.client() as early:
            late = [socket.socket() for _ in range(3)]
            for sock in late:
                sock.setblocking(False)
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            hogs: list[int] = []
            few_descriptors(0)
            try:
                with contextlib.suppress(OSError):
                    while True:
                        hogs.append(os.dup(0))
                for sock in late:
                    with contextlib.suppress(BlockingIOError):
                        sock.connect(place.address)
                early.send(b"still served")
                await place.until(lambda: place.protocols[0].data == b"still served")
                await place.turns()
                assert len(place.protocols) == 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                for number in hogs:
                    os.close(number)
            for sock in late:
                with contextlib.suppress(ConnectionResetError):
                    assert await place.loop.sock_recv(sock, 1) == b""
                sock.close()
            with await place.client() as peer:
                peer.send(b"there is room again")
                await place.until(lambda: place.protocols[-1].data)

    play_tcp(story)


def test_thousands_of_connections_each_get_their_own(play_tcp: Play) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 2_000 if hard == resource.RLIM_INFINITY or hard > 5_000 else (hard - 200) // 2

    async def story(place: Place) -> None:
        def greet(ours: Recorder) -> None:
            ours.on_data = ours.transport.write

        place.on_accept = greet
        peers = []
        for number in range(count):
            peer = socket.socket()
            peers.append(peer)
            peer.setblocking(False)
            await place.loop.sock_connect(peer, place.address)
            peer.send(b"%d" % number)
        for number, peer in enumerate(peers):
            assert await place.loop.sock_recv(peer, 100) == b"%d" % number
        for peer in peers:
            peer.close()
        await place.until(lambda: all("lost" in one.told for one in place.protocols))

    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count + 200)), hard))
    try:
        play_tcp(story)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_listener_that_closes_leaves_those_who_are_in_alone(play_tcp: Play) -> None:
    async def story(place: Place) -> None:
        with await place.client() as peer:
            waiting = socket.socket()
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(place.address)
            place.door.close()
            await place.turns()
            with socket.socket() as late, pytest.raises(ConnectionRefusedError):
                late.connect(place.address)
            waiting.close()
            peer.send(b"still here")
            await place.until(lambda: place.protocols[0].data == b"still here")

    play_tcp(story)


# --- what only our own has ---------------------------------------------------------------------------------------------


def test_one_who_never_stops_talking_leaves_the_loop_its_turns() -> None:
    async def story(place: Place) -> None:
        with await place.client() as one, await place.client() as other:
            for ours in place.protocols:
                ours.on_data = lambda _, ours=ours: ours.transport.write(b"x")
            for peer in (one, other):
                peer.setblocking(False)
            ticks = 0
            for _ in range(200):
                for peer in (one, other):
                    peer.send(b"x" * 100)
                    with contextlib.suppress(BlockingIOError):
                        peer.recv(1 << 16)
                await asyncio.sleep(0)
                ticks += 1
            assert ticks == 200

    perform(story, "own", socket.AF_INET)


@pytest.mark.parametrize("stumbles", ["before its stream", "behind it"])
def test_a_newcomer_over_whom_the_pooler_stumbles_is_hung_up_on(stumbles: str) -> None:
    async def story(place: Place) -> None:
        streams = place.streams
        assert streams is not None

        def stumble(number: int, _host: str, _port: int) -> None:
            if stumbles == "behind it":
                Stream(streams, number)
            raise RuntimeError("a bug")

        with socket.socket() as listening, socket.socket() as peer:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            listening.setblocking(False)
            door = Door(streams, listening, stumble)
            peer.setblocking(False)
            await place.loop.sock_connect(peer, listening.getsockname())
            assert await place.loop.sock_recv(peer, 1) == b""
            assert [str(c["exception"]) for c in place.complaints] == ["a bug"]
            door.close()

    perform(story, "own", socket.AF_INET)


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ECONNABORTED])
def test_an_accept_that_fails_for_a_moment_is_made_again(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    async def story(place: Place) -> None:
        place.door._refused(number)  # (the kernel cannot be made to say so)
        with await place.client() as peer:
            peer.send(b"in")
            await place.until(lambda: place.protocols[-1].data == b"in")

    monkeypatch.setattr(entrance, "RETRY", 0.01)
    perform(story, "own", socket.AF_INET)


@pytest.mark.parametrize(("word", "answer"), [("own", True), ("uvloop", False)])
def test_the_variable_says_whose_transports_serve(monkeypatch: pytest.MonkeyPatch, word: str, answer: bool) -> None:
    async def story(place: Place) -> None:
        monkeypatch.setenv(room.VARIABLE, word)
        assert room.wanted(place.loop) is answer

    perform(story, "uvloop", socket.AF_INET)


def test_a_word_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(place: Place) -> None:
        monkeypatch.setenv(room.VARIABLE, "epoll")
        with pytest.raises(ValueError, match="PGWEIR_TRANSPORT = 'epoll': own or uvloop"):
            room.wanted(place.loop)

    perform(story, "uvloop", socket.AF_INET)
