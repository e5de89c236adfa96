"""Which of the two usual shapes of work a pooler sees, from how long its sessions last; and what to set for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

SHORT_SESSION: Final = 60.0  # seconds; below it, logging in is a notable part of a session


@dataclass(frozen=True, slots=True)
class Profile:
    """A shape of work, in pgpool's settings (which `import_pgpool` reads)."""

    name: str
    settings: Mapping[str, str]
    reason: str

    def text(self) -> str:
        return "".join(f"{key} = {value}\n" for key, value in self.settings.items())

    def __str__(self) -> str:
        settings = ", ".join(f"{key} = {value}" for key, value in self.settings.items())
        return f"{self.name} ({settings}): {self.reason}"


MANY_SHORT: Final = Profile(
    "many short connections",
    {"num_init_children": "64", "max_pool": "2", "child_life_time": "300"},
    "clients come and go: many places, and few connections kept for each",
)
FEWER_LONG: Final = Profile(
    "fewer long connections",
    {"num_init_children": "16", "max_pool": "8", "client_idle_limit": "600"},
    "clients stay: few places, and whoever falls silent for ten minutes makes room",
)


def proposed_profile(session_seconds: Sequence[float]) -> Profile:
    """The profile for sessions of these lengths (their median decides: a few that stay open prove nothing)."""
    if not session_seconds:
        raise ValueError("no session was measured; give the length of at least one")
    return MANY_SHORT if median(session_seconds) < SHORT_SESSION else FEWER_LONG
