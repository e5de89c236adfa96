"""The status of a Pooler as models: what the operator answers. The CRD and the reference are generated from them; what is
written is a plain dictionary (status.py).
"""

from __future__ import annotations

from pydantic import Field

from pgweir_operator.api.conditions import SwitchoverPhase
from pgweir_operator.api.model import ApiModel, choice


class PodStatus(ApiModel):
    name: str = Field(description="The pod.")
    ready: bool = Field(default=False, description="Kubernetes calls it ready, and it is not on its way out.")
    state: str = Field(
        default="unknown",
        description="active, pausing, paused, draining; leaving: on its way out, and silent by now; or unknown.",
    )
    config_revision: int | None = Field(default=None, description="Revision of the configuration that it runs.")
    config_digest: str | None = Field(default=None, description="Digest of it.")
    clients: int | None = Field(default=None, description="Client connections when it was asked last.")
    waiting_clients: int | None = Field(default=None, description="Those of them that waited for a server.")
    servers: int | None = Field(default=None, description="Its connections to PostgreSQL.")
    catalogue_version: int | None = Field(
        default=None, description="Version of the catalogue of settings that the pod knows."
    )
    message: str | None = Field(default=None, description="Why it is not as wanted.")


class ConditionRow(ApiModel):
    type: str = Field(
        description="Ready, Available, ConfigurationApplied, Paused, Integrated, TargetAvailable or WithinConnectionBudget."
    )
    status: str = Field(description="True only where it is proved; Unknown where nobody could tell.")
    reason: str = Field(description="One word for why; docs/conditions.md has each.")
    message: str = Field(description="The sentence: what is so, and what to do about it.")
    last_transition_time: str = Field(description="Since when the status is what it is.")
    observed_generation: int = Field(default=0, description="The generation of the spec that this was found out about.")


class SwitchoverStatus(ApiModel):
    """The switchover that is under way, or the last one."""

    phase: SwitchoverPhase | None = choice(
        default=None, description="Holding, Held, Routing, Done, TimedOut or RolledBack."
    )
    id: str | None = Field(default=None, description="By which the pods know it.")
    origin: str | None = Field(default=None, alias="from", description="The primary when it began.")
    to: str | None = Field(
        default=None, description="The primary that is to be; the same as before where it restarts in its place."
    )
    started_at: str | None = Field(default=None, description="When the pods were told to hold their clients.")
    held_at: str | None = Field(default=None, description="When no pod had a server any more.")
    ended_at: str | None = Field(default=None, description="When clients went on, in every pod.")
    held_milliseconds: int | None = Field(
        default=None, description="How long clients were held, in the pod where it was longest."
    )
    message: str | None = Field(default=None, description="The sentence behind the phase: who is waited for.")


class PoolerStatus(ApiModel):
    phase: str | None = Field(default=None, description="One word: pending, active, paused, inactive or failed.")
    phase_reason: str | None = Field(default=None, description="The sentence behind the word.")
    conditions: tuple[ConditionRow, ...] = Field(
        default=(), strict=False, description="What was proved, a row for each question."
    )
    observed_generation: int = Field(default=0, description="The generation of the spec that this status speaks of.")
    instances: int = Field(default=0, description="Pods that exist.")
    ready_instances: int = Field(default=0, description="Pods that are ready.")
    paused_instances: int = Field(default=0, description="Pods that proved that they hold no server and assign none.")
    pausing_since: str | None = Field(
        default=None, description="When the pause that is under way began; its deadline counts from here."
    )
    switchover: SwitchoverStatus | None = Field(default=None, description="The last switchover, and how it went.")
    selector: str | None = Field(default=None, description="Label selector of the pods, for autoscalers.")
    config_revision: int | None = Field(
        default=None, description="Revision of the configuration that the pods should run."
    )
    config_digest: str | None = Field(default=None, description="Digest of it.")
    pods: tuple[PodStatus, ...] = Field(default=(), strict=False, description="One row per pod: what it proved.")
