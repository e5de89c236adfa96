"""TLS in front of a PostgreSQL that was built without it, so that TLS towards servers is tested everywhere.

It answers SSLRequest as PostgreSQL does, shows the certificate it was given, and hands everything on in clear.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.pooler.front import Front, pump, shut
from tests.pooler.wire import SSL_REQUEST


class TlsFront(Front):
    """Listens on a free port; `plain` and `encrypted` count the connections of each kind."""

    def __init__(self, target_port: int, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self.plain = 0
        self.encrypted = 0
        self.direct = 0  # of these, without an SSLRequest
        self.peer_certificates: list[str] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.context.set_alpn_protocols(["postgresql"])
        if client_ca is not None:
            self.context.verify_mode = ssl.CERT_OPTIONAL
            self.context.load_verify_locations(client_ca)
        self._sockets: list[socket.socket] = []
        self._serving: list[threading.Thread] = []
        super().__init__(target_port)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        # A socket is closed when nobody reads from it any more: its number may be another one's at once.
        for thread in self._serving:
            while thread.is_alive():
                for item in self._sockets:
                    shut(item)
                thread.join(0.02)
        for item in self._sockets:
            item.close()

    def _admit(self, client: socket.socket) -> None:
        self._sockets.append(client)
        self._serving.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
        self._serving[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # whoever came may go at any moment, and so may the front
            self._greet(client)

    def _greet(self, client: socket.socket) -> None:
        client.settimeout(30)
        if client.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS handshake
            client = self.context.wrap_socket(client, server_side=True)
            self._sockets.append(client)
            self.encrypted += 1
            self.direct += 1
            self._hand_on(client, b"")
            return
        first = client.recv(8, socket.MSG_WAITALL)
        if first == struct.pack("!ii", 8, SSL_REQUEST):
            client.sendall(b"S")
            client = self.context.wrap_socket(client, server_side=True)
            self._sockets.append(client)
            self.peer_certificates += _common_names(client)
            self.encrypted += 1
            first = b""
        else:
            self.plain += 1
        self._hand_on(client, first)

    def _hand_on(self, client: socket.socket, first: bytes) -> None:
        server = self._reach(timeout=30)
        self._sockets.append(server)
        server.sendall(first)
        client.settimeout(None)
        server.settimeout(None)
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join()


def _common_names(client: ssl.SSLSocket) -> list[str]:
    subject: Any = (client.getpeercert() or {}).get("subject", ())
    return [value for part in subject for name, value in part if name == "commonName"]
