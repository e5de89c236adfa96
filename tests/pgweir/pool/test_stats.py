"""Counters, their sums, and averages over the last finished period."""

import pytest

from pgweir.pool.stats import BOUNDS, COUNTERS, HISTOGRAMS, SLOTS, Averages, Histogram, Stats


def stats(**counters: float) -> Stats:
    made = Stats()
    for name, value in counters.items():
        setattr(made, name, value)
    return made


def test_totals_are_sums():
    total = Stats.total([stats(query_count=2, sent=10), stats(query_count=3, wait_time=1.5)])
    assert (total.query_count, total.sent, total.wait_time) == (5, 10, 1.5)
    assert {*COUNTERS, *HISTOGRAMS} == set(SLOTS)
    assert set(HISTOGRAMS.values()) <= set(COUNTERS)


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


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (-1.0, 0),
        (BOUNDS[0], 0),
        (0.000126, 1),
        (0.001, 3),
        (0.0010001, 4),
        (BOUNDS[-1], 19),
        (66.0, 20),
        (9e9, 20),
    ],
)
def test_a_time_is_counted_where_it_is_no_more_than_the_bound(seconds: float, bucket: int):
    seen = Histogram()
    seen.observe(seconds)
    assert [index for index, count in enumerate(seen.counts) if count] == [bucket]
    assert bucket == sum(seconds > bound for bound in BOUNDS)


def test_histograms_are_added_up_with_their_counters():
    one, other = Stats(), Stats()
    one.queries.observe(0.002)
    other.queries.observe(0.002)
    other.waits.observe(70.0)
    total = Stats.total([one, other])
    assert (sum(total.queries.counts), total.queries.counts[4]) == (2, 2)
    assert (total.waits.counts[-1], sum(total.transactions.counts)) == (1, 0)
    assert sum(one.queries.counts) == 1
