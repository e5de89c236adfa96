"""What the page at `/` shows, as one answer of one moment: /api/v1/overview.

Pure, like the tables that it is made of. Long lists are cut: the page is for looking, `waiters` and `clients` have them whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

from pgweir.admin import tables
from pgweir.admin.own_families import spread
from pgweir.admin.service import Service
from pgweir.admin.tables.waiting import binding
from pgweir.pool.stats import BOUNDS, Stats
from pgweir.session.client import ClientSession

WAITERS: Final = 50
HOLDERS: Final = 20
LONG_TRANSACTION: Final = 60.0  # seconds without a word inside a transaction

FIELDS: Final = (
    ("state", "text", "`active`, `pausing`, `paused` or `draining`"),
    ("version", "text", "of pgweir"),
    ("uptime_seconds", "number", "since the process started"),
    ("clients", "number", "connected and logged in"),
    ("max_client_conn", "number", "clients that may be connected"),
    ("waiting", "number", "clients in a queue"),
    ("servers", "number", "connections to PostgreSQL"),
    ("held_servers", "number", "of these, held by a client"),
    ("hold", "object or null", "the operator's hold: `id`, `purpose`, `age_seconds`, `ceiling_seconds`"),
    ("warnings", "list of text", "what needs somebody's attention, as sentences"),
    (
        "pools",
        "list of objects",
        "`database`, `user`, `mode`, `size`, servers, clients, the queue, its cause, and totals",
    ),
    ("waiters", "list of objects", f"the {WAITERS} who have waited longest: who, how long, for what, who holds it"),
    ("holders", "list of objects", f"the {HOLDERS} who have held a server longest"),
    ("latency.bounds", "list of numbers", "upper bounds of the buckets, in seconds"),
    (
        "latency.waits",
        "list of numbers",
        "counts by bucket since the start, and those beyond; so `queries`, `transactions`",
    ),
)


def overview(service: Service, view: tables.View) -> dict[str, Any]:
    pooler = view.pooler
    hold = pooler.holds.current
    pools = _pools(view)
    waiters = tables.TABLES["WAITERS"](view).dictionaries()
    return {
        "state": service.state,
        "version": service.version,
        "uptime_seconds": max(0, int(view.wall - service.started_at)),
        "clients": len(pooler.clients),
        "max_client_conn": pooler.settings.max_client_conn,
        "waiting": len(waiters),
        "servers": sum(pool.server_count for pool in pooler.pools.values()),
        "held_servers": sum(len(pool.active) for pool in pooler.pools.values()),
        "hold": None
        if hold is None
        else {
            "id": hold.id,
            "purpose": hold.purpose,
            "age_seconds": round(hold.age(view.now), 1),
            "ceiling_seconds": hold.ceiling,
        },
        "warnings": list(warnings(service, view, pools)),
        "pools": pools,
        "waiters": waiters[:WAITERS],
        "holders": _holders(view),
        "latency": _latency(Stats.total(pooler.stats(database) for database in pooler.databases.values())),
    }


def _pools(view: tables.View) -> list[dict[str, Any]]:
    causes: dict[tuple[str, str], tuple[str, str]] = {}
    longest: dict[tuple[str, str], float] = {}
    for pool in view.pooler.pools.values():
        if pool.waiting or pool.waiting_login:
            key = (pool.database, pool.user)
            found = binding(view, pool)
            causes[key] = (found.limit, found.reason)
            longest[key] = max(longest.get(key, 0.0), pool.max_wait(view.now))
    rows = {(row["database"], row["user"]): row for row in tables.pools(view).dictionaries()}
    answer = []
    for each in tables.usage(view):
        key = (each.database, each.user)
        row = rows[key]
        cause, reason = causes.get(key, (None, None))
        answer.append(
            {
                "database": each.database,
                "user": each.user,
                "mode": row["pool_mode"],
                "size": view.config.pool_size(*key),
                "active": each.active,
                "free": each.cached,
                "login": row["sv_login"],
                "clients": row["cl_active"],
                "waiting": each.waiting,
                "longest_wait_seconds": round(longest.get(key, 0.0), 3),
                "cause": cause,
                "reason": reason,
                "hit_ratio": each.hit_ratio,
                "xact_count": each.stats.xact_count,
                "query_count": each.stats.query_count,
            }
        )
    return answer


def _holders(view: tables.View) -> list[dict[str, Any]]:
    held = [server for pool in view.pooler.pools.values() for server in pool.active if server.client is not None]
    held.sort(key=lambda server: server.transaction_started or server.requested_at)
    return [
        {
            "database": server.pool.database,
            "user": client.user if isinstance(client := server.client, ClientSession) else server.pool.user,
            "addr": str(client.origin) if isinstance(client, ClientSession) else "",
            "application_name": client.application_name if isinstance(client, ClientSession) else "auth_query",
            "state": "active" if server.query_open else "idle in transaction" if server.in_transaction else "idle",
            "seconds": round(view.now - (server.transaction_started or server.requested_at), 1),
            "pid": server.pid,
        }
        for server in held[:HOLDERS]
    ]


def _latency(stats: Stats) -> dict[str, list[float]]:
    kinds: tuple[Literal["waits", "queries", "transactions"], ...] = ("waits", "queries", "transactions")
    return {"bounds": list(BOUNDS), **{kind: list(spread(stats, kind).counts) for kind in kinds}}


def warnings(service: Service, view: tables.View, pools: list[dict[str, Any]]) -> Iterable[str]:
    """Each says what is the matter, and what that means for clients."""
    pooler = view.pooler
    hold = pooler.holds.current
    if service.stopping:
        yield "The process is shutting down: clients leave at the end of their transaction."
    if pooler.paused:
        yield "Paused: clients connect and wait; none is served until RESUME."
    if hold is not None:
        left = max(0.0, hold.ceiling - hold.age(view.now))
        yield f"Clients are held for {hold.purpose}, for {left:.0f} s more at most."
    for database in pooler.databases.values():
        if database.paused and not pooler.paused:
            yield f"Database {database.name} is paused: its clients wait until RESUME."
        if database.disabled:
            yield f"Database {database.name} is disabled: new clients are refused."
    if service.reloads.last_refused is not None:
        yield f"The last configuration was refused, the one before it runs on: {service.reloads.last_refused}"
    for pool in pools:
        if pool["cause"] not in (None, "paused", "hold") and pool["longest_wait_seconds"] > 1:
            who = f"{pool['database']}/{pool['user']}"
            yield f"{pool['waiting']} of {who} wait, the first for {pool['longest_wait_seconds']:.0f} s: {pool['reason']}."
    dawdling = sum(
        server.in_transaction and not server.query_open and view.now - server.settled_at > LONG_TRANSACTION
        for each in pooler.pools.values()
        for server in each.active
    )
    if dawdling:
        yield f"{dawdling} servers are held by transactions in which nothing was said for {LONG_TRANSACTION:.0f} s."
    limit = pooler.settings.max_client_conn
    if limit and len(pooler.clients) >= 0.9 * limit:
        yield f"{len(pooler.clients)} of {limit} clients (max_client_conn): beyond it they are turned away."
    if service.descriptors.shortages:
        yield f"File descriptors ran out ({service.descriptors.shortages} looks found none): new clients were turned away."
