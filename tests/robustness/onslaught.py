"""The onslaught: everything at once that can go wrong around a pooler, which is under the sanitizers (`make sanitize`).

    python -m tests.robustness.onslaught --seconds 20 [--seed 1] [--clients 24]

Nobody checks an answer here (`soak` does): clients (rough_client) and servers (rough_server) say anything, in any pieces, and
go at any moment, while the console pauses, kills, reloads and suspends, and backends are terminated. One pooler after the
other, each with other settings, each ended in the middle of its work. What counts is that it never ends by itself, that no
sanitizer says anything, that no exception was somebody's who did not expect it, and that an ordinary client is served
afterwards. Without PGWEIR_TEST_SANITIZED it is the usual compiled form, or the plain one.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import signal
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
from tests.pooler import sanitized
from tests.pooler.process import ADMIN, SECRETS, PoolerProcess, eventually
from tests.pooler.tls_front import TlsFront
from tests.pooler.wire import WireClient, query
from tests.postgres.certificates import Certificates, make_certificates
from tests.postgres.server import AUTH_QUERY, PostgresServer, make_directory
from tests.robustness.rough_client import Dice, Roughs
from tests.robustness.rough_server import RoughFront

ROUND: Final = 7.0  # seconds that one pooler has
TROUBLE: Final = re.compile(r"Traceback|stumbled|uncaught|Unhandled|Exception ignored|AssertionError|was never")
HBA: Final = (
    "local all trusty trust",
    "local all all scram-sha-256",
    "hostssl certified alice 127.0.0.1/32 cert",
    "host all refused 127.0.0.1/32 reject",
    "host all trusty 127.0.0.1/32 trust",
    "host all bob 127.0.0.1/32 md5",
    "host all carol 127.0.0.1/32 password",
    "host all alice,postgres,expired,pooler_auth,admin,stats,nobody 127.0.0.1/32 scram-sha-256",
)
SETTINGS: Final[dict[str, object]] = {
    "auth_user": "pooler_auth",
    "auth_query": AUTH_QUERY,
    "auth_dbname": "postgres",
    "client_tls_sslmode": "allow",
    "server_tls_sslmode": "prefer",
    "default_pool_size": 3,
    "max_client_conn": 60,
    "client_overflow": "wait",
    "client_login_timeout": 2,
    "query_wait_timeout": 1,
    "query_timeout": 3,
    "idle_transaction_timeout": 1,
    "server_login_retry": 0.1,
    "server_connect_timeout": 2,
    "server_lifetime": 2,
    "server_idle_timeout": 1,
    "server_check_delay": 0,
    "suspend_timeout": 1,
    "scram_iterations": 4096,
    "log_connections": 0,
    "log_disconnections": 0,
    "log_pooler_errors": 0,
}
# What one pooler has that the one before had not.
VARIANTS: Final[tuple[dict[str, object], ...]] = (
    {"max_prepared_statements": 3},
    {
        "max_prepared_statements": 200,
        "auth_query_cache_time": 1,
        "pool_mode": "session",
        "server_reset_query_always": 1,
    },
    {"max_prepared_statements": 0, "max_client_conn": 25, "log_connections": 1, "log_disconnections": 1},
    {"max_prepared_statements": 1, "server_round_robin": 1, "client_overflow": "refuse", "pool_mode": "statement"},
)
COMMANDS: Final = (
    "PAUSE", "PAUSE app", "RECONNECT", "RELOAD", "KILL app", "KILL chopped", "DISABLE tight", "SUSPEND", "WAIT_CLOSE app",
    "SHOW CLIENTS", "SHOW SERVERS", "SHOW POOLS", "SHOW STATS", "SHOW MEM", "SHOW FDS", "SHOW WAITERS", "SHOW LISTS",
    "SET default_pool_size = 1", "SET default_pool_size = 4", "SET max_prepared_statements = 2", "SHOW NONSENSE",
)  # fmt: skip
MENDING: Final = ("RESUME", "RESUME app", "RESUME chopped", "ENABLE tight")


class Onslaught:
    def __init__(self, postgres: PostgresServer, certificates: Certificates, *, seed: int, clients: int) -> None:
        self.postgres = postgres
        self.certificates = certificates
        self.dice = random.Random(seed)
        self.seed = seed
        self.clients = clients
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._is_over = threading.Event()

    def run(self, seconds: float) -> None:
        """As many poolers as there is time for; two at least, since their settings differ."""
        until = time.monotonic() + seconds
        number = 0
        while number < 2 or time.monotonic() < until:
            try:
                self._one_pooler(number, min(ROUND, seconds / 2))
            except AssertionError as error:  # what `PoolerProcess` says at its end
                self.problems.append(str(error))
            number += 1
            if self.problems:
                return
        for deed in (
            "trusty in",
            "alice in",
            "bob in",
            "carol in",
            "refused",
            "cuts",
            "slow readers",
            "cancels",
            "over TLS",
        ):
            if not self.done[deed]:
                self.problems.append(f"nobody came as far as that: {deed}")

    def _one_pooler(self, number: int, seconds: float) -> None:
        with contextlib.ExitStack() as stack:
            chopped = stack.enter_context(RoughFront(self.postgres.port, self.seed + number))
            server = self.certificates.server
            fronted = stack.enter_context(TlsFront(self.postgres.port, server.certificate, server.key))
            # (its exit says what a sanitizer has said, whatever went wrong here)
            pooler = stack.enter_context(self._pooler(number, chopped.port, fronted.port))
            self.done["poolers"] += 1
            self._is_over.clear()
            databases = ("app", "app", "app", "tight", "chopped", "chopped", "fronted", "fast", "whole")
            roughs = Roughs(pooler.port, {**SECRETS}, databases, self._certificate(), str(pooler.directory))
            threads = [
                threading.Thread(target=self._be_rough, args=(roughs, self.dice.randrange(1 << 30)), daemon=True)
                for _ in range(self.clients)
            ]
            threads.append(threading.Thread(target=self._terminate, daemon=True))
            threads.append(threading.Thread(target=self._command, args=(pooler,), daemon=True))
            for thread in threads:
                thread.start()
            until = time.monotonic() + seconds
            while time.monotonic() < until and pooler.is_running:
                time.sleep(0.1)
            if pooler.is_running and number % 2 == 0:
                self._is_over.set()
                self._join(threads)
                self._serves(pooler)
                threads = [threading.Thread(target=self._be_rough, args=(roughs, 1), daemon=True) for _ in range(4)]
                self._is_over.clear()
                for thread in threads:
                    thread.start()
                time.sleep(0.3)
            self._end(pooler, number)
            self._is_over.set()
            self._join(threads)
            self.done.update(roughs.done)

    def _pooler(self, number: int, chopped: int, fronted: int) -> PoolerProcess:
        server = self.certificates.server
        here = "host=127.0.0.1 port={port} dbname=app"
        return PoolerProcess(
            self.postgres.port,
            settings={
                **SETTINGS,
                "client_tls_cert_file": server.certificate,
                "client_tls_key_file": server.key,
                "client_tls_ca_file": self.certificates.ca,
                **VARIANTS[number % len(VARIANTS)],
            },
            databases={
                "postgres": "host=127.0.0.1 port={port}",
                "app": here,
                "tight": f"{here} pool_size=1",
                "certified": here,
                "fast": f"{here} pool_mode=statement",
                "whole": f"{here} pool_mode=session",
                "chopped": f"host=127.0.0.1 port={chopped} dbname=app",
                "fronted": f"host=127.0.0.1 port={fronted} dbname=app",
                "nowhere": "host=127.0.0.1 port=1 dbname=app",
            },
            # The others' secrets are looked up.
            userlist={user: SECRETS[user] for user in ("trusty", "carol", "pooler_auth", ADMIN, "stats")},
            hba=HBA,
        )

    def _certificate(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        shown = self.certificates.client_alice
        context.load_cert_chain(shown.certificate, shown.key)
        return context

    # --- who does what -----------------------------------------------------------------------------------------------

    def _be_rough(self, roughs: Roughs, seed: int) -> None:
        dice = random.Random(seed)
        deeds = roughs.deeds()
        dice.shuffle(deeds)
        for deed in self._until_over(deeds, dice):
            try:
                deed(dice)
            except ConnectionRefusedError:
                time.sleep(0.05)  # it has not begun, or it is over
            except (OSError, AssertionError):  # refused, killed, reset, too slow: all of it is meant
                roughs.done["cut short"] += 1
            except (ValueError, LookupError, struct.error):  # what PostgreSQL's front has damaged
                roughs.done["cut short"] += 1
            except Exception as error:
                self.problems.append(f"{deed.__name__}: {error!r}")
                return

    def _until_over(self, deeds: list[Any], dice: Dice) -> Iterator[Any]:
        for deed in deeds:  # each once, and then whatever comes
            if self._is_over.is_set():
                return
            yield deed
        while not self._is_over.is_set():
            yield dice.choice(deeds)

    def _terminate(self) -> None:
        while not self._is_over.wait(0.4):
            with contextlib.suppress(psycopg.Error):
                self.postgres.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('alice', 'trusty', 'bob', 'carol')"
                    " ORDER BY random() LIMIT 2"
                )
                self.done["backends terminated"] += 1

    def _command(self, pooler: PoolerProcess) -> None:
        """One console asks, and may be gone before the answer; another mends what it did."""
        dice = random.Random(self.seed)
        while not self._is_over.wait(0.1 + dice.random() * 0.4):
            command = dice.choice(COMMANDS)
            with contextlib.suppress(OSError, AssertionError):
                with WireClient(pooler.port, timeout=2) as mends:
                    mends.log_in(ADMIN, "pgbouncer", SECRETS[ADMIN])
                    asks = WireClient(pooler.port, timeout=dice.choice((0.05, 0.3)))
                    try:
                        asks.log_in(ADMIN, "pgbouncer", SECRETS[ADMIN])
                        asks.say(query(command))
                        asks.until("Z")
                    except (OSError, AssertionError):
                        pass
                    finally:
                        if dice.random() < 0.5:
                            asks.close()
                    _mend(mends)
                    asks.close()
                self.done["console"] += 1
        with contextlib.suppress(OSError, AssertionError), WireClient(pooler.port, timeout=2) as mends:
            _mend(mends.log_in(ADMIN, "pgbouncer", SECRETS[ADMIN]))

    # --- how it ends -------------------------------------------------------------------------------------------------

    def _serves(self, pooler: PoolerProcess) -> None:
        """An ordinary client, when they are gone."""

        def is_served() -> bool:
            with pooler.connect("alice", "app") as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)

        try:
            eventually(is_served, "an ordinary client is served")
        except AssertionError as error:
            self.problems.append(f"{error}\n{pooler.log_tail()}")

    def _end(self, pooler: PoolerProcess, number: int) -> None:
        """In the middle of the work that is under way."""
        how = ("SHUTDOWN WAIT_FOR_CLIENTS", "SHUTDOWN WAIT_FOR_SERVERS", "SHUTDOWN", "SIGTERM")[number % 4]
        if not pooler.is_running:
            self.problems.append(f"the pooler ended by itself: {pooler.exit_code}")
        elif how == "SIGTERM":
            pooler.terminate()
        else:
            with contextlib.suppress(psycopg.Error):
                pooler.console(how)
        time.sleep(0.3)
        self._is_over.set()
        try:
            pooler.wait_exit(3)
        except AssertionError:  # somebody holds a server for as long as it likes: at once, then
            pooler.signal(signal.SIGQUIT)
            try:
                pooler.wait_exit(30)
            except AssertionError as error:
                self.problems.append(str(error))
        log = pooler.log()
        if pooler.exit_code != 0:
            self.problems.append(f"it ended with {pooler.exit_code}:\n{sanitized.report(log) or pooler.log_tail()}")
        elif TROUBLE.search(log):
            lines = log.splitlines()
            at = next(index for index, line in enumerate(lines) if TROUBLE.search(line))
            self.problems.append("\n".join(lines[max(0, at - 3) : at + 40]))

    def _join(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join(20)
        if any(thread.is_alive() for thread in threads):
            self.problems.append("one of the rough clients hangs")


def _mend(console: WireClient) -> None:
    for mending in MENDING:
        console.say(query(mending))
        console.until("Z")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    print(f"an onslaught of {chosen.seconds:g} s, seed {chosen.seed}", flush=True)
    folder: Path = make_directory("pgwc-")
    with PostgresServer(settings={"max_connections": "200"}) as postgres:
        postgres.execute("CREATE TABLE IF NOT EXISTS rough (number text)", "app")
        postgres.execute("GRANT ALL ON rough TO PUBLIC", "app")
        onslaught = Onslaught(postgres, make_certificates(folder), seed=chosen.seed, clients=chosen.clients)
        onslaught.run(chosen.seconds)
    print(", ".join(f"{what} {count}" for what, count in sorted(onslaught.done.items())))
    for problem in onslaught.problems:
        print(f"PROBLEM: {problem}")
    sys.exit(1 if onslaught.problems else 0)


if __name__ == "__main__":
    main()
