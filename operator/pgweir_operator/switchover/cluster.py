"""What a Cluster object says of its primary, and what a Pooler's annotation asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from pgweir_operator.api import names

PENDING: Final = "pending"
"""What stands in targetPrimary while a failover has not chosen yet: a signal, and no pod's name."""

HEALTHY: Final = "Cluster in healthy state"
RESTARTING: Final = frozenset(
    {"Primary instance is being restarted in-place", "Primary instance is being restarted without a switchover"}
)


class Signal(StrEnum):
    """What a Cluster announces."""

    SWITCHOVER = "switchover"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The part of a Cluster's status that a switchover is seen by."""

    uid: str
    version: str
    current: str
    target: str
    target_since: str = ""
    phase: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """By instance, as the instances reported them."""

    @property
    def signal(self) -> Signal | None:
        """Something is about to happen to the primary. A cluster that never had one announces nothing."""
        if not self.current:
            return None
        if self.target and self.target != self.current:
            return Signal.SWITCHOVER
        return Signal.RESTART if self.phase in RESTARTING else None

    @property
    def target_pod(self) -> str:
        return "" if self.target == PENDING else self.target


def cluster_view(manifest: Mapping[str, Any]) -> ClusterView:
    """What is of another type than it should be, or no name, is as if it were not there: the object is another operator's."""
    metadata, status = manifest["metadata"], _mapping(manifest.get("status"))
    reported = _mapping(status.get("instancesReportedState"))
    return ClusterView(
        uid=metadata.get("uid") or "",
        version=metadata.get("resourceVersion") or "",
        current=_pod_name(status.get("currentPrimary")),
        target=_pod_name(status.get("targetPrimary")),
        target_since=_text(status.get("targetPrimaryTimestamp")),
        phase=_text(status.get("phase")),
        addresses={name: address for name, row in reported.items() if (address := _text(_mapping(row).get("ip")))},
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _pod_name(value: Any) -> str:
    return value if names.is_object_name(value) else ""


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody wants clients held before anything is announced, until a deadline (seconds since the epoch)."""

    id: str
    deadline: float


def request(text: str) -> Request:
    """Of the annotation `<id> <RFC 3339 deadline>`; raises ValueError with what to write instead."""
    words = text.split()
    if len(words) != 2 or not is_hold_id(words[0]):
        raise ValueError(f"{text!r} is no request: write '<id> <deadline>', for example 'move-7 2026-11-22T12:00:00Z'")
    try:
        deadline = datetime.fromisoformat(words[1])
    except ValueError:
        raise ValueError(f"{words[1]!r} is no time: write it as RFC 3339, for example 2026-11-22T12:00:00Z") from None
    if deadline.tzinfo is None:
        deadline = deadline.replace(tzinfo=UTC)
    return Request(words[0], deadline.timestamp())


def is_hold_id(text: str) -> bool:
    """What a pod takes as the name of a hold."""
    return 1 <= len(text) <= 64 and text.isascii() and all(letter.isalnum() or letter in "._:-" for letter in text)
