"""`pgweir doctor`: any pooler, from this machine. Looks, and has `diagnosed` say what it means.

Called by `main`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from pgweir import doctor_probe
from pgweir_operator.cli import screen
from pgweir_operator.cli.diagnosed import Options, report
from pgweir_operator.cli.exit_codes import UNUSABLE
from pgweir_operator.cli.shown import Refused, Unreachable
from pgweir_operator.cli.source import ConsoleSource, RestSource, Source, console_dsn
from pgweir_operator.doctor import reading
from pgweir_operator.doctor.facts import Facts, Tables

LOCAL: Final = ("127.0.0.1", "::1", "localhost")


def run_doctor(
    dsn: str, options: Options, *, url: str | None, user: str | None, token: str | None, backend: str | None
) -> int:
    screen.fresh()
    try:
        login = login_of(dsn, with_environment=True)
        behind = login_of(backend, with_environment=False) if backend is not None else None
    except (psycopg.ProgrammingError, ValueError, OSError) as error:
        screen.complain(str(error).strip())
        return UNUSABLE
    notes: list[str] = []
    facts = look(login, behind, options, url=url, user=user, token=token, notes=notes)
    return report(facts, notes, as_json=options.as_json)


def login_of(dsn: str, *, with_environment: bool) -> dict[str, Any]:
    """A connection string, filled up with libpq's environment, as the probe wants it."""
    given: dict[str, Any] = dict(conninfo_to_dict(dsn))
    if with_environment:
        defaults = {row.keyword.decode(): row.val.decode() for row in Conninfo.get_defaults() if row.val is not None}
        given = {**{key: value for key, value in defaults.items() if key != "sslrootcert"}, **given}
    host = str(given.get("host") or given.get("hostaddr") or "127.0.0.1")
    if "," in host:
        raise ValueError(f"host={host}: the doctor looks at one host; name one")
    user = str(given.get("user") or "postgres")
    found = {
        "host": host,
        "port": int(given.get("port") or 5432),
        "user": user,
        "database": str(given.get("dbname") or user),
        "password": given.get("password"),
        "address": given.get("hostaddr") or "",
        "sslmode": given.get("sslmode") or "prefer",
    }
    if authority := given.get("sslrootcert"):
        found["ca"] = "" if authority == "system" else Path(authority).read_text()
    return found


def who(login: Mapping[str, Any]) -> str:
    return f"{login['user']}@{login['database']} at {login['host']}:{login['port']}"


def look(
    login: Mapping[str, Any],
    backend: Mapping[str, Any] | None,
    options: Options,
    *,
    url: str | None,
    user: str | None,
    token: str | None,
    notes: list[str],
) -> Facts:
    """Everything that can be seen from this machine. What could not be looked at is told in `notes`."""
    request = {**options.request(), "login": login, "backend": backend}
    request["names"] = [
        {"role": role, "name": each["host"]}
        for role, each in (("pooler", login), ("target", backend))
        if each is not None and not each["host"].startswith("/")
    ]
    request["ports"] = [
        {"role": role, "host": each["address"] or each["host"], "port": each["port"]}
        for role, each in (("pooler", login), ("target", backend))
        if each is not None
    ]
    if login["host"] in LOCAL:
        request["queue_port"] = login["port"]
    source, trouble = _source(url, user, token, options.timeout)
    if source is None and url is None:
        notes.append(f"the pooler's own tables were not looked at: {trouble} (--url says where the console is)")
    if backend is None:
        notes.append("PostgreSQL itself was not looked at (--backend says where it is, and as whom)")
    with contextlib.ExitStack() as stack:
        if source is not None:
            stack.callback(source.close)
        before = _closed(source)
        with screen.err.status("measuring") if screen.err.is_terminal else contextlib.nullcontext():
            answer = doctor_probe.probe(request, None if source is None else lambda name: _show(source, name))
        facts = reading.measured(answer, who=who(login), backend=who(backend) if backend is not None else "")
        return dataclasses.replace(
            facts,
            tables=_tables(source, notes),
            console_error=trouble if url is not None else "",
            closed={reason: count - before.get(reason, 0) for reason, count in _closed(source).items()},
            closed_since="while the doctor looked",
            limits=options.limits,
        )


def _source(url: str | None, user: str | None, token: str | None, timeout: float) -> tuple[Source | None, str]:
    try:
        if url is not None and url.startswith(("http://", "https://")):
            rest = RestSource(url, token)
            rest.show(["version"])
            return rest, ""
        limit = max(2, round(timeout))  # SPEC: libpq takes whole seconds, and no less than two
        return ConsoleSource(make_conninfo(console_dsn(url, user), connect_timeout=limit)), ""
    except (Unreachable, Refused) as error:
        return None, str(error)


def _show(source: Source, table: str) -> Sequence[Mapping[str, Any]]:
    try:
        return source.show([table]).dictionaries()
    except (Unreachable, Refused) as error:
        raise doctor_probe.LookFailed(str(error)) from None


def _closed(source: Source | None) -> dict[str, int]:
    if source is None:
        return {}
    try:
        rows = _show(source, "FAILURES")
    except doctor_probe.LookFailed:
        return {}
    return {str(row["name"]): int(row["count"]) for row in rows if row["kind"] == "close_reason"}


def _tables(source: Source | None, notes: list[str]) -> Tables | None:
    if source is None:
        return None
    shown: dict[str, Sequence[Mapping[str, Any]]] = {}
    for name in reading.TABLES:
        try:
            shown[name] = _show(source, name)
        except doctor_probe.LookFailed as error:
            notes.append(f"SHOW {name.upper()}: {error}")
    return reading.tables({"": shown})
