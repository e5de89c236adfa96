"""The worlds in which every driver runs: pool mode, TLS or not, and the version of PostgreSQL behind the pooler.

A world starts when the first test asks for it. It knows its environment variables, which are libpq's where libpq has
one; and it can say whether the pooler came to harm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tests.drivers.checks import Mode
from tests.pooler.process import SECRETS, PoolerProcess, eventually
from tests.postgres.certificates import Certificates
from tests.postgres.server import TLS_HBA, Installation, PostgresServer, installations

Security = Literal["plain", "tls"]

# Two servers for all clients: a statement prepared on one is soon wanted on the other.
TRANSACTION_POOL = 2
SESSION_POOL = 16
MAX_PREPARED_STATEMENTS = 5
APPLICATION_NAME = "driver-suite"


@dataclass(frozen=True)
class World:
    """One row of the matrix."""

    mode: Mode
    security: Security
    postgres: int

    def __str__(self) -> str:
        return f"{self.mode}-{self.security}-postgres{self.postgres}"


def major_versions() -> list[int]:
    """Every PostgreSQL that this machine has, oldest first."""
    return sorted({item.major for item in installations()})


WORLDS = [
    World(mode, security, postgres)
    for postgres in major_versions()
    for mode in ("transaction", "session")
    for security in ("plain", "tls")
]


def installation_of(major: int) -> Installation:
    return next(item for item in installations() if item.major == major)


def make_server(major: int, certificates: Certificates) -> PostgresServer:
    """A running server, with TLS where it is built with TLS."""
    installation = installation_of(major)
    if not installation.has_tls:
        server = PostgresServer(installation)
        server.start()
        return server
    server = PostgresServer(installation, hba=TLS_HBA)
    server.start()
    server.use_tls(certificates.server.certificate, certificates.server.key, certificates.ca)
    server.restart()
    return server


class RunningWorld:
    """A pooler in front of a server, made as the world says."""

    def __init__(self, world: World, server: PostgresServer, certificates: Certificates, **settings: object) -> None:
        self.world = world
        self.server = server
        self.certificates = certificates
        values: dict[str, object] = {
            "pool_mode": world.mode,
            "default_pool_size": TRANSACTION_POOL if world.mode == "transaction" else SESSION_POOL,
            "max_prepared_statements": MAX_PREPARED_STATEMENTS,
            "server_tls_sslmode": "disable",
            "ignore_startup_parameters": "extra_float_digits,options,search_path",
        }
        if server.installation.has_tls:
            values |= {"server_tls_sslmode": "verify-full", "server_tls_ca_file": certificates.ca}
        if world.security == "tls":
            pair = certificates.server
            values |= {"client_tls_sslmode": "require", "client_tls_cert_file": pair.certificate}
            values |= {"client_tls_key_file": pair.key}
        self.pooler = PoolerProcess(server.port, settings=values | settings)
        self.pooler.start()

    def environment(self) -> Mapping[str, str]:
        """Everything a program needs to know, in libpq's variables."""
        values = {
            "PGHOST": "localhost" if self.world.security == "tls" else "127.0.0.1",
            "PGPORT": str(self.pooler.port),
            "PGUSER": "alice",
            "PGPASSWORD": SECRETS["alice"],
            "PGDATABASE": "app",
            "PGAPPNAME": APPLICATION_NAME,
            "PGSSLMODE": "disable",
            "PGCONNECT_TIMEOUT": "15",
            "PGWEIR_MODE": self.world.mode,
        }
        if self.world.security == "tls":
            values |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(self.certificates.ca)}
        return values

    def assert_unharmed(self) -> None:
        """After a program has ended: nobody is left behind, and the pooler did not stumble."""
        assert self.pooler.is_running, self.pooler.log_tail()

        def at_rest() -> bool:
            rows = [row for row in self.pooler.console("SHOW POOLS") if row["database"] != "pgbouncer"]
            busy = ("cl_active", "cl_waiting", "sv_active", "sv_used", "sv_tested", "sv_login")
            return all(row[name] == 0 for row in rows for name in busy if name in row)

        eventually(at_rest, "no client and no busy server is left")
        stumbled = re.findall(r".*(?:Traceback|Error:|exception).*", self.pooler.log())
        assert not stumbled, self.pooler.log_tail(60)

    def remove(self) -> None:
        self.pooler.remove()
