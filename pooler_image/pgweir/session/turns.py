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


class Turns:
    """Counts steps, and keeps those that have to wait in the order of their coming."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._waiting: deque[Callable[[], None]] = deque()
        self._used = 0
        self._is_ending = False  # the loop will tell when this turn is over

    def take(self) -> bool:
        """Whether one more step may be done now."""
        if self._waiting or self._used >= STEPS:
            return False
        self._use()
        return True

    def wait(self, step: Callable[[], None]) -> None:
        """Do this step when its turn has come (without asking again)."""
        self._waiting.append(step)

    def _use(self) -> None:
        self._used += 1
        if not self._is_ending:
            self._is_ending = True
            self._edge.later(0.0, self._next)

    def _next(self) -> None:
        self._used = 0
        self._is_ending = False
        for _ in range(min(STEPS, len(self._waiting))):
            step = self._waiting.popleft()
            self._use()  # first: a step that raises must not be the last one ever
            step()
