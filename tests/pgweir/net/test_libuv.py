"""Streams wait in the loop's place. Whatever else the loop has to do happens all the same, and at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from pgweir.net import libuv
from pgweir.net.stream import Stream
from pgweir.net.streams import Streams

PATIENCE = 60.0
Done = Callable[[], None]


class Told(asyncio.Protocol):
    """Calls what it was given with each read, and once more at its end."""

    def __init__(self, call: Done | None = None, at_end: Done | None = None) -> None:
        self.call = call
        self.at_end = at_end

    def data_received(self, _data: bytes) -> None:
        if self.call is not None:
            self.call()

    def connection_lost(self, _error: BaseException | None) -> None:
        if self.at_end is not None:
            self.at_end()


class Scene:
    """A loop whose place is taken by streams, and both ends of some connections."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.streams = Streams(self.loop)
        self.ends: list[socket.socket] = []
        self.transports: list[Any] = []
        self.kept: list[Any] = []
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        for end in pair:
            end.setblocking(False)
        self.ends += pair
        return pair

    def stream(self, call: Done | None = None) -> tuple[Stream, socket.socket]:
        ours, theirs = self.pair()
        stream = Stream(self.streams, os.dup(ours.fileno()))
        ours.close()
        stream.begin(Told(call))
        return stream, theirs

    async def close(self) -> None:
        self.streams.close()
        for transport in self.transports:
            transport.abort()
        await asyncio.sleep(0.002)
        for end in self.ends:
            if end.fileno() >= 0:
                self.loop.remove_reader(end)
                end.close()


def perform(story: Callable[[Scene], Awaitable[None]]) -> Scene:
    async def run() -> Scene:
        scene = Scene()
        try:
            async with asyncio.timeout(PATIENCE):
                await story(scene)
        finally:
            await scene.close()
        return scene

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


# --- what a session may ask of the loop --------------------------------------------------------------------------------

Action = Callable[[Scene, Done], Awaitable[Done]]  # makes ready, and answers what is done from within a stream's read


async def call_soon(scene: Scene, done: Done) -> Done:
    return lambda: scene.kept.append(scene.loop.call_soon(done))


async def call_later(scene: Scene, done: Done) -> Done:
    return lambda: scene.kept.append(scene.loop.call_later(0.02, done))


async def a_task(scene: Scene, done: Done) -> Done:
    async def work() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.002)
        done()

    return lambda: scene.kept.append(scene.loop.create_task(work()))


async def a_name(scene: Scene, done: Done) -> Done:
    async def work() -> None:
        await scene.loop.getaddrinfo("localhost", 1)
        done()

    return lambda: scene.kept.append(scene.loop.create_task(work()))


async def a_thread(scene: Scene, done: Done) -> Done:
    return lambda: threading.Timer(0.05, scene.loop.call_soon_threadsafe, (done,)).start()


async def a_signal(scene: Scene, done: Done) -> Done:
    scene.loop.add_signal_handler(signal.SIGUSR2, done)
    return lambda: threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR2)).start()


async def a_new_reader(scene: Scene, done: Done) -> Done:
    ours, theirs = scene.pair()
    theirs.send(b"there")
    return lambda: scene.loop.add_reader(ours, done)


async def a_write(scene: Scene, done: Done) -> Done:
    """On one of the loop's own transports."""
    transport, theirs = await _loops_own(scene)
    scene.loop.add_reader(theirs, done)
    return lambda: transport.write(b"for somebody else")


async def a_write_behind_others(scene: Scene, done: Done) -> Done:
    """The loop's transport keeps it until its peer has taken what came before."""
    transport, theirs = await _loops_own(scene)
    transport.write(bytes(4 << 20))
    count = 0

    def read() -> None:
        nonlocal count
        count += len(theirs.recv(1 << 20))
        if count == (4 << 20) + 4:
            done()

    def write() -> None:
        transport.write(b"last")
        scene.loop.add_reader(theirs, read)

    return write


async def an_end(scene: Scene, done: Done) -> Done:
    transport, _ = await _loops_own(scene, Told(at_end=done))
    return transport.abort


async def a_streams_end(scene: Scene, done: Done) -> Done:
    stream, _ = scene.stream()
    stream.set_protocol(Told(at_end=done))
    return stream.abort


async def a_stumble(scene: Scene, done: Done) -> Done:
    """An error that nobody was to make goes where those of the loop's own callbacks go."""
    scene.loop.set_exception_handler(lambda _loop, _context: done())

    def stumble() -> None:
        raise asyncio.CancelledError  # (no Exception)

    return stumble


async def _loops_own(scene: Scene, protocol: asyncio.Protocol | None = None) -> tuple[Any, socket.socket]:
    ours, theirs = scene.pair()
    transport, _ = await scene.loop.create_unix_connection(lambda: protocol or Told(), sock=ours)
    scene.transports.append(transport)
    await asyncio.sleep(0.01)  # it is watched
    return transport, theirs


@pytest.mark.parametrize(
    "action",
    [
        call_soon, call_later, a_task, a_name, a_thread, a_signal, a_new_reader, a_write, a_write_behind_others, an_end,
        a_streams_end, a_stumble,
    ],
)  # fmt: skip
def test_what_a_session_asks_of_the_loop_is_done_though_no_stream_says_anything_more(action: Action) -> None:
    async def story(scene: Scene) -> None:
        done = scene.loop.create_future()
        calls: list[Done] = []
        _stream, theirs = scene.stream(lambda: calls.pop()())
        calls.append(await action(scene, lambda: None if done.done() else done.set_result(None)))
        started = time.monotonic()
        theirs.send(b"now")
        await done
        assert time.monotonic() - started < PATIENCE / 4, "not only when something else woke it"

    perform(story)


@pytest.fixture
def chatter() -> Iterator[Callable[[Scene], list[int]]]:
    """A thread that talks with a stream without a pause; it counts the answers."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def begin(scene: Scene) -> list[int]:
        stream, theirs = scene.stream()
        stream.set_protocol(Told(lambda: stream.write(b"yes?")))
        theirs.setblocking(True)
        count = [0]

        def talk() -> None:
            while not over.is_set():
                try:
                    theirs.send(b"hello")
                    if not theirs.recv(100):
                        return
                except OSError:
                    return
                count[0] += 1

        threads.append(threading.Thread(target=talk))
        threads[-1].start()
        return count

    yield begin
    over.set()
    for thread in threads:
        thread.join()


def test_the_loops_timers_tasks_and_transports_have_their_turns_while_streams_talk_without_a_pause(
    chatter: Callable[[Scene], list[int]],
) -> None:
    async def story(scene: Scene) -> None:
        counts = [chatter(scene) for _ in range(2)]
        transport, theirs = await _loops_own(scene)
        transport.set_protocol(Told(lambda: transport.write(b"yes?")))
        turns = 0
        while turns < 50 or not all(count > [50] for count in counts):  # and they go on talking
            await scene.loop.sock_sendall(theirs, b"hello")
            assert await scene.loop.sock_recv(theirs, 100) == b"yes?"
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            turns += 1

    perform(story)


def test_nothing_happens_while_nothing_is_to_be_done() -> None:
    async def story(scene: Scene) -> None:
        scene.stream()
        before = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - before < 0.1

    perform(story)


def test_one_loop_has_one_place_and_it_is_free_again_when_that_is_closed() -> None:
    async def story(scene: Scene) -> None:
        with pytest.raises(RuntimeError, match="taken"):
            Streams(scene.loop)
        scene.streams.close()
        await asyncio.sleep(0.01)
        scene.streams = Streams(scene.loop)

    perform(story)


def test_a_loop_that_is_not_uvloops_keeps_its_place() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert not libuv.is_there(loop)
        with pytest.raises(RuntimeError, match="PGWEIR_TRANSPORT=uvloop"):
            Streams(loop)

    asyncio.run(story())
