"""The PodMonitor: how Prometheus is told to scrape, in plain and over TLS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.pgweir_operator.worlds import cluster, observed, pooler, provisioned, secret

from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import Observed
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import desired_state

TLS = {"enablePodMonitor": True, "tls": {"enabled": True}}
OWN = secret("mine", tls_crt="CERTIFICATE", tls_key="KEY")


def endpoint(subject: Pooler, seen: Observed | None = None) -> dict[str, Any]:
    seen = replace(seen or observed(subject), pod_monitors_known=True)
    made = desired_state(subject, seen, provisioned(), image="i").manifests
    (found,) = (manifest for manifest in made if manifest["kind"] == "PodMonitor")
    result: dict[str, Any] = found["spec"]["podMetricsEndpoints"][0]
    return result


def test_without_tls_it_is_plain() -> None:
    assert endpoint(pooler(monitoring={"enablePodMonitor": True})) == {"port": "metrics", "path": "/metrics"}


def test_the_poolers_own_certificate_is_verified_by_its_own_name() -> None:
    subject = pooler(monitoring=TLS)
    issued = replace(secret("issued", tls_crt="C", tls_key="K"), issued=True)
    assert endpoint(subject, observed(subject, cluster=cluster(subject, server=issued))) == {
        "port": "metrics",
        "path": "/metrics",
        "scheme": "https",
        "tlsConfig": {"ca": {"secret": {"name": "shop-ca", "key": "ca.crt"}}, "serverName": "pooler"},
    }


def test_the_clusters_certificate_is_verified_by_the_clusters_name() -> None:
    config = endpoint(pooler(monitoring=TLS))["tlsConfig"]
    assert config == {"ca": {"secret": {"name": "shop-ca", "key": "ca.crt"}}, "serverName": "shop-rw"}


def test_of_a_certificate_of_the_users_own_nothing_is_known_but_what_its_secret_says() -> None:
    subject = pooler(monitoring=TLS, pgbouncer={"clientTLSSecret": {"name": "mine"}})
    config = endpoint(subject, observed(subject, secrets={"mine": OWN}))["tlsConfig"]
    assert config == {"serverName": "pooler", "insecureSkipVerify": True}
    signed = secret("mine", tls_crt="CERTIFICATE", tls_key="KEY", ca_crt="CA")
    config = endpoint(subject, observed(subject, secrets={"mine": signed}))["tlsConfig"]
    assert config["ca"] == {"secret": {"name": "mine", "key": "ca.crt"}}


def test_tls_without_a_certificate_is_refused_with_the_field_that_brings_one() -> None:
    subject = pooler(target={"host": "db"}, monitoring={"tls": {"enabled": True}})
    with pytest.raises(PrerequisiteError, match=r"spec\.pgbouncer\.clientTLSSecret") as caught:
        desired_state(subject, observed(subject), provisioned(), image="i")
    assert caught.value.reason is Reason.MISSING_SECRET


def test_a_change_of_it_rolls_the_pods_and_says_so_by_a_variable() -> None:
    def variables(subject: Pooler) -> list[dict[str, Any]]:
        container = desired_state(subject, observed(subject), provisioned(), image="i").manifests[-1]["spec"][
            "template"
        ]
        found: list[dict[str, Any]] = container["spec"]["containers"][0]["env"]
        return found

    added = [row for row in variables(pooler(monitoring={"tls": {"enabled": True}})) if row not in variables(pooler())]
    assert added == [{"name": "PGWEIR_METRICS_TLS", "value": "1"}]
