"""What CloudNativePG's instance manager is to its pod, as far as a pooler can tell: it owns this pod's PostgreSQL.

Runs as process 1 of a pod of the pair (manifests.py) with the standard library alone, and does over HTTP what the
controller orders: initialise, start as primary or standby, stop, promote, write the passwords anew, kill. It decides
nothing; `/readyz` is the pod's readiness probe. For tests: whoever reaches the port may give orders.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PORT = 8000
DATA = Path("/data/pgdata")
SOCKETS = "/run/postgresql"
CONFIGURATION = "/etc/postgres/config/postgresql.conf"

FACTS = """
select pg_is_in_recovery(), (select count(*) from pg_stat_replication where state = 'streaming'),
  (select count(*) from pg_stat_wal_receiver where status = 'streaming'), (select timeline_id from pg_control_checkpoint())
"""


class Refused(Exception):
    """An order that cannot be carried out as things stand."""


class Instance:
    """This pod's PostgreSQL."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._order = threading.Lock()

    # --- orders ------------------------------------------------------------------------------------------------------

    def initialise(self) -> None:
        """A new database with the application's role, nobody else let in meanwhile."""
        if (DATA / "PG_VERSION").exists():
            return
        password_file = "--pwfile=/etc/postgres/superuser/password"
        _run("initdb", "--no-sync", "--username=postgres", password_file, "--encoding=UTF8", "--locale=C.UTF-8")
        alone = f"-c listen_addresses='' -c unix_socket_directories={SOCKETS} -c fsync=off"
        _run("pg_ctl", "--wait", "--silent", "start", f"--options={alone}")
        _sql(f"CREATE ROLE app LOGIN PASSWORD {_literal(os.environ['APPLICATION_PASSWORD'])}")
        _sql("CREATE DATABASE app OWNER app")
        _run("pg_ctl", "--wait", "--silent", "--mode=fast", "stop")

    def start(self, role: str) -> None:
        if self._runs():
            raise Refused("it runs already")
        host = os.environ["PRIMARY_HOST"]
        name, password = os.environ["HOSTNAME"], os.environ["PGPASSWORD"]
        conninfo = f"host={host} user=postgres password={password} application_name={name} sslmode=require"
        if role == "standby":
            while not (DATA / "PG_VERSION").exists():
                copied = subprocess.run(
                    ["pg_basebackup", "--pgdata", DATA, "--checkpoint=fast", "--no-sync", "--dbname", conninfo],
                    check=False,
                )
                if copied.returncode != 0:
                    shutil.rmtree(DATA, ignore_errors=True)
                    time.sleep(0.3)
            (DATA / "standby.signal").touch()
        (DATA / "postmaster.pid").unlink(missing_ok=True)  # of a killed one
        command = ["postgres", f"--config-file={CONFIGURATION}", "-c", f"primary_conninfo={conninfo}"]
        self._process = subprocess.Popen(command)
        _until(self._accepts, 180.0)

    def stop(self, mode: str, timeout: float) -> dict[str, object]:
        """Down at the end; after `timeout` a smart shutdown becomes a fast one, which the answer says."""
        process = self._process
        if process is None or process.poll() is not None:
            return {"seconds": 0.0, "forced": False}
        began, forced = time.monotonic(), False
        process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT}[mode])
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            forced = True
            process.send_signal(signal.SIGINT)
            process.wait(60)
        return {"seconds": time.monotonic() - began, "forced": forced}

    def promote(self) -> None:
        _sql("SELECT pg_promote(wait := true, wait_seconds := 30)")

    def write_passwords(self) -> None:
        """The same passwords, each under a new salt, as a new primary of CloudNativePG does."""
        for role, variable in (("app", "APPLICATION_PASSWORD"), ("postgres", "PGPASSWORD")):
            _sql(f"ALTER ROLE {role} PASSWORD {_literal(os.environ[variable])}")

    def kill(self) -> None:
        """kill -9 of the postmaster."""
        if self._process is not None:
            self._process.kill()

    def forget(self) -> None:
        """Drop the data: what a killed primary wrote last, its successor never saw."""
        if self._runs():
            raise Refused("it runs")
        shutil.rmtree(DATA, ignore_errors=True)

    # --- what it is --------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        facts = _ask(FACTS) if self._runs() else None
        if facts is None:
            return {"runs": self._runs(), "accepts": False}
        recovers, followers, follows, timeline = facts.split("|")
        return {
            "runs": True,
            "accepts": True,
            "standby": recovers == "t",
            "streaming": int(followers) + int(follows) > 0,
            "timeline": int(timeline),
        }

    def ready(self) -> bool:
        return self._runs() and self._accepts()

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _accepts(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise Refused(f"PostgreSQL ended with status {self._process.returncode}")
        return subprocess.run(["pg_isready", "--quiet", f"--host={SOCKETS}"], check=False).returncode == 0

    def carry_out(self, order: str, options: dict[str, str]) -> object:
        orders: dict[str, Callable[[], object]] = {
            "initialise": self.initialise,
            "start": lambda: self.start(options["role"]),
            "stop": lambda: self.stop(options["mode"], float(options.get("timeout", "60"))),
            "promote": self.promote,
            "passwords": self.write_passwords,
            "kill": self.kill,
            "forget": self.forget,
        }
        with self._order:
            return orders[order]()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _psql(sql: str) -> list[str]:
    return ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", f"--host={SOCKETS}", "--username=postgres", "-c", sql]


def _sql(sql: str) -> None:
    _run(*_psql(sql))


def _ask(sql: str) -> str | None:
    done = subprocess.run(_psql(sql), check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _until(ask: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > deadline:
            raise Refused(f"PostgreSQL takes no connections after {seconds:.0f} s")
        time.sleep(0.05)


class Handler(BaseHTTPRequestHandler):
    instance: Instance

    def do_GET(self) -> None:
        if self.path == "/readyz":
            try:
                ready = self.instance.ready()
            except Refused:
                ready = False
            self._answer(200 if ready else 503, {"ready": ready})
        else:
            self._answer(200, self.instance.status())

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        try:
            self._answer(200, self.instance.carry_out(parts.path.strip("/"), options))
        except (Refused, subprocess.SubprocessError) as error:
            self._answer(409, {"error": str(error)})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        if "readyz" not in self.path and "status" not in self.path:
            print(self.path, *arguments[1:], file=sys.stderr, flush=True)


def main() -> None:
    os.environ["PGDATA"] = str(DATA)
    Handler.instance = Instance()
    server = ThreadingHTTPServer(("", PORT), Handler)
    # Process 1 hears no signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    Handler.instance.stop("fast", 10.0)


if __name__ == "__main__":
    main()
