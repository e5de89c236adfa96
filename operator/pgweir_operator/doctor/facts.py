"""What the doctor looked at. None: it was not looked at, and no rule may conclude anything from that.

Rows are those of the console's tables, as dictionaries; where there are several pods each row has `pod`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Row = Mapping[str, Any]
Rows = Sequence[Row]

STAGES: Final = ("dns", "tcp", "tls", "auth", "queue", "backend")
"""Of a `SELECT 1`, in the order in which they pass. Without a console `queue` and `backend` are one: `answer`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on something is worth a word; options of the command line."""

    threshold: float = 0.3  # seconds for one stage of SELECT 1
    stuck: float = 30.0  # seconds that a transaction may be idle
    certificate_days: float = 5.0  # the operator renews its own long before


@dataclass(frozen=True, slots=True)
class Name:
    """A name that was looked up. `expected` are the addresses that it should lead to; empty: any."""

    role: str  # pooler, service or target (PostgreSQL)
    name: str
    addresses: tuple[str, ...] = ()
    error: str = ""
    expected: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Port:
    """A port that was tried. `kind` of a failure: refused, timeout or error."""

    role: str  # pooler, pod or target
    address: str
    port: int
    error: str = ""
    kind: str = ""

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """One login as an application does it. `stage` is where it failed; `auth_stage` which step of the pooler said no."""

    who: str  # user@database at host:port
    stage: str = ""
    error: str = ""
    kind: str = ""
    sqlstate: str = ""
    auth_stage: str = ""
    tls: str = ""
    certificate_days: float | None = None  # until it expires; negative: since


@dataclass(frozen=True, slots=True)
class Timing:
    """`SELECT 1`, many times: for each stage the seconds of each try, and our own row of SHOW WAITERS when one got stuck."""

    tries: int = 0
    stages: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failures: Sequence[Mapping[str, Any]] = ()
    waiter: Row | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """PostgreSQL itself, asked past the pooler."""

    where: str
    failure: Mapping[str, Any] | None = None
    activity: Rows = ()
    capacity: Row = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Burst:
    clients: int
    seconds: float
    done: int
    longest: float
    errors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Queue:
    """The kernel's queue of connections that nobody has accepted yet."""

    queued: int | None
    overflows: int  # while the doctor tried


@dataclass(frozen=True, slots=True)
class Tables:
    """What the console of each pod shows."""

    pools: Rows = ()
    waiters: Rows = ()
    clients: Rows = ()
    servers: Rows = ()
    databases: Rows = ()
    config: Rows = ()
    lists: Rows = ()
    state: Rows = ()

    def setting(self, name: str) -> str:
        return next((str(row["value"]) for row in self.config if row["key"] == name), "")


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    address: str
    phase: str
    ready: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy that selects the pooler's pods, and what it lets through. None: this direction is not its business."""

    name: str
    clients: bool | None  # to the pooler's port, from somebody
    target: bool | None  # to PostgreSQL's port
    dns: bool | None


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """What the API server knows about one Pooler."""

    pooler: str
    namespace: str
    replicas: int = 1
    paused: bool = False
    service: str = ""  # "": there is none
    selector_matches: bool = True
    endpoints_ready: tuple[str, ...] = ()
    endpoints_unready: tuple[str, ...] = ()
    pods: tuple[Pod, ...] = ()
    policies: tuple[Policy, ...] | None = None
    conditions: tuple[Row, ...] = ()
    revision: int | None = None
    revisions: Mapping[str, int | None] = field(default_factory=dict)  # by pod
    switchover: Row = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    names: tuple[Name, ...] = ()
    ports: tuple[Port, ...] = ()
    login: Login | None = None
    timing: Timing | None = None
    backend: Backend | None = None
    burst: Burst | None = None
    queue: Queue | None = None
    tables: Tables | None = None
    console_error: str = ""  # a console that was named and does not answer
    kubernetes: Kubernetes | None = None
    closed: Mapping[str, int] = field(default_factory=dict)  # close reasons of the last minutes
    closed_since: str = ""
    limits: Limits = field(default_factory=Limits)

    def pod_at(self, address: str) -> str:
        """The pod of the Pooler that has this address; "" where none has."""
        pods = self.kubernetes.pods if self.kubernetes is not None else ()
        return next((pod.name for pod in pods if pod.address == address), "")

    def is_shut(self, role: str) -> bool:
        """No address of it takes a connection; one that does is enough."""
        tried = [port for port in self.ports if port.role == role]
        return bool(tried) and all(port.error for port in tried)
