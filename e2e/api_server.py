"""The API server without a kubectl for each request: for what is measured from the moment it has accepted a change.

Through one `kubectl proxy` on a Unix socket, with one connection that is open before anything is measured.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.kubernetes_access import WRAPPERS


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ApiServer:
    def __init__(self, path: Path) -> None:
        self._connection = _Connection(path)
        self.request("GET", "/readyz")

    def close(self) -> None:
        self._connection.close()

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
        headers = {"Content-Type": "application/merge-patch+json"} if body is not None else {}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        assert response.status < 300, f"{method} {path}: {response.status} {text}"
        return text

    def patch_pooler(self, namespace: str, name: str, spec: Mapping[str, Any]) -> float:
        """The moment (unix time) at which the API server had accepted it."""
        self.request("PATCH", f"/apis/pgweir.io/v1/namespaces/{namespace}/poolers/{name}", {"spec": spec})
        return time.time()


@contextmanager
def api_server() -> Iterator[ApiServer]:
    with tempfile.TemporaryDirectory(prefix="pgweir-proxy-") as folder:
        path = Path(folder, "api")
        proxy = subprocess.Popen(
            [str(WRAPPERS / "kubectl"), "proxy", f"--unix-socket={path}"], stdout=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 30
            while not path.exists():
                assert proxy.poll() is None, f"kubectl proxy ended: {proxy.returncode}"
                assert time.monotonic() < deadline, "kubectl proxy makes no socket"
                time.sleep(0.05)
            server = ApiServer(path)
            yield server
            server.close()
        finally:
            proxy.terminate()
            proxy.wait(timeout=10)
