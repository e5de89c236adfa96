"""The syntax of pgpool.conf and pgbalancer.conf, which is postgresql.conf's: lines of `name = value  # comment`.

Pure. What a name means is `pgpool`'s business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_LINE: Final = re.compile(
    r"""\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)
        (?:\s*=\s*|\s+)
        (?:'(?P<quoted>(?:[^'\\]|''|\\.)*)'|(?P<plain>[^\s#']+))
        \s*;?\s*(?:\#.*)?""",
    re.VERBOSE,
)
_WORDS: Final = {
    "on": True,
    "true": True,
    "yes": True,
    "1": True,
    "off": False,
    "false": False,
    "no": False,
    "0": False,
}
_TIME: Final = re.compile(r"(-?[0-9]+)\s*(ms|s|min|h|d)?", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line; `number` is 0 for a value that no line gave."""

    number: int
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    number: int
    text: str


def parse(text: str) -> list[Assignment | Unreadable]:
    """Every line that says something, in order."""
    found: list[Assignment | Unreadable] = []
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            found.append(Unreadable(number, bare))
            continue
        quoted = match["quoted"]
        value = match["plain"] if quoted is None else re.sub(r"''|\\(.)", lambda m: m[1] or "'", quoted)
        found.append(Assignment(number, match["name"].lower(), value))
    return found


def switch(value: str) -> bool | None:
    return _WORDS.get(value.lower())


def whole_number(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


def seconds(value: str, unit: str = "s") -> float | None:
    """A time; `unit` is what a bare number counts."""
    match = _TIME.fullmatch(value)
    if match is None or int(match[1]) < 0:
        return None
    return int(match[1]) * _SECONDS[match[2] or unit]
