"""A text of several SQL statements taken apart, as server_reset_query may be one. Pure."""

from __future__ import annotations

import re
from typing import Final

# What a semicolon may stand in without ending a statement: quotes, dollar quotes, comments.
_PIECE: Final = re.compile(
    r"""'(?:[^']|'')*'|"[^"]*"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/|[^;]""", re.DOTALL | re.ASCII
)


def split_statements(text: str) -> tuple[str, ...]:
    """The statements in their order, without those that are empty."""
    statements = [""]
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None:  # a semicolon
            statements.append("")
            position += 1
        else:
            statements[-1] += piece[0]
            position = piece.end()
    return tuple(part for part in (statement.strip() for statement in statements) if part)
