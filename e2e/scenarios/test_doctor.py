"""`kubectl pgweir doctor` on real pods: healthy, then one thing wrong at a time; it names that and nothing else (T08, T09).

Nothing but the pooler's own image is in the cluster for it: what is measured is measured in a pod of the Pooler.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from e2e.scenarios.shop import POOLER, Shop, until
from e2e.scenarios.typed import kubectl_pgweir

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def pooler(shop: Shop) -> None:
    shop.pooler(instances=2, pgbouncer={"parameters": {"default_pool_size": "2"}})
    shop.ready()


def doctor(shop: Shop, *options: str, name: str = POOLER) -> tuple[int, list[str], Any]:
    words = ("doctor", name, "--json", "--tries=5", "--patience=2", *options)
    code, said, told = kubectl_pgweir(shop, *words, timeout=180)
    assert said, told
    found = json.loads(said)
    return code, [finding["code"] for finding in found["findings"]], found


def finds(shop: Shop, *expected: str, name: str = POOLER, options: tuple[str, ...] = ()) -> tuple[int, Any]:
    """Asked again for a while: endpoints and statuses follow within seconds."""
    deadline = time.monotonic() + 45
    while True:
        code, codes, found = doctor(shop, *options, name=name)
        if codes == list(expected) or time.monotonic() > deadline:
            assert codes == list(expected), json.dumps(found, indent=1)
            return code, found


def test_healthy_there_is_no_finding_and_everything_was_looked_at(shop: Shop) -> None:
    code, found = finds(shop, options=("--tries=20", "--burst=1"))
    assert (code, found["notes"]) == (0, [])
    assert list(found["stages_ms"]) == ["dns", "tcp", "tls", "auth", "queue", "backend"]
    assert found["tries"] == 20
    assert found["burst"]["done"] > 10
    assert found["burst"]["errors"] == {}


def test_a_policy_that_would_deny_is_listed(shop: Shop) -> None:
    """Read, and not tried: this cluster's network obeys no policy."""
    manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all", "namespace": shop.namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    shop.kubernetes.apply([manifest])
    try:
        code, found = finds(shop, "policy-denies")
        assert (code, found["network_policies"]) == (10, ["deny-all"])
    finally:
        shop.kubernetes.kubectl("delete", "networkpolicy", "deny-all", namespace=shop.namespace)


def test_idle_transactions_are_named_with_the_client_behind_each(shop: Shop) -> None:
    """T21, T02."""
    address = f"host={shop.addresses()[0]}"
    typed = f"(echo 'begin; select 1;'; sleep 20) | psql -XAt '{address} application_name=month_end'"
    hoarder = shop.start("bash", "-c", typed)
    idle = "select count(*) from pg_stat_activity where state = 'idle in transaction' and usename = 'app'"
    until(lambda: shop.administrator(idle) != "0", "it is idle in its transaction")
    time.sleep(1.5)
    code, found = finds(shop, "idle-in-transaction", options=("--stuck=1",))
    said = "\n".join(found["findings"][0]["evidence"])
    assert code == 15
    assert "month_end" in said
    assert "by pod: " + shop.pods()[0]["metadata"]["name"] in said
    hoarder.kill()
    until(lambda: shop.administrator(idle) == "0", "it is gone", seconds=60)


def test_a_host_name_that_is_none_is_told_once(shop: Shop) -> None:
    target = {"host": "no-such-host.invalid", "port": 5432, "adminSecret": {"name": f"{shop.cluster}-superuser"}}
    metadata = {"name": "elsewhere", "namespace": shop.namespace}
    manifest = {"apiVersion": "pgweir.io/v1", "kind": "Pooler", "metadata": metadata}
    shop.kubernetes.apply([{**manifest, "spec": {"target": target, "instances": 1}}])
    try:
        until(lambda: shop.pods("elsewhere"), "it has a pod")
        code, found = finds(shop, "dns", name="elsewhere")
        assert code == 10
        assert "no-such-host.invalid" in found["findings"][0]["what"]
    finally:
        shop.remove("elsewhere")


def test_without_endpoints_it_says_so_and_why(shop: Shop) -> None:
    shop.patch({"instances": 0})
    try:
        code, found = finds(shop, "no-endpoints")
        assert code == 10
        assert "spec.instances" in found["findings"][0]["fix"]
    finally:
        shop.patch({"instances": 2})
        shop.ready()
    assert finds(shop)[0] == 0
