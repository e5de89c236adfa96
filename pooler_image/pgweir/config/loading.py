"""From files to a Config: the only module here that opens a file.

The steps: read the ini into a draft, check what belongs together, read the files it names. Each fault is a
ConfigError that says where, which key, which value and what to write instead; a value that may be a secret is
never part of it. `load` is called at start, on RELOAD and when the operator pushes.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from pgweir.config.effective import CONSOLE_DATABASE, TEMPLATE, Config
from pgweir.config.ini import ConfigError, Pair, Section, parse_connection_string, parse_ini
from pgweir.hba import HbaFile, IdentFile, parse_hba, parse_ident
from pgweir.ldap import LdapOptions, parse_ldap_options
from pgweir.settings import (
    DATABASE_SETTINGS,
    PEER_ID_MAX,
    PEER_SETTINGS,
    SETTINGS,
    USER_SETTINGS,
    DatabaseSettings,
    PeerSettings,
    SettingError,
    SettingInfo,
    Settings,
    Support,
    UserSettings,
    parse_value,
)
from pgweir.userlist import Userlist, parse_userlist

_SECTIONS: Final = ("pgbouncer", "databases", "users", "peers")
_VERIFYING: Final = ("verify-ca", "verify-full")


class _Place(NamedTuple):
    file: str
    line: int


@dataclass(slots=True)
class _Draft:
    """What the ini said so far."""

    file: str
    section: str = ""
    seen_pgbouncer: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, _Place] = field(default_factory=dict)
    databases: dict[str, DatabaseSettings] = field(default_factory=dict)
    users: dict[str, UserSettings] = field(default_factory=dict)
    peers: dict[int, PeerSettings] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    later: bool = False  # written for a later catalogue of settings

    def fault(self, key: str, value: str | None, expected: str) -> ConfigError:
        place = self.places.get(key, _Place(self.file, 0))
        return ConfigError(place.file, place.line, key, value, expected)

    def warn(self, key: str, sentence: str) -> None:
        place = self.places.get(key, _Place(self.file, 0))
        where = f"{place.file}:{place.line}" if place.line else place.file
        self.warnings.append(f"{where}: {key}: {sentence}")


def load(path: str | Path, *, base_dir: Path | None = None, later: bool = False) -> Config:
    """Read `path` and every file it names; relative names resolve against `base_dir`, or the working directory.

    `later`: it was written for a later catalogue of settings. A name that is unknown here is then a warning: an older pod
    starts, says how old it is, and is given what it knows. Raises ConfigError, and then nothing has changed anywhere.
    """
    files = _Files(base_dir)
    return _config(_read_ini(str(path), files, later=later), files, base_dir)


def find_faults(path: str | Path, *, base_dir: Path | None = None) -> tuple[list[ConfigError], tuple[str, ...]]:
    """Every fault that `load` would stop at, one after the other, and the warnings (`pgweir check`).

    What belongs together is looked at only when each line is good by itself, and the files only after that.
    """
    files = _Files(base_dir)
    faults: list[ConfigError] = []
    draft = _Draft(str(path))
    try:
        draft = _read_ini(str(path), files, faults.append)
        warnings = tuple(draft.warnings)
        if not faults:
            warnings = _config(draft, files, base_dir, faults.append).warnings
    except ConfigError as error:
        faults.append(error)
        warnings = tuple(draft.warnings)
    return faults, warnings


def with_setting(config: Config, name: str, text: str) -> Config:
    """`config` with one setting changed, under the same rules (the console's SET). Raises ConfigError.

    The files that settings name are read again, for the change may be about them; the ini is not.
    """
    draft = _Draft("SET", section="pgbouncer", seen_pgbouncer=True)
    draft.values = {key: getattr(config.settings, key) for key in SETTINGS}
    draft.databases = {**config.databases, **({TEMPLATE: config.template} if config.template else {})}
    draft.users, draft.peers = dict(config.users), dict(config.peers)
    _store(draft, Pair("SET", 0, name, text))
    changed = _config(draft, _Files(config.base_dir), config.base_dir)
    return replace(changed, digest=config.digest)


def _raise(fault: ConfigError) -> None:
    raise fault


def _config(
    draft: _Draft, files: _Files, base_dir: Path | None, report: Callable[[ConfigError], None] = _raise
) -> Config:
    """What belongs together is checked, the files that the draft names are read."""
    settings = Settings(**draft.values)
    _check_authentication(draft, settings)
    _check_tls(draft, settings)
    _check_pool_sizes(draft, settings)
    _check_reserved_connections(draft, settings)

    userlist = _read_userlist(draft, settings, files, report)
    hba = _read_hba(draft, settings, files, report)
    ident = _read_ident(draft, settings, files, report)
    file_digests = _read_tls_files(draft, settings, files)
    template = draft.databases.pop(TEMPLATE, None)
    return Config(
        settings=settings,
        databases=draft.databases,
        template=template,
        users=draft.users,
        peers=draft.peers,
        userlist=userlist.users,
        hba=hba.rules,
        ident=ident.maps,
        ldap=_ldap_options(draft, settings),
        digest=files.digest(),
        file_digests=file_digests,
        warnings=tuple(draft.warnings),
        base_dir=base_dir,
    )


class _Files:
    """Reads files by the name in the configuration, and sums up what it read."""

    def __init__(self, base_dir: Path | None) -> None:
        self._base_dir = base_dir or Path()
        self._sum = hashlib.sha256()

    def read_bytes(self, name: str) -> bytes:
        content = (self._base_dir / name).read_bytes()
        self._add(name, content)
        return content

    def read_text(self, name: str) -> str:
        return self.read_bytes(name).decode("utf-8", "surrogateescape")

    def read_ini(self, path: str) -> str:
        """The file from the command line: its own name resolves against the working directory and does not count."""
        content = Path(path).read_bytes()
        self._add("", content)
        return content.decode("utf-8", "surrogateescape")

    def digest(self) -> str:
        return self._sum.hexdigest()

    def _add(self, name: str, content: bytes) -> None:
        self._sum.update(b"%s\0%d\0" % (name.encode("utf-8", "surrogateescape"), len(content)))
        self._sum.update(content)


# --- the ini ---------------------------------------------------------------------------------------------------------


def _read_ini(
    path: str, files: _Files, report: Callable[[ConfigError], None] = _raise, *, later: bool = False
) -> _Draft:
    draft = _Draft(path, later=later)
    pending: list[str] = [path]  # the outermost file is the one from the command line

    def read(name: str) -> str:
        return files.read_ini(pending.pop()) if pending else files.read_text(name)

    try:
        for item in parse_ini(path, read):
            try:
                if isinstance(item, Section):
                    _enter(draft, item)
                else:
                    _store(draft, item)
            except ConfigError as fault:
                report(fault)
    except OSError as error:
        raise ConfigError(path, 0, "", None, _unreadable(error)) from None
    if not draft.seen_pgbouncer:
        raise ConfigError(path, 0, "", None, "the section [pgbouncer] is missing; write it, even if it stays empty")
    return draft


def _enter(draft: _Draft, section: Section) -> None:
    if section.name not in _SECTIONS:
        known = ", ".join(f"[{name}]" for name in _SECTIONS)
        raise ConfigError(
            section.file, section.line, f"[{section.name}]", None, f"this section is not known; write one of {known}"
        )
    draft.section = section.name
    if section.name != "pgbouncer":
        return
    if draft.values:
        draft.warnings.append(
            f"{section.file}:{section.line}: another section [pgbouncer] begins here:"
            f" {', '.join(sorted(draft.values))}, set before it, are back at their defaults"
        )
    draft.seen_pgbouncer = True
    for key in draft.values:
        draft.places.pop(key, None)
    draft.values.clear()


def _store(draft: _Draft, pair: Pair) -> None:
    match draft.section:
        case "pgbouncer":
            _store_setting(draft, pair)
        case "databases":
            if pair.key == CONSOLE_DATABASE:
                raise ConfigError(
                    pair.file, pair.line, pair.key, None, "this name is reserved for the console; choose another one"
                )
            values = _entry(draft, pair, DATABASE_SETTINGS)
            if pair.key != TEMPLATE:
                values.setdefault("dbname", pair.key)
            draft.databases[pair.key] = DatabaseSettings(name=pair.key, **values)
            draft.places[f"databases.{pair.key}"] = _Place(pair.file, pair.line)
            if "password" in values and "user" not in values:
                draft.warn(f"databases.{pair.key}", "password counts only together with user; it is not used")
        case "users":
            draft.users[pair.key] = UserSettings(name=pair.key, **_entry(draft, pair, USER_SETTINGS))
        case "peers":
            _store_peer(draft, pair)
        case _:
            raise ConfigError(
                pair.file, pair.line, pair.key, None, "write a section such as [pgbouncer] above this line"
            )


def _store_setting(draft: _Draft, pair: Pair) -> None:
    info = SETTINGS.get(pair.key)
    if info is None and draft.later:
        _leave_out(draft, pair, pair.key)
        return
    if info is None:
        # WHY no value: a line of [databases] that strayed here may hold a password.
        raise ConfigError(pair.file, pair.line, pair.key, None, _unknown("setting", pair.key, SETTINGS))
    value = _parsed(info, pair.value, pair, pair.key)
    draft.values[pair.key] = value
    draft.places[pair.key] = _Place(pair.file, pair.line)
    if info.support is Support.NO_EFFECT and value != info.default:
        draft.warn(pair.key, f"this has no effect here. {info.support_note}")


def _store_peer(draft: _Draft, pair: Pair) -> None:
    if not (pair.key.isascii() and pair.key.isdigit() and 1 <= int(pair.key[:9]) <= PEER_ID_MAX):
        raise ConfigError(pair.file, pair.line, pair.key, None, f"name a peer by a number from 1 to {PEER_ID_MAX}")
    values = _entry(draft, pair, PEER_SETTINGS)
    if "host" not in values:
        raise ConfigError(pair.file, pair.line, pair.key, None, "add host=, the address of this peer")
    draft.peers[int(pair.key)] = PeerSettings(peer_id=int(pair.key), **values)


def _leave_out(draft: _Draft, pair: Pair, key: str) -> None:
    draft.warnings.append(f"{pair.file}:{pair.line}: {key}: this version does not know it yet; it is left out")


def _entry(draft: _Draft, pair: Pair, catalogue: Mapping[str, SettingInfo]) -> dict[str, Any]:
    """The parsed connection string of one entry."""
    known = {**catalogue, **{alias: info for info in catalogue.values() for alias in info.aliases}}
    values: dict[str, Any] = {}
    try:
        for key, text in parse_connection_string(pair.value):
            info = known.get(key)
            if info is None and draft.later:
                _leave_out(draft, pair, f"{pair.key}: {key}")
                continue
            if info is None:
                raise ConfigError(pair.file, pair.line, f"{pair.key}: {key}", None, _unknown("key", key, known))
            values[info.name] = _parsed(info, text, pair, f"{pair.key}: {key}")
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(pair.file, pair.line, pair.key, None, str(error)) from None
    return values


def _parsed(info: SettingInfo, text: str, pair: Pair, key: str) -> Any:
    try:
        return parse_value(info, text)
    except SettingError as error:
        raise ConfigError(pair.file, pair.line, key, None if info.secret else text, error.expected) from None


def _unknown(what: str, key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key[:100], list(known), n=1)
    return f"there is no such {what}; " + (f"did you mean {near[0]}?" if near else "remove it")


# --- what belongs together -------------------------------------------------------------------------------------------


def _check_authentication(draft: _Draft, settings: Settings) -> None:
    if settings.auth_type == "hba" and not settings.auth_hba_file:
        raise draft.fault("auth_type", "hba", "this needs auth_hba_file too; name the file with the rules")
    if settings.auth_type == "cert" and (
        settings.client_tls_sslmode != "verify-full" or not settings.client_tls_ca_file
    ):
        raise draft.fault(
            "auth_type", "cert", "this needs client_tls_sslmode = verify-full and client_tls_ca_file; set both"
        )
    lookups = [("auth_dbname", settings.auth_dbname, settings.auth_user)]
    lookups += [
        (f"databases.{entry.name}", entry.auth_dbname, entry.auth_user or settings.auth_user)
        for entry in draft.databases.values()
    ]
    users = {settings.auth_user, *(entry.auth_user for entry in draft.databases.values())} - {None, ""}
    for key, database, user in lookups:
        if not database:
            continue
        if database == CONSOLE_DATABASE:
            raise draft.fault(key, database, "auth_dbname cannot be the console; name an entry of [databases]")
        if not user and not (key == "auth_dbname" and users):
            raise draft.fault(key, database, "auth_dbname needs auth_user too; name the user that runs auth_query")
        if database not in draft.databases and TEMPLATE not in draft.databases:
            draft.warn(key, f"auth_dbname {database!r} is no entry of [databases]; look-ups will fail until it is")


def _ldap_options(draft: _Draft, settings: Settings) -> LdapOptions | None:
    if settings.auth_type != "ldap":
        if settings.auth_ldap_options:
            draft.warn("auth_ldap_options", "this counts for auth_type = ldap alone; an HBA line has its own options")
        return None
    if not settings.auth_ldap_options:
        raise draft.fault("auth_type", "ldap", "this needs auth_ldap_options too; write at least ldapserver there")
    try:
        return parse_ldap_options(settings.auth_ldap_options)
    except ValueError as error:
        raise draft.fault("auth_ldap_options", None, str(error)) from None


def _check_tls(draft: _Draft, settings: Settings) -> None:
    mode = settings.client_tls_sslmode
    if mode != "disable" and not (settings.client_tls_cert_file and settings.client_tls_key_file):
        raise draft.fault(
            "client_tls_sslmode", mode, "this needs client_tls_cert_file and client_tls_key_file; set both"
        )
    if mode in _VERIFYING and not settings.client_tls_ca_file:
        raise draft.fault(
            "client_tls_sslmode", mode, "this needs client_tls_ca_file; name the file that verifies clients"
        )
    if settings.server_tls_sslnegotiation == "direct" and settings.server_tls_sslmode not in ("require", *_VERIFYING):
        raise draft.fault(
            "server_tls_sslnegotiation",
            "direct",
            "this needs server_tls_sslmode = require, verify-ca or verify-full: there is no way back to clear text",
        )
    if bool(settings.server_tls_cert_file) != bool(settings.server_tls_key_file):
        given, missing = "server_tls_cert_file", "server_tls_key_file"
        if settings.server_tls_key_file:
            given, missing = missing, given
        raise draft.fault(given, str(getattr(settings, given)), f"this needs {missing} too; set both or none")


def _check_pool_sizes(draft: _Draft, settings: Settings) -> None:
    for key, minimum, size in [
        ("min_pool_size", settings.min_pool_size, settings.default_pool_size),
        *(
            (
                f"databases.{entry.name}",
                settings.min_pool_size if entry.min_pool_size is None else entry.min_pool_size,
                settings.default_pool_size if entry.pool_size is None else entry.pool_size,
            )
            for entry in draft.databases.values()
            if entry.min_pool_size is not None or entry.pool_size is not None
        ),
    ]:
        if 0 < size < minimum:
            draft.warn(key, f"min_pool_size {minimum} is more than the pool size {size}, which is what counts")


def _check_reserved_connections(draft: _Draft, settings: Settings) -> None:
    kept, most = settings.reserved_connections, settings.max_client_conn
    if kept and kept >= most:
        raise draft.fault(
            "reserved_connections", str(kept), f"nobody could connect; write less than max_client_conn, which is {most}"
        )


# --- the files it names ----------------------------------------------------------------------------------------------


def _read_userlist(draft: _Draft, settings: Settings, files: _Files, report: Callable[[ConfigError], None]) -> Userlist:
    if not settings.auth_file:
        return Userlist({})
    userlist = parse_userlist(_text(draft, "auth_file", settings.auth_file, files))
    for line, expected in userlist.faults:
        report(ConfigError(settings.auth_file, line, "", None, expected))  # WHY no text: it may hold a secret
    return userlist


def _read_hba(draft: _Draft, settings: Settings, files: _Files, report: Callable[[ConfigError], None]) -> HbaFile:
    if settings.auth_type != "hba":
        return HbaFile()
    name = settings.auth_hba_file

    def names_file(relative: str) -> str | None:
        try:
            return files.read_text(str(Path(name).parent / relative))
        except (OSError, ValueError):
            return None

    hba = parse_hba(_text(draft, "auth_hba_file", name, files), names_file)
    for fault in hba.faults:
        report(ConfigError(name, fault.line, "", fault.text, fault.expected))
    if any(rule.method == "cert" for rule in hba.rules) and settings.client_tls_sslmode not in _VERIFYING:
        draft.warn("auth_hba_file", "rules with cert need client_tls_sslmode = verify-full; nobody can pass them now")
    return hba


def _read_ident(draft: _Draft, settings: Settings, files: _Files, report: Callable[[ConfigError], None]) -> IdentFile:
    if not settings.auth_ident_file:
        return IdentFile({})
    ident = parse_ident(_text(draft, "auth_ident_file", settings.auth_ident_file, files))
    for fault in ident.faults:
        report(ConfigError(settings.auth_ident_file, fault.line, "", fault.text, fault.expected))
    return ident


def _read_tls_files(draft: _Draft, settings: Settings, files: _Files) -> dict[str, str]:
    """SHA-256 of each TLS file in use, so that a renewed certificate is seen as a change."""
    digests: dict[str, str] = {}
    for side in ("client", "server"):
        if getattr(settings, f"{side}_tls_sslmode") == "disable":
            continue
        for key in (f"{side}_tls_ca_file", f"{side}_tls_cert_file", f"{side}_tls_key_file"):
            name = getattr(settings, key)
            if name:
                digests[key] = hashlib.sha256(_content(draft, key, name, files.read_bytes)).hexdigest()
    return digests


def _text(draft: _Draft, key: str, name: str, files: _Files) -> str:
    return _content(draft, key, name, files.read_bytes).decode("utf-8", "surrogateescape")


def _content(draft: _Draft, key: str, name: str, read: Callable[[str], bytes]) -> bytes:
    try:
        return read(name)
    except OSError as error:
        raise draft.fault(key, name, _unreadable(error)) from None


def _unreadable(error: OSError) -> str:
    return f"name a file that can be read ({error.strerror or type(error).__name__})"
