"""Rendering of the text files of a bundle: pgbouncer.ini, pg_hba.conf, userlist.txt.

Pure, and the only place that knows Jinja2. It quotes; it never repairs: a value that cannot stand on one line is
refused with ValueError, because deleting a line break would make another value of it, and keeping it another file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pgweir_operator.api.one_line import LINE_BREAKERS


def pgbouncer_ini(
    *,
    name: str,
    namespace: str,
    databases: Mapping[str, Mapping[str, str]],
    settings: Mapping[str, str],
    users: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """The ini with its settings in alphabetical order, so that an unchanged Pooler renders the same bytes."""
    entries = [("database", databases), ("user", users or {})]
    for kind, section in entries:
        for entry, connection in section.items():
            _one_line(f"name of {kind}", entry)
            for key, value in connection.items():
                _one_line(f"{key} of {kind} {entry}", value)
    for key, value in settings.items():
        _one_line(key, value)
    return _render(
        "pgbouncer.ini.j2",
        name=name,
        namespace=namespace,
        databases=[(entry, list(connection.items())) for entry, connection in databases.items()],
        users=[(entry, list(connection.items())) for entry, connection in sorted((users or {}).items())],
        settings=sorted(settings.items()),
    )


def pg_hba_conf(lines: Iterable[str]) -> str:
    lines = list(lines)
    for number, line in enumerate(lines):
        _one_line(f"pg_hba[{number}]", line)
    return _render("pg_hba.conf.j2", lines=lines)


def userlist_txt(users: Mapping[str, str]) -> str:
    for user, secret in users.items():
        _one_line("user name", user)
        _one_line(f"secret of user {user}", secret, secret=True)
    return _render("userlist.txt.j2", users=sorted(users.items()))


def quoted(text: str) -> str:
    """A word of userlist.txt."""
    return '"' + text.replace('"', '""') + '"'


def entry_name(text: str) -> str:
    """The name of a line of [databases] or [users]: quoted where it has more than plain letters."""
    if re.fullmatch(r"[A-Za-z0-9_.*-]+", text):
        return text
    return "'" + text.replace("'", "''") + "'"


def connection_value(text: str) -> str:
    """A value in a [databases] line: quoted where a space or a quote would end it."""
    if text and not re.search(r"[\s']", text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _one_line(what: str, text: str, *, secret: bool = False) -> None:
    found = LINE_BREAKERS.search(text)
    if found:
        shown = "" if secret else f" {text!r}"
        raise ValueError(
            f"{what}{shown} contains a line break or control character (U+{ord(found.group()):04X}) "
            f"at position {found.start()}; write it on one line"
        )


def _render(template: str, **values: Any) -> str:
    return _environment.get_template(template).render(**values)


_environment = Environment(
    loader=PackageLoader("pgweir_operator.desired"),
    autoescape=False,  # noqa: S701 - the files are not HTML; quoting is this module's own
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_environment.filters["quoted"] = quoted
_environment.filters["entry_name"] = entry_name
_environment.filters["connection_value"] = connection_value
