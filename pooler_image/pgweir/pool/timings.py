"""Times that are seen now and then (logins, the loop's lag): how they are spread, and their sum.

What is seen in every transaction is in `stats`.
"""

from __future__ import annotations

from pgweir.pool.stats import Histogram


class Timings:
    """A histogram and its sum."""

    def __init__(self) -> None:
        self.spread = Histogram()
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        seconds = max(0.0, seconds)
        self.spread.observe(seconds)
        self.seconds += seconds
