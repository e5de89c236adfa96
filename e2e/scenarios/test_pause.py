"""A pause under load: True only when PostgreSQL has no connection of ours left, and nobody gets an error by it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable
from typing import Any

import pytest
from e2e.measured import Measured
from e2e.scenarios.shop import CLUSTER, POOLER, WAIT, Shop, until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    # The time of a pause counts towards none of these: a client that has waited through one sees no error.
    shop.pooler(pgbouncer={"parameters": {"query_wait_timeout": "4", "client_login_timeout": "4"}})


@pytest.fixture(autouse=True)
def resumed(shop: Shop) -> None:
    """Whatever the test before has left."""
    shop.pause(False)
    shop.at_rest()


def test_a_pause_under_load_empties_postgresql_lets_new_clients_in_and_loses_nothing(
    shop: Shop, measured: Measured
) -> None:
    shop.initialise()
    with shop.load("-c", "10") as load:
        assert shop.server_connections() > 0
        asked = time.monotonic()
        shop.pause(True)
        shop.paused()
        measured.note("Pause under load → Paused=True: no server is left", f"{time.monotonic() - asked:.2f} s")
        assert shop.server_connections() == 0
        newcomer = shop.start_psql("select 42")
        time.sleep(6)
        assert newcomer.poll() is None, newcomer.communicate()
        assert shop.server_connections() == 0
        shop.until_condition("Ready", "True")
        resumed = time.monotonic()
        shop.pause(False)
        said = newcomer.communicate(timeout=20)[0]
        assert said.splitlines()[-1] == "42", said  # behind PgBouncer's notice that it is queued (query_wait_notify)
        print(f"the waiting client had its answer {time.monotonic() - resumed:.2f} s after the resume was asked for")
        assert newcomer.returncode == 0
        shop.paused("False")
        done = load.finish()
    shop.books_balance(done)


HELD = 1000
GOAL = 0.3  # seconds from the resume to the first result

# In a pod with psycopg: so many clients log in, and each asks one thing. Prints a line when all have asked, and at the end
# the moments (unix time) of all results, in order, each with the address that PostgreSQL saw.
ASK = """
import asyncio, json, sys, time
import psycopg

async def main(count):
    few = asyncio.Semaphore(40)
    async def login():
        async with few:
            return await psycopg.AsyncConnection.connect(autocommit=True)
    connections = await asyncio.gather(*(login() for _ in range(count)))
    moments = []
    async def ask(connection):
        (pod,) = await (await connection.execute("select inet_client_addr()::text")).fetchone()
        moments.append([time.time(), pod])
    asked = [asyncio.create_task(ask(connection)) for connection in connections]
    await asyncio.sleep(0.5)
    print("asked", flush=True)
    await asyncio.gather(*asked)
    print(json.dumps(sorted(moments)), flush=True)
    await asyncio.gather(*(connection.close() for connection in connections))

asyncio.run(main(int(sys.argv[1])))
"""


def test_a_thousand_held_clients_are_served_at_once_when_it_ends(shop: Shop, measured: Measured) -> None:
    shop.psycopg_client("thousand")
    shop.proved(shop.parameters(max_client_conn="1000", query_wait_timeout="120"))
    for address in shop.addresses():
        shop.psql("select 1", f"host={address}")  # a pod that has met PostgreSQL can greet for it
    shop.pause(True)
    shop.paused()
    asking = shop.kubernetes.start_execute("thousand", "python3", "-uc", ASK, str(HELD), namespace=shop.namespace)
    assert asking.stdout is not None
    assert asking.stdout.readline() == "asked\n", asking.communicate()
    resumed = shop.kubernetes.api.patch_pooler(shop.namespace, POOLER, {"paused": False})
    said, _ = asking.communicate(timeout=60)
    moments = json.loads(said)
    assert len(moments) == HELD
    firsts: dict[str, float] = {}
    for moment, pod in moments:
        firsts.setdefault(pod, moment - resumed)
    assert len(firsts) == 3
    told, opened = (shop.logged(resumed, line) for line in ("resumed, by revision", "new connection to server"))
    measured.note(
        f"Resume of {HELD:,} held clients (3 pods) accepted by the API server → a first result from each pod",
        f"{_milliseconds(firsts.values())} (released after {_milliseconds(at for at, _ in told.values())}, "
        f"a server logged in after {_milliseconds(at for at, _ in opened.values())}); "
        f"the last of all {(moments[-1][0] - resumed) * 1000:.0f} ms",
        f"{GOAL * 1000:.0f} ms",
    )
    assert max(firsts.values()) < 10 * GOAL


def _milliseconds(seconds: Iterable[float]) -> str:
    return ", ".join(f"{each * 1000:.0f}" for each in sorted(seconds)) + " ms"


def test_a_transaction_holds_the_pause_up_and_is_named_until_it_ends(shop: Shop) -> None:
    with shop.holding() as release:
        holder = shop.start_psql(f"begin; {WAIT}; commit", f"host={POOLER} application_name=month_end")
        shop.until_held()
        shop.pause(True)
        shop.until_condition("Paused", "False", "Pausing", words="month_end")
        assert shop.server_connections() == 1
        release()
        shop.paused()
    assert shop.server_connections() == 0
    holder.communicate(timeout=20)
    assert holder.returncode == 0


def test_a_session_in_session_mode_is_named_by_the_pause_until_it_ends(shop: Shop) -> None:
    name = "pooler-session"
    shop.pooler(name, pool_mode="session", instances=1)
    shop.ready(name)
    with shop.holding() as release:
        holder = shop.start_psql(WAIT, f"host={name} application_name=long_session")
        shop.until_held()
        shop.pause(True, name)
        shop.until_condition("Paused", "False", "Pausing", name, words="long_session")
        release()
        holder.communicate(timeout=20)
        assert holder.returncode == 0
        shop.paused(name=name)
        assert shop.server_connections(name) == 0
    shop.remove(name)


def test_postgresql_restarts_behind_a_pause_and_nobody_notices(shop: Shop) -> None:
    shop.initialise()
    with shop.load("-c", "10", "-M", "prepared") as load:
        shop.pause(True)
        shop.paused()
        before = _container(shop)["restartCount"]
        _stop_postgresql(shop)
        until(lambda: _container(shop)["restartCount"] > before, "PostgreSQL is started again")
        until(lambda: _container(shop)["ready"], "PostgreSQL answers")
        shop.pause(False)
        shop.paused("False")
        time.sleep(2)
        done = load.finish()
    shop.books_balance(done)


def test_a_pause_is_possible_while_postgresql_is_away(shop: Shop) -> None:
    """What is paused for a switchover may be gone already when the pause is asked for."""
    shop.psql("select 1")
    try:
        _select(shop, "nobody")
        asked = time.monotonic()
        shop.pause(True)
        shop.paused()
        print(f"paused after {time.monotonic() - asked:.2f} s while the target was unreachable")
        assert shop.server_connections() == 0
        newcomer = shop.start_psql("select 43")
    finally:
        _select(shop, None)
    time.sleep(1)
    assert newcomer.poll() is None
    shop.pause(False)
    said = newcomer.communicate(timeout=60)[0]
    assert said.splitlines()[-1] == "43", said  # behind the notice that it is queued, if that took five seconds


def _select(shop: Shop, more: str | None) -> None:
    """Lead the target's Service to pods with this label too, which are none; or as it was."""
    patch = json.dumps({"spec": {"selector": {"e2e": more}}})
    shop.kubernetes.kubectl("patch", "service", f"{CLUSTER}-rw", "--type=merge", "-p", patch, namespace=shop.namespace)


def _stop_postgresql(shop: Shop) -> None:
    shop.kubernetes.execute(f"{CLUSTER}-0", "sh", "-c", f"kill -{signal.SIGINT.value} 1", namespace=shop.namespace)


def _container(shop: Shop) -> dict[str, Any]:
    pod = shop.kubernetes.get("pod", f"{CLUSTER}-0", namespace=shop.namespace)
    row: dict[str, Any] = pod["status"]["containerStatuses"][0]
    return row
