"""The words of a line in an HBA file, an ident file, or auth_ldap_options. Pure; `hba` and `ldap` read with it.

As in PostgreSQL: double quotes may begin anywhere in a word, a doubled quote is one, # ends the line outside of quotes,
commas join words to a list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_WORD: Final = re.compile(r'\s*(?:(#.*)|(,)|(@?)((?:"(?:[^"]|"")*"|[^\s,#"])+)|(@))', re.ASCII)
_PIECE: Final = re.compile(r'"((?:[^"]|"")*)"|([^"]+)')


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    quoted: bool  # it begins with a quote: no keyword
    file: bool  # @ before it: the name of a file

    def is_keyword(self, word: str) -> bool:
        return not self.quoted and not self.file and self.text == word


def columns(line: str) -> list[list[Word]]:
    """The columns of a line, each a list of words that commas join. Raises ValueError."""
    found: list[list[Word]] = []
    position, joined = 0, False
    end = len(line.rstrip(" \t\r\f\v"))
    while position < end:
        match = _WORD.match(line, position)
        if match is None:
            raise ValueError("close the double quote")
        position = match.end()
        if match[1] is not None:
            break
        if match[2] is not None:
            if not found or joined:
                raise ValueError("write a name before the comma")
            joined = True
            continue
        if match[5] is not None:
            raise ValueError("write the name of a file behind the @")
        word = Word(_unquoted(match[4]), match[4].startswith('"'), bool(match[3]))
        if "\0" in word.text:
            raise ValueError("remove the zero byte")
        if joined:
            found[-1].append(word)
        else:
            found.append([word])
        joined = False
    if joined:
        raise ValueError("write a name behind the comma")
    return found


def _unquoted(text: str) -> str:
    return "".join(
        plain if plain is not None else quoted.replace('""', '"')
        for quoted, plain in ((piece[1], piece[2]) for piece in _PIECE.finditer(text))
    )


def short(text: str) -> str:
    """For an error sentence."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
