"""The programs of a benchmark: one PostgreSQL, and in front of it the poolers, set up alike."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench.cells import Setup
from bench.measure import BenchmarkFailed, Target
from tests.pooler.process import SECRETS, Flavour, PoolerProcess, find_pgbouncer
from tests.postgres.certificates import Certificates, make_certificates
from tests.postgres.server import (
    Installation,
    PostgresError,
    PostgresServer,
    find_installation,
    free_port,
    give_to_account,
)

LOOKUP_ROLE: Final = "bench_lookup"
_COMMON: Final[Mapping[str, object]] = {
    "auth_type": "trust",
    "pool_mode": "transaction",
    "max_client_conn": 6000,
    "listen_backlog": 1024,
    "server_tls_sslmode": "disable",
    "log_connections": 0,
    "log_disconnections": 0,
    "log_stats": 0,
}


def install(program: str, package: str) -> bool:
    """Debian's package, where we may; no service is started."""
    if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        return True
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    # RUNLEVEL=1: the package's scripts then do not start the service.
    environment = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    for attempt in (["true"], ["apt-get", "update"]):
        subprocess.run(attempt, env=environment, capture_output=True, check=False)
        if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
            return True
    return False


def pgbouncer_version() -> str:
    answer = subprocess.run([find_pgbouncer(), "--version"], capture_output=True, text=True, check=True).stdout
    return answer.splitlines()[0].split()[-1]


def installation() -> Installation:
    """A PostgreSQL with TLS where there is one. (The wheel's has none.)"""
    try:
        return find_installation(tls=True)
    except PostgresError:
        return find_installation()


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[tuple[PostgresServer, Certificates]]:
    """With pgbench's tables, a sink for COPY, and TLS for whoever asks for it."""
    certificates = make_certificates(folder)
    for file in (folder, *folder.iterdir()):  # PgBouncer is not root
        give_to_account(file)
    settings = {"max_connections": "150", "shared_buffers": "128MB", "synchronous_commit": "off", "fsync": "off"}
    with PostgresServer(installation(), settings=settings) as server:
        if server.installation.has_tls:
            server.use_tls(certificates.server.certificate, certificates.server.key)
            server.restart()
        server.execute(f"CREATE ROLE {LOOKUP_ROLE} SUPERUSER LOGIN PASSWORD 'lookup'")
        server.execute("CREATE TABLE bench_sink (line text); GRANT ALL ON bench_sink TO PUBLIC", "app")
        yield server, certificates


def fill(server: PostgresServer, pgbench: Path) -> None:
    """pgbench's own tables, ten times a hundred thousand rows; they belong to the user of most cells."""
    command = [str(pgbench), "-i", "-q", "-s", "10", "-h", "127.0.0.1", "-p", str(server.port), "-U", "trusty", "app"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkFailed(f"pgbench -i: {done.stderr[-300:]}")


def _settings(setup: Setup, servers: int, certificates: Certificates) -> dict[str, Any]:
    values: dict[str, Any] = {**_COMMON, "default_pool_size": servers}
    if setup == "session":
        values |= {"pool_mode": "session", "default_pool_size": 32}
    elif setup == "md5":
        values |= {"auth_type": "md5"}
    elif setup == "scram":
        values |= {"auth_type": "scram-sha-256"}
    elif setup == "auth_query":
        values |= {"auth_type": "scram-sha-256", "auth_user": LOOKUP_ROLE}
    if setup in ("tls_clients", "tls_both"):
        pair = certificates.server
        values |= {
            "client_tls_sslmode": "require",
            "client_tls_cert_file": pair.certificate,
            "client_tls_key_file": pair.key,
        }
    if setup in ("tls_servers", "tls_both"):
        values |= {"server_tls_sslmode": "require"}
    return values


@contextlib.contextmanager
def pooler(
    name: str, setup: Setup, servers: int, server: PostgresServer, certificates: Certificates
) -> Iterator[Target]:
    user = {"md5": "bob", "scram": "alice", "auth_query": "alice"}.get(setup, "trusty")
    secret = "" if user == "trusty" else SECRETS[user]
    sslmode = "require" if setup in ("tls_clients", "tls_both") else "disable"
    if name == "pgpool":
        with _pgpool(server.port) as (port, pid):
            yield Target(name, port, pid, user)
        return
    flavour: Flavour = "pgbouncer" if name == "pgbouncer" else "pgweir"
    userlist = {LOOKUP_ROLE: "lookup"} if setup == "auth_query" else None
    settings = _settings(setup, servers, certificates)
    with PoolerProcess(server.port, settings=settings, userlist=userlist, flavour=flavour, forked=False) as process:
        yield Target(name, process.port, process.pid, user, secret, sslmode)


@contextlib.contextmanager
def _pgpool(server_port: int) -> Iterator[tuple[int, int]]:
    """pgpool-II as a mere connection pool: a process for each client, each with a server of its own."""
    program = shutil.which("pgpool", path="/usr/sbin:/usr/bin")
    if program is None:
        raise BenchmarkFailed("no pgpool on this machine")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pgwb-") as folder:
        settings: dict[str, object] = {
            "backend_clustering_mode": "raw",
            "backend_hostname0": "127.0.0.1",
            "backend_port0": server_port,
            "listen_addresses": "127.0.0.1",
            "port": port,
            "socket_dir": folder,
            "pcp_socket_dir": folder,
            "pcp_port": free_port(),
            "pid_file_name": f"{folder}/pid",
            "logdir": folder,
            "num_init_children": 40,
            "max_pool": 1,
            "load_balance_mode": "off",
            "log_min_messages": "error",
        }
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        Path(folder, "pgpool.conf").write_text(text)
        with Path(folder, "log").open("w") as log:
            process = subprocess.Popen([program, "-n", "-f", f"{folder}/pgpool.conf"], stdout=log, stderr=log)
        try:
            time.sleep(2.0)  # it forks its children first
            if process.poll() is not None:
                raise BenchmarkFailed(f"pgpool did not start: {Path(folder, 'log').read_text()[-300:]}")
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
