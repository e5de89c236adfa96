"""What REST answers: one entry for each path under /api/v1, with its builder and its documented fields.

Pure: a builder looks at the running pooler at one moment, through the tables that the console shows. `rest` serves them,
`rest_reference` writes docs/rest.md from them. Nothing here ever holds a password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pgweir.admin import shown as every_table
from pgweir.admin import tables
from pgweir.admin.overview import FIELDS as OVERVIEW_FIELDS
from pgweir.admin.overview import overview
from pgweir.admin.service import Service
from pgweir.admin.tables.configured import CONFIG_COLUMNS
from pgweir.admin.tables.connections import CLIENTS_COLUMNS, SOCKET_COLUMNS
from pgweir.admin.tables.pgpool import POOL_NODES_COLUMNS, POOL_PROCESSES_COLUMNS
from pgweir.admin.tables.statistics import STATS_COLUMNS
from pgweir.admin.tables.waiting import WAITERS_COLUMNS
from pgweir.protocol.messages import INT4_OID, INT8_OID

ROOT: Final = "/api/v1"

Columns = tuple[tuple[str, int], ...]
Fields = tuple[tuple[str, str, str], ...]
"""Name (with dots where objects nest), type, meaning."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One path, what stands there, and how it is built. It has `fields`, or the `columns` of a table of the console."""

    name: str
    meaning: str
    answer: Callable[[Service, tables.View], Any]
    fields: Fields = ()
    table: str = ""
    columns: Columns = ()
    looks_at_nodes: bool = False

    @property
    def path(self) -> str:
        return f"{ROOT}/{self.name}"


def _shown(name: str, meaning: str, table: str, columns: Columns, *, looks_at_nodes: bool = False) -> Resource:
    """The rows of a table of the console, an object each."""

    def answer(service: Service, view: tables.View) -> Any:
        return tables.TABLES[table](view).dictionaries()

    return Resource(name, meaning, answer, table=table, columns=columns, looks_at_nodes=looks_at_nodes)


# --- pools -----------------------------------------------------------------------------------------------------------------

POOL_FIELDS: Final[Fields] = (
    ("database", "text", "as clients name it"),
    ("user", "text", "the role that servers are logged in as"),
    ("mode", "text", "`session`, `transaction` or `statement`"),
    ("target", "list of text", "`host:port`, or the folder of a socket; several where a database has several hosts"),
    ("size", "number", "servers that the pool may have"),
    ("limits.min_pool_size", "number", "servers that are kept open"),
    ("limits.reserve_pool_size", "number", "servers beyond `size`, for clients that have waited too long"),
    ("limits.max_db_connections", "number", "servers of the database, over all its pools; 0: no limit"),
    ("limits.max_user_connections", "number", "servers of the user, over all its pools; 0: no limit"),
    ("servers.active", "number", "held by a client"),
    ("servers.idle", "number", "ready for the next client"),
    ("servers.used", "number", "idle for so long that they are checked before the next use"),
    ("servers.tested", "number", "being checked or reset"),
    ("servers.login", "number", "logging in"),
    ("clients.active", "number", "connected and not waiting"),
    ("clients.waiting", "number", "in the queue"),
    ("cached", "number", "servers that wait for their next client"),
    ("hits", "number", "times that a client found a server ready"),
    ("misses", "number", "servers that were opened because a client asked"),
    ("hit_ratio", "number or null", "hits ÷ (hits + misses); null before the first"),
    ("maxwait_us", "number", "how long the first client of the queue has waited, in microseconds"),
)


def pools(view: tables.View) -> list[dict[str, Any]]:
    """One object for each database and user: what its pools may have, what they have, and how often they were reused."""
    rows = {(row["database"], row["user"]): row for row in tables.pools(view).dictionaries()}
    return [_pool(view, each, rows[each.database, each.user]) for each in tables.usage(view)]


def _pool(view: tables.View, each: tables.Usage, row: dict[str, tables.Value]) -> dict[str, Any]:
    config = view.config
    entry = config.database(each.database)
    hosts = entry.hosts if entry is not None else ()
    return {
        "database": each.database,
        "user": each.user,
        "mode": row["pool_mode"],
        "target": [f"{host}:{entry.port}" for host in hosts or (config.settings.unix_socket_dir,)] if entry else [],
        "size": config.pool_size(each.database, each.user),
        "limits": {
            "min_pool_size": config.min_pool_size(each.database),
            "reserve_pool_size": config.reserve_pool_size(each.database, each.user),
            "max_db_connections": config.max_db_connections(each.database),
            "max_user_connections": config.max_user_connections(each.user),
        },
        "servers": {name: row[f"sv_{name}"] for name in ("active", "idle", "used", "tested", "login")},
        "clients": {"active": row["cl_active"], "waiting": row["cl_waiting"]},
        "cached": each.cached,
        "hits": each.hits,
        "misses": each.misses,
        "hit_ratio": each.hit_ratio,
        "maxwait_us": int(row["maxwait"] or 0) * 1_000_000 + int(row["maxwait_us"] or 0),
    }


# --- health ----------------------------------------------------------------------------------------------------------------

HEALTH_FIELDS: Final[Fields] = (
    ("ready", "true or false", "a new connection would be accepted here (the same as /readyz)"),
    ("reason", "text or null", "why not"),
    ("state", "text", "`active`, `pausing`, `paused` or `draining`"),
    ("version", "text", "of pgweir"),
    ("started_at", "text", "when the process started, in UTC"),
    ("uptime_seconds", "number", "how long ago that is"),
    ("revision", "number or null", "of the configuration that an operator sent; null where none did"),
    ("digest", "text or null", "of that configuration"),
    ("hold", "text or null", "the id of the switchover for which clients are held now"),
    ("clients", "number", "connected and logged in"),
    ("waiting", "number", "of these, in a queue"),
    ("servers", "number", "connections to PostgreSQL"),
    ("held_servers", "number", "of these, held by a client"),
    ("pools", "number", "as many objects as /api/v1/pools has"),
)


def unready_reason(service: Service) -> str | None:
    """Why no new connection should come here; None when one may."""
    if service.stopping or service.state == "draining":
        return "draining"
    if not service.listening:
        return "not listening"
    return None


def health(service: Service, view: tables.View) -> dict[str, Any]:
    reason = unready_reason(service)
    uses = tables.usage(view)
    bundle, hold = service.bundle, view.pooler.holds.current
    return {
        "ready": reason is None,
        "reason": reason,
        "state": service.state,
        "version": service.version,
        "started_at": datetime.fromtimestamp(service.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "uptime_seconds": max(0, int(view.wall - service.started_at)),
        "revision": bundle.revision if bundle is not None else None,
        "digest": bundle.digest if bundle is not None else None,
        "hold": hold.id if hold is not None else None,
        "clients": len(view.pooler.clients),
        "waiting": sum(each.waiting for each in uses),
        "servers": sum(pool.server_count for pool in view.pooler.pools.values()),
        "held_servers": sum(each.active for each in uses),
        "pools": len(uses),
    }


# --- all of them -----------------------------------------------------------------------------------------------------------

RESOURCES: Final[Mapping[str, Resource]] = {
    resource.name: resource
    for resource in (
        Resource(
            "pools",
            "what each pool may have, has, and how often it was reused",
            lambda service, view: pools(view),
            fields=POOL_FIELDS,
        ),
        _shown("clients", "the clients, the oldest transaction first", "CLIENTS", CLIENTS_COLUMNS),
        _shown("servers", "the connections to PostgreSQL", "SERVERS", SOCKET_COLUMNS),
        _shown("waiters", "who waits, for which limit, and who holds what they wait for", "WAITERS", WAITERS_COLUMNS),
        _shown("stats", "counters and averages for each database", "STATS", STATS_COLUMNS),
        _shown("config", "the settings in force; what is secret reads `****`", "CONFIG", CONFIG_COLUMNS),
        _shown(
            "nodes",
            "the hosts of PostgreSQL, up or down: looked at for this request",
            "POOL_NODES",
            POOL_NODES_COLUMNS,
            looks_at_nodes=True,
        ),
        _shown("processes", "the clients as pgpool shows them", "POOL_PROCESSES", POOL_PROCESSES_COLUMNS),
        Resource("health", "whether it serves, and how much is going on", health, fields=HEALTH_FIELDS),
        Resource("overview", "what the page at / shows", overview, fields=OVERVIEW_FIELDS),
    )
}


def index(service: Service) -> dict[str, Any]:
    """What stands at /api/v1 itself."""
    return {
        "version": service.version,
        "resources": {resource.path: resource.meaning for resource in RESOURCES.values()},
        "tables": [f"{ROOT}/show/{name.lower()}" for name in every_table.NAMES],
    }


_WORDS: Final = {INT4_OID: "number", INT8_OID: "number", tables.NUMERIC_OID: "number"}


def column_type(oid: int) -> str:
    return _WORDS.get(oid, "text")


def shown(table: tables.Table) -> dict[str, Any]:
    """Any table of the console with its columns, which an empty one has, too."""
    columns = [{"name": name, "type": column_type(oid)} for name, oid in table.columns]
    return {"columns": columns, "rows": table.dictionaries()}
