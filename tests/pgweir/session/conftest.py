"""A world for each test, whose books are checked when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.pgweir.session.world import World


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(*args: object, **settings: object) -> World:
        worlds.append(World(*args, **settings))  # type: ignore[arg-type]
        return worlds[-1]

    yield make
    for world in worlds:
        world.balance()
        for server, done in world.edge.cancels:
            done()
            assert server.cancel_waiters is None or world.edge.cancels
        world.edge.cancels.clear()
        world.empty()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
