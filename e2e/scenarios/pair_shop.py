"""A shop whose PostgreSQL is a pair that acts like CloudNativePG, and the load that counts what its users lose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.cloudnativepg.pair import Pair
from e2e.kubernetes_access import Kubernetes
from e2e.scenarios.shop import CLIENT, POOLER, Shop

COUNTER = "counter"  # the pod of the client that counts
PROGRAM = Path(__file__).parents[1] / "load.py"


@dataclass(frozen=True, slots=True)
class Count:
    """What one group of clients met (load.py)."""

    kind: str
    said: dict[str, Any]

    @property
    def processed(self) -> int:
        return int(self.said["processed"])

    @property
    def clients(self) -> int:
        return int(self.said["clients"])

    @property
    def failed(self) -> int:
        return int(self.said["failed"])

    @property
    def retried(self) -> int:
        return int(self.said["retried"])

    @property
    def errors(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.said["errors"]
        return found

    @property
    def gap(self) -> float:
        return float(self.said["gap"])

    def line(self, since: float) -> str:
        said = self.said
        kinds: dict[str, int] = {}
        for row in said["errors"]:
            kind = f"{row['where']} {row['sqlstate'] or row['message'][-60:]}"
            kinds[kind] = kinds.get(kind, 0) + 1
        numbers = (
            f"{self.kind}: {said['processed']} done, {said['failed']} failed, {said['retried']} cured by a reconnect, "
            f"{said['refused']} logins refused; gap {said['gap']:.2f} s from {said['gap_began'] - since:.2f} s, "
            f"worst client {said['worst_wait']:.2f} s"
        )
        return f"{numbers}; errors {kinds}" if kinds else numbers


class Counter:
    """load.py in the counter's pod, working."""

    def __init__(self, kubernetes: Kubernetes, namespace: str, groups: tuple[str, ...], host: str) -> None:
        run = [
            "env",
            f"PGHOST={host}",
            "PGCONNECT_TIMEOUT=120",
            "python3",
            "-u",
            "-c",
            PROGRAM.read_text(),
            *groups,
        ]
        self._process = kubernetes.start_execute(COUNTER, *run, namespace=namespace, with_stdin=True)
        assert self._process.stdout is not None
        heard = ""
        while "running" not in heard:
            line = self._process.stdout.readline()
            assert line, f"the load ended at its start: {heard}"
            heard += line

    def finish(self) -> dict[str, Count]:
        said, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, said
        report = json.loads(said.splitlines()[-1])
        assert report["hung"] == 0, report
        return {kind: Count(kind, found) for kind, found in report["groups"].items()}

    def abandon(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@dataclass(slots=True)
class PairShop(Shop):
    _pair: Pair | None = field(default=None, init=False)

    @property
    def pair(self) -> Pair:
        assert self._pair is not None
        return self._pair

    @property
    def primary(self) -> str:
        return self.pair.primary

    def open(self, *, instances: int = 2, max_connections: int = 100) -> None:
        """The pair, and two pods of clients: one as every shop has it, one that counts."""
        assert instances == 2, "a pair is two"
        self._pair = Pair(self.kubernetes, self.namespace, self.cluster, max_connections=max_connections)
        self.psycopg_client(COUNTER)
        self.kubernetes.client_pod(CLIENT, namespace=self.namespace, environment=self.account())
        self.pair.wait("healthy")

    def close(self) -> None:
        Shop.close(self)
        if self._pair is not None:
            self._pair.close()

    def initialise(self, host: str = POOLER) -> None:
        """Ten branches, one for each teller that pgbench makes: load.py has as many clients that write."""
        Shop.initialise(self, host)
        self.psql("insert into pgbench_branches (bid, bbalance) select generate_series(2, 10), 0", f"host={host}")

    def healthy(self) -> None:
        """The pair is whole again, and the fleet at rest."""
        ends = self.pair.notes[-1]["event"]
        if not ends.endswith((" ends", "healthy")):
            self.pair.wait("healthy", after=self.pair.notes[-1]["at"])
        self.at_rest()

    @contextmanager
    def counted(self, *groups: str, host: str = POOLER) -> Iterator[Counter]:
        counter = Counter(self.kubernetes, self.namespace, groups, host)
        try:
            yield counter
        finally:
            counter.abandon()
