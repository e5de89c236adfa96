"""The API server without a kubectl for each request: for what is asked again and again, and for what is measured from the
moment it has accepted a change.

One `kubectl proxy` on a Unix socket; each request has a connection of its own, which costs nothing there.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Kind, as tests call it → where it lives.
_PATHS = {
    "deployment": "apis/apps/v1/namespaces/{}/deployments",
    "endpointslice": "apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "lease": "apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "pod": "api/v1/namespaces/{}/pods",
    "pooler": "apis/pgweir.io/v1/namespaces/{}/poolers",
    "secret": "api/v1/namespaces/{}/secrets",
    "service": "api/v1/namespaces/{}/services",
    "statefulset": "apis/apps/v1/namespaces/{}/statefulsets",
}


class NotThere(AssertionError):
    """What was asked for does not exist."""


def path_of(kind: str, namespace: str, name: str = "") -> str:
    return f"/{_PATHS[kind].format(namespace)}" + (f"/{name}" if name else "")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ApiServer:
    """Open when it is made; `close` ends the proxy."""

    def __init__(self, kubectl: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pgweir-proxy-")
        self._socket = Path(self._folder.name, "api")
        command = [str(kubectl), "proxy", f"--unix-socket={self._socket}"]
        self._proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self._listens():
            assert self._proxy.poll() is None, f"kubectl proxy ended: {self._proxy.returncode}"
            assert time.monotonic() < deadline, "nobody listens at kubectl proxy's socket"
            time.sleep(0.02)

    def close(self) -> None:
        self._proxy.terminate()
        self._proxy.wait(timeout=10)
        self._folder.cleanup()

    def _listens(self) -> bool:
        """The file is there a moment before anybody listens."""
        connection = _Connection(self._socket)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/merge-patch+json"} if body is not None else {}
        connection = _Connection(self._socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status == 404:
            raise NotThere(f"{method} {path}: {text}")
        assert response.status < 300, f"{method} {path}: {response.status} {text}"
        return json.loads(text)

    def patch_pooler(self, namespace: str, name: str, spec: Mapping[str, Any]) -> float:
        """The moment (unix time) at which the API server had accepted it."""
        self.request("PATCH", path_of("pooler", namespace, name), {"spec": spec})
        return time.time()
