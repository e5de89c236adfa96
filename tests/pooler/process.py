"""A pooler as users run it: a process with an ini file, driven with verbs.

The same tests are held against Debian's PgBouncer (`make differential` sets PGWEIR_TEST_POOLER=pgbouncer): that is how we
know that they ask for PgBouncer's behaviour and not for our own habits.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from tests.forge import Forked
from tests.pooler import sanitized
from tests.pooler.wire import PATIENCE, WireClient
from tests.postgres.server import PASSWORDS, account, free_port, give_to_account, make_directory

ADMIN, STATS = "admin", "stats"
SECRETS: Mapping[str, str] = {**PASSWORDS, ADMIN: "admin-password", STATS: "stats-password"}

Flavour = Literal["pgweir", "pgbouncer"]
FLAVOUR: Flavour = "pgbouncer" if os.environ.get("PGWEIR_TEST_POOLER") == "pgbouncer" else "pgweir"


PROGRAM = [sys.executable, "-m", "pgweir.executable"]


def eventually(predicate: Callable[[], object], what: str = "", timeout: float = PATIENCE) -> None:
    """Wait until the predicate holds; it is asked often, and its last exception is shown."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if predicate():
                return
            trouble: object = ""
        except (AssertionError, OSError, psycopg.Error) as error:
            trouble = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or predicate} {trouble}")
        time.sleep(0.02)


class PoolerProcess:
    """One pooler in front of the PostgreSQL at `server_port`; everything about it can be said by keyword.

    `{port}` in a database's line becomes that port. `forked=False` starts the program as users do, half a second slower.
    """

    def __init__(
        self,
        server_port: int = 0,
        *,
        settings: Mapping[str, object] | None = None,
        databases: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        userlist: Mapping[str, str] | None = None,
        peers: Mapping[int, str] | None = None,
        hba: Sequence[str] | None = None,
        options: Sequence[str] = (),
        flavour: Flavour = FLAVOUR,
        forked: bool = True,
    ) -> None:
        self.flavour = flavour
        self.forked = forked
        self.directory = make_directory("pgwp-")
        self.ini = self.directory / "pgbouncer.ini"
        self.log_file = self.directory / "log"
        self.port = 0
        self.metrics_port = 0
        self.http_port = 0
        self.server_port = server_port
        self.settings: dict[str, object] = dict(settings or {})
        self.databases = {"*": "host=127.0.0.1 port={port}"} if databases is None else dict(databases)
        self.users = dict(users or {})
        self.userlist = dict(SECRETS if userlist is None else userlist)
        self.peers = dict(peers or {})
        self.hba = hba
        self.options = list(options)
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def __repr__(self) -> str:
        return f"<{self.flavour} port {self.port}, log:\n{self.log_tail()}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    # -- files ------------------------------------------------------------------------------------------------

    def write_files(self) -> None:
        """The configuration as it is now in this object's fields."""
        values: dict[str, object] = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": self.directory,
            "auth_type": "scram-sha-256" if self.hba is None else "hba",
            "auth_file": self.directory / "userlist.txt",
            "admin_users": ADMIN,
            "stats_users": STATS,
            "pool_mode": "transaction",
            "default_pool_size": 4,
            "server_login_retry": 1,
        }
        if self.hba is not None:
            values["auth_hba_file"] = self.directory / "pg_hba.conf"
            self._write("pg_hba.conf", "".join(f"{line}\n" for line in self.hba))
        values |= self.settings
        text = "[databases]\n" + "".join(
            f"{name} = {value.replace('{port}', str(self.server_port))}\n" for name, value in self.databases.items()
        )
        text += "[users]\n" + "".join(f"{name} = {value}\n" for name, value in self.users.items())
        if self.peers:
            text += "[peers]\n" + "".join(f"{number} = {value}\n" for number, value in self.peers.items())
        text += "[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in values.items() if value is not None)
        self._write("pgbouncer.ini", text)
        quoted = ((name.replace('"', '""'), secret.replace('"', '""')) for name, secret in self.userlist.items())
        self._write("userlist.txt", "".join(f'"{name}" "{secret}"\n' for name, secret in quoted))

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        aside = path.with_suffix(".new")
        aside.write_text(text)
        if self.flavour == "pgbouncer":
            give_to_account(aside)
        aside.rename(path)

    # -- life -------------------------------------------------------------------------------------------------

    def start(self, timeout: float = 120.0) -> None:
        for _ in range(5):
            self.port, self.metrics_port, self.http_port = free_port(), free_port(), free_port()
            self.write_files()
            self.spawn()
            if self._wait_listening(timeout):
                return
            if not re.search("in use", self.log(), re.IGNORECASE):
                break
        raise AssertionError(f"{self.flavour} did not start (exit code {self.exit_code}):\n{self.log()}")

    def spawn(self) -> None:
        """Start without waiting; for configurations that must be refused."""
        command = self.command()
        with self.log_file.open("ab") as log:
            if self.forked and command[: len(PROGRAM)] == PROGRAM:
                self.process = Forked(command, log, self.directory)
            else:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    **{"env": sanitized.environment(), **self._identity()},
                )

    def command(self) -> list[str]:
        if self.flavour == "pgbouncer":
            return [find_pgbouncer(), str(self.ini)]
        command = [*PROGRAM]
        if os.geteuid() == 0:
            command += ["-u", "root"]
        command += ["--metrics-listen", f"127.0.0.1:{self.metrics_port}"]
        command += ["--http-listen", f"127.0.0.1:{self.http_port}"]
        return [*command, *self.options, str(self.ini)]

    def _identity(self) -> dict[str, Any]:
        who = account()
        if self.flavour == "pgweir" or who is None:
            return {}
        return {"user": who.uid, "group": who.gid, "extra_groups": []}

    def _wait_listening(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.is_running:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return True
            except OSError:
                time.sleep(0.02)
        return False

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM: the pooler leaves when its clients have."""
        self.signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """SIGHUP: the pooler reads its files again."""
        self.signal(signal.SIGHUP)

    def wait_exit(self, timeout: float = 2 * PATIENCE) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s; log:\n{self.log_tail()}") from None

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            # Whoever started us may have SIGQUIT ignored, and PgBouncer 1.18 has no handler that would care.
            self.process.send_signal(signal.SIGKILL if self.flavour == "pgbouncer" else signal.SIGQUIT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if sanitized.FOLDER is not None and (said := sanitized.report(self.log())) is not None:
            raise AssertionError(f"a sanitizer ended the pooler:\n{said}")
        if os.environ.get("PGWEIR_TEST_KEEP"):
            return
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- what it wrote ----------------------------------------------------------------------------------------

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def log_contains(self, text: str) -> bool:
        return text in self.log()

    def wait_for_log(self, text: str, timeout: float = PATIENCE) -> None:
        eventually(lambda: self.log_contains(text), f"{text!r} in the log:\n{self.log_tail()}", timeout)

    def records(self) -> list[dict[str, Any]]:
        """The log as JSON records, one a line; a line that is none is a failure."""
        return [json.loads(line) for line in self.log().splitlines()]

    # -- talking to it ----------------------------------------------------------------------------------------

    def conninfo(self, user: str = "alice", dbname: str = "app", password: str | None = None, **more: object) -> str:
        values: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "user": user, "dbname": dbname}
        values |= {"password": password if password is not None else SECRETS.get(user), "connect_timeout": 60}
        return make_conninfo("", **{**values, **more})

    def connect(self, user: str = "alice", dbname: str = "app", **options: Any) -> psycopg.Connection[Any]:
        """A psycopg connection in autocommit, without psycopg's own prepared statements unless asked for."""
        keywords = {name: options.pop(name) for name in ("autocommit", "prepare_threshold") if name in options}
        keywords = {"autocommit": True, "prepare_threshold": None, **keywords}
        return psycopg.connect(self.conninfo(user, dbname, **options), **keywords)

    def wire(self, user: str = "alice", dbname: str = "app", **parameters: str) -> WireClient:
        """A raw client, logged in."""
        return WireClient(self.port).log_in(user, dbname, SECRETS.get(user), **parameters)

    @contextlib.contextmanager
    def console_session(self, user: str = ADMIN) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        # psycopg speaks the simple protocol as long as it has no parameters to bind.
        connection = psycopg.connect(
            self.conninfo(user, "pgbouncer"), autocommit=True, prepare_threshold=None, row_factory=dict_row
        )
        with connection:
            yield connection

    def console(self, sql: str, user: str = ADMIN) -> list[dict[str, Any]]:
        """One console command; its rows as dictionaries."""
        with self.console_session(user) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def pool(self, database: str = "app", user: str = "alice") -> dict[str, Any]:
        """That pool's row of SHOW POOLS."""
        rows = [row for row in self.console("SHOW POOLS") if (row["database"], row["user"]) == (database, user)]
        assert rows, f"no pool {database}/{user}"
        return rows[0]

    def reload(self, **settings: object) -> None:
        """Change settings in the file and let the console read it."""
        self.settings.update(settings)
        self.write_files()
        self.console("RELOAD")

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """/metrics, parsed: series name to its labels and values."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(self.get(self.metrics_port, "/metrics")[1]):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def get(self, port: int, path: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


class Traffic:
    """Clients that run one statement after another in the background, and count what happened."""

    def __init__(self, pooler: PoolerProcess, clients: int = 8, sql: str = "SELECT 1", pause: float = 0.0) -> None:
        self.done = 0
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        arguments = (pooler, sql, pause)
        self._threads = [threading.Thread(target=self._run, args=arguments, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.done > len(self._threads) or self.errors, "traffic flows")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def wait_for_more(self, count: int = 20) -> None:
        """So many statements from now on."""
        goal = self.done + count
        eventually(lambda: self.done >= goal or self.errors, f"{count} more statements")

    def is_held(self, seconds: float = 0.3) -> bool:
        """Nothing moves for that long."""
        before = self.done
        time.sleep(seconds)
        return self.done == before

    def _run(self, pooler: PoolerProcess, sql: str, pause: float) -> None:
        try:
            with pooler.connect() as connection:
                while not self._stop.is_set():
                    connection.execute(sql.encode()).fetchall()
                    with self._lock:
                        self.done += 1
                    if pause:
                        time.sleep(pause)
        except BaseException as error:
            self.errors.append(error)


def find_pgbouncer() -> str:
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError("no pgbouncer on this machine")
    return found


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
