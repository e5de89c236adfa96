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
SLICE: Final = 0.002  # seconds that pass for one turn, where the loop's own are not seen


class Turns:
    """Counts steps, and keeps those that have to wait in the order of their coming."""

    __slots__ = ("_edge", "_is_ending", "_round", "_used", "_waiting")

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._waiting: deque[Callable[[], None]] = deque()
        self._used = 0
        self._round = 0  # in which they were
        self._is_ending = False  # the loop will tell when this turn is over

    def take(self) -> bool:
        """Whether one more step may be done now. PERF: the loop is asked to tell of its next turn only when somebody waits for
        it; else its number tells whether this is another one."""
        if self._waiting:
            return False
        now = self._edge.round()
        if now != self._round:
            self._round = now
            self._used = 0
        elif self._used >= STEPS:
            return False
        self._used += 1
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
        self._round = self._edge.round()
        self._used = min(STEPS, len(self._waiting))
        try:
            for _ in range(self._used):
                self._waiting.popleft()()
        finally:  # a step that raises must not be the last one ever
            if self._waiting:
                self._ask_for_next()
