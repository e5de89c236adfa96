"""A port of a pod on this machine, through the API server: each connection becomes one WebSocket.

SPEC: the subprotocol v4.channel.k8s.io of pods/portforward: the first byte of each message is a channel, 0 the data and 1
what went wrong; the first message of either is the port, in two bytes. What connects arrives inside the pod from its own
loopback address. Called by the plugin, which needs no other right to look into a pod.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp

from pgweir_operator.kube.api import RESOURCES, Kube
from pgweir_operator.kube.errors import ApiError, api_error

PROTOCOL: Final = "v4.channel.k8s.io"
DATA, ERROR = b"\0", b"\1"
CHUNK: Final = 65536


class Forward:
    """A listener on this machine. `error` is what the API server or the pod said last when a connection failed."""

    def __init__(self, kube: Kube, namespace: str, pod: str, port: int) -> None:
        self._kube = kube
        self._path = RESOURCES["Pod"].path(namespace, pod, "portforward") + f"?ports={port}"
        self._pod = pod
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.error: ApiError | None = None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        except ApiError as error:
            self.error = error
        except (OSError, asyncio.CancelledError):
            pass  # whoever connected is gone, or we are
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url, headers, tls = await self._kube.websocket(self._path)
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(
                    url,
                    headers=headers,
                    protocols=(PROTOCOL,),
                    ssl=tls,
                    max_msg_size=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                ) as socket,
            ):
                up = asyncio.create_task(_up(reader, socket))
                try:
                    await self._down(socket, writer)
                finally:
                    up.cancel()
                    await asyncio.gather(up, return_exceptions=True)
        except aiohttp.WSServerHandshakeError as error:
            text = f"port-forward to pod {self._pod}: {error.message or error.status}"
            raise api_error(error.status, {"message": text}) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, f"port-forward to pod {self._pod}: {error or type(error).__name__}") from None

    async def _down(self, socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
        begun: set[bytes] = set()
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            channel, data = message.data[:1], message.data[1:]
            if channel not in begun:
                begun.add(channel)
                data = data[2:]  # the port
            if channel == ERROR and data:
                raise ApiError(0, f"port-forward to pod {self._pod}: {data.decode(errors='replace').strip()}")
            if channel == DATA and data:
                writer.write(data)
                await writer.drain()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _up(reader: asyncio.StreamReader, socket: aiohttp.ClientWebSocketResponse) -> None:
    while data := await reader.read(CHUNK):
        await socket.send_bytes(DATA + data)
    await socket.close()  # the protocol knows no half-closed connection


@contextlib.asynccontextmanager
async def forwarded(
    kube: Kube, namespace: str, pod: str, port: int, where: Path | None = None
) -> AsyncIterator[Forward]:
    """Listen for as long as the block lasts: on the Unix socket `where`, or on a free port of 127.0.0.1."""
    forward = Forward(kube, namespace, pod, port)
    if where is not None:
        server = await asyncio.start_unix_server(forward._accepted, where)
    else:
        server = await asyncio.start_server(forward._accepted, "127.0.0.1", 0)
        forward.port = server.sockets[0].getsockname()[1]
    try:
        yield forward
    finally:
        server.close()
        await forward.close()
