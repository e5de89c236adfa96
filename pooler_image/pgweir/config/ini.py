"""The syntax of pgbouncer.ini and of its connection strings.

Pure but for the `read` function that is handed in for %include. It knows sections and keys as text;
what they mean is the business of `config`, which calls it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

INCLUDE_DEPTH_MAX: Final = 10

# What C calls space, and nothing more: a no-break space is an ordinary character of a value.
_SPACE: Final = " \t\r\f\v"
_SECTION: Final = re.compile(r"\[([^\]]*)\]")
_PAIR: Final = re.compile(r"(?:'((?:[^']|'')*)'|([A-Za-z0-9_.*-]+))\s*=(.*)", re.DOTALL | re.ASCII)
_INCLUDE: Final = re.compile(r"%include\s+(.*)", re.DOTALL | re.ASCII)

_WORD: Final = re.compile(r"\s*([^\s=]+)\s*=\s*(?:'((?:[^']|'')*)'|([^\s']\S*))(?:\s+|\Z)", re.ASCII)


class ConfigError(ValueError):
    """Why a configuration does not load: where, which key, the value as written, and what to write instead."""

    def __init__(self, file: str, line: int, key: str, value: str | None, expected: str) -> None:
        self.file = file
        self.line = line
        self.key = key
        self.value = value
        self.expected = expected
        place = f"{file}:{line}" if line else file
        subject = key if value is None else f"{key} = {value!r}" if key else repr(value)
        super().__init__(": ".join(part for part in (place, subject, expected) if part))


@dataclass(frozen=True, slots=True)
class Section:
    file: str
    line: int
    name: str


@dataclass(frozen=True, slots=True)
class Pair:
    file: str
    line: int
    key: str
    value: str


def parse_ini(file: str, read: Callable[[str], str], *, depth: int = 0) -> Iterator[Section | Pair]:
    """Sections and pairs in their order, those of included files in their place.

    An included file goes on in the section that the including one is in, and the section it ends in stays.
    """
    for number, raw in enumerate(read(file).split("\n"), start=1):
        line = raw.strip(_SPACE)
        if not line or line[0] in ";#":
            continue
        if "\0" in line:
            raise ConfigError(file, number, "", None, "remove the zero byte from this line")
        if section := _SECTION.fullmatch(line):
            yield Section(file, number, section[1])
        elif include := _INCLUDE.fullmatch(line):
            if depth >= INCLUDE_DEPTH_MAX:
                raise ConfigError(
                    file, number, "%include", include[1], f"nest included files at most {INCLUDE_DEPTH_MAX} deep"
                )
            try:
                yield from parse_ini(include[1], read, depth=depth + 1)
            except OSError as error:
                raise ConfigError(file, number, "%include", include[1], _unreadable(error)) from None
        elif (pair := _PAIR.fullmatch(line)) and (key := _key(pair)):
            yield Pair(file, number, key, pair[3].strip(_SPACE))
        else:
            raise ConfigError(
                file,
                number,
                "",
                None,
                "this line cannot be read; write [section], key = value or %include path, and put"
                " a key with other characters than letters, digits, '_', '.', '*' and '-' in single quotes",
            )


def parse_connection_string(text: str) -> Iterator[tuple[str, str]]:
    """The pairs of `key=value key='it''s quoted'`. Raises ValueError, whose text never quotes a value."""
    position = 0
    text = text.strip(_SPACE)
    end = len(text)
    last = ""
    while position < end:
        match = _WORD.match(text, position)
        value = match and (match[3] if match[3] is not None else match[2].replace("''", "'"))
        if not match or not value:
            after = f" after {last}" if last else ""
            raise ValueError(
                f"the text{after} cannot be read; write key=value pairs separated by spaces,"
                " with a value that is not empty, in single quotes where it has spaces, and '' for a quote inside"
            )
        last = match[1]
        yield last, value
        position = match.end()


def _key(pair: re.Match[str]) -> str:
    quoted: str | None = pair[1]
    plain: str | None = pair[2]
    return plain or (quoted or "").replace("''", "'")


def _unreadable(error: OSError) -> str:
    return f"name a file that can be read ({error.strerror or type(error).__name__})"
