"""The Pooler resource as models: what a user may write. (What the operator answers: pooler_status.py.)

Compatible with CloudNativePG's Pooler where that has a field; ours on top. The CRD is generated from these models
(crd.py), so a field that version one does not carry out is not here: strict clients then refuse it by name instead of
having it accepted and forgotten. Unknown fields of a stored object are ignored, since a newer operator may have put
them there; types are strict, because the API server has checked them already.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from pgweir_operator.api import names
from pgweir_operator.api.model import ApiModel, choice
from pgweir_operator.api.parameters import MAX_ENTRIES, RESTARTING

SecretName = Annotated[str, Field(min_length=1, max_length=253, pattern=names.DNS_SUBDOMAIN_PATTERN)]
HbaLine = Annotated[str, Field(max_length=1024)]
PassThrough = dict[str, Any]
"""An object that goes to the API server as it stands; Kubernetes itself judges it (the Deployment is dry-run first)."""


class Choice(StrEnum):
    """An enumerated string of the API."""


class ServiceType(Choice):
    RW = "rw"
    RO = "ro"
    R = "r"


class PoolMode(Choice):
    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class OnPauseTimeout(Choice):
    WAIT = "Wait"
    RESUME = "Resume"
    TERMINATE = "Terminate"


class SwitchoverMode(Choice):
    AUTOMATIC = "Automatic"
    OFF = "Off"


class SecretReference(ApiModel):
    name: SecretName = Field(description="Name of a Secret in the Pooler's namespace.")


class ClusterReference(ApiModel):
    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=names.DNS_SUBDOMAIN_PATTERN,
        description="Name of the PostgreSQL cluster: its Services <name>-rw, -ro, -r and its Secrets are found by it.",
    )


class Target(ApiModel):
    """Any PostgreSQL, where there is no cluster to find by name."""

    host: str = Field(
        min_length=1, max_length=253, pattern=r"^[^\s,'=]+$", description="Host name or address of PostgreSQL."
    )
    port: int = Field(default=5432, ge=1, le=65535, description="Port of PostgreSQL.")
    admin_secret: SecretReference | None = Field(
        default=None,
        description="Secret with username and password of a superuser, by which the lookup role is provisioned. "
        "Without it give authQuery with a secret.",
    )


class ObjectMetadata(ApiModel):
    """The part of metadata that a template may set."""

    name: str | None = Field(
        default=None, max_length=253, description="Accepted and not used: children are named as the Pooler."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels to add.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations to add.")


class PodTemplate(ApiModel):
    metadata: ObjectMetadata = Field(default_factory=ObjectMetadata, description="Labels and annotations of the pods.")
    spec: PassThrough = Field(
        default_factory=dict,
        description="A pod spec, merged over what the operator builds; the pooler's container is named pgbouncer. "
        "`containers` may be left out.",
    )


class ServiceTemplate(ApiModel):
    metadata: ObjectMetadata = Field(
        default_factory=ObjectMetadata, description="Labels and annotations of the Service."
    )
    spec: PassThrough = Field(
        default_factory=dict,
        description="A Service spec, merged over what the operator builds; its selector is ignored.",
    )


class DatabaseEntry(ApiModel):
    """One entry of [databases], beside the one that every other database goes by."""

    name: str = Field(
        min_length=1, max_length=63, description="The name that applications ask for; * stands for all others."
    )
    parameters: dict[str, str] = Field(
        default_factory=dict,
        description="Settings of this database by PgBouncer's names: pool_size, dbname, pool_mode, and so on.",
    )


class UserEntry(ApiModel):
    """One entry of [users], and of userlist.txt where it has a password."""

    name: str = Field(min_length=1, max_length=63, description="The user's name in PostgreSQL.")
    password_secret: SecretReference | None = Field(
        default=None,
        description="Secret (basic-auth: username, password) with this user's password, by which the pooler logs in to "
        "PostgreSQL: no change of a stored SCRAM verifier breaks that.",
    )
    parameters: dict[str, str] = Field(
        default_factory=dict,
        description="Settings of this user by PgBouncer's names: pool_size, max_user_connections, and so on.",
    )


class PgBouncer(ApiModel):
    pool_mode: PoolMode = choice(
        default=PoolMode.SESSION,
        description="When a server connection goes back to the pool: after the session, transaction or statement.",
    )
    paused: bool = Field(default=False, description="The compatible spelling of spec.paused: either one pauses.")
    parameters: dict[str, str] = Field(
        default_factory=dict,
        description="Settings by PgBouncer's names; every value is checked before a pod sees it. "
        f"Running pods take a change up without a restart, but for {', '.join(RESTARTING)}: those roll the pods. "
        "docs/settings.md has the meaning, the default and the class (reload or restart) of each.",
    )
    databases: tuple[DatabaseEntry, ...] = Field(
        default=(), strict=False, max_length=MAX_ENTRIES, description="Databases with settings of their own."
    )
    users: tuple[UserEntry, ...] = Field(
        default=(),
        strict=False,
        max_length=MAX_ENTRIES,
        description="Users with settings or a password of their own.",
    )
    pg_hba: tuple[HbaLine, ...] = Field(
        default=(),
        alias="pg_hba",
        strict=False,
        max_length=500,
        description="Lines of pg_hba.conf, placed before the default ones.",
    )
    auth_query: str | None = Field(
        default=None,
        max_length=4096,
        description="Query that looks a user's password up ($1 is the name). Needs authQuerySecret or serverTLSSecret.",
    )
    auth_query_secret: SecretReference | None = Field(
        default=None, description="How the lookup logs in: basic-auth, TLS, or Opaque with the keys of either."
    )
    server_tls_secret: SecretReference | None = Field(
        default=None,
        alias="serverTLSSecret",
        description="Certificate (tls.crt, tls.key) that the pooler shows PostgreSQL.",
    )
    server_ca_secret: SecretReference | None = Field(
        default=None,
        alias="serverCASecret",
        description="CA (ca.crt) that verifies PostgreSQL; default: the cluster's.",
    )
    client_tls_secret: SecretReference | None = Field(
        default=None,
        alias="clientTLSSecret",
        description="Certificate (tls.crt, tls.key) shown to applications; default: one made from the cluster's.",
    )
    client_ca_secret: SecretReference | None = Field(
        default=None, alias="clientCASecret", description="CA (ca.crt) that verifies applications' certificates."
    )
    image: str | None = Field(
        default=None, min_length=1, max_length=1024, description="Image of the pooler; default: the operator's own."
    )
    image_catalog_ref: PassThrough | None = Field(
        default=None, description="Refused: such catalogues list images of other poolers; name an image instead."
    )


class MetricsTls(ApiModel):
    enabled: bool = Field(
        default=False,
        description="Serve the metrics over TLS 1.3, with the certificate that applications are shown. A change rolls "
        "the pods, a renewed certificate does not.",
    )


class Monitoring(ApiModel):
    enable_pod_monitor: bool = Field(default=False, description="Make a PodMonitor, where its kind is known.")
    pod_monitor_relabelings: tuple[PassThrough, ...] = Field(
        default=(), strict=False, description="Relabelings of the PodMonitor's endpoint."
    )
    pod_monitor_metric_relabelings: tuple[PassThrough, ...] = Field(
        default=(), strict=False, description="Metric relabelings of the PodMonitor's endpoint."
    )
    metrics_prefix: str = Field(
        default=names.METRICS_PREFIX,
        min_length=1,
        max_length=100,
        pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$",
        description="What the names of PgBouncer's numbers begin with: cnp_pgbouncer as at EDB, cnpg_pgbouncer as at "
        "CloudNativePG. A change rolls the pods.",
    )
    tls: MetricsTls = Field(default_factory=MetricsTls, description="The metrics endpoint over TLS.")


class NetworkPolicy(ApiModel):
    """Who may talk to the pods, and with whom they may talk. Peers are Kubernetes' own (NetworkPolicyPeer)."""

    enabled: bool = Field(default=False, description="Make a NetworkPolicy for the pods.")
    clients: tuple[PassThrough, ...] = Field(
        default=(), strict=False, max_length=100, description="Who may connect to port 5432; default: everybody."
    )
    prometheus: tuple[PassThrough, ...] = Field(
        default=(),
        strict=False,
        max_length=100,
        description="Who may read the metrics; default: every pod of the Kubernetes cluster.",
    )
    operator: tuple[PassThrough, ...] = Field(
        default=(),
        strict=False,
        max_length=100,
        description="Who may reach the control endpoint; default: the operator's pods.",
    )
    postgres: tuple[PassThrough, ...] = Field(
        default=(),
        strict=False,
        max_length=100,
        description="Where PostgreSQL is; default: the instances of a CloudNativePG Cluster, the address of a target "
        "that is given as one, else any address (the port is the target's in every case).",
    )


class Pause(ApiModel):
    timeout_seconds: int = Field(
        default=120, ge=1, le=86400, description="How long a pause waits for clients that still hold a server."
    )
    on_timeout: OnPauseTimeout = choice(
        default=OnPauseTimeout.WAIT,
        description="Past it: Wait goes on waiting and names who holds, Resume gives up everywhere, "
        "Terminate closes the holders.",
    )


class Switchover(ApiModel):
    mode: SwitchoverMode = choice(
        default=SwitchoverMode.AUTOMATIC,
        description="Automatic: when a CloudNativePG or EDB Cluster announces that its primary moves or restarts, every "
        "pod holds its clients between transactions, and leads them to the new primary. Off: nothing is done. Only "
        "Poolers of type rw are held.",
    )
    timeout_seconds: int = Field(
        default=60, ge=1, le=600, description="After this clients go on, whatever has become of the switchover."
    )


class Drain(ApiModel):
    accept_seconds: int = Field(
        default=10, ge=0, le=3600, description="A pod on its way out still accepts connections for this long."
    )
    timeout_seconds: int = Field(
        default=60,
        ge=0,
        le=86400,
        description="Then clients have this long to reach a transaction boundary before they are cut.",
    )


class PoolerSpec(ApiModel):
    cluster: ClusterReference | None = Field(
        default=None, description="The PostgreSQL cluster to pool. Cannot be changed."
    )
    target: Target | None = Field(default=None, description="Any PostgreSQL, instead of a cluster.")
    type: ServiceType = choice(
        default=ServiceType.RW,
        description="Which Service of the cluster is pooled: rw primary, ro replicas, r any instance.",
    )
    instances: int = Field(default=1, ge=0, le=1000, description="Number of pods.")
    paused: bool = Field(default=False, description="Hold every client between transactions and release every server.")
    pause: Pause = Field(default_factory=Pause, description="How a pause waits.")
    switchover: Switchover = Field(
        default_factory=Switchover, description="What is done while the primary of the cluster moves or restarts."
    )
    drain: Drain = Field(default_factory=Drain, description="How a pod leaves.")
    pgbouncer: PgBouncer = Field(default_factory=PgBouncer, description="The pooler's own configuration.")
    template: PodTemplate = Field(default_factory=PodTemplate, description="Template of the pods.")
    deployment_strategy: PassThrough = Field(
        default_factory=dict, description="Strategy of the Deployment; default: one more pod at a time, none less."
    )
    service_template: ServiceTemplate = Field(default_factory=ServiceTemplate, description="Template of the Service.")
    service_account_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        pattern=names.DNS_SUBDOMAIN_PATTERN,
        description="An existing ServiceAccount; default: one is made, named as the Pooler. Cannot be changed.",
    )
    connection_budget: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Server connections that all pods together may have, look-ups included; each pod gets an equal share, "
        "with room for the pods that a rollout adds. Default: no limit beside those in pgbouncer.",
    )
    monitoring: Monitoring = Field(default_factory=Monitoring, description="Metrics for a Prometheus operator.")
    network_policy: NetworkPolicy = Field(
        default_factory=NetworkPolicy, description="A NetworkPolicy that lets through what a pooler needs, and no more."
    )

    @property
    def wants_pause(self) -> bool:
        """Either spelling pauses."""
        return self.paused or self.pgbouncer.paused


class Pooler(ApiModel):
    """A Pooler with the parts of its metadata that matter here; `status` is kept as stored."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: PoolerSpec
    status: PassThrough = Field(default_factory=dict)
    deleting: bool = False

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        """Take the object as the API server sends it: name, uid and generation lie under metadata."""
        if not isinstance(value, Mapping) or "metadata" not in value:
            return value
        metadata = value["metadata"]
        return {
            "name": metadata["name"],
            "namespace": metadata.get("namespace") or "default",
            "uid": metadata.get("uid") or "",
            "generation": metadata.get("generation") or 0,
            "deleting": metadata.get("deletionTimestamp") is not None,
            "spec": _without_nulls(value.get("spec") or {}),
            "status": value.get("status") or {},
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Pooler:
        """Raises pydantic.ValidationError; validation.parse turns that into problems with field paths."""
        return cls.model_validate(manifest)

    @property
    def wants_pause(self) -> bool:
        return self.spec.wants_pause

    @property
    def cluster_name(self) -> str | None:
        return self.spec.cluster.name if self.spec.cluster else None

    @property
    def is_automatic(self) -> bool:
        """The operator provisions the lookup itself unless the user brings any part of it."""
        bouncer = self.spec.pgbouncer
        return not bouncer.auth_query and bouncer.auth_query_secret is None and bouncer.server_tls_secret is None

    @property
    def target_host(self) -> str:
        """The host that the pods connect to."""
        if self.spec.target is not None:
            return self.spec.target.host
        assert self.spec.cluster is not None, "validation has passed: one of cluster and target is there"
        return f"{self.spec.cluster.name}-{self.spec.type.value}"

    @property
    def target_port(self) -> int:
        return self.spec.target.port if self.spec.target is not None else 5432

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Every Secret that the spec names: what observe reads and handlers watch."""
        bouncer = self.spec.pgbouncer
        references = [
            bouncer.auth_query_secret,
            bouncer.server_tls_secret,
            bouncer.server_ca_secret,
            bouncer.client_tls_secret,
            bouncer.client_ca_secret,
            *(user.password_secret for user in bouncer.users),
            self.spec.target.admin_secret if self.spec.target else None,
        ]
        return tuple(dict.fromkeys(reference.name for reference in references if reference is not None))


def _without_nulls(value: Any) -> Any:
    """WHY: `paused: null` in a manifest means 'not given' to Kubernetes, which stores it so where no default stands."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
