"""The soak: checking clients under random kills of either side. `make soak` runs it for as long as you like.

    python -m tests.robustness.soak --seconds 600 [--clients 40] [--seed 1] [--calm]

Clients (soak_client) verify every answer and keep a ledger of what they committed. Meanwhile backends are terminated, PostgreSQL
is restarted or killed, the pooler reloads with other pool sizes, pauses, resumes, and clients die at any byte. At the end the
ledger must be in the table, and the pooler must be as empty as after its start.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.pooler.process import eventually
from tests.postgres.server import PostgresServer
from tests.robustness.probe import Probed
from tests.robustness.soak_client import PARTS, Ledger, SoakClient

SETTINGS = {
    "auth_type": "trust",
    "default_pool_size": 8,
    "query_wait_timeout": 60,
    "server_login_retry": 0.2,
    "server_connect_timeout": 5,
    "max_prepared_statements": 5,
    "log_connections": 0,
    "log_disconnections": 0,
    "log_pooler_errors": 0,
    "server_lifetime": 20,
}
TROUBLE = re.compile(r"Traceback|stumbled|uncaught|exception|assert|was never", re.IGNORECASE)


@dataclass
class Report:
    seconds: float
    ledger: Ledger
    chaos: Counter[str]
    problems: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        ledger = self.ledger
        lines = [
            f"{self.seconds:.0f} s, {sum(ledger.scenes.values())} scenes: {dict(ledger.scenes)}",
            f"chaos: {dict(self.chaos)}",
            f"ledger: {len(ledger.committed)} committed, {len(ledger.unknown)} unknown, {len(ledger.absent)} absent",
            *(f"  {count} x {ending}" for ending, count in ledger.endings.most_common()),
            *(f"{name}: {value}" for name, value in self.numbers.items()),
            *(f"PROBLEM: {problem}" for problem in self.problems[:30]),
        ]
        return "\n".join(lines)


class Soak:
    """One run."""

    def __init__(self, pooler: Probed, postgres: PostgresServer, *, clients: int, seed: int, calm: bool) -> None:
        self.pooler = pooler
        self.postgres = postgres
        self.dice = random.Random(seed)
        self.ledger = Ledger()
        self.chaos: Counter[str] = Counter()
        self.calm = calm  # no restarts of PostgreSQL
        self.clients = [
            SoakClient(number, pooler.port, self.ledger, random.Random(seed * 1000 + number), deaths=0.3)
            for number in range(clients)
        ]
        self._rss: list[int] = []

    async def run(self, seconds: float) -> Report:
        started = time.monotonic()
        self.postgres.execute("DROP TABLE IF EXISTS ledger", "app")
        self.postgres.execute("CREATE TABLE ledger (token text, part int, client int)", "app")
        self.postgres.execute("GRANT ALL ON ledger TO alice", "app")
        lives = [asyncio.create_task(client.live()) for client in self.clients]
        chaos = asyncio.create_task(self._wreak(started + seconds))
        watcher = asyncio.create_task(self._watch(started))
        await chaos
        for client in self.clients:
            client.stopping = True
        _done, late = await asyncio.wait(lives, timeout=90)
        watcher.cancel()
        report = Report(time.monotonic() - started, self.ledger, self.chaos)
        for task in late:
            report.problems.append(f"a client hangs: {task}")
            task.cancel()
        report.problems += self.ledger.wrong
        for task in lives:
            if task.done() and not task.cancelled() and task.exception() is not None:
                report.problems.append(f"a client broke: {task.exception()!r}")
        self._check_ledger(report)
        self._check_pooler(report)
        return report

    # --- trouble ---------------------------------------------------------------------------------------------------

    async def _wreak(self, until: float) -> None:
        deeds = [self._terminate_backend] * 10 + [self._reload] * 5 + [self._pause] * 2 + [self._reconnect]
        deeds += [self._half_login] * 3 + [self._kill_pool]
        if not self.calm:
            deeds += [self._restart, self._crash]
        while time.monotonic() < until:
            await asyncio.sleep(self.dice.random() * 0.6)
            deed = self.dice.choice(deeds)
            try:
                await deed()
            except Exception as error:
                self.ledger.wrong.append(f"chaos {deed.__name__}: {error!r}")
                return
            self.chaos[deed.__name__.strip("_")] += 1
        await self._console("RESUME", may_fail=True)

    async def _console(self, command: str, *, may_fail: bool = False) -> None:
        try:
            await asyncio.to_thread(self.pooler.console, command)
        except Exception:
            if not may_fail:
                raise

    async def _terminate_backend(self) -> None:
        sql = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'"
            f" ORDER BY random() LIMIT {self.dice.randint(1, 3)}"
        )
        await asyncio.to_thread(self.postgres.execute, sql)

    async def _reload(self) -> None:
        changes = {
            "default_pool_size": self.dice.randint(2, 12),
            "max_prepared_statements": self.dice.randint(1, 6),
            "server_round_robin": self.dice.randint(0, 1),
            "server_lifetime": self.dice.choice([1, 5, 20]),
            "server_reset_query_always": self.dice.randint(0, 1),
            "server_check_delay": self.dice.choice([0, 1, 30]),
        }
        await asyncio.to_thread(self.pooler.reload, **changes)

    async def _pause(self) -> None:
        pausing = asyncio.create_task(self._console("PAUSE", may_fail=True))
        await asyncio.sleep(self.dice.random())
        await self._console("RESUME", may_fail=True)
        await pausing

    async def _kill_pool(self) -> None:
        await self._console("KILL app", may_fail=True)
        await self._console("RESUME app", may_fail=True)

    async def _reconnect(self) -> None:
        await self._console("RECONNECT")

    async def _half_login(self) -> None:
        """Somebody who never finishes."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.pooler.port)
        writer.write(b"\0\0\0\x50\0\3\0\0user\0ali")
        await asyncio.sleep(0.01)
        writer.transport.abort() if self.dice.random() < 0.5 else writer.close()

    async def _restart(self) -> None:
        await asyncio.to_thread(self.postgres.restart, self.dice.choice(["fast", "immediate"]))

    async def _crash(self) -> None:
        await asyncio.to_thread(self.postgres.kill9)
        await asyncio.sleep(self.dice.random() * 0.5)
        await asyncio.to_thread(self.postgres.start)

    async def _watch(self, started: float) -> None:
        while True:
            await asyncio.sleep(10)
            self._rss.append(self.pooler.rss())
            done = sum(self.ledger.scenes.values())
            problems = len(self.ledger.wrong)
            line = f"{time.monotonic() - started:5.0f} s  {done} scenes  {problems} problems  RSS {self._rss[-1]} KiB"
            print(line, file=sys.stderr, flush=True)

    # --- the reckoning -----------------------------------------------------------------------------------------------

    def _check_ledger(self, report: Report) -> None:
        ledger = self.ledger
        rows = self.postgres.execute("SELECT token, count(*), count(DISTINCT part) FROM ledger GROUP BY token", "app")
        found = {token: (count, parts) for token, count, parts in rows}
        whole = (PARTS, PARTS)
        for token in ledger.committed:
            if found.get(token) != whole:
                report.problems.append(f"{token} was committed, and {found.get(token)} is there")
        for token in ledger.unknown:
            if found.get(token, whole) != whole:
                report.problems.append(f"{token} is there in part: {found[token]}")
        for token in ledger.absent & found.keys():
            report.problems.append(f"{token} was never committed, and {found[token]} is there")
        for token in found.keys() - ledger.committed - ledger.unknown - ledger.absent:
            report.problems.append(f"{token} is nobody's")
        report.numbers["rows in the table"] = sum(count for count, _ in found.values())

    def _check_pooler(self, report: Report) -> None:
        pooler = self.pooler

        def quiet() -> bool:
            rows = [row for row in pooler.console("SHOW POOLS") if row["database"] != "pgbouncer"]
            moving = ("cl_active", "cl_waiting", "sv_active", "sv_tested", "sv_login", "sv_being_canceled")
            return all(row.get(name, 0) == 0 for row in rows for name in moving)

        try:
            eventually(quiet, "the pools are quiet")
            eventually(lambda: pooler.sockets()["clients"] == 0, "no client's socket is left")
        except AssertionError as error:
            report.problems.append(f"{error} {pooler.console('SHOW POOLS')} {pooler.sockets()}")
        for _ in range(100):  # PostgreSQL finishes the sleep of a client that died
            with pooler.console_session() as console:
                lists = {row["list"]: row["items"] for row in console.execute("SHOW LISTS")}
                sockets = pooler.sockets()
            backends = self.postgres.backends(usename="alice")
            servers = lists["free_servers"] + lists["used_servers"]
            if servers == sockets["servers"] == len(backends):
                break
            time.sleep(0.1)
        else:
            report.problems.append(
                f"SHOW LISTS has {servers} servers, the kernel {sockets}, PostgreSQL {len(backends)}"
            )
        clients = lists["used_clients"] + lists["login_clients"]  # free_clients are seats that nobody has taken
        report.numbers["SHOW LISTS, sockets, backends"] = (lists, sockets, len(backends))
        if clients > 1 or sockets["clients"] != 1:  # the console itself
            report.problems.append(f"SHOW LISTS has {clients} clients, the kernel {sockets['clients']}")
        objects = pooler.look()
        kept = {name: count for name, count in objects["types"].items() if name.startswith("pgweir.session")}
        report.numbers["objects left"] = kept
        for kind in ("client.ClientSession", "client_login.ClientLogin", "lookup.Lookup"):
            if kept.get(f"pgweir.session.{kind}", 0) > 1:
                report.problems.append(f"{kept[f'pgweir.session.{kind}']} of {kind} are left")
        if kept.get("pgweir.session.server.ServerSession", 0) > servers:
            report.problems.append(
                f"{kept['pgweir.session.server.ServerSession']} ServerSessions for {servers} servers"
            )
        trouble = [line for line in pooler.log().splitlines() if TROUBLE.search(line)]
        report.problems += [f"log: {line}" for line in trouble[:10]]
        report.numbers["RSS over time (KiB)"] = [*self._rss[:: max(1, len(self._rss) // 12)], pooler.rss()]
        report.numbers["times"] = pooler.look("times")


def soak(seconds: float, *, clients: int, seed: int, calm: bool = False) -> Report:
    with PostgresServer() as postgres, Probed(postgres.port, settings=SETTINGS) as pooler:
        return asyncio.run(Soak(pooler, postgres, clients=clients, seed=seed, calm=calm).run(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--calm", action="store_true", help="PostgreSQL itself is never restarted")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    report = soak(chosen.seconds, clients=chosen.clients, seed=chosen.seed, calm=chosen.calm)
    print(report)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
