"""Counters, their sums, and averages over the last finished period."""

import pytest

from pgweir.pool.stats import COUNTERS, Averages, Stats


def stats(**counters: float) -> Stats:
    made = Stats()
    for name, value in counters.items():
        setattr(made, name, value)
    return made


def test_totals_are_sums():
    total = Stats.total([stats(query_count=2, sent=10), stats(query_count=3, wait_time=1.5)])
    assert (total.query_count, total.sent, total.wait_time) == (5, 10, 1.5)
    assert set(COUNTERS) == set(Stats.__slots__)


def test_averages_are_of_the_last_period():
    averages = Averages(now=0.0)
    assert set(averages.values().values()) == {0.0}
    averages.rotate(stats(query_count=600, query_time=30.0, sent=6000), now=60.0)
    averages.rotate(stats(query_count=720, query_time=36.0, sent=12000, xact_count=0, xact_time=5.0), now=120.0)
    now = averages.values()
    assert now["query_count"] == pytest.approx(2.0)
    assert now["query_time"] == pytest.approx(0.05)
    assert now["sent"] == pytest.approx(100.0)
    assert now["xact_time"] == 0.0
