"""What a pass begins with, what it finds out, and how it ends: the values that reconcile hands from step to step.

Data and two words about it; nothing here reads or writes the world. Called by reconcile and workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from pgweir_operator import children, pausing
from pgweir_operator.api import names
from pgweir_operator.api.budget import TargetCapacity
from pgweir_operator.api.conditions import Blocker
from pgweir_operator.api.observed import IntegrationResult, PodAnswer, PodReport, WantedConfiguration
from pgweir_operator.fleet import Fleet, Identity
from pgweir_operator.integration import automatic

RECHECK = 30.0
# A pause is looked at this often.
PAUSE_RECHECK = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """How this installation works, the same for all Poolers."""

    image: str
    namespaces: tuple[str, ...] = ()
    """Where Poolers are served; empty: everywhere."""
    control_port: int = names.PORT_CONTROL
    dial_target: tuple[str, int] | None = None
    """Where to connect for provisioning instead of the Service's name (development, outside a cluster)."""
    recheck: float = RECHECK
    exec_in_primary: bool = False
    """Whether psql may be run in the primary's pod where there is no superuser's Secret."""
    namespace: str = ""
    """Where the operator itself runs; empty: outside of the cluster."""


@dataclass(slots=True)
class Memory:
    """What is remembered of a Pooler between two passes. Losing it costs a repeated check and nothing else: the status
    has what must outlive the operator."""

    uid: str = ""
    """Whose: another Pooler may have the name by the next pass."""
    integration: automatic.Integration | None = None
    integration_inputs: object = None
    integration_due: float = 0.0
    shared_password: str | None = field(default=None, repr=False)
    """What the role had from another Pooler that calls this PostgreSQL by another name."""
    seizures: list[float] = field(default_factory=list)
    """When the role was found with a password that nobody known here has set, and was given ours again."""
    pausing_since: float | None = None
    pushed: pausing.Pushed | None = None
    """What the last pass ended with, if it came so far."""
    capacity: TargetCapacity | None = None
    written: children.Written = field(default_factory=dict)
    fleet: Fleet | None = None
    fleet_identity: Identity | None = None
    warned: dict[str, float] = field(default_factory=dict)
    """Of what in an Event, and when: sentences about certificates stand for days."""
    at_rest: bool = False
    """All was as it should be, and nothing has woken this pass but the time."""

    async def of(self, uid: str) -> None:
        """From here on this Pooler's; what was remembered of another one is forgotten."""
        if self.uid == uid:
            return
        await self.close()
        fresh = Memory()
        for each in fields(fresh):
            setattr(self, each.name, getattr(fresh, each.name))
        self.uid = uid

    async def close(self) -> None:
        fleet, self.fleet, self.fleet_identity = self.fleet, None, None
        if fleet is not None:
            await fleet.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """When to look again, and which objects of others to watch until then, by kind and name, each with the version that was
    read ("": none). `gone`:
    there is no such Pooler any more. `settled`: everything is proved, and nothing on its way."""

    again: float
    watched: Mapping[tuple[str, str], str] = field(default_factory=dict)
    gone: bool = False
    settled: bool = False
    blocked: bool = False
    ready: tuple[str, str] = ("Unknown", "Going")
    """Status and reason of the condition Ready."""
    is_expiring: bool = False
    """One of its certificates is about to expire, and nobody has renewed it."""

    @property
    def result(self) -> str:
        """The word of the metric."""
        if self.gone:
            return "gone"
        if self.settled:
            return "settled"
        return "blocked" if self.blocked else "waiting"


@dataclass(slots=True)
class Pass:
    """What one pass has found out so far."""

    again: float
    settled: bool = False
    blocker: Blocker | None = None
    integration: IntegrationResult | None = None
    wanted: WantedConfiguration | None = None
    answers: dict[str, PodAnswer] = field(default_factory=dict)
    pause_timed_out: bool = False
    waits_for: str = ""
    """The Pooler that rolls while this one waits for its turn to."""
    oldest_pods: tuple[str, ...] = ()
    """Pods that decide which settings are left out."""
    expiring: tuple[str, ...] = ()
    """A sentence for each certificate that nobody has renewed in time."""
    making_room: list[str] = field(default_factory=list)
    """Pods that are to close servers before more pods start."""
    terminated: dict[str, int] = field(default_factory=dict)
    """Clients that were closed because a pause waited for them too long, by pod."""

    def sooner(self, seconds: float | None) -> None:
        if seconds is not None:
            self.again = min(self.again, max(seconds, PAUSE_RECHECK))

    def reports(self) -> list[PodReport]:
        return [answer for answer in self.answers.values() if isinstance(answer, PodReport)]
