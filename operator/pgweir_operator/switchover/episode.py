"""One switchover of one Pooler, from its first sign to its end: what status.switchover says, written and read. Pure.

An operator that starts in the middle reads here what the one before it had begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgweir_operator.api.conditions import SwitchoverPhase

_ACTIVE = frozenset({SwitchoverPhase.HOLDING, SwitchoverPhase.HELD, SwitchoverPhase.ROUTING})

FIELDS = ("phase", "id", "from", "to", "startedAt", "heldAt", "endedAt", "heldMilliseconds", "message")


@dataclass(frozen=True, slots=True)
class Episode:
    id: str
    phase: SwitchoverPhase
    origin: str
    """The primary when it began; empty where nobody knows."""
    to: str
    """The primary that is to be; empty until it is chosen. The same as `origin`: a restart in its place."""
    started: float
    acknowledged: float | None = None
    """When every pod had said that it holds."""
    held: float | None = None
    """When no pod had a server any more."""
    turned: float | None = None
    """When the primary was seen to be another one: routes stand from here."""
    ended: float | None = None
    held_seconds: float | None = None
    """How long clients waited, by the pods' own count."""
    message: str = ""

    @property
    def is_active(self) -> bool:
        return self.phase in _ACTIVE

    @property
    def is_held(self) -> bool:
        return self.phase in {SwitchoverPhase.HOLDING, SwitchoverPhase.HELD}

    @property
    def is_restart(self) -> bool:
        return bool(self.origin) and self.origin == self.to

    def status(self) -> dict[str, Any]:
        """What is not known is not there."""
        waited = self.held_seconds
        found = {
            "phase": self.phase.value,
            "id": self.id,
            "from": self.origin or None,
            "to": self.to or None,
            "startedAt": timestamp(self.started),
            "heldAt": timestamp(self.held),
            "endedAt": timestamp(self.ended),
            "heldMilliseconds": None if waited is None else round(waited * 1000),
            "message": self.message or None,
        }
        return {key: value for key, value in found.items() if value is not None}


def stored(status: Mapping[str, Any]) -> Episode | None:
    """Out of status.switchover; None where there is none, or one of another time that cannot be read."""
    try:
        started = _seconds(status["startedAt"])
        assert started is not None
        waited = status.get("heldMilliseconds")
        held = _seconds(status.get("heldAt"))
        return Episode(
            id=str(status["id"]),
            phase=SwitchoverPhase(status["phase"]),
            origin=str(status.get("from") or ""),
            to=str(status.get("to") or ""),
            started=started,
            acknowledged=held,
            held=held,
            ended=_seconds(status.get("endedAt")),
            held_seconds=None if waited is None else waited / 1000,
            message=str(status.get("message") or ""),
        )
    except (KeyError, TypeError, ValueError, AssertionError):
        return None


def timestamp(seconds: float | None) -> str | None:
    """RFC 3339 with milliseconds: a switchover is over before the next second begins."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()
