"""PostgreSQL servers for tests: users of every kind, TLS, and the ways a server can misbehave.

Built on the product's own embedded PostgreSQL. A cluster with all users is made once per machine and version;
every further server is a copy of it and starts in well under a second.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import inspect
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pgweir_operator.cli import embedded
from pgweir_operator.cli.embedded import (
    EmbeddedPostgres,
    Installation,
    PostgresError,
    StopMode,
    account,
    copy_cluster,
    find_installation,
    give_to_account,
    installations,
    make_directory,
)
from pgweir_operator.cli.ports import free_port

__all__ = [
    "AUTH_QUERY",
    "PASSWORDS",
    "TEST_HBA",
    "Installation",
    "PostgresError",
    "PostgresServer",
    "StopMode",
    "account",
    "find_installation",
    "free_port",
    "give_to_account",
    "installations",
    "make_directory",
]

# Who can log in, and with what. How PostgreSQL stores and asks for it stands in TEST_HBA and _PREPARE.
PASSWORDS: Mapping[str, str] = {
    "postgres": "password",
    "alice": "alice-password",  # scram-sha-256
    "bob": "bob-password",  # md5
    "carol": "carol-password",  # asked for in clear
    "trusty": "trusty-password",  # never asked
    "expired": "expired-password",  # VALID UNTIL yesterday
    "pooler_auth": "pooler-auth-password",  # may look passwords up, and nothing else
}

AUTH_QUERY = "SELECT usename, passwd FROM pgweir.user_search($1)"

TEST_HBA: tuple[str, ...] = (
    "local all all trust",
    "host all trusty 127.0.0.1/32 trust",
    "host all carol 127.0.0.1/32 password",
    "host all bob 127.0.0.1/32 md5",
    "host all all 127.0.0.1/32 scram-sha-256",
)

TLS_HBA: tuple[str, ...] = (
    "local all all trust",
    "hostssl all pooler_auth 127.0.0.1/32 cert",
    "hostssl all trusty 127.0.0.1/32 trust",
    "hostssl all all 127.0.0.1/32 scram-sha-256",
)

_PREPARE = """
SET password_encryption = 'scram-sha-256';
CREATE ROLE alice LOGIN PASSWORD 'alice-password';
CREATE ROLE carol LOGIN PASSWORD 'carol-password';
CREATE ROLE trusty LOGIN PASSWORD 'trusty-password';
CREATE ROLE expired LOGIN PASSWORD 'expired-password' VALID UNTIL '2001-01-01';
CREATE ROLE pooler_auth LOGIN PASSWORD 'pooler-auth-password';
SET password_encryption = 'md5';
SET client_min_messages = 'error';
CREATE ROLE bob LOGIN PASSWORD 'bob-password';
RESET client_min_messages;
CREATE SCHEMA pgweir;
CREATE FUNCTION pgweir.user_search(uname text) RETURNS TABLE (usename name, passwd text)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    $$SELECT rolname, rolpassword FROM pg_catalog.pg_authid
       WHERE rolname = $1 AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > now())$$;
REVOKE ALL ON FUNCTION pgweir.user_search(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA pgweir TO pooler_auth;
GRANT EXECUTE ON FUNCTION pgweir.user_search(text) TO pooler_auth;
"""


class PostgresServer(EmbeddedPostgres):
    """A server with the users of PASSWORDS and the databases `postgres`, `app` and `other`."""

    def __init__(
        self,
        installation: Installation | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        hba: tuple[str, ...] = TEST_HBA,
        template: Path | None = None,
    ) -> None:
        installation = installation or find_installation()
        super().__init__(installation, settings=settings, hba=hba, template=template or _template(installation))

    def connection_string(
        self, user: str = "alice", password: str | None = None, dbname: str = "app", **more: str | int
    ) -> str:
        """As PASSWORDS has it, unless said."""
        return super().connection_string(user, password or PASSWORDS.get(user), dbname, **more)

    def use_tls(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Show this certificate from the next start or reload on."""
        names = {"ssl_cert_file": certificate, "ssl_key_file": key}
        if client_ca is not None:
            names["ssl_ca_file"] = client_ca
        values = {"ssl": "on"}
        for setting, source in names.items():
            target = self.data_directory / f"{setting}.pem"
            shutil.copyfile(source, target)
            target.chmod(0o600)
            give_to_account(target)
            values[setting] = target.name
        self.set(values)

    def backends(self, **columns: str) -> list[int]:
        """Process ids of client sessions, without the one that asks; columns narrow it: backends(usename="alice")."""
        where = "".join(f" AND {name} = '{value}'" for name, value in columns.items())
        sql = (
            f"SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid(){where}"
        )
        return [pid for (pid,) in self.execute(sql)]

    def terminate_clients(self) -> None:
        """End every client session but the one that says so."""
        if pids := self.backends():
            self.execute(f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY{pids}) AS pid")


@functools.cache
def _template(installation: Installation) -> Path:
    """A stopped cluster with everything in it, made once for this machine (initdb takes seconds, a copy of it none)."""
    made_of = f"{installation} {installation.bin_directory} {Path(__file__).read_text()} {inspect.getsource(embedded)}"
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"pgweir-tests-{os.geteuid()}-{key}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            aside = make_directory("pgwt-")
            _make_template(installation, aside)
            aside.rename(folder)
    return folder / "data"


def _make_template(installation: Installation, folder: Path) -> None:
    with EmbeddedPostgres(installation, hba=("local all all trust",)) as server:
        server.execute(_PREPARE)
        server.execute("CREATE DATABASE app OWNER alice")
        server.execute("CREATE DATABASE other OWNER bob")
        server.execute("GRANT ALL ON SCHEMA public TO PUBLIC", "app")
        server.execute("GRANT ALL ON SCHEMA public TO PUBLIC", "other")
        server.stop()
        copy_cluster(server.data_directory, folder / "data")
