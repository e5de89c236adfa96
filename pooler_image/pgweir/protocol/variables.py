"""Session variables that follow a client from server to server (PgBouncer's tracked parameters).

A set of values is an immutable, interned tuple, one slot for each tracked name: the common case, client and server agree, is one
identity comparison. `Tracker` knows the names; `difference` says what must be SET before a client may use a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

ALWAYS_TRACKED: Final = ("DateStyle", "client_encoding", "TimeZone", "standard_conforming_strings", "application_name")

MAX_INTERNED: Final = 10_000
MAX_CHARACTERS: Final = 4_000_000  # in all of them

Values = tuple[str | None, ...]


class Tracker:
    """The tracked parameters of this process; names compare without regard to case."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        names = {name.lower(): name for name in ALWAYS_TRACKED}
        for name in filter(None, extra):
            names.setdefault(name.lower(), name)
        self.names: tuple[str, ...] = tuple(names.values())
        self._slots = {name.lower(): slot for slot, name in enumerate(self.names)}
        self._interned: dict[Values, Values] = {}
        self._characters = 0
        self.epoch = 0  # values from before it moved on may not be the ones that are handed out now
        self.nothing: Values = self._intern((None,) * len(self.names))

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._slots

    def slot(self, name: str) -> int | None:
        return self._slots.get(name.lower())

    def values(self, parameters: Mapping[str, str]) -> Values:
        """The tracked ones among these parameters."""
        return self.updated(self.nothing, parameters.items())

    def updated(self, values: Values, changes: Iterable[tuple[str, str]]) -> Values:
        """`values` with the tracked ones among `changes`."""
        changed = list(values)
        for name, value in changes:
            slot = self._slots.get(name.lower())
            if slot is not None:
                changed[slot] = value
        return self._intern(tuple(changed))

    def filled(self, values: Values, defaults: Values) -> Values:
        """`values`, with `defaults` where nothing was said."""
        if None not in values:
            return values
        return self._intern(tuple(d if v is None else v for v, d in zip(values, defaults, strict=True)))

    def items(self, values: Values) -> list[tuple[str, str]]:
        return [(name, value) for name, value in zip(self.names, values, strict=True) if value is not None]

    def difference(self, wanted: Values, actual: Values) -> list[tuple[str, str]]:
        """What must be SET for a server that has `actual` to serve a client that wants `wanted`.

        Only parameters that both sides know are compared, without regard to case (PgBouncer's rule).
        """
        if wanted is actual:
            return []
        return [
            (name, want)
            for name, want, have in zip(self.names, wanted, actual, strict=True)
            if want is not None and have is not None and want != have and want.lower() != have.lower()
        ]

    def forget(self) -> None:
        self._interned.clear()
        self._characters = 0
        self.epoch += 1

    def _intern(self, values: Values) -> Values:
        known = self._interned.get(values)
        if known is None:
            self._characters += sum(len(value) for value in values if value is not None)
            # Clients choose application_name, and as long a one as they like: a bound, not a cache policy.
            if len(self._interned) >= MAX_INTERNED or self._characters > MAX_CHARACTERS:
                self.forget()
            self._interned[values] = known = values
        return known


def set_statement(changes: Iterable[tuple[str, str]]) -> str:
    """One simple query that sets all of them. search_path is a list as reported, and must not be quoted as one name."""
    parts = []
    for name, value in changes:
        if name.lower() == "search_path":
            empty = value in ("", '""')  # reported as an empty quoted name, which no name may be
            parts.append(f"SET {name}={chr(39) * 2 if empty else value};")
        else:
            quoted = value.replace("'", "''")
            prefix = "E" if "\\" in value else ""
            escaped = quoted.replace("\\", "\\\\")
            parts.append(f"SET {name}={prefix}'{escaped}';")
    return "".join(parts)
