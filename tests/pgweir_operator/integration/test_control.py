"""The control CA over years, in microseconds: nobody is ever locked out on the way."""

from __future__ import annotations

from dataclasses import replace

from pgweir_operator.integration.certificates import (
    DAY,
    KeyPair,
    common_name,
    is_due,
    is_issued_by,
    names_of,
    terms,
)
from pgweir_operator.integration.control import OVERLAP, renewed

NOW = 1_800_000_000.0


def test_the_first_time_everything_is_made():
    made = renewed(None, pooler="shop", now=NOW)
    assert names_of(made.pod.certificate) == {"control.pgweir.internal"}
    assert common_name(made.operator.certificate) == "pgweir-operator"
    assert is_issued_by(made.pod.certificate, made.trusted)


def test_nothing_changes_while_nothing_is_due():
    made = renewed(None, pooler="shop", now=NOW)
    assert renewed(made, pooler="shop", now=NOW + DAY) is made


def test_damage_is_repaired():
    made = renewed(None, pooler="shop", now=NOW)
    broken = replace(made, pod=KeyPair(b"", b""))
    repaired = renewed(broken, pooler="shop", now=NOW)
    assert is_issued_by(repaired.pod.certificate, made.trusted)
    assert repaired.operator is made.operator
    assert renewed(replace(made, signing=KeyPair(b"", b"")), pooler="shop", now=NOW).trusted != made.trusted


def test_a_pod_that_saw_the_secret_of_yesterday_still_trusts_the_operator_of_today():
    """Six years of daily looks: each day's operator and pod are trusted by the bundle of a day before, and after."""
    past = renewed(None, pooler="shop", now=NOW)
    authorities = {past.signing.certificate}
    for day in range(1, 6 * 365):
        now = NOW + day * (DAY + 60)
        current = renewed(past, pooler="shop", now=now)
        for leaf in (current.operator, current.pod):
            assert not is_due(leaf.certificate, now=now)
            assert is_issued_by(leaf.certificate, past.trusted)
            assert terms(leaf.certificate)[0].ends > now + DAY
        assert is_issued_by(past.pod.certificate, current.trusted)
        authorities.add(current.signing.certificate)
        past = current
    assert len(authorities) >= 3
    assert past.trusted.count(b"BEGIN CERTIFICATE") <= 3


def test_the_next_authority_is_trusted_a_day_before_it_signs():
    made = renewed(None, pooler="shop", now=NOW)
    late = terms(made.signing.certificate)[0].ends - 100 * DAY
    first = renewed(made, pooler="shop", now=late)
    assert first.upcoming is not None
    assert first.signing == made.signing
    assert first.upcoming.certificate in first.trusted
    second = renewed(first, pooler="shop", now=late + OVERLAP)
    assert second.signing == first.upcoming
    assert second.upcoming is None
    assert made.signing.certificate in second.trusted
