"""Poolers that tests ask for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.pooler.process import FLAVOUR, PoolerProcess
from tests.postgres.server import PostgresServer


@pytest.fixture
def make_pooler(postgres: PostgresServer) -> Iterator[Callable[..., PoolerProcess]]:
    """Started poolers with settings of their own: `make_pooler(pool_mode="session", default_pool_size=1)`.

    `server_port`, `databases`, `users`, `userlist`, `peers`, `hba`, `options` go to PoolerProcess; every other keyword is a
    setting of [pgbouncer].
    """
    made: list[PoolerProcess] = []
    own = {"server_port", "databases", "users", "userlist", "peers", "hba", "options"}

    def make(**keywords: Any) -> PoolerProcess:
        options = {name: keywords.pop(name) for name in own & keywords.keys()}
        options.setdefault("server_port", postgres.port)
        pooler = PoolerProcess(settings=keywords, **options)
        made.append(pooler)
        pooler.start()
        return pooler

    yield make
    for pooler in made:
        pooler.remove()
    # A pooler that is told to go at once may have cancels on the way: what they would have ended must not
    # run on into the next test, which shares this server.
    postgres.terminate_clients()


@pytest.fixture
def ours_only() -> None:
    """This test is about something that PgBouncer does not do, or does worse."""
    if FLAVOUR != "pgweir":
        pytest.skip("pgweir does this; Debian's PgBouncer does not")
