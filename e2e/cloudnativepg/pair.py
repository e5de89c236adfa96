"""The pair as a test holds it: the controller's program, what it noted, and orders to it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from e2e.cloudnativepg import manifests
from e2e.kubernetes_access import Kubernetes

Note = dict[str, Any]


class Pair:
    """Applied and alive when it is made; `close` ends the controller."""

    def __init__(self, kubernetes: Kubernetes, namespace: str, cluster: str, *, max_connections: int = 100) -> None:
        self.kubernetes = kubernetes
        self.namespace = namespace
        self.cluster = cluster
        self.notes: list[Note] = []
        self._more = threading.Condition()
        kubernetes.apply([manifests.crd()])
        kubernetes.wait_for("condition=Established", "crd", f"clusters.{manifests.GROUP}")
        kubernetes.apply(manifests.manifests(namespace, cluster, max_connections=max_connections))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "e2e.cloudnativepg.controller", namespace, cluster],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait(self, event: str, *, after: float = 0.0, seconds: float = 180.0) -> Note:
        """The first note of this event after a moment (unix time)."""
        deadline = time.monotonic() + seconds
        with self._more:
            while True:
                if found := next((each for each in self.notes if each["at"] > after and each["event"] == event), None):
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"no '{event}' within {seconds:.0f} s; noted: {self.notes[-8:]}"
                assert self._process.poll() is None, f"the controller ended: {self._process.returncode}"
                self._more.wait(min(left, 1.0))

    def order(self, order: str) -> float:
        """The moment (unix time) at which it was given."""
        assert self._process.stdin is not None
        given = time.time()
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return given

    @property
    def primary(self) -> str:
        """Its pod."""
        with self._more:
            names = [each.get("primary") or each["pod"] for each in self.notes if each["event"] in _PRIMARY_IS]
        assert names, "the pair was never healthy"
        return str(names[-1])

    def timeline(self, since: float) -> str:
        """What was noted since, in seconds after it, on one line."""
        with self._more:
            rows = [each for each in self.notes if each["at"] > since]
        return " · ".join(f"{each['at'] - since:.2f} {each['event']}" for each in rows)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self.notes.append(json.loads(line))
                self._more.notify_all()


_PRIMARY_IS = ("healthy", "currentPrimary")
