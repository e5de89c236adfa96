"""How much of a storm of logins one turn of the loop takes.

A step of a login (a proof judged, a client greeted) takes a tenth of a millisecond, and after an outage hundreds come in one
read of the kernel. Clients that are in would wait for all of them with their queries. So each turn takes a few steps, and
the others wait for the next turns, between which the loop serves everybody. `client_proof` and `opening` ask here; nothing
that a query does passes by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pgweir.session.wire import Edge

STEPS: Final = 4  # in one turn: about half a millisecond
QUIET: Final = 0.002  # seconds without a step, after which a new turn has surely begun


class Turns:
    """Counts steps, and keeps those that have to wait in the order of their coming."""

    __slots__ = ("_edge", "_is_ending", "_used", "_used_at", "_waiting")

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._waiting: deque[Callable[[], None]] = deque()
        self._used = 0
        self._used_at = 0.0
        self._is_ending = False  # the loop will tell when this turn is over

    def take(self) -> bool:
        """Whether one more step may be done now. PERF: the loop is asked to tell of its next turn only when somebody waits for
        it; in a calm there are a few steps in a second, and the clock tells as well that none was in this turn."""
        now = self._edge.clock()
        if now - self._used_at >= QUIET:
            self._used = 0
        elif self._used >= STEPS:
            return False
        if self._waiting:
            return False
        self._used += 1
        self._used_at = now
        return True

    def wait(self, step: Callable[[], None]) -> None:
        """Do this step when its turn has come (without asking again)."""
        self._waiting.append(step)
        self._ask_for_next()

    def _ask_for_next(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            self._edge.later(0.0, self._next)

    def _next(self) -> None:
        self._is_ending = False
        self._used = min(STEPS, len(self._waiting))
        self._used_at = self._edge.clock()
        try:
            for _ in range(self._used):
                self._waiting.popleft()()
        finally:  # a step that raises must not be the last one ever
            if self._waiting:
                self._ask_for_next()
