"""The words of a Pooler's status: condition types, reasons, and the two ways in which a reconcile can be stopped.

Pure data. Written by status.py; read by whoever waits for a Pooler (`kubectl wait`, tests, the CLI).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    READY = "Ready"
    AVAILABLE = "Available"
    CONFIGURATION_APPLIED = "ConfigurationApplied"
    PAUSED = "Paused"
    INTEGRATED = "Integrated"
    TARGET_AVAILABLE = "TargetAvailable"
    WITHIN_CONNECTION_BUDGET = "WithinConnectionBudget"


class Phase(StrEnum):
    """One word for the printer column; the compatible four of CloudNativePG and what precedes them."""

    PENDING = "pending"
    ACTIVE = "active"
    PAUSED = "paused"
    INACTIVE = "inactive"
    FAILED = "failed"


class SwitchoverPhase(StrEnum):
    """How far a switchover has come (status.switchover)."""

    HOLDING = "Holding"
    HELD = "Held"
    ROUTING = "Routing"
    DONE = "Done"
    TIMED_OUT = "TimedOut"
    ROLLED_BACK = "RolledBack"


class Reason(StrEnum):
    # What stops a reconcile (Ready=False with children as they were).
    INVALID_SPEC = "InvalidSpec"
    INVALID_TEMPLATE = "InvalidTemplate"
    NAME_CONFLICT = "NameConflict"
    NOT_OWNED = "NotOwned"
    MISSING_SECRET = "MissingSecret"  # noqa: S105
    INVALID_SECRET = "InvalidSecret"  # noqa: S105
    MISSING_SERVICE_ACCOUNT = "MissingServiceAccount"
    TARGET_NOT_FOUND = "TargetNotFound"
    FORBIDDEN = "Forbidden"
    RECONCILE_FAILED = "ReconcileFailed"

    # Ready and Available.
    ALL_PODS_READY = "AllPodsReady"
    PODS_NOT_READY = "PodsNotReady"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_STUCK = "RolloutStuck"
    SCALED_TO_ZERO = "ScaledToZero"
    MINIMUM_AVAILABLE = "MinimumAvailable"
    NO_POD_READY = "NoPodReady"

    # ConfigurationApplied.
    ALL_PODS_PROVED = "AllPodsProved"
    APPLYING = "Applying"
    REJECTED = "Rejected"
    POD_UNREACHABLE = "PodUnreachable"
    NOT_RENDERED = "NotRendered"
    SETTINGS_LEFT_OUT = "SettingsLeftOut"

    # Paused.
    NOT_ASKED = "NotAsked"
    PAUSING = "Pausing"
    ALL_PODS_PAUSED = "AllPodsPaused"
    RESUMING = "Resuming"
    PAUSE_TIMED_OUT = "PauseTimedOut"

    # Integrated.
    LOOKUP_SUCCEEDED = "LookupSucceeded"
    LOOKUP_FAILED = "LookupFailed"
    MANUAL = "Manual"
    NO_ADMIN_ACCESS = "NoAdminAccess"
    ADMIN_LOGIN_FAILED = "AdminLoginFailed"
    TARGET_UNAVAILABLE = "TargetUnavailable"
    PROVISIONING = "Provisioning"
    PROVISIONING_FAILED = "ProvisioningFailed"

    # TargetAvailable.
    REACHABLE = "Reachable"
    UNREACHABLE = "Unreachable"
    SWITCHING_OVER = "SwitchingOver"
    UNKNOWN = "Unknown"

    # WithinConnectionBudget.
    WITHIN_BUDGET = "WithinBudget"
    OVER_BUDGET = "OverBudget"
    TOO_FEW_DESCRIPTORS = "TooFewDescriptors"
    CAPACITY_UNKNOWN = "CapacityUnknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One row of status.conditions, before it knows its transition time."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why this reconcile went no further: Ready=False with this reason, children as they were."""

    reason: Reason
    message: str


class PrerequisiteError(Exception):
    """Something that the spec names is not there or not usable; carries the condition it becomes and when to retry."""

    def __init__(self, reason: Reason, message: str, *, retry_after: float = 30.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def blocker(self) -> Blocker:
        return Blocker(self.reason, self.message)
