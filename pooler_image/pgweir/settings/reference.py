"""The settings reference for users, written from the catalogue: `python -m pgweir.settings > docs/settings.md`.

Pure. A test compares docs/settings.md with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final

from pgweir.settings.declaration import INT_MAX, Kind, ReloadClass, SettingInfo, Support
from pgweir.settings.entries import DATABASE_SETTINGS, PEER_SETTINGS, USER_SETTINGS
from pgweir.settings.table import SETTINGS

_HEADER: Final = """\
# Settings

Written by `python -m pgweir.settings > docs/settings.md`; do not edit it by hand.

pgweir reads PgBouncer's configuration files. Every setting of `[pgbouncer]` is listed here with what it does in
pgweir. *reload*: it takes effect on `RELOAD`, `SET` and a change of the Pooler. *restart*: it is fixed when the
process starts. Times are seconds and may have decimals. Whole numbers may be written in hexadecimal (`0x10`) or,
with a leading 0, in octal.
"""

_KIND_WORDS: Final = {
    Kind.INT: "whole number",
    Kind.BOOL: "0 or 1",
    Kind.TIME: "seconds",
    Kind.ENUM: "word",
    Kind.TEXT: "text",
    Kind.OPTIONAL_TEXT: "text",
    Kind.LIST: "list",
}


def settings_reference() -> str:
    parts = [_HEADER]
    for group, infos in groupby(SETTINGS.values(), key=lambda info: info.group):
        parts.append(f"## {group}\n\n{_table(infos, reload=True)}")
    parts.append(
        "## Entries of `[databases]`\n\n"
        "`name = key=value key='value with spaces'`. The entry `*` serves every database that has none of its own;"
        " `pgbouncer` is the console. What is not set counts as set globally.\n\n" + _entries(DATABASE_SETTINGS)
    )
    parts.append(
        "## Entries of `[users]`\n\n"
        "`name = key=value`. `pool_mode`, `pool_size`, `reserve_pool_size` and `query_wait_timeout` of a user win over"
        " those of a database, and these over the global ones.\n\n" + _entries(USER_SETTINGS)
    )
    parts.append(
        "## Entries of `[peers]`\n\n`number = host=... port=...`. A cancel request for a client of another process is"
        " handed on to it by the number in its key. Each process has its own `peer_id`; its own entry is ignored.\n\n"
        + _entries(PEER_SETTINGS)
    )
    return "\n".join(parts)


def _entries(catalogue: Mapping[str, SettingInfo]) -> str:
    return _table(catalogue.values(), reload=False)


def _table(infos: Iterable[SettingInfo], *, reload: bool) -> str:
    heads = ["setting", "value", "default", *(["change"] if reload else []), "meaning"]
    rows = [heads, ["---"] * len(heads)]
    for info in infos:
        change = ["restart" if info.reload is ReloadClass.RESTART else "reload"] if reload else []
        rows.append([f"`{info.name}`", _value(info), _default(info), *change, _meaning(info)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _value(info: SettingInfo) -> str:
    words = _KIND_WORDS[info.kind]
    if info.kind is Kind.ENUM:
        return ", ".join(f"`{choice}`" for choice in info.choices if choice not in info.refused_choices)
    if info.choices:
        return "list of " + ", ".join(f"`{choice}`" for choice in info.choices)
    if info.kind is Kind.INT:
        limits = f"from {info.minimum}" + ("" if info.maximum == INT_MAX else f" to {info.maximum}")
        return f"{words} {limits}" + (f", {info.unit}" if info.unit else "")
    return words


def _default(info: SettingInfo) -> str:
    if info.default_text is None:
        return "unset"
    return f"`{_escaped(info.default_text)}`" if info.default_text else "empty"


def _meaning(info: SettingInfo) -> str:
    aliases = f" Also written {', '.join(f'`{alias}`' for alias in info.aliases)}." if info.aliases else ""
    match info.support:
        case Support.WORKS:
            note = ""
        case Support.NO_EFFECT:
            note = f" **No effect here:** {info.support_note}"
        case Support.REFUSED:
            note = f" **Refused:** {info.support_note}."
    if info.refused_choices:
        note += f" **Refused:** {', '.join(f'`{choice}`' for choice in info.refused_choices)}."
    return _escaped(info.meaning) + aliases + _escaped(note)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
