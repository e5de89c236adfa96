"""What may stand in front of a PostgreSQL: a listener of its own, whose connections it hands on as it likes."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Front:
    """Listens on a free port. `_admit` has each connection, one after the other, and must not keep the next one waiting."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._is_closing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.1)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._thread.join(60)
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closing:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        raise NotImplementedError

    def _reach(self, timeout: float) -> socket.socket:
        """A connection to PostgreSQL."""
        server = socket.create_connection(("127.0.0.1", self.target_port), timeout=timeout)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server


def pump(source: socket.socket, target: socket.socket) -> None:
    """Hand on until one of them ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    shut(target)


def shut(item: socket.socket) -> None:
    with contextlib.suppress(OSError):
        item.shutdown(socket.SHUT_RDWR)
