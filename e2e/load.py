"""The client that counts what a user would call a failure. It runs in a pod that has psycopg (the operator's image).

Groups of clients in threads, each with a pause between two transactions: `select` and `tpcb` are pgbench's own
transactions on one connection, `connect` logs in anew for each select. A transaction counts as failed when it met an
error after its first reply, or one that a single reconnect-and-retry did not cure; every error and every refused login
is listed besides. It prints `running` once every client had its first answer, runs until its stdin ends, and then prints
one JSON object.

    python3 load.py select=20 tpcb=20 connect=2 < a pipe that stays open
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

THINK = (0.007, 0.022)  # seconds between two transactions
RECONNECT = 0.05  # seconds between two logins
PATIENCE = 90.0  # seconds for the last transaction of each client

BALANCE = "SELECT abalance FROM pgbench_accounts WHERE aid = %s"
TPCB = (
    ("UPDATE pgbench_accounts SET abalance = abalance + %(delta)s WHERE aid = %(aid)s", False),
    (BALANCE.replace("%s", "%(aid)s"), True),
    ("UPDATE pgbench_tellers SET tbalance = tbalance + %(delta)s WHERE tid = %(tid)s", False),
    ("UPDATE pgbench_branches SET bbalance = bbalance + %(delta)s WHERE bid = %(bid)s", False),
    (
        "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) "
        "VALUES (%(tid)s, %(bid)s, %(aid)s, %(delta)s, CURRENT_TIMESTAMP)",
        False,
    ),
)


@dataclass(slots=True)
class Group:
    """What the clients of one kind met."""

    kind: str
    clients: int
    processed: int = 0
    failed: int = 0
    retried: int = 0  # cured by one reconnect
    refused: int = 0  # logins
    errors: list[dict[str, Any]] = field(default_factory=list)
    gap: float = 0.0  # longest time in which no client of the group completed anything
    gap_began: float = 0.0
    worst_wait: float = 0.0  # longest that one client went without completing anything
    last: float = 0.0
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def completed(self, since: float) -> None:
        now = time.time()
        with self.lock:
            self.processed += 1
            if self.last and now - self.last > self.gap:
                self.gap, self.gap_began = now - self.last, self.last
            self.last = now
            self.worst_wait = max(self.worst_wait, now - since)

    def error(self, error: psycopg.Error, where: str, began: float) -> None:
        with self.lock:
            self.refused += where == "login"
            if len(self.errors) < 200:
                words = {"where": where, "sqlstate": error.sqlstate, "message": str(error).strip()}
                self.errors.append({"at": time.time(), "began": began, **words})

    def report(self) -> dict[str, Any]:
        hidden = ("lock", "last", "running")
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}


class Client:
    def __init__(self, group: Group, number: int, stop: threading.Event) -> None:
        self.group = group
        self.number = number
        self.stop = stop
        self.connection: psycopg.Connection[Any] | None = None
        self.replies = 0  # to the transaction under way
        self.transaction: Callable[[], None] = self.tpcb if group.kind == "tpcb" else self.select

    def run(self) -> None:
        since, first = time.time(), True
        while not self.stop.is_set():
            if self.once():
                self.group.completed(since)
                since = time.time()
                if first:
                    first = False
                    with self.group.lock:
                        self.group.running += 1
            if self.group.kind == "connect":
                self.close()
            time.sleep(random.uniform(*THINK))
        self.close()

    def once(self) -> bool:
        """One transaction, tried a second time on a new connection where nothing had been answered yet."""
        for attempt in (1, 2):
            self.replies, began = 0, time.time()
            try:
                self.login()
                began = time.time()
                self.transaction()
            except psycopg.Error as error:
                where = "login" if self.connection is None else "within" if self.replies else "first"
                self.group.error(error, where, began)
                self.close()
                time.sleep(RECONNECT)
                if attempt == 2 or self.replies:
                    break
            else:
                if attempt == 2:
                    with self.group.lock:
                        self.group.retried += 1
                return True
        with self.group.lock:
            self.group.failed += 1
        return False

    def login(self) -> None:
        if self.connection is None:
            self.connection = psycopg.connect(autocommit=True)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def say(self, sql: str, values: Any = None) -> psycopg.Cursor[Any]:
        assert self.connection is not None
        done = self.connection.execute(sql, values)
        self.replies += 1
        return done

    def select(self) -> None:
        self.say(BALANCE, (random.randint(1, 100_000),)).fetchone()

    def tpcb(self) -> None:
        values = {
            "aid": random.randint(1, 100_000),
            # Each has a branch and a teller of its own: where they queue for a row, no transaction is short.
            "bid": self.number,
            "tid": self.number,
            "delta": random.randint(-5000, 5000),
        }
        self.say("BEGIN")
        for sql, has_rows in TPCB:
            done = self.say(sql, values)
            if has_rows:
                done.fetchone()
        self.say("COMMIT")


def main() -> None:
    stop = threading.Event()
    groups = [Group(kind, int(count)) for kind, _, count in (word.partition("=") for word in sys.argv[1:])]
    threads = [
        threading.Thread(target=Client(group, number, stop).run, daemon=True)
        for group in groups
        for number in range(1, group.clients + 1)
    ]
    for thread in threads:
        thread.start()
    while any(group.running < group.clients for group in groups):
        time.sleep(0.05)
    for group in groups:
        group.gap = group.worst_wait = 0.0  # of the beginning, when clients still came
    print("running", flush=True)
    sys.stdin.read()
    stop.set()
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hung = sum(thread.is_alive() for thread in threads)
    print(json.dumps({"hung": hung, "groups": {group.kind: group.report() for group in groups}}), flush=True)


if __name__ == "__main__":
    main()
