"""Thousands of idle clients beside a few busy ones: what each costs, and what the busy ones notice.

python -m tests.robustness.crowd --clients 5000
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from dataclasses import dataclass, field
from typing import Any

from tests.pooler.wire import query, startup
from tests.postgres.server import PostgresServer
from tests.robustness.probe import Probed

BUSY = 32
AT_ONCE = 50  # logins under way
SETTINGS: dict[str, object] = {
    "auth_type": "trust",
    "default_pool_size": 8,
    "log_connections": 0,
    "log_disconnections": 0,
    "client_login_timeout": 60,
    "client_idle_timeout": 3600,  # on, so that the janitor has something to look at
}
QUERY = query("SELECT 1")


@dataclass
class Numbers:
    """What was measured; times in milliseconds, memory in KiB."""

    clients: int
    per_client: float = 0.0
    login_seconds: float = 0.0
    busy_before: dict[str, float] = field(default_factory=dict)
    busy_during: dict[str, float] = field(default_factory=dict)
    busy_after: dict[str, float] = field(default_factory=dict)
    during: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    idle_cpu: float = 0.0  # percent of a core that the crowd costs when nobody does anything
    leaving_seconds: float = 0.0
    left: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in vars(self).items())


class Client:
    """The smallest that can log in and ask."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def log_in(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=8192)
        self._writer.write(startup(user="alice", database="app"))
        await self._reader.readuntil(b"Z\0\0\0\5I")

    async def ask(self) -> None:
        self._writer.write(QUERY)
        await self._reader.readuntil(b"Z\0\0\0\5I")

    def close(self) -> None:
        self._writer.close()


async def busy(pooler: Probed, clients: list[Client], seconds: float) -> dict[str, float]:
    """How long queries take while they all ask, and how many the pooler does in a second of CPU."""
    times: list[float] = []
    cpu = pooler.cpu()
    until = time.monotonic() + seconds

    async def ask(client: Client) -> None:
        while time.monotonic() < until:
            before = time.perf_counter()
            await client.ask()
            times.append(time.perf_counter() - before)

    await asyncio.gather(*map(ask, clients))
    times.sort()
    return {
        "queries/s": round(len(times) / seconds),
        "queries/cpu_s": round(len(times) / max(pooler.cpu() - cpu, 0.01)),
        "p50_ms": round(1000 * times[len(times) // 2], 2),
        "p99_ms": round(1000 * times[int(len(times) * 0.99)], 2),
        "max_ms": round(1000 * times[-1], 2),
    }


async def measure(pooler: Probed, count: int, seconds: float = 2.0) -> Numbers:
    numbers = Numbers(count)
    workers = [Client(pooler.port) for _ in range(BUSY)]
    for worker in workers:
        await worker.log_in()
    numbers.busy_before = await busy(pooler, workers, seconds)
    crowd: list[Client] = []
    objects_before = pooler.look()["types"]
    memory = pooler.rss()
    pooler.look("reset")
    started = time.monotonic()

    async def arrive() -> None:
        while len(crowd) < count:
            client = Client(pooler.port)
            crowd.append(client)
            await client.log_in()

    arrivals = [asyncio.create_task(arrive()) for _ in range(AT_ONCE)]
    working = asyncio.create_task(busy(pooler, workers[:4], 2 * seconds))
    await asyncio.gather(*arrivals)
    numbers.login_seconds = round(time.monotonic() - started, 2)
    numbers.busy_during = await working
    numbers.during = pooler.look("times")
    numbers.per_client = round((pooler.rss() - memory) / count, 2)

    pooler.look("reset")
    cpu, at = pooler.cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    numbers.idle_cpu = round(100 * (pooler.cpu() - cpu) / (time.monotonic() - at), 2)
    numbers.after = pooler.look("times")
    numbers.busy_after = await busy(pooler, workers, seconds)

    started = time.monotonic()
    for client in crowd:
        client.close()
    while pooler.sockets()["clients"] > BUSY:
        await asyncio.sleep(0.05)
    numbers.leaving_seconds = round(time.monotonic() - started, 2)
    for _ in range(100):  # the kernel knows that they are gone before the pooler has got round to it
        after = pooler.look()["types"]
        numbers.left = {
            kind: after[kind] - objects_before.get(kind, 0)
            for kind in after
            if after[kind] > objects_before.get(kind, 0) + 2
        }
        if not numbers.left:
            break
        await asyncio.sleep(0.1)
    for worker in workers:
        worker.close()
    return numbers


def raise_descriptor_limit(wanted: int) -> bool:
    """For this process and the pooler that it starts; False where the hard limit forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def crowd(count: int, seconds: float = 2.0) -> Numbers:
    settings = {**SETTINGS, "max_client_conn": count + 100}
    with PostgresServer() as postgres, Probed(postgres.port, settings=settings) as pooler:
        return asyncio.run(measure(pooler, count, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=4.0)
    chosen = parser.parse_args()
    assert raise_descriptor_limit(chosen.clients + 200), "the hard limit of file descriptors is too low"
    print(crowd(chosen.clients, chosen.seconds))


if __name__ == "__main__":
    main()
