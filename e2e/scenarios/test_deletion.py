"""A deleted Pooler leaves nothing: no object in its namespace, nothing in PostgreSQL. Of two, one leaves the other whole."""

from __future__ import annotations

import pytest
from e2e.scenarios.shop import ROLE, Shop, until

pytestmark = pytest.mark.cluster

SECOND = "pooler-second"
KINDS = "deployment,replicaset,pod,service,endpointslice,secret,serviceaccount,poddisruptionbudget,configmap,role,rolebinding"


def provisioned(shop: Shop) -> list[str]:
    """What of ours PostgreSQL has: role, schema, function, grants to the role."""
    return shop.administrator(
        f"select 'role ' || rolname from pg_roles where rolname ~ 'pooler' "
        "union all select 'schema ' || nspname from pg_namespace where nspname = 'pgweir' "
        "union all select 'function ' || proname from pg_proc where proname = 'user_search' "
        f"union all select 'grant on ' || datname from pg_database where datacl::text ~ '{ROLE}' order by 1"
    ).splitlines()


def objects(shop: Shop) -> set[str]:
    said = shop.kubernetes.kubectl("get", KINDS, "--output=name", "--ignore-not-found", namespace=shop.namespace)
    return set(said.split())


def test_of_two_poolers_one_goes_and_the_other_does_not_notice_then_all_goes(shop: Shop) -> None:
    empty = objects(shop)
    assert provisioned(shop) == []
    shop.pooler()
    shop.at_rest()
    one = objects(shop)
    whole = provisioned(shop)
    assert whole == ["function user_search", "grant on postgres", f"role {ROLE}", "schema pgweir"]
    shop.pooler(SECOND, instances=1)
    shop.at_rest(SECOND)
    assert shop.psql("select 1", f"host={SECOND}") == "1"
    shop.initialise()
    with shop.load("-c", "4", "-C") as load:
        shop.remove(SECOND)
        until(lambda: objects(shop) == one, "nothing of the second is left")
        assert provisioned(shop) == whole
        done = load.finish()
    shop.books_balance(done)
    shop.remove()
    assert provisioned(shop) == []
    until(lambda: objects(shop) == empty, "nothing of either is left")
    until(lambda: shop.server_connections() == 0, "PostgreSQL has noticed that they are gone")
    shop.pooler(instances=1)
    shop.at_rest()
    assert shop.psql("select 1") == "1"
