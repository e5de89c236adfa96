"""The console's command language: text in, commands out. Pure; knows no command by name but SET, whose value may be anything.

A statement is `verb [word …]`, or `SET name = value` (also `TO`). Verbs are upper-cased; arguments keep their case, may be
double quoted, and strings single quoted; `$1` stands for a parameter (`parameters`). Statements are separated by semicolons;
comments are spaces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<space>(?:\s|--[^\n]*|/\*.*?\*/)+)
      | "(?P<quoted>(?:[^"]|"")*)"
      | '(?P<string>(?:[^']|'')*)'
      | (?P<mark>[;=])
      | (?P<word>[^\s;="']+)""",
    re.VERBOSE | re.DOTALL,
)


_PARAMETER: Final = re.compile(r"\$([1-9][0-9]{0,3})")


class ConsoleError(Exception):
    """A command failed: exactly what its author is told (ERROR). The console goes on."""

    def __init__(self, message: str, sqlstate: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.detail = detail
        self.hint = hint


SYNTAX_ERROR: Final = "42601"


@dataclass(frozen=True, slots=True)
class Command:
    """One statement. SET has two arguments: the name (lower case) and the value."""

    verb: str
    arguments: tuple[str, ...] = ()
    text: str = ""  # as it was written, for error messages
    holes: tuple[int, ...] = ()  # beside `arguments`: n where $n stands, else 0; empty: there is none

    @property
    def argument(self) -> str | None:
        return self.arguments[0] if self.arguments else None


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def parse(text: str) -> list[Command]:
    """Every statement in the text; an empty list when there is none (nothing but spaces, semicolons and comments)."""
    statements: list[list[_Token]] = [[]]
    for token in _tokens(text):
        if token.kind == "mark" and token.text == ";":
            statements.append([])
        else:
            statements[-1].append(token)
    return [_command(text, tokens) for tokens in statements if tokens]


def invalid(text: str) -> ConsoleError:
    """PgBouncer's sentence for what it does not understand."""
    return ConsoleError(f"invalid command '{text.strip()[:100]}', use SHOW HELP;", SYNTAX_ERROR)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:  # an open quote
            raise invalid(text)
        at = match.end()
        kind = match.lastgroup or ""
        if kind != "space":
            quote = {"quoted": '"', "string": "'"}.get(kind)
            raw = match[kind]
            tokens.append(_Token(kind, raw.replace(quote * 2, quote) if quote else raw, match.start(), match.end()))
    return tokens


def _command(text: str, tokens: list[_Token]) -> Command:
    written = text[tokens[0].start : tokens[-1].end]
    if tokens[0].kind != "word":
        raise invalid(written)
    verb = tokens[0].text.upper()
    if verb == "SET":
        return _set(text, written, tokens)
    if any(token.kind == "mark" for token in tokens):
        raise invalid(written)
    return Command(verb, tuple(token.text for token in tokens[1:]), written, _holes(tokens[1:]))


def _holes(tokens: list[_Token]) -> tuple[int, ...]:
    """Which of these words are parameters, and whose."""
    matches = [_PARAMETER.fullmatch(token.text) if token.kind == "word" else None for token in tokens]
    return tuple(int(match[1]) if match else 0 for match in matches) if any(matches) else ()


def _set(text: str, written: str, tokens: list[_Token]) -> Command:
    if len(tokens) >= 3 and tokens[1].kind in ("word", "quoted"):
        name, relation, value = tokens[1].text.lower(), tokens[2], tokens[3:]
        if relation.text == "=" or (relation.kind == "word" and relation.text.upper() == "TO"):
            if not value:
                raise invalid(written)
            # Several words are one value, as written: drivers say SET datestyle TO ISO, MDY.
            if len(value) == 1:
                return Command("SET", (name, value[0].text), written, _holes([tokens[1], value[0]]))
            return Command("SET", (name, text[value[0].start : value[-1].end]), written)
        if name == "session":  # SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
            return Command("SET", (name, text[relation.start : tokens[-1].end]), written)
    raise invalid(written)
