"""TLS and authentication: how far a login comes, and which layer says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pgweir_operator.doctor.facts import Facts, Login
from pgweir_operator.doctor.findings import Class, Finding

CLIENT_LIMIT: Final = "no more connections allowed (max_client_conn)"
LIMITS: Final = "client connections exceeded"
TOO_MANY: Final = "53300"
INVALID_LOGIN: Final = "28"  # SPEC: the class of SQLSTATEs "invalid authorization specification"

LAYERS: Final = {
    "hba": (
        "the pooler's own HBA rules",
        "Add a line that matches this user, database and address to the pooler's HBA file (auth_hba_file; in a Pooler "
        "spec.pgbouncer.pg_hba), above the one that rejects",
    ),
    "password": (
        "the pooler, which found the password wrong",
        "Compare the password with what the pooler knows: auth_file, or what auth_query finds in PostgreSQL; "
        "after a change, the application has to use the new one",
    ),
    "auth_query": (
        "the pooler's look-up in PostgreSQL (auth_query)",
        "The look-up itself failed: see the pooler's log, and whether auth_user can log in and run auth_query "
        "(in Kubernetes the condition Integrated)",
    ),
    "server": (
        "PostgreSQL, to which the pooler logs in",
        "The pooler let the client in and PostgreSQL does not let the pooler in: its pg_hba.conf must have a line for the "
        "pooler's address, and the password that the pooler uses must be right (entries of [users], auth_file, Secrets)",
    ),
    "ldap": ("the directory (LDAP)", "See the pooler's log for what the directory said"),
    "tls": (
        "the pooler's rules for TLS",
        "Connect with sslmode=require, or with the client certificate that is asked for",
    ),
    "console": ("the console, which takes its own users only", "Connect to a database, or as one of admin_users"),
    "startup": (
        "the pooler, already at the first packet",
        "See the pooler's log: a database that is not there, a parameter it does not take",
    ),
}
UNKNOWN: Final = (
    "a layer that cannot be told from here",
    "Give the console's address with --url: its counters say whether the HBA rules, the password, auth_query or "
    "PostgreSQL said no",
)


def tls_failed(facts: Facts) -> Finding | None:
    login = facts.login
    if login is None or login.stage != "tls":
        return None
    if login.certificate_days is not None and login.certificate_days < 0:
        return None  # certificate_expired says it better
    return Finding(
        "tls-failed",
        Class.TLS,
        f"TLS to the pooler fails for {login.who}",
        (f"{login.error}",),
        "If it offers none: client_tls_sslmode with client_tls_cert_file and client_tls_key_file; if it is not trusted: give the "
        "application the CA that signed it (sslrootcert), and connect by a name that is in the certificate",
    )


def certificate_expired(facts: Facts) -> Finding | None:
    login = facts.login
    if login is None or login.certificate_days is None or login.certificate_days >= facts.limits.certificate_days:
        return None
    days = login.certificate_days
    words = f"expired {-days:.1f} days ago" if days < 0 else f"expires in {days:.1f} days"
    return Finding(
        "certificate-expired" if days < 0 else "certificate-expires",
        Class.TLS,
        f"the certificate that the pooler shows {words}",
        (f"TLS with {login.who}: {login.error or login.tls}; the certificate {words}",),
        "Issue a new one and put it in its place (its Secret, or client_tls_cert_file and a RELOAD); nothing restarts",
    )


def login_refused(facts: Facts) -> Finding | None:
    login = facts.login
    if login is not None and (late := refused_later(facts)) is not None:
        login = replace(login, stage="auth", kind="refused", error=late["error"], sqlstate=late["sqlstate"])
        login = replace(login, auth_stage="server")
    if login is None or login.stage != "auth" or login.kind == "timeout" or _is_limit(login):
        return None
    layer, fix = LAYERS.get(login.auth_stage, UNKNOWN)
    return Finding(
        f"login-refused-{login.auth_stage.replace('_', '-')}" if login.auth_stage in LAYERS else "login-refused",
        Class.LOGIN,
        f"the login of {login.who} is refused by {layer}",
        (
            f"{login.error}{f' ({login.sqlstate})' if login.sqlstate else ''}",
            f"auth_stage: {login.auth_stage or 'not known'}",
        ),
        fix,
    )


def refused_later(facts: Facts) -> Mapping[str, Any] | None:
    """The pooler let the client in by what it knew, and PostgreSQL refused its login when a query needed a server."""
    failures = facts.timing.failures if facts.timing is not None else ()
    return next((each for each in failures if str(each.get("sqlstate") or "").startswith(INVALID_LOGIN)), None)


def _is_limit(login: Login) -> bool:
    return login.sqlstate == TOO_MANY or login.error.startswith((CLIENT_LIMIT, LIMITS))


def limit_of_clients(facts: Facts) -> Finding | None:
    """max_client_conn and its kin: by a refusal, or by who stands in front of the door."""
    login = facts.login
    refused = login is not None and login.stage == "auth" and login.error.startswith((CLIENT_LIMIT, LIMITS))
    tables = facts.tables
    rows = [] if tables is None else [row for row in tables.waiters if row["limit"] == "max_client_conn"]
    if not refused and not rows:
        return None
    error = login.error if login is not None else ""
    own = ("max_db_client_connections", "max_user_client_connections")
    name = next((word for word in own if word in error), "max_client_conn")
    setting = tables.setting(name) if tables is not None else ""
    evidence = [f"login of {login.who}: {login.error}"] if refused and login is not None else []
    evidence += [f"{len(rows)} clients wait for a place"] if rows else []
    evidence += [f"{name} = {setting}"] if setting else []
    return Finding(
        f"limit-{name.replace('_', '-')}",
        Class.POOL,
        f"no more clients are let in: {name} binds",
        tuple(evidence),
        f"Raise {name} (a client costs little; descriptors are what it needs), add instances, or let applications "
        "keep fewer connections",
    )


RULES = (tls_failed, certificate_expired, login_refused)
