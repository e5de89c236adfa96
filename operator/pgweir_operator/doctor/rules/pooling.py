"""What the pooler itself shows: who waits and for which limit, pauses and holds, transactions that are left open."""

from __future__ import annotations

from collections import Counter
from typing import Final

from pgweir_operator.doctor.facts import Facts, Row
from pgweir_operator.doctor.findings import Class, Finding

TRANSIENT: Final = ("login", "check")

FIXES: Final = {
    "pool_size": "End or shorten the transactions that hold the servers, or raise pool_size (default_pool_size), as far as "
    "PostgreSQL's max_connections allows",
    "max_db_connections": "Raise max_db_connections (max_db_connections of the database's entry), or lower what "
    "its other pools hold",
    "max_user_connections": "Raise max_user_connections, or lower what the user's other pools hold",
    "max_server_connections": "Raise max_server_connections (in a Pooler: connectionBudget), or lower what other pools hold",
    "max_connections": "PostgreSQL is full: fewer connections elsewhere, or a larger max_connections there; the "
    "pooler goes on trying",
    "target": "PostgreSQL cannot be reached or refuses the pooler's login: mend what the sentence names; clients "
    "are served as soon as it can",
    "password": "The password has changed: clients must connect again with the new one (in Kubernetes, correct the Secret)",
}
CLASSES: Final = {"max_connections": Class.POSTGRESQL, "target": Class.POSTGRESQL, "password": Class.LOGIN}


def binding(facts: Facts) -> Row | None:
    """The waiter that says why clients wait: our own, which was stuck for certain, or the one that has waited longest."""
    if facts.timing is not None and facts.timing.waiter is not None:
        return facts.timing.waiter
    if facts.tables is None:
        return None
    rows = [row for row in facts.tables.waiters if row["limit"] not in TRANSIENT and row["limit"] != "max_client_conn"]
    rows = [row for row in rows if _waited(row) > facts.limits.threshold]
    return max(rows, key=_waited, default=None)


def _waited(row: Row) -> float:
    return float(row["wait"] or 0) + float(row["wait_us"] or 0) / 1_000_000


def paused(facts: Facts) -> Finding | None:
    tables, found = facts.tables, facts.kubernetes
    asked = found is not None and found.paused
    rows = [] if tables is None else list(tables.databases)
    names = sorted({str(row["name"]) for row in rows if int(row["paused"] or 0)})
    everything = tables is not None and any(row["key"] == "paused" and row["value"] == "yes" for row in tables.state)
    row = binding(facts)
    waits = row is not None and row["limit"] == "paused"
    if _hold(facts) is not None or not (asked or names or everything or waits):
        return None
    waiting = 0 if tables is None else sum(each["limit"] == "paused" for each in tables.waiters)
    what = "the whole pooler" if asked or everything else f"database {', '.join(names)}" if names else "the pool"
    fix = "RESUME in the console, or pgweir resume"
    if asked and found is not None:
        fix = f"kubectl pgweir resume {found.pooler} (spec.paused: false)"
    return Finding(
        "paused",
        Class.POOL,
        f"{what} is paused: clients connect and wait",
        (
            *(("spec.paused is true",) if asked else ()),
            *(("SHOW STATE: paused",) if everything else ()),
            *((f"SHOW DATABASES: paused {', '.join(names)}",) if names else ()),
            f"{waiting} clients wait for it",
        ),
        fix,
    )


def _hold(facts: Facts) -> str | None:
    row = binding(facts)
    if row is not None and row["limit"] == "hold":
        return str(row["reason"])
    found = facts.kubernetes
    if found is not None and found.switchover.get("phase") in ("Holding", "Held", "Routing"):
        return f"status.switchover: {found.switchover.get('phase')} {found.switchover.get('message', '')}".strip()
    return None


def held(facts: Facts) -> Finding | None:
    reason = _hold(facts)
    if reason is None:
        return None
    return Finding(
        "held",
        Class.POOL,
        "clients are held for a switchover or a restart of PostgreSQL",
        (reason,),
        "Wait: it ends by itself (spec.switchover.timeoutSeconds at the latest); kubectl pgweir status shows how far it is",
    )


def queue_binds(facts: Facts) -> Finding | None:
    """The one limit that keeps clients waiting, whoever they are."""
    row = binding(facts)
    if row is None or row["limit"] in ("paused", "hold", *TRANSIENT):
        return None
    limit = str(row["limit"])
    waiting = 0 if facts.tables is None else sum(each["limit"] == limit for each in facts.tables.waiters)
    where = f" (pod {row['pod']})" if row.get("pod") else ""
    evidence = [f"{limit}: {row['reason']}{where}"]
    evidence += [f"stage queue: a SELECT 1 of ours waited {_waited(row):.1f} s and more"] if _own(facts) else []
    evidence += [f"waiting: {waiting}, the first for {_waited(row):.1f} s"] if waiting else []
    evidence += [_holder(row)] if row.get("holder") else []
    evidence += sessions(facts) if limit == "max_connections" else []
    return Finding(
        f"queue-{limit.replace('_', '-')}",
        CLASSES.get(limit, Class.POOL),
        f"clients wait in the pooler's queue: {limit} binds",
        tuple(evidence),
        FIXES.get(limit, "SHOW WAITERS has the reason"),
    )


def sessions(facts: Facts) -> list[str]:
    """How full PostgreSQL is, and by whom: a few lines, those with most of them first. [] where nobody could look."""
    backend = facts.backend
    if backend is None or not backend.capacity:
        return []
    used, room = taken(facts)
    groups = Counter(
        (row["usename"], row["application_name"] or "", row["client_addr"] or "local") for row in backend.activity
    )
    return [
        f"{used} of {room} connections are taken (max_connections less the superuser's)",
        *(
            f"{count} of {user}@{address}{f' ({name})' if name else ''}"
            for (user, name, address), count in groups.most_common(5)
        ),
    ]


def taken(facts: Facts) -> tuple[int, int]:
    """PostgreSQL's sessions, and how many there may be of everybody; (0, 0) where nobody could look."""
    if facts.backend is None or not facts.backend.capacity:
        return 0, 0
    found = facts.backend.capacity
    return int(found["used"]), int(found["max_connections"]) - int(found["reserved"])


def _own(facts: Facts) -> bool:
    return facts.timing is not None and facts.timing.waiter is not None


def _holder(row: Row) -> str:
    application = f" ({row['holder_application_name']})" if row.get("holder_application_name") else ""
    return (
        f"held longest by {row['holder']}@{row['holder_addr']}{application}: {row['holder_state']} for "
        f"{row['holder_seconds']} s, client {row['holder_client_id']}, PostgreSQL's pid {row['holder_pid']}"
    )


def leaks(facts: Facts) -> Finding | None:
    """Transactions that stay open with nobody using them, by who left them. PostgreSQL's own view, if there is one, is better."""
    if facts.tables is None or (facts.backend is not None and facts.backend.failure is None):
        return None
    old = [row for row in facts.tables.clients if (row.get("transaction_seconds") or 0) >= facts.limits.stuck]
    # A client whose query is under way has a running `wait`; one that thinks has none.
    old = [row for row in old if row["state"] == "active" and not _waited(row)]
    if not old:
        return None
    groups = Counter((str(row["application_name"] or "no application_name"), str(row["addr"])) for row in old)
    oldest = {key: max(int(row["transaction_seconds"]) for row in old if _group(row) == key) for key in groups}
    ordered = sorted(groups, key=lambda key: -oldest[key])
    return Finding(
        "leaks",
        Class.POOL,
        f"{len(old)} clients keep a transaction open and do nothing: each keeps a server from the others",
        tuple(f"{name} at {address}: {groups[name, address]} clients, the oldest for "
        f"{oldest[name, address]} s" for name, address in ordered),
        "End transactions in the application (a missing COMMIT, a connection that is never given back); "
        "idle_transaction_timeout closes such clients",
    )  # fmt: skip


def _group(row: Row) -> tuple[str, str]:
    return str(row["application_name"] or "no application_name"), str(row["addr"])


def console_unreachable(facts: Facts) -> Finding | None:
    if not facts.console_error or facts.is_shut("pooler"):
        return None
    return Finding(
        "console-unreachable",
        Class.LOGIN,
        "the console does not answer: what the pooler itself knows could not be looked at",
        (facts.console_error,),
        "Give another --url (the folder of the socket, postgresql://ADMIN@HOST:PORT, http://HOST:8080), or mend what it says",
    )


RULES = (console_unreachable, paused, held, queue_binds, leaks)
