"""A changed parameter reaches every pod in seconds, restarts none and costs nobody a transaction."""

from __future__ import annotations

import time

import pytest
from e2e.measured import Measured
from e2e.scenarios.shop import DRAIN_UNDER_LOAD, POOLER, Shop

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    shop.pooler(drain=DRAIN_UNDER_LOAD)


@pytest.fixture(autouse=True)
def at_rest(shop: Shop) -> None:
    shop.at_rest()


def test_changes_under_load_are_proved_by_every_pod_and_restart_none(shop: Shop, measured: Measured) -> None:
    shop.initialise()
    before = shop.lives()
    digests = {shop.status()["configDigest"]}
    latencies = []
    with shop.load("-c", "10") as load:
        for change in (
            {"default_pool_size": "3"},
            {"default_pool_size": "15", "max_client_conn": "500"},
            {"auth_type": "scram-sha-256", "query_wait_timeout": "60"},
            {"server_idle_timeout": "5", "server_tls_sslmode": "verify-full"},
        ):
            asked = time.monotonic()
            status = shop.proved(shop.parameters(**change))
            latencies.append(time.monotonic() - asked)
            print(f"{change}: every pod proved revision {status['configRevision']} {latencies[-1]:.2f} s later")
            assert status["configDigest"] not in digests
            digests.add(status["configDigest"])
        done = load.finish()
    measured.note(
        "Changed parameter → the status proves it for each of 3 pods (4 changes under load, slowest)",
        f"{max(latencies):.1f} s; {done.failed} of {done.processed} transactions failed",
        "seconds; 0 failed",
    )
    shop.books_balance(done)
    assert shop.lives() == before
    shop.at_rest()
    console = shop.kubernetes.execute(
        f"deploy/{POOLER}", "pgweir-console", "-c", "SHOW CONFIG", namespace=shop.namespace
    )
    values = {line.split("|")[0].strip(): line.split("|")[1].strip() for line in console.splitlines() if "|" in line}
    assert values["default_pool_size"] == "15"
    assert values["server_tls_sslmode"] == "verify-full"
    assert shop.psql("select 1") == "1"


def test_another_pool_mode_holds_for_new_transactions_and_restarts_nothing(shop: Shop) -> None:
    shop.initialise()
    before = shop.lives()
    with shop.load("-c", "10") as load:
        for mode in ("session", "transaction"):
            shop.proved(shop.patch({"pgbouncer": {"poolMode": mode}}))
            time.sleep(1)
        done = load.finish()
    shop.books_balance(done)
    assert shop.lives() == before


def test_lines_of_pg_hba_take_effect_while_it_runs(shop: Shop) -> None:
    before = shop.lives()
    lines = {"pg_hba": ["host all app 0.0.0.0/0 reject"], "parameters": {"auth_type": "hba"}}
    shop.proved(shop.patch({"pgbouncer": lines}))
    said = shop.execute("sh", "-c", "psql -c 'select 1' 2>&1 || true")
    assert "FATAL" in said
    shop.proved(shop.patch({"pgbouncer": {"pg_hba": []}}))
    assert shop.psql("select 1") == "1"
    assert shop.lives() == before


def test_a_setting_that_is_fixed_at_start_rolls_the_pods_one_by_one_under_load(shop: Shop) -> None:
    shop.initialise()
    before = shop.lives()
    with shop.load("-c", "4", "-C") as load:
        shop.parameters(listen_backlog="256")
        shop.at_rest()
        done = load.finish()
    assert done.failed == 0, done.said
    assert done.processed > 0
    assert not set(before) & set(shop.lives())
