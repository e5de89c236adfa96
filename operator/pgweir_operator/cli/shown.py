"""What comes from a pooler: a table, or a no. Data alone, so that who prints it need not load who fetches it (libpq)."""

from __future__ import annotations

from dataclasses import dataclass

Value = str | int | None


class Unreachable(Exception):
    """No connection, no login, or no answer; the message says what to do."""


class Refused(Exception):
    """The pooler said no, in its own words."""

    def __init__(self, message: str, *, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@dataclass(frozen=True, slots=True)
class Shown:
    """A table: columns with whether they hold numbers, and rows."""

    columns: tuple[tuple[str, bool], ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()
    notices: tuple[str, ...] = ()
    tag: str = ""

    def dictionaries(self) -> list[dict[str, Value]]:
        names = [name for name, _ in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]
