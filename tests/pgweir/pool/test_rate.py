"""So many at once, and so many a second from then on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgweir.pool.rate import RateLimit


def test_a_burst_passes_and_then_the_rate() -> None:
    limit = RateLimit(per_second=2.0, burst=5)
    assert [limit.allows(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert [limit.allows(100.5), limit.allows(100.5)] == [True, False]
    assert [limit.allows(1000.0) for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.floats(0, 0.3), max_size=300))
def test_no_rhythm_gets_more_than_burst_and_rate(pauses: list[float]) -> None:
    limit, now, passed = RateLimit(per_second=10.0, burst=7), 50.0, 0
    for pause in pauses:
        now += pause
        passed += limit.allows(now)
    assert passed <= 7 + 10.0 * (now - 50.0) + 1e-6
