"""Ruling on a Pooler: every problem at once, each with its field, its value and what to write instead.

Pure. The CRD's rules (api/rules.py) refuse most of this at the door; here the same is ruled again for the command line
and for objects that were stored under an older CRD, and beside it what only a look at several values can tell.
reconcile.py turns a non-empty answer into Ready=False with reason InvalidSpec and leaves the children as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pgweir.hba import parse_hba
from pgweir.settings import Kind, SettingError, SettingInfo, parse_value
from pgweir_operator.api import budget, names, rules
from pgweir_operator.api.conditions import Blocker, Reason
from pgweir_operator.api.one_line import has_line_breaker
from pgweir_operator.api.parameters import (
    DATABASE_PARAMETERS,
    MAX_ENTRY_VALUE_LENGTH,
    MAX_PARAMETERS,
    MAX_VALUE_LENGTH,
    PARAMETERS,
    TIME_PATTERN,
    USER_PARAMETERS,
    WHOLE_NUMBER_PATTERN,
    expected,
)
from pgweir_operator.api.pooler import DatabaseEntry, Pooler, UserEntry

ONE_LINE = "write it on one line: no line breaks or control characters"
_PARAMETERS = "spec.pgbouncer.parameters"


@dataclass(frozen=True, slots=True)
class Problem:
    field_path: str
    value: object
    message: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" is {self.value!r}"
        return f"{self.field_path}{shown}: {self.message}"


def parse(manifest: Mapping[str, Any]) -> Pooler | list[Problem]:
    """The Pooler, or why the object is none (which the API server's schema lets nobody store)."""
    try:
        return Pooler.from_manifest(manifest)
    except ValidationError as error:
        return [
            Problem(".".join(str(part) for part in row["loc"]), None, row["msg"][:1].lower() + row["msg"][1:])
            for row in error.errors(include_url=False, include_context=False, include_input=False)
        ]


def validate(pooler: Pooler) -> list[Problem]:
    """All problems of a Pooler, in the order of its fields; an empty list lets it pass."""
    return [
        *_name(pooler),
        *_target(pooler),
        *_image(pooler),
        *_lookup(pooler),
        *_hba(pooler),
        *_parameters(pooler),
        *_entries("databases", pooler.spec.pgbouncer.databases, DATABASE_PARAMETERS),
        *_entries("users", pooler.spec.pgbouncer.users, USER_PARAMETERS),
        *_console(pooler),
        *_budget(pooler),
        *_lookup_database(pooler),
    ]


def invalid_spec(problems: Sequence[Problem]) -> Blocker:
    """All of them in the message of one condition."""
    return Blocker(Reason.INVALID_SPEC, "; ".join(str(problem) for problem in problems))


def _name(pooler: Pooler) -> Iterator[Problem]:
    if not names.is_pooler_name(pooler.name):
        yield Problem("metadata.name", pooler.name, rules.NAME_FORM)
    cluster = pooler.cluster_name
    if cluster is not None and pooler.name in {cluster, f"{cluster}-rw", f"{cluster}-ro", f"{cluster}-r"}:
        yield Problem("metadata.name", pooler.name, rules.NAME_TAKEN)


def _target(pooler: Pooler) -> Iterator[Problem]:
    if (pooler.spec.cluster is None) == (pooler.spec.target is None):
        yield Problem("spec", None, rules.TARGET_CHOICE)


def _image(pooler: Pooler) -> Iterator[Problem]:
    if pooler.spec.pgbouncer.image_catalog_ref is not None:
        yield Problem("spec.pgbouncer.imageCatalogRef", None, rules.NO_CATALOG)


def _lookup(pooler: Pooler) -> Iterator[Problem]:
    bouncer = pooler.spec.pgbouncer
    brings_secret = bouncer.auth_query_secret is not None or bouncer.server_tls_secret is not None
    if bouncer.auth_query and not brings_secret:
        yield Problem("spec.pgbouncer.authQuerySecret", None, rules.QUERY_NEEDS_SECRET)
    if brings_secret and not bouncer.auth_query:
        yield Problem("spec.pgbouncer.authQuery", None, rules.SECRET_NEEDS_QUERY)
    if bouncer.auth_query and has_line_breaker(bouncer.auth_query):
        yield Problem("spec.pgbouncer.authQuery", bouncer.auth_query, ONE_LINE)


def _hba(pooler: Pooler) -> Iterator[Problem]:
    auth_type = pooler.spec.pgbouncer.parameters.get("auth_type", "hba")
    if pooler.spec.pgbouncer.pg_hba and auth_type != "hba":
        yield Problem("spec.pgbouncer.pg_hba", f"auth_type = {auth_type}", rules.HBA_NEEDS_TYPE)
    for index, line in enumerate(pooler.spec.pgbouncer.pg_hba):
        path = f"spec.pgbouncer.pg_hba[{index}]"
        if has_line_breaker(line):
            yield Problem(path, line, ONE_LINE)
        else:
            # WHY the fault's text: the line itself may have a password of an LDAP directory.
            for fault in parse_hba(line).faults:
                yield Problem(path, fault.text, fault.expected)


def _parameters(pooler: Pooler) -> Iterator[Problem]:
    given = pooler.spec.pgbouncer.parameters
    if len(given) > MAX_PARAMETERS:
        yield Problem(_PARAMETERS, len(given), f"give at most {MAX_PARAMETERS} parameters")
    values: dict[str, Any] = {}
    for name, text in sorted(given.items()):
        path = f"{_PARAMETERS}.{name}"
        info = PARAMETERS.get(name)
        message = _complaint(info, text, values, MAX_VALUE_LENGTH)
        if message is not None:
            yield Problem(path, text, message)
    yield from _together(pooler, values)


def _complaint(info: SettingInfo | None, text: str, values: dict[str, Any], longest: int) -> str | None:
    """What is wrong with one parameter; where nothing is, its parsed value goes into `values`."""
    if info is None:
        return f"{rules.UNKNOWN_PARAMETERS.rstrip(': ').removesuffix('s')}; remove it"
    if len(text) > longest:
        return f"write at most {longest} characters"
    if has_line_breaker(text):
        return ONE_LINE
    if (info.kind is Kind.INT and not re.fullmatch(WHOLE_NUMBER_PATTERN, text)) or (
        info.kind is Kind.TIME and not re.fullmatch(TIME_PATTERN, text)
    ):
        return expected(info)
    if info.kind is Kind.BOOL and text not in {"0", "1"}:
        return expected(info)
    try:
        values[info.name] = parse_value(info, text)
    except SettingError as error:
        return error.expected
    return None


def _entries(
    kind: str, entries: Sequence[DatabaseEntry | UserEntry], catalogue: Mapping[str, SettingInfo]
) -> Iterator[Problem]:
    """Entries of [databases] or of [users]."""
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        path = f"spec.pgbouncer.{kind}[{index}]"
        if has_line_breaker(entry.name):
            yield Problem(f"{path}.name", entry.name, ONE_LINE)
        if entry.name in seen:
            yield Problem(f"{path}.name", entry.name, "this name is there already; write all of its settings once")
        seen.add(entry.name)
        for name, text in sorted(entry.parameters.items()):
            message = (
                _complaint(catalogue.get(name), text, {}, MAX_ENTRY_VALUE_LENGTH)
                if text
                else "write a value, or remove it"
            )
            if message is not None:
                # A password that somebody tries to write there is not repeated.
                yield Problem(f"{path}.parameters.{name}", text if name != "password" else None, message)


def _console(pooler: Pooler) -> Iterator[Problem]:
    for index, entry in enumerate(pooler.spec.pgbouncer.databases):
        if entry.name == "pgbouncer":
            yield Problem(f"spec.pgbouncer.databases[{index}].name", entry.name, rules.CONSOLE_NAME)


def _budget(pooler: Pooler) -> Iterator[Problem]:
    given, pods = pooler.spec.connection_budget, budget.pods_at_once(pooler)
    if given is not None and given < pods:
        yield Problem(
            "spec.connectionBudget",
            given,
            f"a rollout has up to {pods} pods, and each needs a server; write {pods} or more, or lower instances",
        )


def _lookup_database(pooler: Pooler) -> Iterator[Problem]:
    """The look-up runs there as auth_user: an entry that sends it elsewhere, or makes it another user, locks all out."""
    for index, entry in enumerate(pooler.spec.pgbouncer.databases):
        if entry.name == names.AUTH_DATABASE:
            for name in sorted({"dbname", "user"} & entry.parameters.keys()):
                yield Problem(
                    f"spec.pgbouncer.databases[{index}].parameters.{name}",
                    entry.parameters[name],
                    f"passwords are looked up in {names.AUTH_DATABASE}, as it is; remove it, or give the entry"
                    " another name",
                )


def _together(pooler: Pooler, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Values that are possible one by one and not together. Defaults count, since a pod runs on them."""
    values = {**{name: info.default for name, info in PARAMETERS.items()}, **given}
    texts = pooler.spec.pgbouncer.parameters

    def problem(name: str, message: str) -> Problem:
        return Problem(f"{_PARAMETERS}.{name}", texts.get(name), message)

    places = values["max_client_conn"]
    if given.get("reserved_connections", 0) >= max(1, places):
        yield problem("reserved_connections", f"nobody could connect; write less than max_client_conn = {places}")
    # 0 is "no limit" for each of these limits.
    pool_size = values["default_pool_size"]
    if "min_pool_size" in given and 0 < pool_size < given["min_pool_size"]:
        yield problem(
            "min_pool_size", f"a pool holds at most default_pool_size = {pool_size} servers; write that or less"
        )
    limit = values["max_db_connections"]
    if "max_db_connections" in given and 0 < limit < given.get("min_pool_size", 0):
        yield problem("max_db_connections", f"min_pool_size = {given['min_pool_size']} would never be reached")
    if given.get("reserve_pool_size") and "reserve_pool_timeout" in given and given["reserve_pool_timeout"] == 0:
        yield problem("reserve_pool_timeout", "0 turns reserve_pool_size off; write more, or remove reserve_pool_size")
    if "idle_transaction_timeout" in given and 0 < values["transaction_timeout"] < given["idle_transaction_timeout"]:
        yield problem(
            "idle_transaction_timeout",
            f"transaction_timeout = {values['transaction_timeout']:g} comes first; write that or less",
        )
    if values["auth_type"] == "cert" and values["client_tls_sslmode"] != "verify-full" and "auth_type" in given:
        yield problem("auth_type", "cert needs client_tls_sslmode = verify-full")
