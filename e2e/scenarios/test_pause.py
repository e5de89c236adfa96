"""A pause under load: True only when PostgreSQL has no connection of ours left, and nobody gets an error by it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import datetime

import pytest
from e2e.api_server import api_server
from e2e.measured import Measured
from e2e.scenarios.shop import CLUSTER, POOLER, Shop, until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    # The time of a pause counts towards none of these: a client that has waited through one sees no error.
    shop.pooler(pgbouncer={"parameters": {"query_wait_timeout": "4", "client_login_timeout": "4"}})
    shop.ready()


@pytest.fixture(autouse=True)
def resumed(shop: Shop) -> Iterator[None]:
    """A test that failed while paused does not hold up the next."""
    yield
    if shop.kubernetes.get("pooler", POOLER, namespace=shop.namespace)["spec"].get("paused"):
        shop.pause(False)
        shop.paused("false")


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
        assert shop.condition("Ready")["status"] == "True"
        resumed = time.monotonic()
        shop.pause(False)
        said = newcomer.communicate(timeout=20)[0]
        assert said.splitlines()[-1] == "42", said  # behind PgBouncer's notice that it is queued (query_wait_notify)
        print(f"the waiting client had its answer {time.monotonic() - resumed:.2f} s after the resume was asked for")
        assert newcomer.returncode == 0
        shop.paused("false")
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
    with api_server() as api:
        resumed = api.patch_pooler(shop.namespace, POOLER, {"paused": False})
    said, _ = asking.communicate(timeout=60)
    moments = json.loads(said)
    assert len(moments) == HELD
    firsts: dict[str, float] = {}
    for moment, pod in moments:
        firsts.setdefault(pod, moment - resumed)
    assert len(firsts) == 3
    told, opened = (logged(shop, resumed, line) for line in ("resumed, by revision", "new connection to server"))
    measured.note(
        f"Resume of {HELD:,} held clients (3 pods) accepted by the API server → a first result from each pod",
        f"{_milliseconds(firsts)} (released after {_milliseconds(told)}, "
        f"a server logged in after {_milliseconds(opened)}); "
        f"the last of all {(moments[-1][0] - resumed) * 1000:.0f} ms",
        f"{GOAL * 1000:.0f} ms",
    )
    assert max(firsts.values()) < 10 * GOAL


def logged(shop: Shop, since: float, text: str) -> dict[str, float]:
    """Pod → seconds from then until it logged this."""
    found: dict[str, float] = {}
    for pod in shop.pods():
        name = pod["metadata"]["name"]
        for line in shop.kubernetes.kubectl("logs", name, "--since=2m", namespace=shop.namespace).splitlines():
            record = json.loads(line)
            at = datetime.fromisoformat(record["ts"]).timestamp()
            if at > since and text in record["record"]["msg"]:
                found.setdefault(name, at - since)
    return found


def _milliseconds(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{each * 1000:.0f}" for each in sorted(seconds.values())) + " ms"


def test_a_transaction_holds_the_pause_up_and_is_named_until_it_ends(shop: Shop) -> None:
    holder = shop.start_psql("begin; select pg_sleep(6); commit", f"host={POOLER} application_name=month_end")
    until(lambda: "pg_sleep" in shop.administrator("select query from pg_stat_activity"), "the transaction runs")
    shop.pause(True)
    message = shop.until_condition("Paused", "False", "Pausing", seconds=10)
    assert "month_end" in until(lambda: _mentions(shop, "month_end"), "the holder is named", seconds=10), message
    assert shop.server_connections() == 1
    shop.paused()
    assert shop.server_connections() == 0
    holder.communicate(timeout=20)
    assert holder.returncode == 0
    shop.pause(False)
    shop.paused("false")


def _mentions(shop: Shop, word: str) -> str:
    message = str(shop.condition("Paused").get("message", ""))
    return message if word in message else ""


def test_a_session_in_session_mode_is_named_by_the_pause_until_it_ends(shop: Shop) -> None:
    name = "pooler-session"
    shop.pooler(name, pool_mode="session", instances=1)
    shop.ready(name)
    holder = shop.start_psql("select pg_sleep(4)", f"host={name} application_name=long_session")
    until(lambda: "pg_sleep" in shop.administrator("select query from pg_stat_activity"), "the session runs")
    shop.pause(True, name)
    shop.until_condition("Paused", "False", "Pausing", name, seconds=10)
    holder.communicate(timeout=20)
    assert holder.returncode == 0
    shop.paused(name=name)
    assert shop.server_connections() == 0
    shop.remove(name)


def test_postgresql_restarts_behind_a_pause_and_nobody_notices(shop: Shop) -> None:
    shop.initialise()
    with shop.load("-c", "10", "-M", "prepared") as load:
        shop.pause(True)
        shop.paused()
        before = _restarts(shop)
        _stop_postgresql(shop)
        until(lambda: _restarts(shop) > before, "PostgreSQL is started again")
        until(lambda: _answers(shop), "PostgreSQL answers")
        shop.pause(False)
        shop.paused("false")
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
        shop.paused(timeout=60)
        print(f"paused after {time.monotonic() - asked:.2f} s while the target was unreachable")
        assert shop.server_connections() == 0
        newcomer = shop.start_psql("select 43")
    finally:
        _select(shop, None)
    time.sleep(1)
    assert newcomer.poll() is None
    shop.pause(False)
    assert newcomer.communicate(timeout=60)[0].strip() == "43"


def _select(shop: Shop, more: str | None) -> None:
    """Lead the target's Service to pods with this label too, which are none; or as it was."""
    patch = json.dumps({"spec": {"selector": {"e2e": more}}})
    shop.kubernetes.kubectl("patch", "service", f"{CLUSTER}-rw", "--type=merge", "-p", patch, namespace=shop.namespace)


def _stop_postgresql(shop: Shop) -> None:
    shop.kubernetes.execute(f"{CLUSTER}-0", "sh", "-c", f"kill -{signal.SIGINT.value} 1", namespace=shop.namespace)


def _restarts(shop: Shop) -> int:
    pod = shop.kubernetes.get("pod", f"{CLUSTER}-0", namespace=shop.namespace)
    return sum(row["restartCount"] for row in pod["status"]["containerStatuses"])


def _answers(shop: Shop) -> bool:
    row = shop.kubernetes.get("pod", f"{CLUSTER}-0", namespace=shop.namespace)["status"]["containerStatuses"][0]
    return bool(row["ready"])
