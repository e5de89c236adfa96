"""Counters with PgBouncer's meanings (SHOW STATS): kept per pool, summed per database, averaged over the last period.

Beside them, how the times are spread: a histogram of those that the counters add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# SHOW STATS' order. Times are microseconds there; here they are seconds.
COUNTERS = (
    "server_assignment_count",
    "xact_count",
    "query_count",
    "received",
    "sent",
    "xact_time",
    "query_time",
    "wait_time",
    "client_parse_count",
    "server_parse_count",
    "bind_count",
    "client_login_count",
)
# What is observed of each, and the counter that is its sum.
HISTOGRAMS = {"waits": "wait_time", "queries": "query_time", "transactions": "xact_time"}
SLOTS = (*COUNTERS, *HISTOGRAMS)

# Upper bounds in seconds: each is twice the one before, from an eighth of a millisecond to about a minute.
BUCKETS: Final = 20
FIRST_BOUND: Final = 0.000125
BOUNDS: Final = tuple(FIRST_BOUND * 2**power for power in range(BUCKETS))
_NONE: Final = (0,) * (BUCKETS + 1)


class Histogram:
    """How often which time was seen: one count for each of BOUNDS, and one for what took longer."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = list(_NONE)

    def observe(self, seconds: float) -> None:
        """PERF: up to three times a transaction; 2 ns in the compiled form. Doubling a float finds the bucket without a call."""
        bound = FIRST_BOUND
        bucket = 0
        while seconds > bound and bucket < BUCKETS:
            bound *= 2
            bucket += 1
        self.counts[bucket] += 1

    def add(self, other: Histogram) -> None:
        self.counts = [one + another for one, another in zip(self.counts, other.counts, strict=True)]


class Timings:
    """A histogram and its sum, of what is seen now and then (logins, the loop's lag)."""

    __slots__ = ("seconds", "spread")

    def __init__(self) -> None:
        self.spread = Histogram()
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        if seconds > 0.0:
            self.seconds += seconds
        self.spread.observe(seconds)


class Stats:
    """One pool's counters since its birth. Plain attributes: they are bumped on the hot path."""

    __slots__ = SLOTS

    def __init__(self) -> None:
        self.server_assignment_count = 0
        self.xact_count = 0
        self.query_count = 0
        self.received = 0  # bytes from clients
        self.sent = 0  # bytes to clients
        self.xact_time = 0.0
        self.query_time = 0.0
        self.wait_time = 0.0
        self.client_parse_count = 0
        self.server_parse_count = 0
        self.bind_count = 0
        self.client_login_count = 0
        self.waits = Histogram()  # of those who had to wait
        self.queries = Histogram()
        self.transactions = Histogram()

    def add(self, other: Stats) -> None:
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in HISTOGRAMS:
            getattr(self, name).add(getattr(other, name))

    @classmethod
    def total(cls, parts: Iterable[Stats]) -> Stats:
        result = cls()
        for part in parts:
            result.add(part)
        return result


class Averages:
    """Turns totals into PgBouncer's averages: counts per second, times per counted thing, over the last finished period."""

    def __init__(self, now: float) -> None:
        self._older = Stats()
        self._newer = Stats()
        self._older_at = now
        self._newer_at = now

    def rotate(self, totals: Stats, now: float) -> None:
        """A stats period ends."""
        self._older, self._older_at = self._newer, self._newer_at
        self._newer, self._newer_at = totals, now

    def values(self) -> dict[str, float]:
        """avg_* by counter name: times in seconds per query, transaction or second as SHOW STATS defines them."""
        span = self._newer_at - self._older_at
        if span <= 0:
            return dict.fromkeys(COUNTERS, 0.0)
        delta = {name: getattr(self._newer, name) - getattr(self._older, name) for name in COUNTERS}
        averages = {name: value / span for name, value in delta.items()}
        averages["xact_time"] = delta["xact_time"] / delta["xact_count"] if delta["xact_count"] else 0.0
        averages["query_time"] = delta["query_time"] / delta["query_count"] if delta["query_count"] else 0.0
        return averages
