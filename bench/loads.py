"""Loads that pgbench does not make: COPY, crowds of idle clients, and a pause with everybody in the queue.

Clients are bare sockets here: a driver's own cost would come on top of what is measured.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from bench.measure import BenchmarkFailed, Figures, Pgbench, Target, resident_kib
from tests.pooler.wire import copy_data, copy_done, query, ssl_request, startup

READY_SIZE = 6  # ReadyForQuery ends every answer


def log_in(target: Target) -> socket.socket:
    """A client that needs no password."""
    client: socket.socket = socket.create_connection(("127.0.0.1", target.port), timeout=60)
    if target.sslmode != "disable":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.sendall(ssl_request())
        if client.recv(1) != b"S":
            raise BenchmarkFailed(f"{target.name} does not speak TLS")
        client = context.wrap_socket(client)
    client.sendall(startup(user=target.user, database=target.database))
    until_ready(client)
    return client


def until_ready(client: socket.socket) -> int:
    """Read to ReadyForQuery; how many bytes that was."""
    total, end = 0, b""
    while end[:5] != b"Z\0\0\0\x05":
        got = client.recv(1 << 18)
        if not got:
            raise BenchmarkFailed("the connection was closed in the middle of an answer")
        total += len(got)
        end = (end + got[-READY_SIZE:])[-READY_SIZE:]
    return total


@contextmanager
def crowd(target: Target, size: int) -> Iterator[list[socket.socket]]:
    clients: list[socket.socket] = []
    try:
        for _ in range(size):
            clients.append(log_in(target))
        yield clients
    finally:
        for client in clients:
            client.close()


@dataclass(frozen=True)
class Copy:
    """COPY of 8 MB, out or in, by a few clients at once. A transaction is one COPY."""

    way: str
    clients: int = 4

    def run(self, target: Target, seconds: float, program: Path) -> Figures:
        rows = b"x" * 7999 + b"\n"
        inward = b"".join(copy_data(rows) for _ in range(1000)) + copy_done()
        done = [0] * self.clients
        troubles: list[Exception] = []

        def out(client: socket.socket) -> None:
            client.sendall(query("COPY (SELECT repeat('x', 7999) FROM generate_series(1, 1000)) TO STDOUT"))
            if until_ready(client) < 8_000_000:
                raise BenchmarkFailed("COPY TO STDOUT was answered by less than 8 MB")

        def into(client: socket.socket) -> None:
            client.sendall(query("COPY bench_sink FROM STDIN WHERE false"))
            if client.recv(1 << 16)[:1] != b"G":
                raise BenchmarkFailed("COPY FROM STDIN was refused")
            client.sendall(inward)
            until_ready(client)

        def work(number: int, one: Callable[[socket.socket], None], end: float) -> None:
            try:
                with log_in(target) as client:
                    while time.monotonic() < end:
                        one(client)
                        done[number] += 1
            except Exception as trouble:
                troubles.append(trouble)

        before = target.cpu()
        started = time.monotonic()
        one = out if self.way == "out" else into
        threads = [threading.Thread(target=work, args=(n, one, started + seconds)) for n in range(self.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if troubles:
            raise BenchmarkFailed(f"COPY through {target.name}: {troubles[0]}")
        return {
            **(target.cpu() - before).per(sum(done)),
            "transactions": sum(done),
            "tps": sum(done) / (time.monotonic() - started),
        }


@dataclass(frozen=True)
class Idle:
    """Many idle clients: what each takes, and what it costs the busy ones that they are there."""

    clients: int
    busy: int = 32

    def run(self, target: Target, seconds: float, program: Path) -> Figures:
        with crowd(target, 10):
            pass  # what is made once is there now
        before = resident_kib(target.pid)
        with crowd(target, self.clients):
            each = (resident_kib(target.pid) - before) / self.clients
            return {"idle_kib": each, **Pgbench(clients=self.busy).run(target, seconds, program)}


@dataclass(frozen=True)
class Resume:
    """All clients ask while the pooler is paused; then it is resumed. `resume_ms`: until the last has its first result."""

    clients: int

    def run(self, target: Target, seconds: float, program: Path) -> Figures:
        before = target.cpu()
        with crowd(target, self.clients) as clients, selectors.DefaultSelector() as selector:
            for client in clients[:20]:
                client.sendall(query("SELECT 1"))
                until_ready(client)
            console = psycopg.connect(
                host="127.0.0.1", port=target.port, user="admin", password=target.password or "admin-password",
                dbname="pgbouncer", autocommit=True, prepare_threshold=None,
            )  # fmt: skip
            with console:
                console.execute("PAUSE")
                for client in clients:
                    client.sendall(query("SELECT 1"))
                    selector.register(client, selectors.EVENT_READ)
                time.sleep(0.3)
                if selector.select(0):
                    raise BenchmarkFailed(f"{target.name} answers while it is paused")
                started = time.monotonic()
                console.execute("RESUME")
                missing = self.clients
                while missing:
                    ready = selector.select(20)
                    if not ready:
                        raise BenchmarkFailed(f"{missing} clients of {target.name} hear nothing after RESUME")
                    for key, _ in ready:
                        client = key.fileobj  # type: ignore[assignment]  # the sockets that were registered
                        until_ready(client)
                        selector.unregister(client)
                        missing -= 1
                took = time.monotonic() - started
        return {"resume_ms": took * 1000, **(target.cpu() - before).per(self.clients)}
