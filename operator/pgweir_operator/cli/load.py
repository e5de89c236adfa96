"""Traffic as pgbench sends it: bank transfers, each a transaction of five statements, counted and timed.

The bank is its own witness: what clients were told was committed must stand in the table of transfers afterwards.
Used by the demo.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psycopg

ACCOUNTS = 1000  # as many as SCHEMA makes

SCHEMA = """
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE transfers (client int NOT NULL, number int NOT NULL, amount bigint NOT NULL, PRIMARY KEY (client, number));
INSERT INTO accounts SELECT n FROM generate_series(0, 999) AS n;
"""


@dataclass
class Count:
    """What came of all transactions so far."""

    committed: int = 0
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0

    def note(self, seconds: float) -> None:
        self.committed += 1
        self.longest = max(self.longest, seconds)


class Load:
    """Clients that transfer money until the `async with` ends."""

    def __init__(self, strings: Sequence[str], clients: int) -> None:
        self.count = Count()
        self._strings = strings
        self._clients = clients
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for number in range(self._clients):
            string = self._strings[number % len(self._strings)]
            self._tasks.append(asyncio.create_task(self._client(number, string)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        _, late = await asyncio.wait(self._tasks, timeout=30)
        for task in late:
            task.cancel()
            self.count.failures.append("a client was still waiting 30 s after the end")
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, number: int, string: str) -> None:
        try:
            async with await psycopg.AsyncConnection.connect(string, autocommit=True) as connection:
                sent = 0
                while not self._stop.is_set():
                    started = time.monotonic()
                    await transfer(connection, number, sent)
                    self.count.note(time.monotonic() - started)
                    sent += 1
        except (psycopg.Error, OSError) as error:
            self.count.failures.append(f"client {number}: {error}")


async def transfer(connection: psycopg.AsyncConnection, client: int, number: int) -> None:
    amount = random.randint(1, 1000)  # noqa: S311 - money of no value
    # In the order of their ids: two transfers that lock the same accounts must not wait for each other.
    first, second = sorted(random.sample(range(ACCOUNTS), 2))
    async with connection.transaction():
        await connection.execute("UPDATE accounts SET balance = balance - %s WHERE id = %s", [amount, first])
        await connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", [amount, second])
        await connection.execute("INSERT INTO transfers VALUES (%s, %s, %s)", [client, number, amount])
