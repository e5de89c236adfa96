"""Certificates that nobody has renewed in time are named, with the Secret to renew; those that somebody will are not."""

from __future__ import annotations

import time

import pytest
from tests.pgweir_operator import worlds

from pgweir_operator.expiry import expiring
from pgweir_operator.integration.certificates import DAY, authority, client_certificate, server_certificate

NOW = time.time()
CA = authority("a CA", now=NOW)
POOLER = worlds.pooler(pgbouncer={"clientTLSSecret": {"name": "front"}})


LIFE = 90 * DAY


def shown(days: float, life: float = LIFE) -> dict[str, bytes]:
    """One that lives for so long, of which so many days are left."""
    return {"client.crt": server_certificate(CA, ["x"], now=NOW - life + days * DAY, lifetime=life).certificate}


def test_one_that_ends_within_five_days_is_named_with_its_secret_and_its_time() -> None:
    (sentence,) = expiring(POOLER, shown(3), now=NOW)
    end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(NOW + 3 * DAY))
    assert "applications are shown (spec.pgbouncer.clientTLSSecret: front)" in sentence
    assert f"expires on {end}: renew it" in sentence
    (late,) = expiring(POOLER, shown(3), now=NOW + 4 * DAY)
    assert "expired on" in late


@pytest.mark.parametrize("days", [7, 90])
def test_one_that_somebody_may_yet_renew_is_not(days: float) -> None:
    assert expiring(POOLER, shown(days), now=NOW) == ()
    assert expiring(POOLER, {"pgbouncer.ini": b"", "client.crt": b"no certificate"}, now=NOW) == ()


def test_one_that_lives_for_a_day_is_named_when_it_should_have_been_renewed_long_ago() -> None:
    assert expiring(POOLER, shown(0.3, life=DAY), now=NOW) == ()
    assert len(expiring(POOLER, shown(0.2, life=DAY), now=NOW)) == 1


def test_a_bundle_of_authorities_is_as_good_as_its_last() -> None:
    old, new = authority("old", now=NOW - 9 * DAY, lifetime=10 * DAY), authority("new", now=NOW)
    assert expiring(POOLER, {"server-ca.crt": old.certificate + new.certificate}, now=NOW) == ()
    (sentence,) = expiring(POOLER, {"server-ca.crt": old.certificate}, now=NOW)
    assert "PostgreSQL is checked with (the cluster's)" in sentence


def test_a_chain_is_as_good_as_its_first() -> None:
    leaf = client_certificate(CA, "me", now=NOW - 8 * DAY, lifetime=10 * DAY).certificate
    mine = worlds.pooler(pgbouncer={"authQuery": "SELECT 1", "authQuerySecret": {"name": "login"}})
    (sentence,) = expiring(mine, {"server.crt": leaf + CA.certificate}, now=NOW)
    assert "logs in with (spec.pgbouncer.authQuerySecret: login)" in sentence
