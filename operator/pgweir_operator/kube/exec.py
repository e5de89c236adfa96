"""A process in a container, through the API server: its standard streams over one WebSocket.

SPEC: the subprotocols v5.channel.k8s.io and v4.channel.k8s.io: the first byte of each message is a channel. Version 5
can also close one (255, then its number), which is how a process hears the end of its input. Knows nothing of what
runs there. Called by primary.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp

from pgweir_operator.kube.api import RESOURCES, Kube
from pgweir_operator.kube.errors import ApiError, api_error

PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255
HANDSHAKE_TIMEOUT: Final = 15.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit code where it had one, and what Kubernetes says where it could not even start."""

    code: int | None
    message: str = ""


class PodProcess:
    """What was written by it comes from `read`, until `ended` is set."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.ended: Ended | None = None

    async def write(self, data: bytes) -> None:
        await self._send(bytes((STDIN,)) + data)

    async def close_input(self) -> None:
        """Only version 5 can say it; a process that must work with version 4 has to be told in its own language."""
        if self._socket.protocol == PROTOCOLS[0]:
            await self._send(bytes((CLOSE, STDIN)))

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece of STDOUT or STDERR; None when nothing more will come."""
        while self.ended is None:
            try:
                message = await self._socket.receive()
            except aiohttp.ClientError as error:
                self.ended = Ended(None, f"the connection broke: {error}")
                break
            if message.type is aiohttp.WSMsgType.BINARY:
                channel, data = message.data[:1], message.data[1:]
                # Empty ones come first, one for each channel.
                if data and channel == bytes((STATUS,)):
                    self.ended = _ended(data)
                elif data and channel in (bytes((STDOUT,)), bytes((STDERR,))):
                    return channel[0], data
            elif message.type is not aiohttp.WSMsgType.TEXT:
                self.ended = Ended(None, "the connection ended before the process did")
        return None

    async def _send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ApiError(0, f"the connection to the process broke: {error}") from None


@contextlib.asynccontextmanager
async def process(
    kube: Kube, namespace: str, pod: str, container: str, command: Sequence[str]
) -> AsyncIterator[PodProcess]:
    """Start a command in a container; leaving the block ends the connection, and with it the process's input."""
    query = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in command]
    path = f"{RESOURCES['Pod'].path(namespace, pod, 'exec')}?{urlencode(query)}"
    url, headers, tls = await kube.websocket(path)
    async with aiohttp.ClientSession() as session:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                socket = await session.ws_connect(
                    url,
                    headers=headers,
                    protocols=PROTOCOLS,
                    ssl=tls,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
            async with socket:
                if socket.protocol is None:
                    raise ApiError(400, f"the API server speaks none of {', '.join(PROTOCOLS)}")
                yield PodProcess(socket)
        except aiohttp.WSServerHandshakeError as error:
            raise api_error(error.status, {"message": f"exec in pod {pod}: {error.message or error.status}"}) from None
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise ApiError(0, f"exec in pod {pod}: {error or type(error).__name__}") from None


def _ended(data: bytes) -> Ended:
    """SPEC: a Status object: Success, or Failure whose cause ExitCode is the number, or which says why it never ran."""
    try:
        status: Any = json.loads(data)
        if status.get("status") == "Success":
            return Ended(0)
        causes = (status.get("details") or {}).get("causes") or ()
        codes = [int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"]
        return Ended(codes[0] if codes else None, str(status.get("message") or ""))
    except (ValueError, AttributeError, KeyError, TypeError):
        return Ended(None, data.decode(errors="replace"))
