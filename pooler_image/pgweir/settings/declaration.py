"""How a setting is declared: its kind, range, reload class and support; and how text becomes its value.

Pure. Knows no setting by name. `table` and `entries` declare with it, everybody else reads what they declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

INT_MAX: Final = 2**31 - 1
UINT_MAX: Final = 2**32 - 1
SECONDS_MAX: Final = INT_MAX
FORMATTED: Final = "<as formatted>"
_NOT_SUPPORTED: Final = "is not supported here"
PEER_ID_MAX: Final = 16383


class Kind(StrEnum):
    """How a value is written in a file, and which Python type it becomes."""

    INT = "int"  # int; decimal, 0x hexadecimal or 0-prefixed octal
    BOOL = "bool"  # bool; written 0 or 1
    TIME = "time"  # float seconds
    ENUM = "enum"  # lower-case str, one of `choices`
    TEXT = "str"  # str, taken verbatim; `choices` restrict it to a comma-separated list of these words
    OPTIONAL_TEXT = "str or unset"  # str | None
    LIST = "list"  # tuple[str, ...], separated by commas


class ReloadClass(StrEnum):
    RELOAD = "reload"  # takes effect on RELOAD and SET
    RESTART = "restart"  # fixed when the process starts


class Support(StrEnum):
    WORKS = "works"
    NO_EFFECT = "no effect"  # accepted, so that an existing file loads; `support_note` says why nothing happens
    REFUSED = "refused"  # a file that sets it does not load; `support_note` says why


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingInfo:
    name: str
    kind: Kind
    default: Any
    default_text: str | None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    refused_choices: tuple[str, ...] = ()
    unset_below: int | None = None
    reload: ReloadClass = ReloadClass.RELOAD
    meaning: str = ""
    unit: str = ""
    group: str = ""
    aliases: tuple[str, ...] = ()
    support: Support = Support.WORKS
    support_note: str = ""
    secret: bool = False
    listed: bool = True  # False: SHOW CONFIG does not print it
    since: int = 1  # the version of the catalogue that first knew it
    words_since: tuple[tuple[str, int], ...] = ()  # choices that came later than the setting itself

    def known_to(self, version: int, text: str) -> bool:
        """Whether a process of this version of the catalogue takes the setting with this value."""
        return version >= max(self.since, dict(self.words_since).get(text.strip().lower(), 1))

    @property
    def expected(self) -> str:
        """What a person has to write: the end of an error sentence."""
        return _expectation(self)


class SettingError(ValueError):
    """One value that cannot be: names the key, the value as written, and what to write instead."""

    def __init__(self, key: str, value: str, expected: str) -> None:
        super().__init__(f"{key} = {value!r}: {expected}")
        self.key = key
        self.value = value
        self.expected = expected


_METADATA_KEY: Final = "pgweir.setting"


def setting(
    default: Any,
    *,
    kind: Kind,
    meaning: str,
    group: str = "",
    default_text: str | None = FORMATTED,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[str, ...] = (),
    refused_choices: tuple[str, ...] = (),
    unset_below: int | None = None,
    reload: ReloadClass = ReloadClass.RELOAD,
    unit: str = "",
    aliases: tuple[str, ...] = (),
    no_effect: str = "",
    refused: str = "",
    secret: bool = False,
    listed: bool = True,
    since: int = 1,
    words_since: tuple[tuple[str, int], ...] = (),
) -> Any:
    """Declare one setting. `default_text` is needed only where the printed default is not the formatted one."""
    if kind in (Kind.INT, Kind.TIME):
        minimum = 0 if minimum is None else minimum
        maximum = (INT_MAX if kind is Kind.INT else SECONDS_MAX) if maximum is None else maximum
    if kind is Kind.TIME:
        unit = "seconds"
    info = SettingInfo(
        name="",
        kind=kind,
        default=default,
        default_text=default_text,
        minimum=minimum,
        maximum=maximum,
        choices=choices,
        refused_choices=refused_choices,
        unset_below=unset_below,
        reload=reload,
        meaning=meaning,
        unit=unit,
        group=group,
        aliases=aliases,
        support=Support.REFUSED if refused else Support.NO_EFFECT if no_effect else Support.WORKS,
        support_note=refused or no_effect,
        secret=secret,
        listed=listed,
        since=since,
        words_since=words_since,
    )
    return field(default=default, repr=not secret, metadata={_METADATA_KEY: info})


# SPEC: C's strtol with base 0: the prefix chooses the base, and "08" is not a number.
_C_INTEGER: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", re.ASCII)
_C_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)


def parse_value(info: SettingInfo, text: str) -> Any:
    """The Python value of `text`, or SettingError. A pure function of the declaration and the text."""
    if info.support is Support.REFUSED:
        raise SettingError(info.name, text, info.support_note)
    match info.kind:
        case Kind.INT:
            return _within(info, text, _c_integer(info, text))
        case Kind.TIME:
            return _within(info, text, _c_decimal(info, text))
        case Kind.BOOL:
            number = _c_integer(info, text)
            if number not in (0, 1):
                raise SettingError(info.name, text, info.expected)
            return number == 1
        case Kind.ENUM:
            word = text.lower()
            if word in info.refused_choices:
                raise SettingError(info.name, text, f"{word} {_NOT_SUPPORTED}: {info.expected}")
            if word not in info.choices:
                raise SettingError(info.name, text, info.expected)
            return word
        case Kind.LIST:
            return tuple(item for item in (part.strip() for part in text.split(",")) if item)
        case Kind.TEXT | Kind.OPTIONAL_TEXT:
            words = [word.strip().lower() for word in text.split(",")] if info.choices else []
            if not set(words) <= set(info.choices):
                raise SettingError(info.name, text, info.expected)
            return text


def format_value(info: SettingInfo, value: object) -> str | None:
    """The value as SHOW CONFIG prints it: integers in decimal, times like C's %g, unset as None (NULL)."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _c_integer(info: SettingInfo, text: str) -> int:
    if not _C_INTEGER.fullmatch(text) or len(text) > 40:
        raise SettingError(info.name, text, info.expected)
    unsigned = text.lstrip("+-").lower()
    number = int(unsigned, 16 if unsigned.startswith("0x") else 8 if unsigned.startswith("0") else 10)
    return -number if text.startswith("-") else number


def _c_decimal(info: SettingInfo, text: str) -> float:
    if not _C_DECIMAL.fullmatch(text):
        raise SettingError(info.name, text, info.expected)
    return float(text)


def _within(info: SettingInfo, text: str, number: float) -> float | None:
    if info.unset_below is not None and number < info.unset_below:
        return None
    if (info.minimum is not None and number < info.minimum) or (info.maximum is not None and number > info.maximum):
        raise SettingError(info.name, text, info.expected)
    return number


def _expectation(info: SettingInfo) -> str:
    unit = f" of {info.unit}" if info.unit and info.kind is Kind.INT else ""
    match info.kind:
        case Kind.INT:
            return f"write a whole number{unit} from {info.minimum} to {info.maximum}"
        case Kind.TIME:
            limits = f"from {info.minimum} to {info.maximum}"
            return f"write seconds as a number {limits}, without a unit (0.5 is half a second)"
        case Kind.BOOL:
            return "write 0 or 1"
        case Kind.ENUM:
            return f"write one of {', '.join(c for c in info.choices if c not in info.refused_choices)}"
        case Kind.LIST:
            return "write names separated by commas"
        case Kind.TEXT | Kind.OPTIONAL_TEXT:
            if info.choices:
                return f"write one or more of {', '.join(info.choices)}, separated by commas"
            return "write text"


def _declared(model: type[Any]) -> Iterator[SettingInfo]:
    for each in fields(model):
        info: SettingInfo | None = each.metadata.get(_METADATA_KEY)
        if info is not None:
            text = format_value(info, info.default) if info.default_text == FORMATTED else info.default_text
            yield replace(info, name=each.name, default_text=text)


def catalogue(model: type[Any]) -> Mapping[str, SettingInfo]:
    return MappingProxyType({info.name: info for info in _declared(model)})
