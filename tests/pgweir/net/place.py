"""Where transports are tried: a listening socket, whoever connects to it, and protocols that note what they are told.

The same for uvloop's transports, which are the oracle, and for our own streams (`test_transports`, `test_tls_transports`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from pgweir.net.door import Door
from pgweir.net.stream import Stream
from pgweir.net.streams import Streams

PATIENCE = 60.0


class Recorder:
    """A protocol that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.data = bytearray()
        self.error: BaseException | None = None
        self.transport: Any = None
        self.keeps_open = False
        self.on_data: Callable[[bytes], None] | None = None
        self.on_made: Callable[[Recorder], None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.on_made is not None:
            self.on_made(self)

    def data_received(self, data: bytes) -> None:
        assert "lost" not in self.told
        assert isinstance(data, bytes)
        self.data += data
        if self.on_data is not None:
            self.on_data(data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.told.append("lost")
        self.error = exc


class Place:
    """Where transports are made: one listening socket, and whoever connects to it."""

    def __init__(self, kind: str, family: socket.AddressFamily) -> None:
        self.kind = kind
        self.family = family
        self.loop = asyncio.get_running_loop()
        self.streams = Streams(self.loop) if kind == "own" else None
        self.protocols: list[Recorder] = []
        self.peers: list[socket.socket] = []
        self.on_accept: Callable[[Recorder], None] = lambda _: None
        self.complaints: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))

    async def listen(self) -> None:
        self.sock = socket.socket(self.family)
        self.sock.bind(("127.0.0.1", 0) if self.family == socket.AF_INET else f"\0pgweir-{os.getpid()}-{id(self)}")
        self.address = self.sock.getsockname()
        if self.streams is not None:
            self.sock.listen(1024)
            self.sock.setblocking(False)
            self.door: Any = Door(self.streams, self.sock, self._accepted)
        else:
            self.door = await self.loop.create_server(self._made, sock=self.sock, backlog=1024)  # type: ignore[arg-type]

    def _made(self) -> Recorder:
        recorder = Recorder()
        recorder.on_made = self.on_accept
        self.protocols.append(recorder)
        return recorder

    def _accepted(self, number: int, _host: str, _port: int) -> None:
        assert self.streams is not None
        recorder = self._made()
        stream = Stream(self.streams, number)
        recorder.connection_made(stream)
        stream.begin(recorder)

    async def client(self) -> socket.socket:
        """A peer: a bare socket, and `protocols[-1]` is at our end of it."""
        before = len(self.protocols)
        sock = socket.socket(self.family)
        self.peers.append(sock)
        sock.setblocking(False)
        await self.loop.sock_connect(sock, self.address)
        await self.until(lambda: len(self.protocols) > before and self.protocols[-1].transport is not None)
        return sock

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    async def turns(self, count: int = 20) -> None:
        """Let the loop go round."""
        for _ in range(count):
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        self.door.close()
        for protocol in self.protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        await self.turns(3)
        if self.streams is not None:
            self.streams.close()
        for sock in self.peers:
            sock.close()
        assert all(protocol.told.count("lost") == 1 for protocol in self.protocols)
        assert all(protocol.told[-1] == "lost" for protocol in self.protocols)


Story = Callable[[Place], Awaitable[None]]


def perform(story: Story, kind: str, family: socket.AddressFamily) -> None:
    async def run() -> None:
        place = Place(kind, family)
        await place.listen()
        try:
            await story(place)
        finally:
            await place.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def read_all(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """Up to the end of what the peer is sent."""
    found = bytearray()
    while piece := await loop.sock_recv(sock, 1 << 20):
        found += piece
    return bytes(found)
