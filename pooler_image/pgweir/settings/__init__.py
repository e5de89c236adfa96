"""The one catalogue of settings: name, type, default, range, reload class, meaning.

Pure data and pure functions. It reads no file and imports nothing else of pgweir, so that the operator can render
a configuration from the very same model that the pooler parses. `config` fills it from files, the console prints
it (SHOW CONFIG), `docs/settings.md` and the operator's validation rules are generated from it.

A setting is one dataclass field. Its declaration stands in the field's metadata; everything else is derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pgweir.settings.declaration import (
    PEER_ID_MAX,
    Kind,
    ReloadClass,
    SettingError,
    SettingInfo,
    Support,
    format_value,
    parse_value,
)
from pgweir.settings.entries import (
    DATABASE_SETTINGS,
    PEER_SETTINGS,
    USER_SETTINGS,
    DatabaseSettings,
    PeerSettings,
    UserSettings,
)
from pgweir.settings.table import AUTH_TYPES, POOL_MODES, SETTINGS, SSL_MODES, Settings

__all__ = [
    "AUTH_TYPES",
    "CATALOGUE_VERSION",
    "DATABASE_SETTINGS",
    "PEER_ID_MAX",
    "PEER_SETTINGS",
    "POOL_MODES",
    "SETTINGS",
    "SSL_MODES",
    "USER_SETTINGS",
    "ChangedSettings",
    "DatabaseSettings",
    "Kind",
    "PeerSettings",
    "ReloadClass",
    "SettingError",
    "SettingInfo",
    "Settings",
    "Support",
    "UserSettings",
    "changed_settings",
    "format_value",
    "parse_value",
    "show_order",
]

# Raised by one whenever a setting or a word of one is added (`since`, `words_since`; tests/pgweir/settings/versions.json
# holds every version): a pod reports it, the operator renders for the oldest it sees. Nothing is ever taken away.
CATALOGUE_VERSION: Final = 2


def show_order() -> tuple[SettingInfo, ...]:
    """The settings in the order of SHOW CONFIG: alphabetical, but for pool_mode before pool_idle_timeout."""
    order = sorted((info for info in SETTINGS.values() if info.listed), key=lambda info: info.name)
    names = [info.name for info in order]
    order.insert(names.index("pool_idle_timeout"), order.pop(names.index("pool_mode")))
    return tuple(order)


@dataclass(frozen=True, slots=True)
class ChangedSettings:
    """Names of settings that differ, in alphabetical order, split by what it takes to apply them."""

    reload: tuple[str, ...]
    restart: tuple[str, ...]


def changed_settings(old: Settings, new: Settings) -> ChangedSettings:
    changed = sorted(name for name in SETTINGS if getattr(old, name) != getattr(new, name))
    return ChangedSettings(
        reload=tuple(name for name in changed if SETTINGS[name].reload is ReloadClass.RELOAD),
        restart=tuple(name for name in changed if SETTINGS[name].reload is ReloadClass.RESTART),
    )
