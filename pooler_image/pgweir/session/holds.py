"""A hold: an order to assign no server for a while, beside the configuration and with an end of its own.

Pure state, with the time handed in. The operator orders one when PostgreSQL is about to move (a switchover) or to restart; should
nobody ever end it, its ceiling does. It is never written down: a process that starts is not held. A pause (`spec.paused`, PAUSE)
is another thing, and neither ends the other. `switchover` acts on it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

HASTE_FOR: Final = 30.0  # seconds after a hold or a route: the target comes back at any moment
HASTE: Final = 0.15  # seconds between two attempts to reach it meanwhile
REMEMBERED: Final = 16  # ids of holds that are over


class ReleaseWhen(StrEnum):
    """What ends a hold before its ceiling. One that knows which primary leaves (`Hold.leaving`) ends, too, when another is seen
    in its place."""

    TOLD = "told"  # a route, or the word that it is over
    RESTARTED = "restarted"  # the same, or PostgreSQL was seen to go down and to come back


class EndedBy(StrEnum):
    """What has ended a hold."""

    ROUTE = "route"
    TOLD = "told"
    RESTARTED = "restarted"
    MOVED = "moved"  # another primary was seen, and nobody had told
    CEILING = "ceiling"
    REPLACED = "replaced"  # by a later order: nobody is served in between


@dataclass(slots=True)
class Hold:
    """One hold that stands."""

    id: str
    began_at: float
    ceiling: float  # seconds
    release_when: ReleaseWhen
    leaving: str = ""  # the address of the primary that is about to go, as PostgreSQL knows it
    drained: bool = False  # no server is left of those that were there

    def age(self, now: float) -> float:
        return now - self.began_at

    @property
    def purpose(self) -> str:
        return "a switchover" if self.release_when is ReleaseWhen.TOLD else "a restart of PostgreSQL"


@dataclass(frozen=True, slots=True)
class PastHold:
    """One that is over."""

    id: str
    seconds: float
    ended_by: EndedBy
    clients_held: int


@dataclass(frozen=True, slots=True)
class Route:
    """Where a host name leads until then, whatever the resolver says."""

    host: str
    address: str
    until: float


class Holds:
    """The hold that stands, and those that were."""

    def __init__(self) -> None:
        self.current: Hold | None = None
        self.last: PastHold | None = None
        self.route: Route | None = None  # the last one; it may be over
        self.seconds = 0.0  # of all holds that are over
        self.counts: dict[EndedBy, int] = {}
        self._over: deque[str] = deque(maxlen=REMEMBERED)
        self._haste_until = float("-inf")

    def begin(self, id_: str, ceiling: float, release_when: ReleaseWhen, now: float, leaving: str = "") -> Hold | None:
        """A new hold; None: this order stands already, or its end came before it."""
        if id_ in self._over or (self.current is not None and self.current.id == id_):
            return None
        if self.current is not None:
            self._note(self.current, EndedBy.REPLACED, now)
        self.current = Hold(id_, now, ceiling, release_when, leaving)
        return self.current

    def end(self, id_: str, ended_by: EndedBy, now: float, clients_held: int) -> PastHold | None:
        """It is over, and never begins again. None: it does not stand."""
        hold = self.current
        if id_ not in self._over:
            self._over.append(id_)
        if hold is None or hold.id != id_:
            return None
        self.current = None
        self._note(hold, ended_by, now)
        self.last = PastHold(id_, hold.age(now), ended_by, clients_held)
        self.hasten(now)
        return self.last

    def _note(self, hold: Hold, ended_by: EndedBy, now: float) -> None:
        self.seconds += hold.age(now)
        self.counts[ended_by] = self.counts.get(ended_by, 0) + 1
        if hold.id not in self._over:
            self._over.append(hold.id)

    # --- what comes after ---

    def take_route(self, host: str, address: str, seconds: float, now: float) -> None:
        self.keep_route(host, address, seconds, now)
        self.hasten(now)

    def keep_route(self, host: str, address: str, seconds: float, now: float) -> None:
        """It stands already: its time counts anew."""
        self.route = Route(host, address, now + seconds)

    def hasten(self, now: float) -> None:
        self._haste_until = now + HASTE_FOR

    def in_haste(self, now: float) -> bool:
        """The target is about to come back: it is tried again and again, and no attempt may take long."""
        return now < self._haste_until
