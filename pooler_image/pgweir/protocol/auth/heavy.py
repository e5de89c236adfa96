"""The one step of a login that takes milliseconds: PBKDF2. It is handed out, not done here.

An authentication that needs it answers a `HeavyStep`; the session has the edge run it where nobody waits for it, and goes on
with what `resume` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

A = TypeVar("A", covariant=True)
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class HeavyStep(Generic[A]):
    """`run` touches nothing that others have; its result goes to `resume`, which answers what the caller waits for and
    raises what the caller's own call would have raised."""

    run: Callable[[], Any]
    resume: Callable[[Any], A]

    def then(self, go_on: Callable[[A], B]) -> HeavyStep[B]:
        """The same work, with one more thing done to its answer."""
        resume = self.resume
        return HeavyStep(self.run, lambda result: go_on(resume(result)))


def done_at_once(answer: B | HeavyStep[B]) -> B:
    """For whoever has nobody waiting: a command-line client, a test."""
    return answer.resume(answer.run()) if isinstance(answer, HeavyStep) else answer
