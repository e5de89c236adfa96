"""A cluster without a superuser's Secret, CloudNativePG's default: the operator goes in by psql where the chart lets it."""

from __future__ import annotations

import pytest
from e2e.scenarios.release import Operator
from e2e.scenarios.shop import POOLER, ROLE, Shop, until
from e2e.scenarios.test_deletion import provisioned

pytestmark = pytest.mark.cluster


def test_without_a_superuser_the_operator_provisions_by_psql_in_the_primarys_pod(
    shop: Shop, operator: Operator
) -> None:
    shop.kubernetes.kubectl("delete", "secret", f"{shop.cluster}-superuser", namespace=shop.namespace)
    try:
        shop.pooler(instances=1)
        message = shop.until_condition("Integrated", "False", "NoAdminAccess")
        assert f"Secret '{shop.cluster}-superuser'" in message
        assert "provisioning.exec: true" in message
        assert "CREATE FUNCTION" in message
        assert provisioned(shop) == []

        # The switch without the right, then both.
        operator.install(**{"env[0]__name": "PGWEIR_EXEC_IN_PRIMARY", "env[0]__value": "yes"})
        shop.until_condition("Integrated", "False", words="may not exec")
        operator.install(provisioning__exec="true")
        shop.until_condition("Integrated", "True", "LookupSucceeded")
        shop.at_rest()
        assert shop.psql("select 1") == "1"
        assert provisioned(shop) == ["function user_search", "grant on postgres", f"role {ROLE}", "schema pgweir"]

        shop.administrator(f"ALTER ROLE {ROLE} NOLOGIN; DROP SCHEMA pgweir CASCADE")
        operator.delete_pod()
        until(lambda: len(provisioned(shop)) == 4, "the drift is repaired")
        shop.until_condition("Integrated", "True", "LookupSucceeded")

        shop.remove(POOLER)
        assert provisioned(shop) == []
        assert "Traceback" not in operator.logs()
        assert "SCRAM-SHA-256" not in operator.logs()
    finally:
        operator.install()
