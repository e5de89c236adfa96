"""What a pod says of a switchover: the hold that stands, the one before it, and where it was told to go. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class HoldReport:
    """A hold that stands in a pod. `drained`: it has no server any more."""

    id: str
    drained: bool
    seconds: float = 0.0

    @classmethod
    def from_json(cls, row: Mapping[str, Any] | None) -> HoldReport | None:
        if row is None:
            return None
        return cls(str(row["id"]), drained=bool(row["drained"]), seconds=float(row.get("seconds") or 0.0))


@dataclass(frozen=True, slots=True)
class LastHold:
    """A hold that has ended there: how long it was, and by what it ended."""

    id: str
    ended_by: str
    seconds: float
    clients: int = 0

    @classmethod
    def from_json(cls, row: Mapping[str, Any] | None) -> LastHold | None:
        if row is None:
            return None
        return cls(str(row["id"]), str(row["endedBy"]), float(row["seconds"]), int(row.get("clientsHeld") or 0))


@dataclass(frozen=True, slots=True)
class RouteReport:
    """Where a pod goes for a host name, for the seconds that are left."""

    host: str
    address: str
    seconds: float

    @classmethod
    def from_json(cls, row: Mapping[str, Any] | None) -> RouteReport | None:
        if row is None:
            return None
        return cls(str(row["host"]), str(row["address"]), float(row.get("seconds") or 0.0))
