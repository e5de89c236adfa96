"""What the operator saw: frozen facts about the world around one Pooler, and what its pods said.

Pure data, shared by all rooms: observe.py, integration/ and fleet/ fill it, desired/ and status.py read it.
A fact never prints secret bytes: `repr` of a Secret names its keys only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pgweir_operator.api.budget import TargetCapacity
from pgweir_operator.api.conditions import ConditionStatus, Reason
from pgweir_operator.api.holds import HoldReport, LastHold, RouteReport

# Of what a pod says of itself: it ends up in conditions, and a pod may be anybody's.
MAX_TEXT: Final = 500
MOST_HOLDERS: Final = 20


@dataclass(frozen=True, slots=True, repr=False)
class SecretFacts:
    """A Secret as read: `data` is decoded. `owned` says that this Pooler is its controller."""

    name: str
    type: str
    resource_version: str
    data: Mapping[str, bytes]
    owned: bool = False
    issued: bool = False
    """No Secret of the API server's: a pair that the operator issued, under the pooler's own names."""

    def __repr__(self) -> str:
        keys = ", ".join(sorted(self.data))
        return f"<Secret {self.name} {self.type} version {self.resource_version}, keys: {keys or 'none'}>"


class ClusterFlavour(StrEnum):
    """Who runs the database: it decides the auth role's name, since a CloudNativePG cluster's HBA knows its own."""

    CONTRACT = "contract"
    CLOUDNATIVEPG = "cloudnativepg"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """Where PostgreSQL is and which of its Secrets were found (None: does not exist, or is not ours to read)."""

    host: str
    port: int
    service_host: str = ""
    """Where the host is a Service of the Pooler's namespace: its name as the operator resolves it, from another one."""
    name: str | None = None
    flavour: ClusterFlavour = ClusterFlavour.CONTRACT
    object_kind: str | None = None
    """As what the Cluster object is known to kube/, where there is one: Cluster (CloudNativePG) or EdbCluster."""
    in_recovery: bool = False
    """A Cluster object says that all of it follows another cluster: its rw Service leads to a standby."""
    found: bool = True
    """The Service (or the Cluster object) exists; always True for a plain target, whose host nobody can look up."""
    superuser: SecretFacts | None = None
    server_ca: SecretFacts | None = None
    client_ca: SecretFacts | None = None
    server: SecretFacts | None = None
    app: SecretFacts | None = None


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod of the Pooler. `ip` is empty until it has one."""

    name: str
    ip: str
    uid: str
    ready: bool
    phase: str
    terminating: bool
    restart_digest: str
    created: datetime
    message: str = ""
    """Why it is not ready, in the kubelet's or scheduler's words (ImagePullBackOff…, Insufficient cpu…)."""
    image: str = ""
    """Of the pooler's container, as the pod's spec has it."""
    crashing: bool = False
    """The process ends as soon as it is started."""

    @property
    def ended(self) -> bool:
        """Nothing runs in it any more, and nothing will."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def is_reachable(self) -> bool:
        """Its control endpoint can be asked; one that is going still holds servers."""
        return bool(self.ip) and self.phase == "Running"

    @property
    def expected_to_serve(self) -> bool:
        """Counts for the status: a pod on its way out proves nothing and owes nothing."""
        return not self.terminating and not self.ended


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """What the Deployment says of itself; `generation` newer than `observed_generation` means: not read yet."""

    generation: int
    observed_generation: int
    replicas: int
    updated_replicas: int
    ready_replicas: int
    available_replicas: int
    wanted_replicas: int = 0
    """What its spec says now: we may be holding more back."""
    stuck: bool = False
    """A rollout makes no progress, says Kubernetes."""
    refused: str = ""
    """Why the API server takes no more of its pods, in its words (a quota, a PriorityClass that is missing)."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The world, read once, before anything is decided."""

    cluster: ClusterFacts
    secrets: Mapping[str, SecretFacts | None] = field(default_factory=dict)
    """Each Secret that the spec names, by name; None where it does not exist."""
    pods: tuple[PodFacts, ...] = ()
    deployment: DeploymentFacts | None = None
    bundle: SecretFacts | None = None
    """The configuration Secret as it stands: the last revision is in its bundle.json."""
    pod_monitors_known: bool = False
    """The API server knows the kind PodMonitor."""
    service_account_exists: bool = True
    """Meaningful when the spec names its own account."""
    name_taken_by: str | None = None
    """A Cluster or a Service or Secret of one that already has the Pooler's name: 'Cluster shop'."""
    strangers: tuple[str, ...] = ()
    """Objects with a child's name that this Pooler does not own: 'Deployment shop-pooler'."""


@dataclass(frozen=True, slots=True, repr=False)
class Provisioned:
    """How the pods log in to look a user up. Either a certificate with its key, or a password, or neither (trust)."""

    auth_user: str
    auth_query: str
    auth_dbname: str = "postgres"
    certificate: bytes | None = None
    key: bytes | None = None
    password: str | None = None

    def __repr__(self) -> str:
        way = "certificate" if self.certificate else "password" if self.password is not None else "no secret"
        return f"<Provisioned {self.auth_user} by {way}>"


@dataclass(frozen=True, slots=True)
class IntegrationResult:
    """What came of provisioning: becomes the condition Integrated. `provisioned` is None while nothing can log in."""

    status: ConditionStatus
    reason: Reason
    message: str
    provisioned: Provisioned | None = None
    capacity: TargetCapacity | None = None
    """What PostgreSQL said of itself at that login."""
    capacity_error: str = ""
    """Why it could not be asked, where nothing else of the result says so."""


@dataclass(frozen=True, slots=True)
class WantedConfiguration:
    """What every pod should be running: status.py compares the pods' answers with it."""

    revision: int
    digest: str
    paused: bool
    left_out: tuple[str, ...] = ()
    """Settings that `oldest_pods` do not know."""
    oldest_pods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holder:
    """A client that keeps a server connection while a pause is waiting for it."""

    client_id: int
    server_pid: int
    database: str
    user: str
    application_name: str = ""
    address: str = ""
    in_transaction_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PodReport:
    """What a pod said of itself (GET /v1/status)."""

    pod: str
    revision: int
    digest: str
    state: str
    """active, pausing, paused or draining; a newer pod may know more words, and proves nothing by them."""
    paused: bool
    version: str = ""
    catalogue_version: int = 1
    rejected_revision: int | None = None
    rejected_error: str = ""
    held_servers: int = 0
    holders: tuple[Holder, ...] = ()
    clients: int = 0
    waiting_clients: int = 0
    servers: int = 0
    target_reachable: bool | None = None
    target_error: str = ""
    lookup_ok: bool | None = None
    lookup_error: str = ""
    restart_needed: tuple[str, ...] = ()
    descriptor_limit: int = 0
    descriptors_needed: int = 0
    """By max_client_conn and the pool sizes; beyond the limit, clients are turned away before that many are there."""
    terminated_holders: int = 0
    """How many clients this request closed: only in the answer to that request."""
    hold: HoldReport | None = None
    last_hold: LastHold | None = None
    route: RouteReport | None = None

    @classmethod
    def from_json(cls, pod: str, document: Mapping[str, Any]) -> PodReport:
        """Read the endpoint's answer; raises ValueError naming the field that is missing or of another type.

        WHY `pod` is handed in: a pod's hostname is usually its name, but a template may set another.
        """
        try:
            rejected = document.get("rejected") or {}
            target = document.get("target") or {}
            lookup = document.get("lookup") or {}
            descriptors = document.get("descriptors") or {}
            return cls(
                pod=pod,
                revision=_revision(document["revision"]),
                digest=_text(document["digest"]),
                state=str(document["state"])[:40],
                paused=bool(document["paused"]),
                version=_text(document.get("version")),
                catalogue_version=int(document.get("catalogueVersion", 1)),
                rejected_revision=_revision(rejected["revision"]) if rejected else None,
                rejected_error=_text(rejected.get("error")),
                held_servers=int(document["heldServers"]),
                holders=tuple(_holder(row) for row in (document.get("holders") or [])[:MOST_HOLDERS]),
                clients=int(document.get("clients", 0)),
                waiting_clients=int(document.get("waitingClients", 0)),
                servers=int(document.get("servers", 0)),
                target_reachable=_yes_or_no(target.get("reachable")),
                target_error=_text(target.get("lastError")),
                lookup_ok=_yes_or_no(lookup.get("ok")),
                lookup_error=_text(lookup.get("lastError")),
                restart_needed=tuple(_text(name) for name in (document.get("restartNeeded") or [])[:MOST_HOLDERS]),
                descriptor_limit=int(descriptors.get("limit", 0)),
                descriptors_needed=int(descriptors.get("needed", 0)),
                terminated_holders=int(document.get("terminatedHolders", 0)),
                hold=HoldReport.from_json(document.get("hold")),
                last_hold=LastHold.from_json(document.get("lastHold")),
                route=RouteReport.from_json(document.get("route")),
            )
        except KeyError as error:
            raise ValueError(f"pod {pod} answered without {error.args[0]!r}") from error
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"pod {pod} answered something that is no status: {error}") from error


def _text(value: Any) -> str:
    return str(value or "")[:MAX_TEXT]


def _yes_or_no(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _revision(value: Any) -> int:
    """WHY a limit: the next revision is above every one that a pod reports, and has to be a number that can be stored."""
    revision = int(value)
    if not 0 <= revision < 2**53:
        raise ValueError(f"revision {revision} is none")
    return revision


def _holder(row: Mapping[str, Any]) -> Holder:
    return Holder(
        client_id=int(row["clientId"]),
        server_pid=int(row["serverPid"]),
        database=_text(row["database"]),
        user=_text(row["user"]),
        application_name=_text(row.get("applicationName")),
        address=_text(row.get("address")),
        in_transaction_seconds=float(row.get("inTransactionSeconds") or 0.0),
    )


@dataclass(frozen=True, slots=True)
class PodSilence:
    """A pod that gave no usable answer, and why, in one sentence."""

    pod: str
    error: str
    is_too_old: bool = False
    """It lives, and its image does not know what it was asked."""


PodAnswer = PodReport | PodSilence
