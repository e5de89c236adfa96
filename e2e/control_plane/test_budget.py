"""The connection budget against a real PostgreSQL's max_connections, read by the operator itself."""

from __future__ import annotations

from typing import Any

import pytest
from e2e.control_plane.harness import wait

# 32 children, 4 pools each, one backend, and 10 for everybody else: pgpool's sum, and PostgreSQL's default beside it.
CHILDREN, POOLS, HEADROOM = 32, 4, 10
USERS = [{"name": f"tenant{number}"} for number in range(POOLS)]


@pytest.fixture
def small(server: Any) -> Any:
    """A PostgreSQL as it comes: max_connections 100."""
    before = server.execute("SHOW max_connections")[0][0]
    if before != "100":
        server.execute("ALTER SYSTEM SET max_connections = 100")
        server.restart()
    yield server
    if before != "100":
        server.execute("ALTER SYSTEM RESET max_connections")
        server.restart()


def test_more_than_postgresql_has_room_for_is_told_with_both_numbers_and_heals(world: Any, small: Any) -> None:
    world.has_cluster()
    world.start_operator()
    world.pooler(instances=1, users=USERS, parameters={"default_pool_size": str(CHILDREN)})
    message = world.until("WithinConnectionBudget", "False", "OverBudget")
    assert str(CHILDREN * POOLS * 1 + HEADROOM) in message
    assert "max_connections 100" in message
    assert f"raise max_connections to {CHILDREN * POOLS + HEADROOM + 3}" in message
    assert world.until("Ready", "True"), "an advice, and no reason to serve nobody"
    world.pooler(instances=1, users=USERS, parameters={"default_pool_size": "8"})
    assert "42" in world.until("WithinConnectionBudget", "True", "WithinBudget")


def test_what_all_pods_may_open_together_never_exceeds_the_budget_however_it_changes(world: Any) -> None:
    """Scaling, a smaller budget and a rollout: at every look, all the shares that pods run sum up to no more."""
    budget = 60
    world.has_cluster()
    world.start_operator()
    world.pooler(instances=2, connectionBudget=budget)
    world.until("Ready", "True")
    worst = 0

    def look() -> bool:
        nonlocal worst
        shares = [share(fake) for fake in world.fakes()]
        worst = max(worst, sum(shares))
        assert sum(shares) <= budget, f"{shares} with a budget of {budget}"
        return True

    def settled(instances: int) -> None:
        generation = world.get("Pooler", "pooler")["metadata"]["generation"]
        wait(
            lambda: (
                look()
                and world.status().get("observedGeneration") == generation
                and world.status().get("readyInstances") == instances == len(world.fakes())
                and world.condition("Ready")[0] == "True"
            ),
            lambda: str(world.status()),
        )

    settled(2)
    for instances in (5, 1, 3):
        world.pooler(instances=instances, connectionBudget=budget)
        settled(instances)
    before = {fake.name for fake in world.fakes()}
    world.pooler(instances=3, connectionBudget=budget, parameters={"listen_backlog": "99"})
    wait(lambda: look() and not before & {fake.name for fake in world.fakes()}, "new pods")
    settled(3)
    assert worst > budget / 2, "and it is not left lying about"


def share(fake: Any) -> int:
    for line in fake.files.get("pgbouncer.ini", b"").decode().splitlines():
        if line.startswith("max_server_connections = "):
            return int(line.rpartition("=")[2])
    return 0
