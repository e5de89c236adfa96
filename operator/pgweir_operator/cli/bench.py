"""`pgweir bench`: a short burst of transactions against any address, counted and timed as an application sees them.

libpq's environment says where (PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD), or a connection string does; no table is
needed. The client is Python: for the highest rates that a pooler reaches, use pgbench.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import psycopg
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DONE, FAILED, UNREACHABLE
from pgweir_operator.cli.modes import Mode

CONNECT_TIMEOUT = 15.0
GRACE = 30.0  # seconds that a transaction may take to end after the burst


@dataclass
class Result:
    """What came of the burst; times in seconds."""

    seconds: float = 0.0
    clients: int = 0
    times: list[float] = field(default_factory=list)
    connects: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        """The time within which this share of all transactions were done."""
        ordered = sorted(self.times)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0

    def document(self) -> dict[str, object]:
        def milliseconds(seconds: float) -> float:
            return round(seconds * 1000, 3)

        done = len(self.times)
        return {
            "clients": self.clients,
            "connected": len(self.connects),
            "seconds": round(self.seconds, 3),
            "transactions": done,
            "failed": self.failures.total(),
            "per_second": round(done / self.seconds, 1) if self.seconds else 0.0,
            "latency_ms": {
                "average": milliseconds(sum(self.times) / done) if done else 0.0,
                "p50": milliseconds(self.quantile(0.5)),
                "p95": milliseconds(self.quantile(0.95)),
                "p99": milliseconds(self.quantile(0.99)),
                "max": milliseconds(max(self.times, default=0.0)),
            },
            "connect_ms_max": milliseconds(max(self.connects, default=0.0)),
            "errors": dict(self.failures.most_common(5)),
        }


def run_bench(dsn: str, *, clients: int, seconds: float, mode: Mode, query: str, as_json: bool) -> int:
    screen.fresh()
    try:
        result = asyncio.run(burst(dsn, clients=clients, seconds=seconds, mode=mode, query=query))
    except KeyboardInterrupt:
        screen.complain("stopped")
        return FAILED
    if as_json:
        screen.say(json.dumps(result.document(), indent=1))
    else:
        _report(result)
    for words, often in result.failures.most_common(5):
        screen.complain(f"{often} ×  {words}")
    if not result.connects:
        return UNREACHABLE
    return FAILED if result.failures else DONE


async def burst(dsn: str, *, clients: int, seconds: float, mode: Mode, query: str) -> Result:
    result = Result(clients=clients)
    connections = [each for each in await asyncio.gather(*(_connect(dsn, result) for _ in range(clients))) if each]
    if not connections:
        return result
    started = time.monotonic()
    until = started + seconds
    tasks = [asyncio.create_task(_client(connection, mode, query, until, result)) for connection in connections]
    with _bar() as bar:
        task = bar.add_task(f"{len(connections)} clients", total=seconds)
        while (passed := time.monotonic() - started) < seconds and not all(each.done() for each in tasks):
            rate = len(result.times) / max(passed, 0.1)
            bar.update(task, completed=passed, description=f"{len(connections)} clients: {rate:,.0f} transactions/s")
            await asyncio.sleep(min(0.1, seconds - passed))
    _, late = await asyncio.wait(tasks, timeout=GRACE)
    result.seconds = time.monotonic() - started
    for each in late:
        each.cancel()
        result.failures[f"no answer within {GRACE:g} s of the end"] += 1
    await asyncio.gather(*tasks, return_exceptions=True)
    for connection in connections:
        with contextlib.suppress(psycopg.Error):
            await connection.close()
    return result


async def _connect(dsn: str, result: Result) -> psycopg.AsyncConnection | None:
    started = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=None)
    except (psycopg.Error, OSError, TimeoutError) as error:
        result.failures[_words(error) or f"no connection within {CONNECT_TIMEOUT:g} s"] += 1
        return None
    result.connects.append(time.monotonic() - started)
    return connection


async def _client(connection: psycopg.AsyncConnection, mode: Mode, query: str, until: float, result: Result) -> None:
    work = _transaction(connection, mode, query)
    while (started := time.monotonic()) < until:
        try:
            await work()
        except psycopg.Error as error:
            result.failures[_words(error)] += 1
            if connection.closed:
                return
            continue
        result.times.append(time.monotonic() - started)


def _transaction(connection: psycopg.AsyncConnection, mode: Mode, query: str) -> Callable[[], Awaitable[object]]:
    text = query.encode()  # bytes: a person's own SQL, taken as it is
    if mode is Mode.SIMPLE:
        return lambda: connection.execute(text)
    if mode is Mode.PREPARED:
        return lambda: connection.execute(text, (), prepare=True)
    if mode is Mode.EXTENDED:
        return lambda: connection.execute(text, (), binary=True)

    async def block() -> None:
        async with connection.transaction():
            await connection.execute(text)
            await connection.execute(text)

    return block


def _words(error: BaseException) -> str:
    return " ".join(str(error).split("\n", 1)[0].split())


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=screen.err, transient=True, disable=not screen.err.is_terminal)


def _report(result: Result) -> None:
    found = result.document()
    latency = found["latency_ms"]
    assert isinstance(latency, dict)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("clients connected", f"{found['connected']} of {found['clients']}")
    table.add_row("transactions", f"{len(result.times):,} in {result.seconds:.1f} s")
    table.add_row("failed", str(found["failed"]))
    table.add_row("per second", f"{found['per_second']:,}")
    for name, value in latency.items():
        table.add_row(f"latency, {name}", f"{value:,.2f} ms")
    table.add_row("slowest connect", f"{found['connect_ms_max']:,.2f} ms")
    screen.out.print(table)
