"""What the HTTP rooms share: addresses as the command line has them, listening sockets, the bounds for strangers, and how to
end a room."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

MOST_CONNECTIONS: Final = 64  # in one room; probes, Prometheus and the operator need a few
SILENT_SECONDS: Final = 75.0  # without a request, then a connection is closed
HANDSHAKE_SECONDS: Final = 10.0  # for TLS

LISTEN_ERROR = "write ADDRESS:PORT, such as 127.0.0.1:8080, [::]:8080 or *:8080"


def _without_traceback(record: logging.LogRecord) -> bool:
    """What is no HTTP is its sender's fault and gets a line, not aiohttp's traceback: anybody may knock at a plain port."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = "HTTP: not a request: %s", (error.message.partition("\n")[0][:200],)
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
    return True


logging.getLogger("aiohttp.server").addFilter(_without_traceback)


class Room:
    """A started HTTP room; `close` ends it."""

    def __init__(self, runner: web.AppRunner, listening: socket.socket) -> None:
        self._runner = runner
        self._listening = listening
        self._server: asyncio.Server | None = None
        self.port: int = listening.getsockname()[1]

    async def serve(self, context: ssl.SSLContext | None = None) -> None:
        """Accept from now on, under this TLS context. Called again, it replaces the context and misses no connection."""
        # The socket itself stays open: connections queue in the kernel between the two.
        if self._server is not None:
            self._server.close()
        self._server = await asyncio.get_running_loop().create_server(
            self._newcomer,
            sock=self._listening.dup(),
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
        )

    def _newcomer(self) -> asyncio.Protocol:
        """A full room serves who comes, and lets go of who came first: neither a probe nor an operator shall find the door
        shut because somebody collects connections, and he shall not have the descriptors that clients need."""
        server = self._runner.server
        assert server is not None  # the runner is set up before there is a room
        present = server.connections
        if len(present) >= MOST_CONNECTIONS:
            present[0].force_close()
        return server()

    async def close(self) -> None:
        self._listening.close()
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()


async def open_room(application: web.Application, address: str) -> Room:
    """A room for this application, listening and not yet served. Raises OSError or ValueError, which name the address."""
    listening = listening_socket(address)
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True, keepalive_timeout=SILENT_SECONDS
    )
    await runner.setup()
    return Room(runner, listening)


def listening_socket(address: str) -> socket.socket:
    host, port = parse_address(address)
    try:
        if host == "*":
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            sock = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
        else:
            sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def parse_address(address: str) -> tuple[str, int]:
    """`ADDR:PORT`, `[ADDR6]:PORT`, `*:PORT`."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: {LISTEN_ERROR}")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{address!r}: {LISTEN_ERROR}")
    return host, int(port)
