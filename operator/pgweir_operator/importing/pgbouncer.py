"""pgbouncer.ini, as a Pooler: most settings have the same name there, and the operator holds the others in its hand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from pgweir.config.ini import ConfigError, Pair, Section, parse_connection_string, parse_ini
from pgweir.settings import SETTINGS, SettingError, SettingInfo, Support
from pgweir_operator.api import names
from pgweir_operator.api.parameters import DATABASE_PARAMETERS, MAX_ENTRIES, PARAMETERS, USER_PARAMETERS
from pgweir_operator.importing.outcome import NOT_SHOWN, Draft, Fate, Imported, entry_form, normal_form

_OPERATOR: Final = "the operator sets it in every pod"
_LOGS: Final = "log records are JSON lines on standard output"
_SECRETS: Final = (
    "the operator looks users up in PostgreSQL itself; spec.pgbouncer.authQuery and authQuerySecret replace that"
)
_CLIENT_TLS: Final = "the file goes into a Secret: name it in spec.pgbouncer.clientTLSSecret (or clientCASecret)"
_SERVER_TLS: Final = "the file goes into a Secret: name it in spec.pgbouncer.serverTLSSecret (or serverCASecret)"
_FILES: Final[Mapping[str, str]] = {
    "auth_file": _SECRETS,
    "auth_query": _SECRETS,
    "auth_dbname": _SECRETS,
    "auth_user": _SECRETS,
    "auth_hba_file": "copy its lines to spec.pgbouncer.pg_hba",
    "auth_ident_file": "a Pooler has no user name maps yet; certificates must name the user they are for",
    "admin_users": "the console is for the pod's own user: `kubectl exec POD -- pgweir-console`",
    "logfile": _LOGS,
    "syslog": _LOGS,
    "syslog_facility": _LOGS,
    "syslog_ident": _LOGS,
    "client_tls_ca_file": _CLIENT_TLS,
    "client_tls_cert_file": _CLIENT_TLS,
    "client_tls_key_file": _CLIENT_TLS,
    "server_tls_ca_file": _SERVER_TLS,
    "server_tls_cert_file": _SERVER_TLS,
    "server_tls_key_file": _SERVER_TLS,
}
# What clients would notice: a person has to decide.
_MISSED: Final = frozenset({"auth_hba_file", "auth_ident_file"})
_ONE_SERVER: Final = "a Pooler has one server; write another Pooler for this"
_NOT_OF_AN_ENTRY: Final[Mapping[str, str]] = {
    "password": "put it into a Secret, and name that in spec.pgbouncer.users, as passwordSecret of its user",
    "auth_user": _SECRETS,
    "auth_query": _SECRETS,
    "auth_dbname": _SECRETS,
}
_LOOKUP: Final = "passwords are looked up in this database, as it is; give the entry another name"


def import_pgbouncer(text: str, *, name: str, cluster: str | None = None) -> Imported:
    """A Pooler that does what this file asked for, and what became of each line."""
    draft = Draft()
    section = ""
    targets: dict[tuple[str, str], None] = {}  # in their order

    for item in _items(draft, text):
        if isinstance(item, Section):
            section = item.name
            if section not in ("pgbouncer", "databases", "users", "peers"):
                draft.tell(item.line, "", f"[{section}]", Fate.REFUSED, "this section is not known")
        elif section == "databases":
            _database(draft, item, targets)
        elif section == "users":
            _user(draft, item)
        elif section == "peers":
            draft.tell(item.line, item.key, item.value, Fate.DROPPED, "the operator makes the pods known to each other")
        elif section == "pgbouncer":
            _setting(draft, item)
        else:
            draft.tell(item.line, item.key, item.value, Fate.REFUSED, "it stands in no section that is known")
    return draft.finished(name, cluster)


def _items(draft: Draft, text: str) -> list[Section | Pair]:
    """The lines that can be read; the others are told."""
    items: list[Section | Pair] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip().startswith("%include"):
            sentence = "put the text of that file here, and import again"
            draft.tell(number, "", line.strip(), Fate.REFUSED, sentence)
            continue
        try:
            for item in parse_ini("", lambda _, line=line: line):  # type: ignore[misc]
                items.append(
                    Section("", number, item.name)
                    if isinstance(item, Section)
                    else Pair("", number, item.key, item.value)
                )
        except ConfigError as error:
            draft.tell(number, "", line.strip(), Fate.REFUSED, error.expected)
    return items


def _database(draft: Draft, item: Pair, targets: dict[tuple[str, str], None]) -> None:
    """The first server named is the target; what is said of one database alone becomes an entry of its own."""
    shown = NOT_SHOWN if "password" in item.value else item.value
    given = _given(draft, item, shown)
    if given is None:
        return
    host, port = given.pop("host", ""), given.pop("port", "5432")
    if given.get("dbname") == item.key:
        del given["dbname"]
    where = (host, port)
    targets[where] = None
    if not host or "," in host or host.startswith(("/", "@")):
        sentence = "a Pooler reaches its server by one name or address; say it with --cluster, or in spec.target"
        draft.tell(item.line, item.key, shown, Fate.REFUSED, sentence)
    elif where != next(iter(targets)):
        draft.tell(item.line, item.key, shown, Fate.REFUSED, f"it is at another server: {_ONE_SERVER}")
        return  # what else it says is said of that one
    elif not port.isdecimal() or not 1 <= int(port) <= 65535:
        draft.tell(item.line, item.key, shown, Fate.REFUSED, "write a port from 1 to 65535")
    else:
        draft.host, draft.port = host, int(port)
        sentence = f"spec.target: {host} port {port}; every database of that server can be asked for by its name"
        draft.tell(item.line, item.key, shown, Fate.MAPPED, sentence)
    if item.key == names.AUTH_DATABASE:
        for name in sorted({"dbname", "user"} & given.keys()):
            draft.tell(item.line, f"{item.key}: {name}", given.pop(name), Fate.REFUSED, _LOOKUP)
    _entry(draft, item, given, "databases", draft.databases, DATABASE_PARAMETERS)


def _user(draft: Draft, item: Pair) -> None:
    given = _given(draft, item, item.value)
    if given is not None:
        _entry(draft, item, given, "users", draft.users, USER_PARAMETERS)


def _given(draft: Draft, item: Pair, shown: str) -> dict[str, str] | None:
    try:
        return dict(parse_connection_string(item.value))
    except ValueError as error:
        draft.tell(item.line, item.key, shown, Fate.REFUSED, str(error))
        return None


def _entry(
    draft: Draft,
    item: Pair,
    given: Mapping[str, str],
    kind: str,
    entries: dict[str, dict[str, str]],
    catalogue: Mapping[str, SettingInfo],
) -> None:
    """What is left of a line: an entry of spec.pgbouncer.databases or .users. A name's last line counts, as a whole."""
    if entries.pop(item.key, None) is not None:
        sentence = "this name stands further up, too; only this line counts"
        draft.tell(item.line, item.key, "", Fate.WARNING, sentence)
    parameters: dict[str, str] = {}
    for key, text in sorted(given.items()):
        info = next((info for info in catalogue.values() if key in (info.name, *info.aliases)), None)
        shown = NOT_SHOWN if key == "password" else text
        if info is None:
            sentence = _NOT_OF_AN_ENTRY.get(key, "a Pooler has no such setting there")
            draft.tell(item.line, f"{item.key}: {key}", shown, Fate.REFUSED, sentence)
            continue
        try:
            parameters[info.name] = entry_form(info, text)
        except SettingError as error:
            draft.tell(item.line, f"{item.key}: {key}", shown, Fate.REFUSED, error.expected)
    if not parameters:
        return
    became = ", ".join(f"{name} = {text}" for name, text in parameters.items())
    if not 1 <= len(item.key) <= 63 or item.key == "pgbouncer":
        draft.tell(item.line, item.key, became, Fate.REFUSED, f"no entry of spec.pgbouncer.{kind} can have this name")
    elif len(entries) >= MAX_ENTRIES:
        draft.tell(item.line, item.key, became, Fate.REFUSED, f"a Pooler has at most {MAX_ENTRIES} such entries")
    else:
        entries[item.key] = parameters
        draft.tell(item.line, item.key, became, Fate.MAPPED, f"spec.pgbouncer.{kind}: {item.key} with {became}")


def _setting(draft: Draft, item: Pair) -> None:
    key, value = item.key, item.value
    info = SETTINGS.get(key)
    if info is None:
        near = difflib.get_close_matches(key[:100], list(SETTINGS), n=1)
        sentence = f"there is no such setting; {f'did you mean {near[0]}?' if near else 'remove it'}"
        draft.tell(item.line, key, NOT_SHOWN, Fate.REFUSED, sentence)  # it may have strayed from [databases]
    elif key in _FILES:
        draft.tell(item.line, key, value, Fate.REFUSED if key in _MISSED and value else Fate.DROPPED, _FILES[key])
    elif info.support is Support.REFUSED:
        draft.tell(item.line, key, value, Fate.REFUSED, info.support_note)
    elif info.support is Support.NO_EFFECT:
        draft.tell(item.line, key, value, Fate.DROPPED, f"it has no effect here. {info.support_note}")
    elif key == "pool_mode" and value.lower() in info.choices:
        draft.pool_mode = value.lower()
        draft.tell(item.line, key, value, Fate.MAPPED, f"spec.pgbouncer.poolMode: {draft.pool_mode}")
    elif key not in PARAMETERS:
        draft.tell(item.line, key, value, Fate.DROPPED, _OPERATOR)
    else:
        try:
            draft.set(item.line, key, value, **{key: normal_form(key, value)})
        except SettingError as error:
            draft.tell(item.line, key, value, Fate.REFUSED, error.expected)
