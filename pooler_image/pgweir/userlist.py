"""The auth_file: names and secrets of users.

Pure: text in, users out. `config` reads the file; authentication reads the result.
A line is `"name" "secret"`, whatever follows is ignored. A line that cannot be read is a fault of the whole file: PgBouncer
keeps what came before it, and the users below could not log in, without a word to whoever reloads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

NAME_BYTES_MAX: Final = 127
SECRET_BYTES_MAX: Final = 65530

_QUOTED: Final = r'"((?:[^"\n]|"")*)"'
_LINE: Final = re.compile(rf"[ \t]*{_QUOTED}[ \t]*{_QUOTED}")


@dataclass(frozen=True, slots=True)
class Userlist:
    users: Mapping[str, str] = field(repr=False)  # name -> secret as it stands in the file; never printed
    faults: tuple[tuple[int, str], ...] = ()  # line, what to write instead: the file must not load


def parse_userlist(text: str) -> Userlist:
    users: dict[str, str] = {}
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip(" \t\r\f\v")
        if not content or content.startswith(";"):
            continue
        fault = _fault(line)
        if fault:
            faults.append((number, fault))
            continue
        match = _LINE.match(line)
        assert match is not None
        users[_unescaped(match[1])] = _unescaped(match[2])
    return Userlist(users, tuple(faults))


def _fault(line: str) -> str:
    """What is wrong with the line, in words that never quote it: it may hold a secret."""
    match = _LINE.match(line)
    if match is None:
        return 'write "name" "secret", both in double quotes, with "" for a quote inside (a comment begins with ;)'
    if "\0" in match[0]:
        return "remove the zero byte"
    if not match[1]:
        return "write a user name that is not empty"
    if _length(match[1]) > NAME_BYTES_MAX:
        return f"write a user name of at most {NAME_BYTES_MAX} bytes"
    if _length(match[2]) > SECRET_BYTES_MAX:
        return f"write a secret of at most {SECRET_BYTES_MAX} bytes"
    return ""


def _unescaped(quoted: str) -> str:
    return quoted.replace('""', '"')


def _length(quoted: str) -> int:
    return len(_unescaped(quoted).encode("utf-8", "replace"))  # a byte that is no UTF-8 counts as one
