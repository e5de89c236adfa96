"""Numbers that scenarios measure, and the table they are kept in (results.md, `make e2e-results`).

A scenario notes what it measured beside the goal; it is printed, and at the end of a run that was asked for it, each row of
the table that was measured anew is written anew. Rows that a run did not come to stay as they are.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field
from pathlib import Path

TABLE_BEGINS = "| what | measured | goal | when |"
RULER = "| --- | --- | --- | --- |"


@dataclass(slots=True)
class Measured:
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)

    def note(self, what: str, measured: str, goal: str = "") -> None:
        print(f"  measured: {what}: {measured}" + (f" (goal {goal})" if goal else ""))
        self.rows[what] = (measured, goal)

    def keep(self, path: Path) -> None:
        path.write_text(with_rows(path.read_text(), self.rows, datetime.datetime.now(datetime.UTC).date()))


def with_rows(text: str, rows: dict[str, tuple[str, str]], day: datetime.date) -> str:
    """The document with these rows in its table: in their old places, new ones at its end."""
    lines = text.splitlines()
    begins = lines.index(TABLE_BEGINS) + 2
    ends = next((at for at in range(begins, len(lines)) if not lines[at].startswith("|")), len(lines))
    kept = {line.split("|")[1].strip(): line for line in lines[begins:ends]}
    kept |= {what: f"| {what} | {number} | {goal} | {day} |" for what, (number, goal) in rows.items()}
    return "\n".join([*lines[:begins], *kept.values(), *lines[ends:], ""])


def asked_for() -> Path | None:
    """The document to keep them in: E2E_RESULTS."""
    path = os.environ.get("E2E_RESULTS")
    return Path(path) if path else None
