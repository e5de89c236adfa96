"""PostgreSQL itself, asked past the pooler: its sessions, and how many there may be."""

from __future__ import annotations

from collections import Counter

from pgweir_operator.doctor.facts import Facts, Row
from pgweir_operator.doctor.findings import Class, Finding
from pgweir_operator.doctor.rules import pooling

FULL = 0.95
TOO_MANY = "53300"
SHOWN = 20


def backend_full(facts: Facts) -> Finding | None:
    """max_connections, by a refusal or by the count. The pooler's own word for it (its queue) goes first."""
    backend, row = facts.backend, pooling.binding(facts)
    if row is not None and row["limit"] == "max_connections":
        return None
    login = facts.login
    refused = (
        login is not None and login.stage == "auth" and login.sqlstate == TOO_MANY and "client conn" not in login.error
    )
    refused = refused and login is not None and "max_client_conn" not in login.error
    failure = backend.failure if backend is not None else None
    told = failure is not None and failure.get("sqlstate") == TOO_MANY
    used, room = pooling.taken(facts)
    full = room > 0 and used >= FULL * room
    if not (refused or told or full):
        return None
    evidence = [f"login of {login.who}: {login.error}"] if refused and login is not None else []
    evidence += [f"{backend.where}: {failure['error']}"] if told and backend is not None and failure is not None else []
    evidence += pooling.sessions(facts)
    return Finding(
        "limit-max-connections",
        Class.POSTGRESQL,
        "PostgreSQL's max_connections binds: no further connection is let in",
        tuple(evidence),
        "Send the others through the pooler too, lower the pools' sizes (connectionBudget), or raise max_connections",
    )


def backend_login(facts: Facts) -> Finding | None:
    """The doctor itself is not let in where it was told to look. That is a fault of what was given to it, and said so."""
    backend = facts.backend
    if backend is None or backend.failure is None or backend.failure.get("sqlstate") == TOO_MANY:
        return None
    if facts.is_shut("target") or any(name.error for name in facts.names):
        return None
    failure = backend.failure
    return Finding(
        "backend-login",
        Class.POSTGRESQL,
        "PostgreSQL does not let the doctor in, past the pooler",
        (f"{backend.where}: {failure['stage']}: {failure['error']}",),
        "Correct --backend (user, password, host), or PostgreSQL's pg_hba.conf for where the doctor asks from",
    )


def idle_in_transaction(facts: Facts) -> Finding | None:
    """Sessions that keep a transaction open and do nothing, with the client behind each, the oldest first."""
    backend = facts.backend
    if backend is None or backend.failure is not None:
        return None
    idle = [row for row in backend.activity if str(row["state"] or "").startswith("idle in transaction")]
    old = [row for row in idle if _age(row) >= facts.limits.stuck]
    if not old:
        return None
    total, rows = len(backend.activity), sorted(old, key=_age, reverse=True)
    pods = _by_pod(facts, old)
    lines = [f"pid {row['pid']}: {_age(row)} s, {_behind(facts, row)}" for row in rows[:SHOWN]]
    lines += [f"and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    return Finding(
        "idle-in-transaction",
        Class.POSTGRESQL,
        f"{len(old)} of {total} sessions are idle in transaction: they hold locks and servers and do nothing",
        (f"ages from {_age(rows[-1])} to {_age(rows[0])} s; {len(idle) / total:.0%} of all sessions{pods}", *lines),
        "End the transactions in the application; idle_transaction_timeout in the pooler closes such clients and rolls back, "
        "idle_in_transaction_session_timeout in PostgreSQL does it for everybody",
    )


def _age(row: Row) -> int:
    return int(row["state_seconds"] or 0)


def _by_pod(facts: Facts, rows: list[Row]) -> str:
    if facts.kubernetes is None:
        return ""
    pods = {pod.address: pod.name for pod in facts.kubernetes.pods}
    groups = Counter(pods.get(str(row["client_addr"]), "not through the pooler") for row in rows)
    return "; by pod: " + ", ".join(f"{name} {count}" for name, count in groups.most_common())


def _behind(facts: Facts, row: Row) -> str:
    """The pooler's client that holds this session of PostgreSQL, or who it is by PostgreSQL's own word."""
    own = f"{row['usename']}@{row['client_addr'] or 'local'} ({row['application_name'] or 'no application_name'})"
    if facts.tables is None:
        return own
    for server in facts.tables.servers:
        if str(server["remote_pid"]) != str(row["pid"]) or not server["link"]:
            continue
        for client in facts.tables.clients:
            if client["ptr"] == server["link"] and client.get("pod") == server.get("pod"):
                name = client["application_name"] or "no application_name"
                return f"client {client['user']}@{client['addr']}:{client['port']} ({name}, id {client['id']})"
    return own


def budget(facts: Facts) -> Finding | None:
    """Whether the pools that are there may together ask for more than PostgreSQL has. In Kubernetes the operator knows better."""
    if facts.kubernetes is not None or facts.tables is None:
        return None
    _, room = pooling.taken(facts)
    if not room:
        return None
    sizes = {
        str(row["name"]): int(row["pool_size"] or 0) + int(row.get("reserve_pool_size") or 0)
        for row in facts.tables.databases
    }
    pools = [row for row in facts.tables.pools if row["database"] != "pgbouncer"]
    wanted = sum(sizes.get(str(row["database"]), 0) for row in pools)
    cap = facts.tables.setting("max_server_connections")
    if cap.isdigit() and int(cap):
        wanted = min(wanted, int(cap))
    if wanted <= room:
        return None
    return Finding(
        "budget",
        Class.POSTGRESQL,
        "the pools may together open more connections than PostgreSQL lets in",
        (
            f"{len(pools)} pools may have {wanted} servers; PostgreSQL has room for {room} (max_connections less "
            "the superuser's)",
        ),
        "Lower default_pool_size, set max_server_connections to what PostgreSQL can spare, or raise max_connections",
    )


RULES = (backend_full, backend_login, idle_in_transaction, budget)
