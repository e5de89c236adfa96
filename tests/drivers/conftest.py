"""The worlds, started when they are first wanted and kept until the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.drivers.worlds import WORLDS, RunningWorld, World, make_server
from tests.postgres.certificates import Certificates
from tests.postgres.server import PostgresServer


@pytest.fixture(scope="session")
def servers(certificates: Certificates) -> Iterator[dict[int, PostgresServer]]:
    made: dict[int, PostgresServer] = {}
    yield made
    for server in made.values():
        server.remove()


# One world, one worker: what runs in a world shares its tables.
PARAMETERS = [pytest.param(world, marks=pytest.mark.xdist_group(str(world)), id=str(world)) for world in WORLDS]


@pytest.fixture(scope="session", params=PARAMETERS)
def world(
    request: pytest.FixtureRequest, certificates: Certificates, servers: dict[int, PostgresServer]
) -> Iterator[RunningWorld]:
    """The test runs once in each world."""
    wanted: World = request.param
    if wanted.postgres not in servers:
        servers[wanted.postgres] = make_server(wanted.postgres, certificates)
    running = RunningWorld(wanted, servers[wanted.postgres], certificates)
    yield running
    running.remove()
