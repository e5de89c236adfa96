"""How often something may happen: so many at once, and so many a second from then on. `now` is handed in."""

from __future__ import annotations


class RateLimit:
    """A token bucket."""

    __slots__ = ("_burst", "_filled_at", "_left", "_per_second")

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._filled_at = 0.0

    def allows(self, now: float) -> bool:
        """Whether it may happen now; then it counts."""
        earned = max(0.0, now - self._filled_at) * self._per_second
        self._left = min(float(self._burst), self._left + earned)
        self._filled_at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
